"""Start a worker or the scheduler: `python -m worker worker -Q gpu.train -c 1`, `... beat`."""

import sys

from app.settings import settings
from worker.celery_app import make_worker

if __name__ == "__main__":
    make_worker(settings()).start(sys.argv[1:])
