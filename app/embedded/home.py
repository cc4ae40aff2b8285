"""Hold the data folder of the laptop: private, locked by one `up`, with its secrets and logs."""

import fcntl
import json
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_LAST_WORDS_S = 15.0
"""How long to wait for what a killed `up` left, which its reaper is just ending."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class HomeError(Exception):
    """The data folder cannot be used; the message says why and what to do."""


class HomeInUseError(HomeError):
    """Another `up` works in the data folder."""


def _secret() -> str:
    return secrets.token_hex(24)


class Credentials(BaseModel):
    """The random secrets of one data folder, made once and kept in `credentials.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stack_id: str = Field(default_factory=_secret)
    postgres_superuser_password: str = Field(default_factory=_secret, repr=False)
    postgres_password: str = Field(default_factory=_secret, repr=False)
    valkey_password: str = Field(default_factory=_secret, repr=False)
    s3_access_key: str = Field(default_factory=lambda: secrets.token_hex(10).upper(), repr=False)
    s3_secret_key: str = Field(default_factory=_secret, repr=False)
    data_key: str = Field(default_factory=_secret, repr=False)


@dataclass(frozen=True)
class Connection:
    """Where the API answers, and a key for it."""

    url: str
    api_key: str


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; complete or absent."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


class Home:
    """The data folder; use it as a context manager, which holds its lock."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is created before `open`."""
        self.path = path.expanduser().resolve()
        self.logs = self.path / "logs"
        self._lock: int | None = None
        self._credentials: Credentials | None = None

    def __enter__(self) -> Self:
        """Open the folder."""
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let another `up` in."""
        self.close()

    def open(self) -> Self:
        """Create the folder if need be, lock it and read its secrets.

        Raises:
            HomeInUseError: naming the process and the URL of the `up` that works there.
            HomeError: if the folder is somebody else's, holds other things, or lost its secrets.
        """
        self._claim_folder()
        self._lock = self._acquire_lock()
        try:
            self._note_holder(url=None)
            self._credentials = self._read_credentials()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Release the lock; the data stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def credentials(self) -> Credentials:
        """Return the secrets of an open folder."""
        if self._credentials is None:
            raise HomeError(f"{self.path} is not open")
        return self._credentials

    @property
    def lock_descriptor(self) -> int:
        """Return the descriptor of the lock: who inherits it holds the lock too."""
        if self._lock is None:
            raise HomeError(f"{self.path} is not open")
        return self._lock

    def write_connection(self, url: str, api_key: str) -> None:
        """Say where the API answers, in `connection.json` and to a second `up`."""
        text = json.dumps({"url": url, "api_key": api_key}, indent=2)
        write_private(self.path / "connection.json", text)
        self._note_holder(url=url)

    def read_connection(self) -> Connection | None:
        """Return what the last `up` wrote, or None; the folder need not be open.

        Raises:
            HomeError: if the file is damaged.
        """
        path = self.path / "connection.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return Connection(url=record["url"], api_key=record["api_key"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise HomeError(f"{path} is damaged; remove it") from error

    def _claim_folder(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            raise HomeError(f"the data folder {self.path} cannot be made: {error}") from error
        if found.st_uid != os.geteuid():
            raise HomeError(f"{self.path} belongs to user {found.st_uid}; run as that user")
        if stat.S_IMODE(found.st_mode) & _OTHERS:
            # A mistyped GLIAFORGE_HOME must not take /tmp or a home folder from its other users.
            if not self._is_ours():
                raise HomeError(
                    f"{self.path} holds other things and is open to other users; "
                    "name an empty folder as GLIAFORGE_HOME"
                )
            self.path.chmod(0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    def _is_ours(self) -> bool:
        return (self.path / "credentials.json").exists() or not any(self.path.iterdir())

    def _acquire_lock(self) -> int:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline_s = time.monotonic() + _LAST_WORDS_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read_holder(descriptor)
                if _is_alive(holder.pid) or time.monotonic() > deadline_s:
                    os.close(descriptor)
                    where = f"at {holder.url}" if holder.url else "and is still starting"
                    raise HomeInUseError(
                        f"{self.path} is in use: process {holder.pid} serves it {where}"
                    ) from None
                time.sleep(0.05)
            else:
                return descriptor

    def _note_holder(self, url: str | None) -> None:
        record = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self.lock_descriptor, 0)
        os.pwrite(self.lock_descriptor, record, 0)

    def _read_credentials(self) -> Credentials:
        path = self.path / "credentials.json"
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        if text == "{}" and (self.path / "postgres" / "data").exists():
            raise HomeError(f"{path} is missing, and the data beside it opens with nothing else")
        try:
            credentials = Credentials.model_validate_json(text)
        except ValidationError:
            # The cause would quote the secrets.
            raise HomeError(f"{path} is damaged; restore it from a copy") from None
        complete = credentials.model_dump_json(indent=2)
        if complete != text:  # new, or from before a field was added
            write_private(path, complete)
        return credentials


@dataclass(frozen=True)
class _Holder:
    pid: int
    url: str | None


def _read_holder(descriptor: int) -> _Holder:
    """Return who holds the lock; process 0 while the holder has not written yet."""
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
        return _Holder(int(record["pid"]), record["url"])
    except (ValueError, KeyError, TypeError):
        return _Holder(0, None)


def _is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that ended but was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
