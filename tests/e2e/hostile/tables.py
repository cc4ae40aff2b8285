"""Arrays with code in them, and manifests that no spreadsheet should have written."""

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.e2e.hostile.exhibits import Answer, Exhibit, good_files, pixels, zipped


class _Bait:
    """An object that leaves a file behind when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._trap,)


def arrays(trap: Path) -> list[Exhibit]:
    """Return every array with its verdict; unpickling one would make the file `trap`."""
    return [*_with_code(trap), *_bombs(), *_broken(), *_odd_but_right()]


def npz(**parts: bytes) -> bytes:
    """Pack the bytes of arrays."""
    return zipped({f"{name}.npy": data for name, data in parts.items()})


def npy(array: object) -> bytes:
    """Write one array, pickled if it must be."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def stack(seed: int) -> bytes:
    """Write (2, 64, 64) uint8."""
    return npy(np.stack([pixels(seed), pixels(seed + 1)]))


def _header(text: str, body: bytes = b"") -> bytes:
    line = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(line)) + line + body


def _with_code(trap: Path) -> Iterator[Exhibit]:
    bait = np.array([_Bait(trap)], dtype=object)
    yield Exhibit("pickled.npz", npz(images=npy(bait)), "npz")
    code = f"{{'descr': __import__('pathlib').Path({str(trap)!r}).touch(), 'shape': (1,)}}"
    yield Exhibit("code-in-the-header.npz", npz(images=_header(code)), "npz")
    raw = pickle.dumps(_Bait(trap))
    yield Exhibit("only-a-pickle.npz", npz(images=raw), "npz")
    yield Exhibit("only-a-pickle.pkl", raw, "not an image")
    beside = npz(extra=npy(bait), images=stack(200))
    yield Exhibit("pickled-beside-images.npz", beside)


def _bombs() -> Iterator[Exhibit]:
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }"
    claims = _header(shape % "100000, 100000, 100", bytes(10_000))
    yield Exhibit("claims-a-terabyte.npz", npz(images=claims), "too large to decode")
    overflow = _header(shape % "4294967296, 4294967296, 2", bytes(10_000))
    yield Exhibit("overflows.npz", npz(images=overflow), "npz")
    yield Exhibit("negative.npz", npz(images=_header(shape % "-2, 64, 64", bytes(8192))), "npz")
    inflating = npz(images=_header(shape % "300, 1024, 1024", bytes(300 << 20)))
    yield Exhibit("inflates.npz", inflating, "inflates to over 256 MiB")
    yield Exhibit("long-header.npz", npz(images=_header("(" * 60_000)), "npz")


def _broken() -> Iterator[Exhibit]:
    yield Exhibit("nan.npz", npz(images=npy(np.full((2, 64, 64), np.nan))), "NaN")
    yield Exhibit("text.npz", npz(images=npy(["a", "b"])), "of numbers")
    yield Exhibit("five.npz", npz(images=npy(np.zeros((1, 2, 3, 4, 5)))), "of numbers")
    yield Exhibit("nothing.npz", npz(images=npy(np.zeros((0, 64, 64)))), "empty")
    several = npz(one=stack(210), two=stack(212))
    yield Exhibit("several.npz", several, "holds several arrays")
    whole = npz(images=stack(214))
    yield Exhibit("truncated.npz", whole[:-40], "not an image")
    lying = bytearray(npz(images=stack(216)))
    at = lying.index(b"PK\x01\x02") + 24
    lying[at : at + 4] = struct.pack("<I", 100)
    yield Exhibit("lies-about-its-size.npz", bytes(lying), "damaged npz file")


def _odd_but_right() -> Iterator[Exhibit]:
    yield Exhibit("bare.npy", stack(220), "not an image")
    yield Exhibit("fortran.npz", npz(images=npy(np.asfortranarray(pixels(222)))))
    big_endian = npy(pixels(223).astype(">u2") * 9)
    yield Exhibit("big-endian.npz", npz(images=big_endian))


def manifests() -> dict[str, tuple[bytes, Answer]]:
    """Return archives with a manifest, and what is said of each, by what is wrong."""
    rows = "set/good/0.png,glioma\n"
    bad = {
        "no such columns": b"picture;class\na;b\n",
        "a column twice": b"image,image\na,b\n",
        "bad quotes": b'image,label\n"set/good/0.png"x,"glioma\n',
        "an open quote": b'image,label\n"set/good/0.png,glioma\n',
        "more cells than columns": b"image,label\nset/good/0.png,glioma,more\n",
        "an image twice": f"image,label\n{rows}{rows}".encode(),
        "a path outside": b"image,label\n../../etc/passwd,glioma\n",
        "a label of markup": b"image,label\nset/good/0.png,<script>\n",
        "a formula": b"image,label\nset/good/0.png,=cmd|' /C calc'!A0\n",
        "a label of 10,000 characters": f"image,label\nset/good/0.png,{'x' * 10_000}\n".encode(),
        "a line of 10 MB": f"image,label\nset/good/0.png,{'x' * 10_000_000}\n".encode(),
        "a plane that is none": b"image,plane\nset/good/0.png,upwards\n",
        "NUL": b"image,label\nset/good/0.png,glio\0ma\n",
        "UTF-16": f"image,label\n{rows}".encode("utf-16"),
        "Latin-1": "image,label\nset/good/0.png,tumör\n".encode("latin-1"),
        "nothing": b"",
    }
    refused = {name: (_with_manifest(text), Answer("bad_manifest")) for name, text in bad.items()}
    return refused | _forgiven()


def _forgiven() -> dict[str, tuple[bytes, Answer]]:
    """Return manifests of which a part can be used."""
    listed = "not listed in manifest.csv"
    lines = "image;label;comment\nset/good/0.png;glioma;=1+1\nabsent.png;glioma;@SUM(A1)\n"
    manifest = ("manifest.csv", "the manifest")
    others = (("set/good/1.png", listed), ("set/good/2.png", listed), manifest)
    partly = Answer(verdicts=(("set/good/0.png", "accepted"), *others))
    only_absent = "image,label\n" + "".join(f"absent/{n}.png,glioma\n" for n in range(1000))
    return {
        "formulas in a column of no use": (_with_manifest(lines.encode()), partly),
        "only missing files": (
            _with_manifest(only_absent.encode()),
            Answer("no_usable_images", (("set/good/0.png", listed), *others)),
        ),
    }


def _with_manifest(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in good_files().items():
            archive.writestr(name, data)
        archive.writestr("manifest.csv", text)
    return buffer.getvalue()
