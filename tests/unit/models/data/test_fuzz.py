"""Break valid files in seeded ways and decode them as an ingest does, in the fenced processes.

Whatever a file does, the parent lives, gets a reason that somebody worded, and the next good file
is decoded. `GLIAFORGE_FUZZ_S` says for how long the slow one goes on; case k is the same each time.
"""

import gzip
import io
import os
import random
import struct
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from models.config import IngestConfig
from models.data.archive import read_entries
from models.data.decoders import DEADLY, ENDLESS, UNFORESEEN, Decoders
from models.data.outcomes import (
    DecodeConfig,
    Decoded,
    FileTask,
    MaskSlice,
    Opened,
    Outcome,
    Quarantined,
    Role,
    SliceTask,
    Task,
)
from models.data.volumes import Volumes
from models.run_folder import UserError
from tests.unit.models.data.dicom_files import (
    COMPRESSED,
    PLAIN,
    compressed,
    dataset,
    dicom,
    enhanced,
    written,
)

DEFAULT_CASES, ROUND_CASES, GOOD_EVERY = 3000, 4000, 20
SLOW_S = float(os.environ.get("GLIAFORGE_FUZZ_S", "600"))
CONFIG = DecodeConfig(
    max_pixels=1 << 22, min_side_px=16, sizes=(64,), max_voxels=1 << 22, max_bytes=1 << 26
)
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Mutate = Callable[[random.Random, bytearray], None]


def _picture(kind: str, mode: str = "L", **options: object) -> bytes:
    ramp = Image.fromarray(np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8) * 2)
    image = ramp.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(ramp, np.uint16))
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _stack(compression: str) -> bytes:
    pages = [Image.fromarray(np.full((32, 32), at, np.float32) * np.eye(32)) for at in range(3)]
    data = io.BytesIO()
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:], compression=compression)
    return data.getvalue()


def _npz() -> bytes:
    data = io.BytesIO()
    np.savez_compressed(data, images=np.arange(3 * 32 * 32, dtype=np.int16).reshape(3, 32, 32))
    return data.getvalue()


