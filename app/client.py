"""A client of the REST API: what the commands, and a user's own script, need of it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

CHUNK_BYTES = 1 << 20
POLL_S = 0.5
PATIENCE_S = 30.0
CANCEL_S = 5.0
_AWAY = frozenset({502, 503, 504})
Resource = dict[str, Any]


class ServiceError(Exception):
    """The service refused a request, or a job failed; the message says why."""

    def __init__(self, message: str, status: int | None = None) -> None:
        """Explain in `message`; `status` is that of the answer, if there was one."""
        super().__init__(message)
        self.status = status


class Client:
    """Requests to one service with one API key."""

    def __init__(self, url: str, api_key: str) -> None:
        """Prepare for the service at `url`; nothing is sent yet."""
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=60, follow_redirects=True, trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str) -> Resource:
        """Return a resource.

        Raises:
            ServiceError: if the service refused.
        """
        return _json(self._http.get(path))

    def create(self, path: str, body: Resource) -> Resource:
        """Create a resource.

        Raises:
            ServiceError: if the service refused.
        """
        return _json(self._http.post(path, json=body))

    def delete(self, path: str) -> None:
        """Delete a resource.

        Raises:
            ServiceError: if the service refused.
        """
        answer = self._http.delete(path)
        if answer.is_error:
            _json(answer)

    def upload(self, path: str, file: Path, on_bytes: Callable[[int], None]) -> Resource:
        """Stream a file to a resource; `on_bytes` hears the size of each chunk sent.

        Raises:
            ServiceError: if the service refused.
        """

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
                    on_bytes(len(chunk))

        size = str(file.stat().st_size)
        answer = self._http.put(
            path, content=chunks(), headers={"Content-Length": size}, timeout=None
        )
        return _json(answer)

    def download(self, path: str, file: Path) -> None:
        """Save what a path leads to.

        Raises:
            ServiceError: if the service refused.
        """
        with self._http.stream("GET", path, timeout=None) as answer:
            if answer.is_error:
                answer.read()
                _json(answer)
            with file.open("wb") as target:
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    target.write(chunk)

    def cancel(self, path: str) -> bool:
        """Ask for the end of a resource's job; return whether the service has taken it.

        It is asked once, with little patience: whoever cancels is on the way out.
        """
        try:
            job = _json(self._http.get(path, timeout=CANCEL_S))["job"]
            _json(self._http.post(f"/v1/jobs/{job['id']}/cancel", timeout=CANCEL_S))
        except (httpx.TransportError, ServiceError):
            return False
        return True

    def follow(self, path: str, on_job: Callable[[Resource], None]) -> Resource:
        """Follow the job of a resource to its end and return the resource.

        The job goes on when Ctrl-C ends the watch. A service that is away for a while is asked
        again, for half a minute.

        Raises:
            ServiceError: if the job did not succeed, or a proxy says that the service is away.
            httpx.TransportError: if the service stays away.
        """
        lost_s: float | None = None
        while True:
            try:
                resource = self.get(path)
            except (httpx.TransportError, ServiceError) as failure:
                if isinstance(failure, ServiceError) and failure.status not in _AWAY:
                    raise
                lost_s = lost_s or time.monotonic()
                if time.monotonic() - lost_s > PATIENCE_S:
                    raise
                time.sleep(POLL_S)
                continue
            lost_s = None
            job = resource["job"]
            on_job(job)
            if job["status"] == "succeeded":
                return resource
            if job["status"] in {"failed", "cancelled"}:
                error = job["error"] or {"code": job["status"], "detail": ""}
                raise ServiceError(f"{job['kind']} {job['status']}: {error['detail']}")
            time.sleep(POLL_S)


def _json(answer: httpx.Response) -> Resource:
    if answer.is_error:
        kind = answer.headers.get("content-type", "")
        detail = answer.json().get("detail", "") if "json" in kind else answer.text[:200]
        message = f"{answer.status_code} {answer.reason_phrase}: {detail}"
        raise ServiceError(message, answer.status_code)
    body: Resource = answer.json()
    return body
