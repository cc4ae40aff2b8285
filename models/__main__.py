"""Enter the command line of the science: `python -m models`."""

import sys

from models.cli import main

sys.exit(main(sys.argv[1:]))
