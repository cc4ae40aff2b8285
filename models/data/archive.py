"""Read the files of an archive that a stranger made: zip, tar or tar.gz; nothing touches the disk.

The kind is told by the first bytes. An entry that must not be read is still an entry, with a
`fault` in words. Limits count the bytes that really came out of the inflater, because the sizes in
headers are the archive's own claim. After damage that hides the rest (a truncated download) comes
one last entry whose fault says so. Names are never used as paths.
"""

import gzip
import io
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from models.config import IngestConfig
from models.data.torn_zip import salvage
from models.run_folder import UserError

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db"})
RATIO_FREE_BYTES = 10 << 20
"""Inflated bytes below which no ratio is suspicious: an empty slice compresses very well."""
READ_BYTES = 1 << 20
MAX_NAME = 300
MAX_PATH, MAX_FOLDERS = 1000, 50
"""Of a path that is kept and compared; a tar's may have megabytes, which deflate to nothing."""
MAX_PATHS_BYTES = 256 << 20
"""Of the memory of all paths."""
LISTED_BYTES = 512
"""A file's share of a zip's directory: more than any writer needs on average."""
TAR_BLOCK = 512
LONG = f"its path is longer than {MAX_PATH} characters or deeper than {MAX_FOLDERS} folders"
BOMB = "suspicious compression ratio (archive bomb)"
TORN = "the archive is damaged or truncated here; nothing after this point could be read"
_UNSUPPORTED = "the file is not a zip, tar or tar.gz archive; upload one of these"
# A long chain of extended headers is read by recursion.
_TAR_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError)


@dataclass(frozen=True)
class Entry:
    """One file of an archive, or the reason why it was not read."""

    name: str  # sanitised: only to be shown
    folder: str | None  # the folder that directly holds the file; None at the root
    data: bytes = b""
    fault: str | None = None
    position: float = 0.0  # share of the archive that lies behind, in [0, 1]
    path: str = ""  # inside the archive, never shown and never opened: only to be compared


Wanted = Callable[[str], bool]


def _everything(_path: str) -> bool:
    return True


class _BombError(Exception):
    """Raise when a stream inflates beyond all proportion."""


