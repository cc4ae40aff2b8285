"""The threat model points at code and tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:app|models|worker|tests|deploy|docs|\.ci)/[\w./-]*)`", TEXT)))


@pytest.mark.parametrize("path", NAMED)
def test_what_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_defence_is_shown() -> None:
    rows = [line.split("|") for line in TEXT.splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    assert all(len(row) == 6 and row[4].strip() for row in rows)
