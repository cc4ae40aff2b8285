import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.uploader.packing import PackingError, is_archive, pack, sha256, total_bytes


def ignore(_size: int) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "MEIER ANNA"
    for name, content in (("b/2.png", b"two"), ("a/1.png", b"one"), ("a/ü.png", b"three")):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_names_are_relative_and_in_order(folder: Path, tmp_path: Path) -> None:
    assert pack(folder, tmp_path / "x.tar", ignore) == 3
    assert names(tmp_path / "x.tar") == ["a/1.png", "a/ü.png", "b/2.png"]
    assert b"MEIER" not in (tmp_path / "x.tar").read_bytes()


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "x.tar", ignore)
    (folder / "a" / "1.png").touch()
    (folder / "a" / "1.png").chmod(0o600)
    pack(folder, tmp_path / "y.tar", ignore)
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()


def test_contents_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    heard: list[int] = []
    pack(folder, tmp_path / "x.tar", heard.append)
    with tarfile.open(tmp_path / "x.tar") as tar:
        source = tar.extractfile("b/2.png")
        assert source is not None
        assert source.read() == b"two"
    assert sum(heard) == total_bytes(folder) == 11


def test_links_and_hidden_files_stay_behind(folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to(folder / "a" / "1.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / ".DS_Store").write_bytes(b"x")
    pack(folder, tmp_path / "x.tar", ignore)
    assert len(names(tmp_path / "x.tar")) == 3


def test_one_file_is_an_archive_of_one(folder: Path, tmp_path: Path) -> None:
    pack(folder / "b" / "2.png", tmp_path / "x.tar", ignore)
    assert names(tmp_path / "x.tar") == ["2.png"]


def test_nothing_to_pack_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackingError, match="holds no file"):
        pack(tmp_path / "empty", tmp_path / "x.tar", ignore)
    with pytest.raises(PackingError, match="neither a file nor a folder"):
        total_bytes(tmp_path / "absent")


def test_a_file_that_shrinks_meanwhile_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tarfile.TarFile.addfile

    def shrinking(self: tarfile.TarFile, entry: tarfile.TarInfo, source: object) -> None:
        entry.size += 10
        original(self, entry, source)  # type: ignore[arg-type]

    monkeypatch.setattr(tarfile.TarFile, "addfile", shrinking)
    with pytest.raises(PackingError, match=r"1\.png cannot be packed"):
        pack(folder, tmp_path / "x.tar", ignore)


def test_a_folder_that_may_not_be_read_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.iterdir

    def refusing(self: Path) -> Iterator[Path]:
        if self.name == "b":
            raise PermissionError(13, "Permission denied")
        return original(self)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(PackingError, match=r"b cannot be packed: Permission denied"):
        pack(folder, tmp_path / "x.tar", ignore)


def test_an_archive_that_is_empty_or_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").touch()
    with pytest.raises(PackingError, match=r"x\.zip is empty"):
        sha256(tmp_path / "x.zip", ignore)
    with pytest.raises(PackingError, match=r"y\.zip cannot be packed: No such file"):
        sha256(tmp_path / "y.zip", ignore)


@pytest.mark.parametrize("name", ["x.zip", "x.TAR.gz", "x.tgz", "x.tar"])
def test_archives_are_known_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert is_archive(tmp_path / name)


def test_a_volume_or_a_folder_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").write_bytes(b"x")
    (tmp_path / "y.zip").mkdir()
    assert not is_archive(tmp_path / "x.nii.gz")
    assert not is_archive(tmp_path / "y.zip")


def test_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    heard: list[int] = []
    assert sha256(tmp_path / "x", heard.append) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    assert sum(heard) == 3_000_000
