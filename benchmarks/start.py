"""Measure how soon a process is there, beside what its libraries alone take: the API and an ingest.

`python -m benchmarks.start`: seconds of a core of fresh interpreters until all is imported and the
API made, one kind after the other in turn; the least of each, since others can only add to them.
"""

import subprocess
import sys

STARTS = 9
PROGRAMS = {
    "api": "import app.main; app.main.create_app()",
    "api_libraries": "import boto3, celery, fastapi, jinja2, psycopg, pydantic_settings;"
    "import sqlalchemy.orm",
    "ingest": "import models.data.ingest",
    "ingest_libraries": "import numpy, pydantic, safetensors.numpy",
}
_TELL = "\nimport time; print(time.process_time())"


def measure() -> dict[str, float]:
    """Return seconds of a core by program, and the ratio of the API to its libraries."""
    found: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(STARTS):
        for name, program in PROGRAMS.items():
            command = [sys.executable, "-c", program + _TELL]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(float(done.stdout))
    least = {f"{name}_core_s": min(seconds) for name, seconds in found.items()}
    return {"ratio": least["api_core_s"] / least["api_libraries_core_s"]} | least


if __name__ == "__main__":
    for figure, value in measure().items():
        print(f"{figure:30} {value:12.2f}")