def sanitise(name: str) -> str:
    """Return `name` fit to be shown: control and format characters replaced, at most 300 long."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    return shown[:MAX_NAME]


def read_entries(path: Path, config: IngestConfig, wanted: Wanted | None = None) -> Iterator[Entry]:
    """Yield every file of the archive at `path`, in archive order; folders are no files.

    The files whose `path` is not `wanted` come without their data.

    Raises:
        UserError: `unsupported_archive` for another kind of file, `too_many_entries` and
            `archive_too_large` when the limits of `config` are passed.
    """
    kind = _kind(path)
    wanted = wanted or _everything
    if kind == "zip":
        entries = _read_zip(path, config, wanted)
    else:
        entries = _read_tar(path, config, kind, wanted)
    # Entries that overlap in a zip may share their stored bytes, so the whole has a ratio too.
    limit_bytes = max(RATIO_FREE_BYTES, config.max_ratio * path.stat().st_size)
    limit_bytes = min(config.max_total_bytes, limit_bytes)
    inflated_bytes = paths_bytes = 0
    for count, entry in enumerate(entries, start=1):
        inflated_bytes += len(entry.data)
        paths_bytes += sys.getsizeof(entry.path)
        if count > config.max_entries:
            raise _too_many(config)
        if inflated_bytes > limit_bytes:
            raise UserError(
                "archive_too_large", f"the files inflate to over {limit_bytes:.0f} bytes"
            )
        if paths_bytes > MAX_PATHS_BYTES:
            raise UserError(
                "archive_too_large", f"the names of its files fill {MAX_PATHS_BYTES >> 20} MiB"
            )
        yield entry


def _too_many(config: IngestConfig) -> UserError:
    return UserError("too_many_entries", f"the archive holds more than {config.max_entries} files")


def _kind(path: Path) -> Literal["zip", "tar", "tar.gz"]:
    with path.open("rb") as file:
        head = file.read(TAR_BLOCK)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[:2] == b"\x1f\x8b":
        return "tar.gz"
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError as error:
        raise UserError("unsupported_archive", _UNSUPPORTED) from error
    return "tar"


def _entry(name: str, position: float) -> Entry:
    """Judge an archive name: paths that leave the archive and system files are faults."""
    path = name.replace("\\", "/")
    if len(path) > MAX_PATH or path.count("/") > MAX_FOLDERS:
        return Entry(sanitise(name[:MAX_NAME]), None, fault=LONG, position=position)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    fault = None
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in parts:
        fault = "path leaves the archive"
    elif not parts:
        fault = "has no name"
    elif any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in parts):
        fault = "system file"
    folder = parts[-2] if len(parts) > 1 else None
    return Entry(sanitise(name), folder, fault=fault, position=position, path="/".join(parts))


def _with(entry: Entry, data: bytes = b"", fault: str | None = None) -> Entry:
    return Entry(entry.name, entry.folder, data, fault, entry.position, entry.path)


def _read_bounded(file: IO[bytes], stored_bytes: int, config: IngestConfig) -> tuple[bytes, str]:
    """Inflate at most `max_entry_bytes`; return the data and a fault, one of them empty."""
    data = bytearray()
    while chunk := file.read(READ_BYTES):
        data += chunk
        if len(data) > max(RATIO_FREE_BYTES, config.max_ratio * stored_bytes):
            return b"", BOMB
        if len(data) > config.max_entry_bytes:
            return b"", f"larger than {config.max_entry_bytes >> 20} MiB"
    return bytes(data), ""


class _ZipSource(io.BufferedReader):
    """The bytes of a zip, whose directory is only given out if it is not too long.

    `zipfile` reads the directory at once and makes an object of each entry in it, whatever the
    record at the end claims of their number.
    """

    def __init__(self, path: Path, config: IngestConfig) -> None:
        super().__init__(io.FileIO(path))
        self._config = config
        self.is_opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes.

        Raises:
            UserError: `too_many_entries`, for a directory of more than are allowed.
        """
        most = self._config.max_entries
        if self.is_opening and size is not None and size > LISTED_BYTES * most + READ_BYTES:
            raise _too_many(self._config)
        data = super().read(size)
        if self.is_opening and data.count(b"PK\x01\x02") > most:
            raise _too_many(self._config)
        return data


def _read_zip(path: Path, config: IngestConfig, wanted: Wanted) -> Iterator[Entry]:
    with _ZipSource(path, config) as source:
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError):
            yield from _salvage_zip(path, config)
            return
        source.is_opening = False
        if not _lists_first(archive, source):
            yield from _salvage_zip(path, config)
            return
        # `is_dir` fails for an entry without a name.
        infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        # What lies behind is let go, so that memory does not grow while its images come.
        archive.filelist.clear()
        archive.NameToInfo.clear()
        infos.reverse()
        count = len(infos)
        while infos:
            info = infos.pop()
            entry = _entry(info.filename, 1 - (len(infos) + 1) / count)
            is_read = not entry.fault and wanted(entry.path)
            yield _read_zip_entry(archive, info, entry, config) if is_read else entry


def _lists_first(archive: zipfile.ZipFile, source: IO[bytes]) -> bool:
    """Tell whether the directory is that of the file's first entry.

    The end of a truncated zip may hold an archive of its own, an npz, whose directory is found.
    """
    source.seek(0)
    has_first = source.read(4) == b"PK\x03\x04"
    first_at = min((info.header_offset for info in archive.filelist), default=None)
    return first_at == (0 if has_first else None)


