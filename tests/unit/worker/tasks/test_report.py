from pathlib import Path

import pytest

from worker.tasks.report import _encoders


def test_encoders_are_the_onnx_files_of_the_folder_in_order(tmp_path: Path) -> None:
    for name in ("b.onnx", "a.onnx", "a.json", "notes.txt"):
        (tmp_path / name).touch()
    assert _encoders(tmp_path) == (str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"))


def test_without_a_folder_there_are_no_encoders() -> None:
    assert _encoders(None) == ()


def test_a_folder_that_is_not_there_is_the_operator_s_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _encoders(tmp_path / "none")
