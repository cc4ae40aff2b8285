"""A stand-in for the Kubernetes API, which keeps what is said of pods and does nothing with it."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "of-the-tests"
NAMESPACE = "gliaforge"


@dataclass(frozen=True)
class Asked:
    """A request that arrived whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: object


@dataclass
class PodAPI:
    """What has arrived, and the status that is answered; 0 is none."""

    url: str
    status: int = 200
    asked: list[Asked] = field(default_factory=list)

    def annotations(self) -> list[object]:
        """Return what was said of a pod's annotations, in order."""
        return [
            one.body["metadata"]["annotations"] for one in self.asked if isinstance(one.body, dict)
        ]

    def await_annotations(self, wanted: list[object], timeout_s: float = 30) -> None:
        """Wait until these were said, and no others."""
        deadline_s = time.monotonic() + timeout_s
        while self.annotations() != wanted:
            assert time.monotonic() < deadline_s, self.annotations()
            time.sleep(0.05)


def make_account(folder: Path, trusted: Path) -> Path:
    """Make what Kubernetes mounts into a pod, and return its folder."""
    folder.mkdir()
    (folder / "ca.crt").write_bytes(trusted.read_bytes())
    (folder / "namespace").write_text(NAMESPACE)
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder


@contextmanager
def serving(shown: ssl.SSLContext) -> Iterator[PodAPI]:
    """Answer on a free port of `localhost`, with the certificate that is `shown`."""

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            api.asked.append(
                Asked("PATCH", self.path, dict(self.headers.items()), json.loads(body))
            )
            if not api.status:
                return
            self.send_response(api.status)
            if 300 <= api.status < 400:
                self.send_header("Location", f"{api.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: object) -> None:
            """Be silent of clients that refuse our certificate."""

    with Server(("localhost", 0), Handler) as server:
        # The handshake is then each connection's own thread's.
        server.socket = shown.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        api = PodAPI(f"https://localhost:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
