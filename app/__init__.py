"""The service: its API, and what its workers, the laptop and the operator share with it."""

import gc

# Nothing that an import makes is garbage, and to look for it takes a sixth of the start.
gc.set_threshold(50_000)
