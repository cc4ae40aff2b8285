"""The API is light: it loads nothing of the models' libraries and is there in no time."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import app.main
app.main.create_app()
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def loaded() -> tuple[float, list[str]]:
    """Return the CPU seconds and the modules of an interpreter that has made the API."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    cpu_s, modules = json.loads(done.stdout)
    return cpu_s, modules


@pytest.mark.parametrize(
    "library", ["torch", "numpy", "matplotlib", "safetensors", "worker", "app.embedded", "alembic"]
)
def test_api_does_not_load(loaded: tuple[float, list[str]], library: str) -> None:
    assert [name for name in loaded[1] if f"{name}.".startswith(f"{library}.")] == []


def test_api_is_made_within_two_seconds_of_cpu(loaded: tuple[float, list[str]]) -> None:
    # The requirement itself, in CPU time, so that a busy machine does not decide.
    assert loaded[0] < 2


def test_worker_does_not_load_torch() -> None:
    program = "import sys, worker.celery_app; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
