import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from typing_extensions import Buffer

from models.config import IngestConfig
from models.data import archive as archives
from models.data.archive import BOMB, LONG, TORN, Entry, read_entries, sanitise
from models.run_folder import UserError


def read(path: Path, **limits: float) -> list[Entry]:
    return list(read_entries(path, IngestConfig.model_validate(limits)))


def write_zip(path: Path, files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(
    path: Path, members: list[tarfile.TarInfo], data: bytes = b"", mode: str = ""
) -> Path:
    with tarfile.TarFile(path, "w") as archive:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    if mode == "gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


FILES = {"a/1": b"one", "a/2": b"two" * 1000, "b/3": b"three"}


def test_zip_tar_and_targz_hold_the_same_files(tmp_path: Path) -> None:
    write_zip(tmp_path / "zip", FILES)
    for name in ("tar", "gz"):
        with tarfile.open(tmp_path / name, "w:gz" if name == "gz" else "w") as archive:
            for file, data in FILES.items():
                info = tarfile.TarInfo(file)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    for name in ("zip", "tar", "gz"):
        entries = read(tmp_path / name)
        assert [(e.folder, e.data, e.fault) for e in entries] == [
            ("a", b"one", None),
            ("a", b"two" * 1000, None),
            ("b", b"three", None),
        ]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../../etc/passwd", "path leaves the archive"),
        ("/etc/passwd", "path leaves the archive"),
        ("C:\\x.png", "path leaves the archive"),
        ("a\\..\\..\\x.png", "path leaves the archive"),
        ("__MACOSX/a/._x.png", "system file"),
        ("a/.DS_Store", "system file"),
        ("a/Thumbs.db", "system file"),
    ],
)
def test_bad_names_are_faults(tmp_path: Path, name: str, fault: str) -> None:
    entries = read(write_zip(tmp_path / "z", {name: b"x", "a/good": b"y"}))
    assert [entry.fault for entry in entries] == [fault, None]


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (tarfile.SYMTYPE, "links are not followed"),
        (tarfile.LNKTYPE, "links are not followed"),
        (tarfile.CHRTYPE, "not a regular file"),
        (tarfile.FIFOTYPE, "not a regular file"),
    ],
)
def test_tar_specials_are_faults(tmp_path: Path, kind: bytes, fault: str) -> None:
    members = [member("a/x.png", kind, "/etc/passwd"), member("a/good")]
    assert [e.fault for e in read(write_tar(tmp_path / "t", members, b"data"))] == [fault, None]


def test_zip_symlink_is_a_fault(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a/x.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert read(tmp_path / "z")[0].fault == "links are not followed"


def test_encrypted_entry_is_a_fault(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z", {"a/x": b"secret"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert read(path)[0].fault == "encrypted"


def test_unknown_compression_is_a_fault(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z", {"a/x": b"data"}, zipfile.ZIP_BZIP2)
    assert "other than deflate" in (read(path)[0].fault or "")


def test_zip_bomb_is_stopped_by_real_bytes(tmp_path: Path) -> None:
    zeros = bytes(24 << 20)
    entries = read(write_zip(tmp_path / "z", {"a/bomb": zeros, "a/good": b"x"}))
    assert [(e.fault, e.data) for e in entries] == [(BOMB, b""), (None, b"x")]


def test_zip_entry_without_a_name_is_a_fault(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z", {"q": b"x", "a/good": b"x"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 28  # the length of the name, then of the extra field
    data[at : at + 4] = b"\0\0\1\0"
    path.write_bytes(data)
    assert [(e.name, e.fault) for e in read(path)] == [("", "has no name"), ("a/good", None)]


def test_zip_that_lies_about_sizes_is_damaged(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z", {"a/bomb": bytes(1 << 20), "a/good": b"x"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    assert [e.fault for e in read(path)] == ["damaged in the archive", None]


def test_targz_bomb_ends_the_archive(tmp_path: Path) -> None:
    members = [member("a/good"), member("a/bomb")]
    path = write_tar(tmp_path / "t", members[:1], b"x")
    plain = path.read_bytes()[:1024]
    members[1].size = 64 << 20
    path.write_bytes(gzip.compress(plain + members[1].tobuf() + bytes(64 << 20)))
    entries = read(path)
    assert [e.fault for e in entries] == [None, BOMB]


def test_entry_over_its_limit_is_a_fault(tmp_path: Path) -> None:
    big = zlib.compress(b"0")[:2] * 2000
    path = write_zip(tmp_path / "z", {"a/big": big, "a/good": b"x"})
    assert [e.fault for e in read(path, max_entry_bytes=1000)] == ["larger than 0 MiB", None]
    path = write_tar(tmp_path / "t", [member("a/big")], big)
    assert [e.fault for e in read(path, max_entry_bytes=1000)] == ["larger than 0 MiB"]


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"max_entries": 2}, "too_many_entries"), ({"max_total_bytes": 99}, "archive_too_large")],
)
def test_limits_of_the_whole_refuse_it(tmp_path: Path, limits: dict[str, int], code: str) -> None:
    path = write_zip(tmp_path / "z", FILES)
    with pytest.raises(UserError) as caught:
        read(path, **limits)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n" + bytes(600), gzip.compress(b"text", mtime=0)]
)
def test_other_files_are_no_archives(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "x")
    assert caught.value.code == "unsupported_archive"


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_truncated_zip_keeps_what_was_whole(tmp_path: Path, kind: int) -> None:
    path = write_zip(tmp_path / "z", {"a/1": b"one" * 99, "a/2": bytes(range(256)) * 40}, kind)
    path.write_bytes(path.read_bytes()[: -200 - len(path.read_bytes()) // 4])
    entries = read(path)
    assert [(e.name, e.fault) for e in entries] == [("a/1", None), ("(end of the archive)", TORN)]


@pytest.mark.parametrize("inner", [{"1.npy": b"data"}, {}])
def test_archive_at_the_torn_end_is_not_taken_for_the_whole(
    tmp_path: Path, inner: dict[str, bytes]
) -> None:
    """An npz is a zip: its directory is the last one of an upload that broke off behind it."""
    npz = write_zip(tmp_path / "npz", inner).read_bytes()
    path = write_zip(tmp_path / "z", {"a/1": b"1", "a/2.npz": npz}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(npz) + len(npz)])
    found = [(entry.name, entry.data, entry.fault) for entry in read(path)]
    assert found == [
        ("a/1", b"1", None),
        ("a/2.npz", npz, None),
        ("(end of the archive)", b"", TORN),
    ]


def test_truncated_streamed_zip_keeps_what_was_whole(tmp_path: Path) -> None:
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Buffer) -> int:
            self.data += bytes(data)
            return len(self.data)

    out = Unseekable()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1", b"one" * 99)
        archive.writestr("a/2", b"two" * 99)
    (tmp_path / "z").write_bytes(out.data[: out.data.index(b"PK\x01\x02")])
    assert [e.data for e in read(tmp_path / "z")] == [b"one" * 99, b"two" * 99, b""]


