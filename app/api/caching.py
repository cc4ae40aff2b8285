"""Pictures that a browser may keep and must ask for: an ETag, and 304 when it is current."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from fastapi import Request, Response


class PictureCache:
    """Pictures that were drawn lately; they take twenty times as long as any other answer.

    Who may see one is decided before it is looked for. It is in memory alone, and bounded.
    """

    def __init__(self, most_bytes: int = 32 << 20) -> None:
        """Keep nothing yet."""
        self._most_bytes = most_bytes
        self._size_bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._drawing: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str, draw: Callable[[], bytes]) -> bytes:
        """Return the picture called `name`, drawn once for all who ask at the same time."""
        with self._lock:
            mine = self._drawing.setdefault(name, threading.Lock())
        with mine:
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
                    return self._kept[name]
            picture = draw()
            with self._lock:
                self._keep(name, picture)
            return picture

    def _keep(self, name: str, picture: bytes) -> None:
        self._kept[name] = picture
        self._size_bytes += len(picture)
        while self._size_bytes > self._most_bytes:
            oldest, dropped = self._kept.popitem(last=False)
            self._size_bytes -= len(dropped)
            self._drawing.pop(oldest, None)


def cached_png(request: Request, identity: str, draw: Callable[[], bytes]) -> Response:
    """Answer with the PNG that `draw` makes, unless the client has the one of this `identity`.

    `identity` must change whenever the picture does, so that a hit costs no drawing.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    etag = f'"{name}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    pictures: PictureCache = request.app.state.pictures
    return Response(pictures.get(name, draw), media_type="image/png", headers=headers)
