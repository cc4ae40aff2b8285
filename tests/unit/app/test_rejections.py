"""Every reason that an ingest gives is of a class that says something."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.rejections import Reason, reason_class
from models.data import archive, decoders

SOURCES = Path(archive.__file__).parent
DEATHS = (decoders.DEADLY, decoders.ENDLESS, decoders.TOO_LARGE, decoders.UNFORESEEN)
MAKERS = {"Rejection", "Quarantine"}


def _reasons() -> Iterator[str]:
    """Yield the reasons in the code of the ingest, with X where a value is put in."""
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                is_maker = isinstance(node.func, ast.Name) and node.func.id in MAKERS
                told = node.args[:1] if is_maker else []
                told += [one.value for one in node.keywords if one.arg in {"fault", "reason"}]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                told = [node.value] if node.targets[0].id == "fault" else []
            else:
                continue
            yield from filter(None, map(_text, told))


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
        )
    return None


def test_every_reason_of_the_code_has_a_class() -> None:
    reasons = {*_reasons(), archive.BOMB, archive.LONG, archive.TORN, *DEATHS}
    assert len(reasons) > 40
    assert {reason for reason in reasons if reason_class(reason) is Reason.OTHER} == set()


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("20x20 pixels; the shorter side needs 32", Reason.TOO_SMALL),
        ("damaged DICOM file (ValueError)", Reason.DAMAGED),
        (archive.TORN, Reason.DAMAGED),
        (archive.BOMB, Reason.UNSAFE),
        (archive.LONG, Reason.LAYOUT),
        ("the name of its folder cannot be a label", Reason.LAYOUT),
        ("text seems to be burned into the pixels", Reason.PERSONAL),
        ("larger than 64 megapixels in all frames", Reason.TOO_LARGE),
        ("the file is empty", Reason.EMPTY),
        ("not a NIfTI file", Reason.NOT_READ),
        ("integers outside 0..65535", Reason.VALUES),
        ("Müller, Anna", Reason.OTHER),
    ],
)
def test_reason_has_its_class(reason: str, expected: Reason) -> None:
    assert reason_class(reason) is expected
