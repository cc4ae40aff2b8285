"""Salvage a zip whose central directory is missing, as after an upload that broke off.

The local headers are walked from the front (APPNOTE.TXT 4.3.7). An entry is only believed when its
deflate stream ends where it should and its CRC agrees; the walk stops at the first that is not.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import IO

_LOCAL = struct.Struct("<4s5H3I2H")  # signature .. extra length, 30 bytes
_DESCRIPTOR = 0x08074B50
_CHUNK_BYTES = 1 << 16
_RATIO_FREE_BYTES = 10 << 20


def salvage(
    file: IO[bytes], max_entry_bytes: int, max_ratio: float
) -> Iterator[tuple[str, bytes, bool]]:
    """Yield `(name, data, is_bomb)` of the whole entries at the front of `file`.

    Ends silently at the first header or stream that is not whole, encrypted or not deflated.
    """
    while True:
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size:
            return
        signature, _, flags, method, _, _, crc, stored, _, name_len, extra_len = _LOCAL.unpack(
            header
        )
        if signature != b"PK\x03\x04" or flags & 0x1 or method not in (0, 8):
            return
        name = file.read(name_len).decode("utf-8" if flags & 0x800 else "cp437", "replace")
        file.read(extra_len)
        has_descriptor = bool(flags & 0x8)
        if method == 0 and (has_descriptor or stored > max_entry_bytes):
            return
        if method == 0:
            whole: bytes | None = file.read(stored)
            is_bomb = False
        else:
            whole, is_bomb = _inflate(file, max_entry_bytes, max_ratio)
        if has_descriptor and whole is not None:
            crc = _read_descriptor(file)
        if is_bomb:
            yield name, b"", True
            return
        if whole is None or zlib.crc32(whole) != crc:
            return
        if not name.endswith("/"):
            yield name, whole, False


def _inflate(file: IO[bytes], max_entry_bytes: int, max_ratio: float) -> tuple[bytes | None, bool]:
    """Inflate one raw stream and leave `file` just behind it; None when it does not end."""
    inflater, data, stored = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), 0
    while chunk := file.read(_CHUNK_BYTES):
        stored += len(chunk)
        while chunk:
            try:
                data += inflater.decompress(chunk, 1 << 20)
            except zlib.error:
                return None, False
            if inflater.eof:
                file.seek(-len(inflater.unused_data), 1)
                return bytes(data), False
            if len(data) > min(max_entry_bytes, max(_RATIO_FREE_BYTES, max_ratio * stored)):
                return None, True
            chunk = inflater.unconsumed_tail
    return None, False


def _read_descriptor(file: IO[bytes]) -> int:
    """Read the CRC and sizes behind a stream (APPNOTE.TXT 4.3.9); its signature is optional."""
    words = struct.unpack("<4I", file.read(16).ljust(16, b"\0"))
    if words[0] == _DESCRIPTOR:
        return int(words[1])
    file.seek(-4, 1)
    return int(words[0])
