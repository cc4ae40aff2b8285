"""Write a sealed dataset as a folder in a zip that other tools read.

Pictures by label, masks beside them, `metadata.csv` in the manner of Hugging Face's imagefolder
(https://huggingface.co/docs/datasets/image_dataset), and `metadata.json` in Croissant 1.0
(https://docs.mlcommons.org/croissant/docs/croissant-spec.html). Names are numbers: nothing of the
uploaded files' names is in it. The same dataset and options give the same bytes.
"""

import csv
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import JsonValue
from safetensors import safe_open

from models.data import croissant
from models.data.packing import Pack, open_pack
from models.progress import Progress, Stopped
from models.run_folder import EXPORTED, SIXTEEN_BITS, ExportSpec, ImageRecord, UserError

COLUMNS = (
    "file_name",
    "mask_file_name",
    "sixteen_bit_file_name",
    "label",
    "split",
    "group",
    "plane",
    "row_spacing_mm",
    "column_spacing_mm",
    "source_width",
    "source_height",
    "window_low",
    "window_high",
    "window_rule",
    "window_is_inverted",
    "sixteen_bit_slope",
    "sixteen_bit_intercept",
    "source_sha256",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time of a zip: when it was packed must not change its bytes."""
_PROGRESS_IMAGES = 200


def export(run_dir: Path, spec: ExportSpec, progress: Progress) -> dict[str, JsonValue]:
    """Write `outputs/export.zip` as `ExportSpec` describes; return `{"image_count"}`.

    Raises:
        UserError: `pack_unusable`, or `nothing_to_export` when no image is in the splits at the
            size that is asked for.
        Stopped: when `progress` asked for it.
    """
    pack = open_pack(run_dir / spec.packed)
    size = str(pack.side_px)
    records = [one for one in _records(run_dir) if one.split in spec.splits and size in one.rows]
    if not records:
        raise UserError("nothing_to_export", f"no image of {', '.join(spec.splits)} has {size} px")
    (run_dir / "outputs").mkdir(exist_ok=True)
    with zipfile.ZipFile(run_dir / "outputs" / EXPORTED, "w") as archive:
        masks = _Masks(run_dir / spec.packed)
        rows = []
        deep = _SixteenBits(run_dir / SIXTEEN_BITS if spec.with_sixteen_bits else None)
        for number, record in enumerate(records):
            if progress.should_stop():
                raise Stopped
            rows.append(_write_image(archive, spec, record, pack, masks, deep))
            if number % _PROGRESS_IMAGES == 0:
                _tell(progress, number, len(records))
        _write_texts(archive, run_dir, spec, pack, rows)
    _tell(progress, len(records), len(records))
    return {"image_count": len(records)}


def _records(run_dir: Path) -> Iterator[ImageRecord]:
    with (run_dir / "images.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield ImageRecord.model_validate_json(line)


def _write_image(
    archive: zipfile.ZipFile,
    spec: ExportSpec,
    record: ImageRecord,
    pack: Pack,
    masks: "_Masks",
    deep: "_SixteenBits",
) -> dict[str, str]:
    """Write the pictures of one image; return its row of the table."""
    at = record.rows[str(pack.side_px)]
    name = f"{record.label}/{record.index:06d}.png"
    _put(archive, record.exported_name, _png(pack.images[at], spec.kind))
    mask = masks.of(at) if record.mask_area_px is not None else None
    if mask is not None:
        _put(archive, f"masks/{name}", _png(mask, spec.kind))
    copy = deep.of(record.index)
    if copy is not None:
        _put(archive, f"sixteen_bit/{name}", copy)
    rows_mm, columns_mm = record.spacing_mm or ("", "")
    window = record.window or {}
    return {
        "file_name": record.exported_name,
        "mask_file_name": f"masks/{name}" if mask is not None else "",
        "sixteen_bit_file_name": f"sixteen_bit/{name}" if copy is not None else "",
        "label": record.label,
        "split": record.split,
        "group": str(record.group),
        "plane": record.plane or "",
        "row_spacing_mm": str(rows_mm),
        "column_spacing_mm": str(columns_mm),
        "source_width": str(record.width),
        "source_height": str(record.height),
        "window_low": str(window.get("low", "")),
        "window_high": str(window.get("high", "")),
        "window_rule": str(window.get("rule", "")),
        "window_is_inverted": str(window.get("is_inverted", "")).lower(),
        "sixteen_bit_slope": str(window.get("slope", "")) if copy is not None else "",
        "sixteen_bit_intercept": str(window.get("intercept", "")) if copy is not None else "",
        "source_sha256": record.sha256,
    }


def _write_texts(
    archive: zipfile.ZipFile,
    run_dir: Path,
    spec: ExportSpec,
    pack: Pack,
    rows: Sequence[dict[str, str]],
) -> None:
    table = _table(rows)
    _put(archive, "metadata.csv", table)
    certificate = run_dir / "certificate.json"
    if certificate.exists():
        _put(archive, "certificate.json", certificate.read_bytes())
    document = croissant.document(
        spec,
        digest=pack.digest,
        side_px=pack.side_px,
        table_sha256=hashlib.sha256(table).hexdigest(),
        columns=COLUMNS,
        folders=[
            folder
            for folder, column in (("masks", COLUMNS[1]), ("sixteen_bit", COLUMNS[2]))
            if any(row[column] for row in rows)
        ],
        labels=sorted({row["label"] for row in rows}),
    )
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
    _put(archive, "metadata.json", text.encode())
    _put(archive, "README.md", _card(spec, pack, rows).encode())


def _table(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    # No cell is a formula to a spreadsheet: a label begins with a letter or digit.
    writer.writerows(rows)
    return text.getvalue().encode()


def _card(spec: ExportSpec, pack: Pack, rows: Sequence[dict[str, str]]) -> str:
    """Return a dataset card with the header that the hub reads."""
    counts = Counter((row["split"], row["label"]) for row in rows)
    table = "\n".join(
        f"| {split} | {label} | {n} |" for (split, label), n in sorted(counts.items())
    )
    what = (
        "Synthetic images made by a generative model. Not for diagnosis."
        if spec.kind == "synthetic"
        else "Images of patients, de-identified on ingest (certificate.json). Confidential: who may"
        " see them is for their owner to say."
    )
    return f"""---
configs:
- config_name: default
  data_dir: .
  drop_labels: true
task_categories:
- image-classification
---
# Brain MRI slices

{what}

{len(rows)} slices of {pack.side_px} x {pack.side_px} px, 8-bit grey. `metadata.csv` has a line
for each: its mask, label, split, group, plane, spacing, and the window from the source's values to
grey (where it is inverted, 255 stands for its low end).
A group is a patient or stands for one: never divide it between training and testing. Keep to
the column `split` if a generator that you compare with was trained on this dataset.

| split | label | images |
|---|---|---|
{table}

Dataset digest: `{pack.digest}`. Licence: as the owner of the images decides; this file grants none.
"""


class _Masks:
    """The masks of a pack, read one at a time."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as file:
            self._has = "masks" in file.keys()  # noqa: SIM118 - no mapping
        self._path = path

    def of(self, row: int) -> NDArray[np.uint8] | None:
        """Return the mask `(S, S)` of 0 and 255, or None where the pack has none."""
        if not self._has:
            return None
        with safe_open(self._path, framework="numpy") as file:
            mask = file.get_slice("masks")[row]
        return np.asarray(mask[0] * 255, np.uint8)


class _SixteenBits:
    """The 16-bit copies that ingest kept, where they are asked for."""

    def __init__(self, path: Path | None) -> None:
        self._archive = zipfile.ZipFile(path) if path is not None and path.exists() else None
        self._names = set(self._archive.namelist()) if self._archive else set()

    def of(self, index: int) -> bytes | None:
        """Return the PNG of an image, or None where its source had no more than 8 bits."""
        name = f"{index:06d}.png"
        if self._archive is None or name not in self._names:
            return None
        return self._archive.read(name)


def _png(pixels: NDArray[np.uint8], kind: str) -> bytes:
    marks = PngInfo()
    if kind == "synthetic":
        marks.add_text("Synthetic", "true")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", pnginfo=marks)
    return buffer.getvalue()


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _tell(progress: Progress, done: int, total: int) -> None:
    progress.event(
        "progress",
        {"fraction": done / total, "message": f"image {done:,} of {total:,}"},
    )
