"""Pictures: bombs, broken and disguised ones, and odd ones that are right."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.e2e.hostile.exhibits import Exhibit, encoded, picture, pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_LONG, _TIFF_SHORT = 4, 3


def exhibits() -> list[Exhibit]:
    """Return every picture with its verdict."""
    return [*_bombs(), *_broken(), *_disguised(), *_poor(), *_tiffs(), *_odd_but_right()]


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """Put a chunk behind the header of a PNG."""
    behind = len(SIGNATURE) + 25
    return png[:behind] + chunk(kind, data) + png[behind:]


def _header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def zeros(size_bytes: int) -> bytes:
    """Deflate zeros to a thousandth, a piece at a time."""
    deflater = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join(deflater.compress(piece) for _ in range(size_bytes >> 20)) + deflater.flush()


def _bombs() -> Iterator[Exhibit]:
    png = encoded(picture(1))
    bomb = zeros(64 << 20)
    side = SIGNATURE + _header(60_000, 60_000) + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    yield Exhibit("pixel-bomb.png", side, "larger than 64 megapixels")
    deep = SIGNATURE + _header(7_900, 8_100, 16, 6) + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    yield Exhibit("almost-a-bomb.png", deep, "truncated image")
    profile = b"icc\0\0" + bomb
    yield Exhibit("iccp-bomb.png", with_chunk(png, b"iCCP", profile), "damaged image")
    yield Exhibit("ztxt-bomb.png", with_chunk(png, b"zTXt", b"note\0\0" + bomb), "damaged image")
    itxt = b"note\0\1\0\0\0" + bomb
    yield Exhibit("itxt-bomb.png", with_chunk(png, b"iTXt", itxt), "damaged image")
    many = with_chunk(png, b"tEXt", b"note\0" + b"x" * 900_000)
    for _ in range(80):
        many = with_chunk(many, b"zTXt", b"note\0\0" + zlib.compress(bytes(900_000), 9))
    yield Exhibit("many-text-chunks.png", many, "damaged image")
    jpeg = bytearray(encoded(picture(2), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    yield Exhibit("pixel-bomb.jpg", bytes(jpeg), "larger than 64 megapixels")
    bmp = bytearray(encoded(picture(3), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, -60_000)
    yield Exhibit("pixel-bomb.bmp", bytes(bmp), "larger than 64 megapixels")


def _broken() -> Iterator[Exhibit]:
    noise = Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 64), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        data = encoded(noise, kind, **({"lossless": True} if kind == "WEBP" else {}))
        yield Exhibit(f"truncated.{kind.lower()}", data[: len(data) * 2 // 3], "image")
    png = bytearray(encoded(picture(5)))
    png[len(png) // 2] ^= 0xFF
    yield Exhibit("flipped-byte.png", bytes(png), "image")
    yield Exhibit("no-pixels.png", SIGNATURE + _header(64, 64) + chunk(b"IEND", b""), "image")
    yield Exhibit("no-sides.png", SIGNATURE + _header(0, 0) + chunk(b"IEND", b""), "image")
    jpeg = encoded(picture(6), "JPEG")
    yield Exhibit("only-markers.jpg", jpeg[:2] + b"\xff\xfe\xff\xff" * 4000, "image")
    yield Exhibit("empty.png", b"", "the file is empty")


def _disguised() -> Iterator[Exhibit]:
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>x()</script></svg>'
    yield Exhibit("svg.png", svg, "not an image")
    yield Exhibit("page.png", b"<!doctype html><script>alert(1)</script>", "not an image")
    yield Exhibit("script.png", b"#!/bin/sh\nrm -rf /\n", "not an image")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) run\n"
    yield Exhibit("postscript.png", eps, "not an image")
    frames = [picture(10 + number) for number in range(3)]
    gif, apng = io.BytesIO(), io.BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    frames[0].save(apng, "PNG", save_all=True, append_images=frames[1:])
    yield Exhibit("animated.gif", gif.getvalue(), "not an image")
    yield Exhibit("animated.png", apng.getvalue(), "more than one frame")


def _poor() -> Iterator[Exhibit]:
    yield Exhibit("one-pixel.png", encoded(Image.new("L", (1, 1), 9)), "1x1 pixels")
    yield Exhibit("line.png", encoded(Image.new("L", (60_000, 1), 9)), "60000x1 pixels")
    yield Exhibit("constant.png", encoded(Image.new("L", (64, 64), 200)), "no content")
    values = pixels(20).astype(np.float32)
    values[3, 3] = np.nan
    nan = encoded(Image.fromarray(values), "TIFF")
    yield Exhibit("nan.tif", nan, "floating-point pixels")
    values[3, 3] = np.inf
    yield Exhibit("inf.tif", encoded(Image.fromarray(values), "TIFF"), "floating-point pixels")


def _tiffs() -> Iterator[Exhibit]:
    yield Exhibit("loop.tif", _tiff(21, [8]))
    yield Exhibit("two-in-a-loop.tif", _tiff(22, [8, 8]))
    yield Exhibit("many-pages.tif", _tiff(23, [0] * 3000), "more than 2000 pages")
    yield Exhibit("large-pages.tif", _tiff(24, [0, 0], side=9000), "truncated image")
    yield Exhibit("beyond-the-file.tif", _tiff(25, [0], offset=1 << 30), "truncated image")
    yield Exhibit("pixel-bomb.tif", _tiff(26, [0], side=60_000), "larger than 64 megapixels")
    yield Exhibit(
        "first-ifd-nowhere.tif", b"II*\0" + struct.pack("<I", 0xFFFFFFF0), "damaged image"
    )


def _tiff(seed: int, nexts: list[int], side: int = 64, offset: int = 0) -> bytes:
    """Write IFDs of one-strip pictures; the last one points where `nexts` says."""
    tags = 8
    ifd_bytes = 2 + 12 * tags + 4
    content = pixels(seed).tobytes()
    start = 8 + ifd_bytes * len(nexts)
    ifds = b""
    for number, following in enumerate(nexts):
        is_last = number == len(nexts) - 1
        entries = [
            *((256, _TIFF_LONG, side), (257, _TIFF_LONG, side), (258, _TIFF_SHORT, 8)),
            *((259, _TIFF_SHORT, 1), (262, _TIFF_SHORT, 1), (273, _TIFF_LONG, offset or start)),
            *((278, _TIFF_LONG, side), (279, _TIFF_LONG, len(content))),
        ]
        ifds += struct.pack("<H", tags)
        ifds += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        ifds += struct.pack("<I", following if is_last else 8 + ifd_bytes * (number + 1))
    return b"II*\0" + struct.pack("<I", 8) + ifds + content


def _odd_but_right() -> Iterator[Exhibit]:
    yield Exhibit("really-a-jpeg.png", encoded(picture(30), "JPEG"))
    colours = Image.merge("RGB", [picture(31), picture(32), picture(33)])
    yield Exhibit("cmyk.jpg", encoded(colours.convert("CMYK"), "JPEG"))
    yield Exhibit("palette.png", encoded(colours.convert("P")))
    alpha = picture(34).convert("LA")
    yield Exhibit("alpha.png", encoded(alpha))
    deep = pixels(35).astype(np.uint16) * 200
    yield Exhibit("sixteen-bits.png", encoded(Image.fromarray(deep)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(pixels(36)[:40])
    yield Exhibit("turned-by-exif.jpg", encoded(turned, "JPEG", exif=exif))
    wrong = encoded(picture(37), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    yield Exhibit("broken-exif.jpg", wrong, "damaged image: Corrupt EXIF")
    behind = encoded(picture(38)) + b"PK\x03\x04" + bytes(5000)
    yield Exhibit("something-behind-it.png", behind)
