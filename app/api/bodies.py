"""Bodies that are read whole: refused as soon as they are known to be too large."""

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message

from app.errors import TooLargeError

MAX_BODY_BYTES = 1 << 20
"""Of every route but the upload, which streams and counts for itself."""


def limited(request: Request) -> Request:
    """Return `request` with a body of at most `MAX_BODY_BYTES`.

    FastAPI's own `max_body_size` answers with plain text where the length is declared.

    Raises:
        TooLargeError: if it declares more; if it sends more, reading it raises a 413.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise TooLargeError(f"a body has at most {MAX_BODY_BYTES} bytes")
    size_bytes = 0

    async def receive() -> Message:
        nonlocal size_bytes
        message = await request.receive()
        size_bytes += len(message.get("body", b""))
        if size_bytes > MAX_BODY_BYTES:
            # FastAPI would make a 400 of any other error that occurs while it reads the body.
            raise HTTPException(TooLargeError.status)
        return message

    return Request(request.scope, receive)
