"""Write down what an ingest did, for whoever answers for the patients' data: counts, no values."""

import platform
from collections import Counter
from importlib import metadata
from typing import Any

import numpy as np

from models.config import IngestConfig
from models.data import volumes
from models.data.grouping import SAME_PICTURE_BITS
from models.data.judging import Accepted, Judge
from models.data.packing import SPLITS
from models.run_folder import IngestSummary

__all__ = ["SAME_PICTURE_BITS", "document"]
SCHEMA_VERSION = "1"
MOST_BARS = 30
_SOFTWARE = ("gliaforge", "pydicom", "python-gdcm", "nibabel", "pillow", "numpy")
_UNITS_MM = 0.05


def document(
    judge: Judge, summary: IngestSummary, config: IngestConfig, across: dict[str, int]
) -> dict[str, Any]:
    """Return the certificate, ready for JSON; `across` counts what the splits have in common."""
    images = judge.accepted
    verdicts = {
        "accepted": judge.file_count
        - judge.used_count
        - judge.reasons.total()
        - judge.quarantined.total()
        - _duplicate_files(judge),
        "duplicate": _duplicate_files(judge),
        "rejected": judge.reasons.total(),
        "quarantined": judge.quarantined.total(),
        "used": judge.used_count,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "files": {
            "total": judge.file_count,
            "verdicts": verdicts,
            "rejected_because": _counts(judge.reasons),
            "quarantined_because": dict(judge.quarantined.most_common()),
            "remarks": _counts(judge.remarks),
        },
        "images": {
            "total": summary.image_count,
            "labels": summary.labels,
            "planes": _counts(image.plane or "unknown" for image in images),
            "with_mask": summary.mask_count,
            "duplicates": summary.duplicate_count,
            "empty_slices_skipped": judge.empty_count,
            "sizes_px": _counts(f"{w}x{h}" for w, h in (image.size_px for image in images)),
            "spacing_mm": _counts(_spacing(image) for image in images),
        },
        "groups": {
            "total": summary.group_count,
            "from": _counts(_source(image) for image in images),
            "rule": "the manifest's group, else the patient that a DICOM file names (as a keyed "
            "hash), else the volume; near-duplicates, also mirrored and turned, are joined with "
            "them",
        },
        "split": {
            "by": "group",
            "images": summary.splits,
            "groups": {
                name: len({image.group for image in images if image.split == number})
                for number, name in enumerate(SPLITS)
            },
            "near_duplicates_of_training": across
            | {
                "same_picture_bits": SAME_PICTURE_BITS,
                "nearly_the_same_bits": config.near_duplicate_bits,
            },
        },
        "deidentification": {
            "method": "keep-list after DICOM PS3.15 Annex E: pixels, spacing, orientation, label "
            "and group are kept, and nothing else leaves the decoder",
            "attributes_by_action": dict(judge.actions.most_common()),
            "text_in_pixels": "looked for before the tags are dropped; such files are quarantined",
        },
        "intensity": {
            "rule": "one window for a volume or series, never for a slice: the file's own where "
            "all of its slices ask for the same, else "
            f"{volumes.PERCENTILES[0]:g}th to {volumes.PERCENTILES[1]:g}th percentile of the "
            "values above the least; 8-bit pictures are kept, 16-bit pictures scaled by depth",
            "windows": _counts(str((image.window or {}).get("rule", "kept")) for image in images),
            "sixteen_bit_copies": sum(image.window is not None for image in images),
        },
        "digests": {"dataset": summary.digest},
        "software": {name: _version(name) for name in _SOFTWARE}
        | {"python": platform.python_version()},
        "limits": [
            "a search for text in pixels finds most lines of text and proves nothing",
            "groups without a manifest or patient are clusters of images, not patients",
        ],
    }


def _duplicate_files(judge: Judge) -> int:
    of_volumes = sum(
        volume.duplicates > 0 and not volume.accepted for volume in judge.volumes.values()
    )
    slices = sum(volume.duplicates for volume in judge.volumes.values())
    return judge.duplicate_count - slices + of_volumes


def _counts(values: Any) -> dict[str, int]:
    """Count, the most frequent first; what is rare is one entry."""
    counts = Counter(values)
    shown = dict(counts.most_common(MOST_BARS))
    rest = counts.total() - sum(shown.values())
    return shown | ({"others": rest} if rest else {})


def _spacing(image: Accepted) -> str:
    if image.spacing_mm is None:
        return "unknown"
    row, column = (float(np.round(mm / _UNITS_MM) * _UNITS_MM) for mm in image.spacing_mm)
    return f"{row:.2f}x{column:.2f}"


def _source(image: Accepted) -> str:
    return image.key.split(" ", 1)[0] if image.key else "near-duplicates"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
