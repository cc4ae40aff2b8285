"""Send the parts of an upload straight to the object storage, several at a time."""

import base64
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.client import Client, Resource, ServiceError

AT_A_TIME = 4
ATTEMPTS = 6
SIGNED_AT_ONCE = 100
_FIRST_PAUSE_S = 0.25
_TIMEOUT_S = 300.0

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
                answer = self.storage.put(url, content=content, headers={"Content-MD5": checksum})
            except httpx.TransportError as error:
                reason = f"part {number} could not be sent: {type(error).__name__}"
                continue
            if answer.is_success:
                self.on_bytes(len(content))
                return number, answer.headers["etag"]
            reason = f"the storage answered part {number} with {answer.status_code}"
            if answer.status_code == httpx.codes.FORBIDDEN:
                url = sign(self.client, self.upload, [number])[number]  # it has expired
            elif not answer.is_server_error:
                break
        raise ServiceError(f"{reason}; the same command goes on from here")

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
    count, part_bytes = int(upload["part_count"]), int(upload["part_bytes"])
    last = int(upload["size_bytes"]) - (count - 1) * part_bytes
    return {
        part["number"]: part["etag"]
        for part in upload["stored"]
        if part["size_bytes"] == (last if part["number"] == count else part_bytes)
    }


def send(
    client: Client,
    file: Path,
    upload: Resource,
    on_bytes: Callable[[int], None],
    at_a_time: int = AT_A_TIME,
) -> Etags:
    """Send the parts that the storage lacks; return the ETags of all.

    Ctrl-C lets go of what is under way: what the storage has by then stays there.

    Raises:
        ServiceError: if a part could not be sent.
    """
    known = stored(upload)
    missing = [number for number in range(1, upload["part_count"] + 1) if number not in known]
    stopped = threading.Event()
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as storage:
        sending = Sending(client, storage, file, upload, on_bytes, stopped)
        with ThreadPoolExecutor(at_a_time, "part") as pool:
            try:
                # Signed a few at a time: a URL is good for an hour, a large archive takes longer.
                for first in range(0, len(missing), SIGNED_AT_ONCE):
                    urls = sign(client, upload, missing[first : first + SIGNED_AT_ONCE])
                    futures = [pool.submit(sending.part, *one) for one in urls.items()]
                    known |= dict(future.result() for future in futures)
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return known
