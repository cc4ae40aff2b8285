"""The migrations are one chain: two branches that each add one must not both be the next."""

import re
from pathlib import Path

VERSIONS = Path(__file__).parents[2] / "app" / "migrations" / "versions"


def _value(path: Path, name: str) -> str:
    found = re.search(rf"^{name} = (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, path.name
    return found[1].strip('"')


def test_revisions_follow_each_other_and_files_are_named_for_them() -> None:
    paths = sorted(VERSIONS.glob("*.py"))
    numbers = [f"{number:04d}" for number in range(1, len(paths) + 1)]
    assert [path.name[:4] for path in paths] == numbers
    assert [_value(path, "revision") for path in paths] == numbers
    assert [_value(path, "down_revision") for path in paths] == ["None", *numbers[:-1]]
