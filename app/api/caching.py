"""Pictures that a browser may keep and must ask for: an ETag, and 304 when it is current."""

import hashlib
from collections.abc import Callable

from fastapi import Request, Response


def cached_png(request: Request, identity: str, draw: Callable[[], bytes]) -> Response:
    """Answer with the PNG that `draw` makes, unless the client has the one of this `identity`.

    `identity` must change whenever the picture does, so that a hit costs no drawing.
    """
    etag = f'"{hashlib.sha256(identity.encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(draw(), media_type="image/png", headers=headers)
