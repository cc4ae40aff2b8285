"""Take a body of any size to the object storage as it arrives, in little memory."""

from collections.abc import Callable

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.datasets import SNIFF_BYTES
from app.errors import BadRequestError, TooLargeError
from app.storage import PART_BYTES, Storage


def _see_nothing(_chunk: bytes) -> None:
    pass


async def store_body(
    storage: Storage,
    request: Request,
    key: str,
    *,
    most_bytes: int,
    check: Callable[[bytes], None],
    see: Callable[[bytes], None] = _see_nothing,
) -> int:
    """Stream the body to `key`; return its size in bytes.

    `check` refuses it by its first `SNIFF_BYTES` bytes, before anything is stored; `see` is given
    each piece.

    Raises:
        TooLargeError: before anything is stored if the length is declared, else as soon as it is.
        BadRequestError: if the client went away.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most_bytes:
        raise TooLargeError(f"an upload has at most {most_bytes} bytes")
    buffer, size_bytes, upload = bytearray(), 0, None
    try:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            if size_bytes > most_bytes:
                raise TooLargeError(f"an upload has at most {most_bytes} bytes")
            see(chunk)
            buffer += chunk
            if upload is None and len(buffer) >= SNIFF_BYTES:
                check(bytes(buffer[:SNIFF_BYTES]))
                upload = await run_in_threadpool(storage.multipart, key, "application/octet-stream")
            if upload is not None and len(buffer) >= PART_BYTES:
                part, buffer = buffer, bytearray()
                await run_in_threadpool(upload.add, part)
        if upload is None:
            check(bytes(buffer))
            upload = await run_in_threadpool(storage.multipart, key, "application/octet-stream")
        await run_in_threadpool(upload.add, buffer)
        await run_in_threadpool(upload.complete)
    except ClientDisconnect as error:
        raise BadRequestError("the upload broke off; nothing was kept") from error
    finally:
        if upload is not None:
            await run_in_threadpool(upload.close)
    return size_bytes