@pytest.mark.parametrize("mode", ["", "gz"])
def test_truncated_tar_keeps_what_was_whole(tmp_path: Path, mode: str) -> None:
    noise = bytes(range(251)) * 40
    path = write_tar(tmp_path / "t", [member("a/1"), member("a/2"), member("a/3")], noise, mode)
    if mode == "gz":
        path.write_bytes(path.read_bytes()[:-60])
    else:
        path.write_bytes(path.read_bytes()[:25_000])
    entries = read(path)
    assert entries[0].data == noise
    assert [e.fault for e in entries if e.fault] == [TORN]


def test_huge_tar_header_is_not_read(tmp_path: Path) -> None:
    header = member("x", tarfile.XHDTYPE)
    header.size = 1 << 40
    good = write_tar(tmp_path / "t", [member("a/1")], b"one").read_bytes()[:1024]
    (tmp_path / "t").write_bytes(good + header.tobuf() + bytes(1024))
    assert [e.fault for e in read(tmp_path / "t")] == [None, TORN]


def test_names_are_shown_without_control_characters() -> None:
    assert sanitise("a/\x1b[31m\u202egnp.x\n") == "a/\ufffd[31m\ufffdgnp.x\ufffd"
    assert len(sanitise("x" * 999)) == 300


@pytest.mark.parametrize("name", ["a/" + "n" * 70_000, "a/" * 60 + "x"])
def test_path_that_is_too_long_is_a_fault_and_not_kept(tmp_path: Path, name: str) -> None:
    """A megabyte of a name deflates to nothing, and all paths are in memory at once."""
    with tarfile.open(tmp_path / "t", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
        archive.addfile(tarfile.TarInfo("a/good"))
    entries = read(tmp_path / "t")
    assert [(e.name, e.path, e.fault) for e in entries] == [
        (name[:300], "", LONG),
        ("a/good", "a/good", None),
    ]


def test_paths_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "z", {f"{number}{'n' * 900}": b"" for number in range(9)})
    assert len(read(path)) == 9
    monkeypatch.setattr(archives, "MAX_PATHS_BYTES", 8000)
    with pytest.raises(UserError) as caught:
        read(path)
    assert caught.value.code == "archive_too_large"


def repeat_in_directory(path: Path, count: int, claimed: int) -> None:
    """List the last entry of a zip `count` times more, and claim another number of entries."""
    data = path.read_bytes()
    at, end = data.rindex(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    directory = data[data.index(b"PK\x01\x02") : end] + data[at:end] * count
    record = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, claimed, claimed, len(directory), 0, 0)
    start = data.index(b"PK\x01\x02")
    record = record[:16] + struct.pack("<L", start) + record[20:]
    path.write_bytes(data[:start] + directory + record)


def test_directory_is_counted_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of each entry of a directory of 100 MB would fill gigabytes."""
    path = write_zip(tmp_path / "z", {"a/1": b"one"})
    repeat_in_directory(path, count=3, claimed=1)
    assert len(read(path, max_entries=4)) == 4
    monkeypatch.setattr(zipfile, "ZipInfo", None)
    for listed_bytes in (archives.LISTED_BYTES, -(1 << 20)):
        monkeypatch.setattr(archives, "LISTED_BYTES", listed_bytes)
        with pytest.raises(UserError) as caught:
            read(path, max_entries=3)
        assert caught.value.code == "too_many_entries"


def test_content_that_looks_like_a_directory_is_none(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z", {"a/1": b"PK\x01\x02" * 99}, zipfile.ZIP_STORED)
    assert [e.fault for e in read(path, max_entries=2)] == [None]
