"""Schemathesis against the whole service: each answer is as documented, none a fault of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.laptop import Running
from app.settings import base_environment

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def admin_key(service: Running, home: Path) -> str:
    """A tenant of its own: what is made up here must not touch what other tests stand on."""
    command = [sys.executable, "-m", "app.cli", "bootstrap", "--tenant", "fuzz"]
    environment = base_environment() | {"GLIAFORGE_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "seconds", [15, pytest.param(60, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_every_answer_is_as_documented(
    service: Running, admin_key: str, tmp_path: Path, seconds: int
) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {admin_key}"),
        *("--checks", "all", "--max-time", str(seconds), "--continue-on-failure"),
        *("--seed", str(seconds)),  # a failure can be had again
        # It wants what a POST has made to be there; but a POST that is sent again with its
        # Idempotency-Key gets its first answer (api.md), even when that was deleted since.
        *("--exclude-checks", "ensure_resource_availability"),
    ]
    done = subprocess.run(
        command, env=base_environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:]
