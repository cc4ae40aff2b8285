"""What each process does not load, so that it is light and there in no time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import base_environment

PROGRAM = """
import json, sys
import app.main
app.main.create_app()
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    """Return the modules of an interpreter that has made the API."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    modules: list[str] = json.loads(done.stdout)
    return modules


@pytest.mark.parametrize(
    "library",
    [
        *("torch", "numpy", "matplotlib", "safetensors", "worker", "app.embedded", "alembic"),
        # Of OpenTelemetry, FastAPI loads the interface, which does nothing.
        *("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests"),
    ],
)
def test_api_does_not_load(loaded: list[str], library: str) -> None:
    assert [name for name in loaded if f"{name}.".startswith(f"{library}.")] == []


def test_worker_does_not_load_torch() -> None:
    program = "import sys, worker.celery_app; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_ingest_does_not_load_what_reads_files() -> None:
    program = "import sys, models.data.ingest; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert "models.data.decoders" in loaded
    assert not loaded & {"models.data.decoding", "pydicom", "gdcm", "nibabel", "PIL", "scipy"}


PARTS = """
import json, sys, threading
from app.parts import make_parts
from app.settings import settings
import worker.celery_app
make_parts(settings(), process="worker")
loaded = [name for name in sys.modules if name.startswith(("opentelemetry", "app.otlp"))]
print(json.dumps([threading.active_count(), loaded]))
"""


@pytest.mark.parametrize("endpoint", ["", "http://collector:4318"])
def test_nothing_is_traced_unless_there_is_a_collector(endpoint: str) -> None:
    secrets = ("BROKER_URL", "S3_ENDPOINT_INTERNAL", "S3_ENDPOINT_PUBLIC", "S3_ACCESS_KEY")
    known = {f"GLIAFORGE_{name}": "redis://nowhere" for name in (*secrets, "S3_SECRET_KEY")}
    known |= {"GLIAFORGE_DATABASE_URL": "postgresql+psycopg://x", "GLIAFORGE_DATA_KEY": "k"}
    environment = base_environment() | known | {"GLIAFORGE_TRACES_ENDPOINT": endpoint}
    done = subprocess.run(
        [sys.executable, "-c", PARTS],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    threads, loaded = json.loads(done.stdout)
    assert (threads, "app.otlp" in loaded) == ((2, True) if endpoint else (1, False))
    assert bool(loaded) is bool(endpoint)
