"""Whether the dependencies were audited is never in doubt; pip-audit is played here."""

import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / ".ci" / "advisories"
KNOWN = {"dependencies": [{"name": "jinja2", "vulns": [{"id": "PYSEC-2014-8"}]}]}
BLIND = {"dependencies": [{"name": "jinja2", "skip_reason": "not found on PyPI"}]}


def _audit(folder: Path, of_old: object, of_ours: int) -> subprocess.CompletedProcess[str]:
    """Run the script with a pip-audit that says `of_old` of the old release."""
    played = folder / "pip-audit"
    played.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *constraints.txt*) echo ours; exit {of_ours};; esac\n'
        f"echo '{json.dumps(of_old)}'; exit 1\n"
    )
    played.chmod(0o700)
    return subprocess.run([SCRIPT, played], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("said", [BLIND, ""])
def test_service_that_finds_nothing_of_an_old_release_is_no_audit(
    tmp_path: Path, said: object
) -> None:
    done = _audit(tmp_path, said, 0)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("SKIPPED: no advisory service is in reach")


@pytest.mark.parametrize("status", [0, 1])
def test_what_is_known_of_ours_decides(tmp_path: Path, status: int) -> None:
    done = _audit(tmp_path, KNOWN, status)
    assert (done.returncode, done.stdout) == (status, "ours\n")
    assert "SKIPPED" not in done.stderr