@lru_cache(maxsize=1)
def files() -> dict[str, bytes]:
    """Return a small valid file of every kind."""
    bytes_ = (np.arange(40 * 32).reshape(40, 32) // 6).astype(np.uint8)
    deep = (bytes_.astype(np.uint16) * 13) % 4096
    made = {f"dicom {syntax}": dicom(deep, syntax, RescaleSlope="2") for syntax in PLAIN}
    made |= {f"dicom {name}": compressed(dicom(bytes_), name) for name in COMPRESSED}
    frames = enhanced(np.stack([deep] * 3), [(0.0, 0.0, at) for at in (2.0, 0.0, 1.0)])
    made["dicom enhanced"] = written(frames)
    made["dicom floats"] = dicom(deep.astype(np.float64))
    colour = dataset(bytes_, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    colour.PlanarConfiguration, colour.PixelData = 0, bytes_.tobytes() * 3
    made["dicom colour"] = written(colour)
    volume = np.arange(20 * 22 * 18, dtype=np.int16).reshape(20, 22, 18)
    kinds: tuple[Any, ...] = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    for kind in kinds:
        for values in (volume, volume / 7):
            name = f"nifti {kind.__name__} {values.dtype}"
            made[name] = kind(
                values.astype("f4" if values.dtype == float else "i2"), np.eye(4)
            ).to_bytes()
    made["nifti gzip"] = gzip.compress(made["nifti Nifti1Image int16"])
    for kind_ in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        made[f"picture {kind_}"] = _picture(kind_)
    made["picture deep"] = _picture("PNG", "I;16")
    made["picture colour"] = _picture("PNG", "RGBA")
    made["picture palette"] = _picture("PNG", "P")
    made["picture CMYK"] = _picture("JPEG", "CMYK")
    made["picture progressive"] = _picture("JPEG", "RGB", progressive=True)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        made[f"picture TIFF {compression}"] = _picture("TIFF", compression=compression)
    made |= {f"stack {kind_}": _stack(kind_) for kind_ in ("raw", "tiff_lzw")}
    made["npz"] = _npz()
    return made


def _flip_bits(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        data[_at(rng, data)] ^= 1 << rng.randrange(8)


def _set_length(rng: random.Random, data: bytearray) -> None:
    """Write an extreme value where a length, an offset or a dimension may be."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        layout = rng.choice(("<H", ">H", "<I", ">I"))
        value = rng.choice(EXTREMES) & (0xFFFF if layout[1] == "H" else 0xFFFFFFFF)
        at = _at(rng, data)
        data[at : at + struct.calcsize(layout)] = struct.pack(layout, value)


def _set_number(rng: random.Random, data: bytearray) -> None:
    layout = rng.choice(("<f", ">f", "<d"))
    value = rng.choice((0.0, -1.0, 1e-40, 1e30, 3e38, float("nan"), float("inf")))
    at = _at(rng, data)
    data[at : at + struct.calcsize(layout)] = struct.pack(layout, value)


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[_at(rng, data) :]


def _cut(rng: random.Random, data: bytearray) -> None:
    at = _at(rng, data)
    del data[at : at + rng.choice((1, 2, 4, 8, 64, 500))]


def _repeat(rng: random.Random, data: bytearray) -> None:
    at = _at(rng, data)
    data[at:at] = data[at : at + rng.choice((1, 4, 16, 200))] * rng.choice((1, 2, 50))


def _splice(rng: random.Random, data: bytearray) -> None:
    other = rng.choice(list(files().values()))
    at, start = _at(rng, data), rng.randrange(len(other))
    data[at : at + rng.choice((8, 100, 10_000))] = other[
        start : start + rng.choice((8, 100, 10_000))
    ]


def _fill(rng: random.Random, data: bytearray) -> None:
    at = _at(rng, data)
    end = min(len(data), at + rng.choice((4, 16, 100)))
    data[at:end] = rng.choice((b"\0", b"\xff", b"9", b"(")) * (end - at)


MUTATIONS: tuple[Mutate, ...] = (
    *(_flip_bits, _flip_bits, _set_length, _set_length, _set_number),
    *(_truncate, _cut, _repeat, _splice, _fill),
)


def _at(rng: random.Random, data: bytearray) -> int:
    """Return a place in the file, as often in its first 600 bytes as anywhere."""
    size = len(data) if rng.random() < 0.5 else min(len(data), 600)
    return rng.randrange(max(1, size))


def broken(case: int, sources: list[bytes]) -> bytes:
    """Return the broken file of a case."""
    rng = random.Random(case)  # noqa: S311 - no secret, but the same cases every time
    data = bytearray(rng.choice(sources))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def _tasks(cases: range) -> Iterator[tuple[int | None, Task]]:
    sources = list(files().values())
    good = FileTask(files()["picture PNG"])
    for case in cases:
        role = Role.MASK if case % 7 == 0 else Role.IMAGE
        yield case, FileTask(broken(case, sources), role, "glioma")
        if case % GOOD_EVERY == 0:
            yield None, good


def _worded(outcome: Outcome) -> str:
    """Return the kind of an outcome, or the reason without its numbers."""
    if isinstance(outcome, str):
        return "".join("#" if char.isdigit() else char for char in outcome.split(":")[0])
    if isinstance(outcome, Quarantined):
        return f"quarantined: {outcome.reason}"
    return type(outcome).__name__


def decode_broken(cases: range, folder: Path, config: DecodeConfig = CONFIG) -> Counter[str]:
    """Decode the files of `cases` and develop what they open to; return the outcomes by kind."""
    found: Counter[str] = Counter()
    unforeseen = []
    with Decoders[int | None](config, 2) as pool, Volumes[int](folder) as volumes:
        for case, outcome in pool.run(_tasks(cases)):
            assert outcome is not None
            if case is None:
                assert isinstance(outcome, Decoded), "a good file after broken ones"
                continue
            found[_worded(outcome)] += 1
            unforeseen += [case] if str(outcome).startswith(UNFORESEEN) else []
            assert isinstance(outcome, Decoded | Opened | Quarantined | tuple | str)
            if isinstance(outcome, tuple):
                assert all(isinstance(one, MaskSlice) for one in outcome)
            for raw in outcome.slices if isinstance(outcome, Opened) else ():
                # A broken identifier must not put the slices of two cases together.
                volumes.add(case, raw.renamed(f"{case} {raw.volume}"))
        developed = pool.run(
            (case, SliceTask(raw, window))
            for volume in volumes.developed()
            for case, raw, window in volume
        )
        for case, outcome in developed:
            assert outcome is not None
            found[f"slice: {_worded(outcome)}"] += 1
            unforeseen += [case or 0] if str(outcome).startswith(UNFORESEEN) else []
    assert not unforeseen, "cases whose errors nobody thought of"
    return found


def archives() -> list[bytes]:
    """Return a small archive of each kind."""
    members = {f"label {at}/{name}": data for at, (name, data) in enumerate(files().items())}
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", method) as archive:
            for name, content in list(members.items())[:6]:
                archive.writestr(name, content[:300])
        made.append(data.getvalue())
    for mode in ("w:", "w:gz"):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode=mode) as tar:
            for name, content in list(members.items())[:6]:
                info = tarfile.TarInfo(name)
                info.size = len(content[:300])
                tar.addfile(info, io.BytesIO(content[:300]))
        made.append(data.getvalue())
    return made


def read_broken(cases: range, folder: Path) -> Counter[str]:
    """Read the archives of `cases`; return the outcomes by kind."""
    found: Counter[str] = Counter()
    config = IngestConfig(max_entries=1000, max_entry_bytes=1 << 20, max_total_bytes=1 << 24)
    sources = archives()
    path = folder / "archive"
    for case in cases:
        path.write_bytes(broken(case, sources))
        try:
            entries = list(read_entries(path, config))
        except UserError as error:
            found[f"archive: {error.code}"] += 1
            continue
        assert sum(len(entry.data) for entry in entries) <= config.max_total_bytes
        faults = {entry.fault for entry in entries if entry.fault}
        found["archive: with faults" if faults else "archive: read"] += 1
    return found


def test_broken_files_cost_nobody_else_anything(tmp_path: Path) -> None:
    found = decode_broken(range(DEFAULT_CASES), tmp_path)
    assert found.total() >= DEFAULT_CASES
    assert found["Decoded"] + found["Opened"] > DEFAULT_CASES // 10
    assert len(found) > 20  # the mutations reach more than the first check


def test_broken_archives_are_read_or_refused(tmp_path: Path) -> None:
    found = read_broken(range(DEFAULT_CASES // 2), tmp_path)
    assert found["archive: with faults"] > DEFAULT_CASES // 20


@pytest.mark.slow
def test_broken_files_for_as_long_as_one_likes(tmp_path: Path) -> None:
    """Prints how many cases there were and what became of them: `pytest -m slow -s`."""
    found: Counter[str] = Counter()
    started_s, case = time.monotonic(), DEFAULT_CASES
    while time.monotonic() - started_s < SLOW_S:
        cases = range(case, case + ROUND_CASES)
        found += decode_broken(cases, tmp_path) + read_broken(cases, tmp_path)
        case = cases.stop
    lines = [f"{count:8} {reason}" for reason, count in found.most_common()]
    title = f"{case - DEFAULT_CASES} files and as many archives in {SLOW_S:g} s"
    sys.stdout.write("\n".join(["", title, *lines, ""]))
    assert found.total() > ROUND_CASES
    assert found[DEADLY] + found[ENDLESS] < found.total() / 300