def _read_zip_entry(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, config: IngestConfig
) -> Entry:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return _with(entry, fault="links are not followed")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return _with(entry, fault="not a regular file")
    if info.flag_bits & 0x1:
        return _with(entry, fault="encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return _with(entry, fault="compressed by a method other than deflate")
    try:
        with archive.open(info) as file:
            data, fault = _read_bounded(file, info.compress_size, config)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
        return _with(entry, fault="damaged in the archive")
    return _with(entry, data, fault or None)


def _salvage_zip(path: Path, config: IngestConfig) -> Iterator[Entry]:
    """Read what a zip without its directory (a truncated one) still holds."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        for name, data, is_bomb in salvage(file, config.max_entry_bytes, config.max_ratio):
            entry = _entry(name, file.tell() / size_bytes)
            fault = BOMB if is_bomb else entry.fault
            yield _with(entry, b"" if fault else data, fault)
    yield Entry("(end of the archive)", None, fault=TORN, position=1.0)


class _Metered(io.BufferedIOBase):
    """A forward stream that counts what it gives, for a tar reader that must not trust sizes."""

    def __init__(self, source: IO[bytes], stored: IO[bytes] | None, max_ratio: float) -> None:
        self._source, self._stored, self._max_ratio = source, stored, max_ratio
        self._position = 0
        self.last = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes: never "all", and never more than a header may claim at once."""
        if size is None or size < 0 or size > 4 * READ_BYTES:
            raise tarfile.ReadError("a header claims more than 4 MiB")
        self.last = self._source.read(size)
        self._position += len(self.last)
        if self._stored is not None:
            allowed = max(RATIO_FREE_BYTES, self._max_ratio * self._stored.tell())
            if self._position > allowed:
                raise _BombError
        return self.last

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Skip forward by reading, so that skipped bytes count too."""
        assert whence == 0
        if offset < self._position:
            raise tarfile.ReadError("the archive points backwards")
        while self._position < offset and self.read(min(READ_BYTES, offset - self._position)):
            pass
        return self._position


def _read_tar(
    path: Path, config: IngestConfig, kind: Literal["tar", "tar.gz"], wanted: Wanted
) -> Iterator[Entry]:
    size_bytes = path.stat().st_size
    with path.open("rb") as stored:
        is_gzip = kind == "tar.gz"
        source = cast("IO[bytes]", gzip.GzipFile(fileobj=stored)) if is_gzip else stored
        stream = _Metered(source, stored if is_gzip else None, config.max_ratio)
        try:
            archive = tarfile.TarFile(fileobj=stream)
        except (*_TAR_ERRORS, _BombError) as error:
            raise UserError("unsupported_archive", _UNSUPPORTED) from error
        name = ""
        try:
            while (info := archive.next()) is not None:
                vars(archive)["members"] = []  # it would keep every header until the end
                name = info.name
                if not info.isdir():
                    position = stored.tell() / size_bytes
                    entry = _entry(name, position)
                    is_read = not entry.fault and wanted(entry.path)
                    yield _read_tar_entry(archive, info, entry, config) if is_read else entry
        except (*_TAR_ERRORS, _BombError) as error:
            fault = BOMB if isinstance(error, _BombError) else TORN
            yield _with(_entry(name, 1.0), fault=fault)
            return
    if stream.last.strip(b"\0"):
        yield Entry("(end of the archive)", None, fault=TORN, position=1.0)


def _read_tar_entry(
    archive: tarfile.TarFile, info: tarfile.TarInfo, entry: Entry, config: IngestConfig
) -> Entry:
    if info.issym() or info.islnk():
        return _with(entry, fault="links are not followed")
    if not info.isreg() or info.issparse():
        return _with(entry, fault="not a regular file")
    if info.size > config.max_entry_bytes:
        return _with(entry, fault=f"larger than {config.max_entry_bytes >> 20} MiB")
    file = archive.extractfile(info)
    assert file is not None
    data, fault = _read_bounded(file, info.size, config)
    if len(data) < info.size and not fault:
        raise tarfile.ReadError("unexpected end of data")
    return _with(entry, data, fault or None)
