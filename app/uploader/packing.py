"""Make one archive of what the user has: a folder, or a file that is none yet.

The same files give the same bytes, so that an upload can go on after the archive was made anew.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK_BYTES = 1 << 20

OnBytes = Callable[[int], None]


class PackingError(Exception):
    """What is to be uploaded cannot be read; the message says what to do."""


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is sent as it is."""
    return path.is_file() and path.name.lower().endswith(ARCHIVES)


def pack(path: Path, archive: Path, on_bytes: OnBytes) -> int:
    """Write the files under `path`, a folder or one file, to the tar `archive`; return how many.

    Names are relative to `path`, so nothing says where it lay; times and owners are left out. Links
    are not followed; hidden files are left out.

    Raises:
        PackingError: if there is nothing to pack, or a file cannot be read or changes meanwhile.
    """
    files = list(_files(path))
    if not files:
        raise PackingError(f"{path} holds no file")
    with _explained(archive), tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            with _explained(file):
                on_bytes(_add(tar, file, name))
    return len(files)


def total_bytes(path: Path) -> int:
    """Return the sizes of the files under `path` together."""
    return sum(file.stat().st_size for file in _files(path))


def sha256(path: Path, on_bytes: OnBytes) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        PackingError: if it cannot be read, or is empty.
    """
    digest = hashlib.sha256()
    with _explained(path), path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise PackingError(f"{path} is empty")
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """Yield the regular files under `path` in the order of their names."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise PackingError(f"{path} is neither a file nor a folder")
    with _explained(path):
        entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    for one in entries:
        if one.is_symlink() or one.name.startswith("."):
            continue
        if one.is_dir():
            yield from _files(one)
        elif one.is_file():
            yield one


def _add(tar: tarfile.TarFile, file: Path, name: str) -> int:
    """Add a file and return its size in bytes."""
    with file.open("rb") as source:
        entry = tarfile.TarInfo(name)
        entry.size = os.fstat(source.fileno()).st_size
        tar.addfile(entry, source)
    return entry.size


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of which path the system refused something, and why: no leave, no space, gone."""
    try:
        yield
    except OSError as error:
        raise PackingError(f"{path} cannot be packed: {error.strerror or error}") from error
