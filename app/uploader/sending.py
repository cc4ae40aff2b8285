"""Send the parts of an upload straight to the object storage, several at a time."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import httpx

from app.client import Client, Resource, ServiceError

AT_A_TIME = 4
ATTEMPTS = 6
SIGNED_AT_ONCE = 100
_FIRST_PAUSE_S = 0.25
_TIMEOUT_S = 300.0
_CHUNK_BYTES = 1 << 18

Etags = dict[int, str]


@dataclass(frozen=True)
class Sending:
    """One upload on its way."""

    client: Client
    storage: httpx.Client
    """For the signed URLs, without the API key."""
    file: Path
    upload: Resource
    on_bytes: Callable[[int], None]
    stopped: threading.Event

    def part(self, number: int, url: str) -> tuple[int, str]:
        """Send one part and return its number and ETag; try again what may succeed later.

        Raises:
            ServiceError: if the storage refuses it, or stays away.
        """
        content = self._read(number)
        checksum = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        reason = "the upload was interrupted"
        for attempt in range(ATTEMPTS):
            if self.stopped.wait(_FIRST_PAUSE_S * 2 ** (attempt - 1) if attempt else 0):
                break
            try:
                answer = self._put(url, content, checksum)
            except httpx.TransportError as error:
                reason = f"part {number} could not be sent: {type(error).__name__}"
                continue
            if answer.is_success:
                return number, answer.headers["etag"]
            reason = f"the storage answered part {number} with {answer.status_code}"
            if answer.status_code == httpx.codes.FORBIDDEN:
                url = sign(self.client, self.upload, [number])[number]  # it has expired
            elif not answer.is_server_error:
                break
        raise ServiceError(f"{reason}; the same command goes on from here")

    def _put(self, url: str, content: bytes, checksum: str) -> httpx.Response:
        """Put bytes and tell of them as they go; what did not arrive is taken back."""
        told = 0
        arrived = False

        def chunks() -> Iterator[bytes]:
            nonlocal told
            for start in range(0, len(content), _CHUNK_BYTES):
                chunk = content[start : start + _CHUNK_BYTES]
                yield chunk
                told += len(chunk)
                self.on_bytes(len(chunk))

        headers = {"Content-MD5": checksum, "Content-Length": str(len(content))}
        try:
            answer = self.storage.put(url, content=chunks(), headers=headers)
            arrived = answer.is_success
            return answer
        finally:
            if not arrived:
                self.on_bytes(-told)

    def _read(self, number: int) -> bytes:
        size = int(self.upload["part_bytes"])
        with self.file.open("rb") as file:
            file.seek((number - 1) * size)
            return file.read(size)


def sign(client: Client, upload: Resource, numbers: list[int]) -> dict[int, str]:
    """Return part number -> URL, freshly signed.

    Raises:
        ServiceError: if the service refused.
    """
    path = f"/v1/uploads/{upload['id']}/parts"
    signed: dict[int, str] = {}
    for first in range(0, len(numbers), SIGNED_AT_ONCE):
        answer = client.create(path, {"numbers": numbers[first : first + SIGNED_AT_ONCE]})
        signed |= {part["number"]: part["url"] for part in answer["parts"]}
    return signed


def stored(upload: Resource) -> Etags:
    """Return part number -> ETag of the whole parts that the storage has."""
    return {
        part["number"]: part["etag"]
        for part in upload["stored"]
        if part["size_bytes"] == part_size(upload, part["number"])
    }


def part_size(upload: Resource, number: int) -> int:
    """Return the size in bytes of part `number`, from 1; only the last may be smaller."""
    part_bytes = int(upload["part_bytes"])
    return min(part_bytes, int(upload["size_bytes"]) - (number - 1) * part_bytes)


def send(
    client: Client,
    file: Path,
    upload: Resource,
    on_bytes: Callable[[int], None],
    at_a_time: int = AT_A_TIME,
    *,
    transport: httpx.BaseTransport | None = None,
) -> Etags:
    """Send the parts that the storage lacks; return the ETags of all.

    `on_bytes` hears what was sent, and a negative size when that has to be sent again. Ctrl-C and a
    refusal let go of what is under way: what the storage has by then stays there. `transport`
    stands in for the network.

    Raises:
        ServiceError: if a part could not be sent.
    """
    known = stored(upload)
    missing = [number for number in range(1, upload["part_count"] + 1) if number not in known]
    stopped = threading.Event()
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False, transport=transport) as storage:
        sending = Sending(client, storage, file, upload, on_bytes, stopped)
        try:
            # Signed a few at a time: a URL is good for an hour, a large archive takes longer.
            for first in range(0, len(missing), SIGNED_AT_ONCE):
                urls = sign(client, upload, missing[first : first + SIGNED_AT_ONCE])
                known |= _side_by_side(sending, urls, at_a_time)
        finally:
            stopped.set()
    return known


def _side_by_side(sending: Sending, urls: dict[int, str], at_a_time: int) -> Etags:
    """Send parts from threads that nobody has to wait for.

    Those of an executor are joined when the process ends, so that Ctrl-C would last as long as a
    stalled line does.
    """
    todo: SimpleQueue[tuple[int, str]] = SimpleQueue()
    done: SimpleQueue[tuple[int, str] | BaseException] = SimpleQueue()
    for one in urls.items():
        todo.put(one)

    def work() -> None:
        while not sending.stopped.is_set():
            try:
                number, url = todo.get_nowait()
            except Empty:
                return
            try:
                done.put(sending.part(number, url))
            except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
                done.put(error)

    for _ in range(min(at_a_time, len(urls))):
        threading.Thread(target=work, name="part", daemon=True).start()
    etags: Etags = {}
    while len(etags) < len(urls):
        outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        number, etag = outcome
        etags[number] = etag
    return etags
