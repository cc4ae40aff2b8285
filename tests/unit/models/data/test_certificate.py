"""One ingest of everything that an archive may hold, and what is said of it."""

import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from models.data.certificate import MOST_BARS, _counts
from models.data.ingest import ingest
from models.progress import Silent
from models.run_folder import FileVerdict, ImageRecord, IngestSpec, IngestSummary
from tests.unit.models.data.dicom_files import AXIAL, dicom

Run = tuple[Path, IngestSummary, dict[str, Any]]


def smooth(seed: int, side: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC))


def png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def dicom_slice(seed: int, patient: str, height_mm: float, **attributes: str) -> bytes:
    return dicom(
        smooth(seed).astype(np.uint16) * 9,
        PatientID=patient,
        PatientName="SECRET^NAME",
        SeriesInstanceUID=f"1.2.{patient}",
        SOPInstanceUID=f"1.2.{patient}.{seed}",
        ImageOrientationPatient=list(AXIAL),
        ImagePositionPatient=[0.0, 0.0, height_mm],
        **attributes,
    )


def volume(seed: int) -> bytes:
    slices = [smooth(seed + at).astype(np.int16) * 5 for at in range(4)]
    values = np.stack([*slices, np.zeros((64, 64), np.int16), slices[0]], axis=-1)
    data: bytes = nibabel.Nifti1Image(values, np.diag([1.0, 1, 5, 1])).to_bytes()
    return data


def everything() -> dict[str, bytes]:
    """Return files of all verdicts."""
    marked = np.zeros((64, 64), np.uint8)
    marked[20:30, 20:30] = 255
    files = {f"a/images/{at}.png": png(smooth(at)) for at in range(8)}
    files |= {f"a/masks/{at}.png": png(marked if at % 2 else marked * 0) for at in range(4)}
    files |= {f"b/{at}.dcm": dicom_slice(40 + at, f"{at % 3 + 1}", float(at)) for at in range(9)}
    files["b/again.dcm"] = files["b/0.dcm"]
    files["b/NAME/1.dcm"] = dicom_slice(60, "9", 0.0)
    files["b/ct.dcm"] = dicom_slice(61, "10", 0.0, Modality="CT")
    files["b/text.dcm"] = dicom_slice(62, "11", 0.0, BurnedInAnnotation="YES")
    files["c/one.nii"], files["c/again.nii"] = volume(80), volume(80)
    files["c/black.nii"] = nibabel.Nifti1Image(np.zeros((64, 64, 3), "i2"), np.eye(4)).to_bytes()
    files["a/again.png"], files["a/notes.txt"] = files["a/images/0.png"], b"text"
    return files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("everything")
    with zipfile.ZipFile(folder / "content", "w") as archive:
        for name, data in everything().items():
            archive.writestr(name, data)
    summary = ingest(folder, IngestSpec(), Silent())
    return folder, summary, json.loads((folder / "outputs/certificate.json").read_text())


def verdicts(folder: Path) -> dict[str, FileVerdict]:
    lines = (folder / "outputs/files.jsonl").read_text().splitlines()
    return {one.name: one for one in map(FileVerdict.model_validate_json, lines)}


def records(folder: Path) -> list[ImageRecord]:
    lines = (folder / "outputs/images.jsonl").read_text().splitlines()
    return [ImageRecord.model_validate_json(line) for line in lines]


def test_verdicts_are_those_of_the_files(run: Run) -> None:
    folder, _, document = run
    counts = Counter(one.verdict for one in verdicts(folder).values())
    assert document["files"]["verdicts"] == dict.fromkeys(document["files"]["verdicts"], 0) | counts
    assert document["files"]["total"] == len(everything()) == counts.total()
    assert set(counts) == {"accepted", "duplicate", "rejected", "quarantined", "used"}


def test_images_add_up(run: Run) -> None:
    folder, summary, document = run
    images = document["images"]
    made = sum(one.image_count for one in verdicts(folder).values())
    assert images["total"] == summary.image_count == made == len(records(folder))
    for name in ("labels", "planes", "sizes_px", "spacing_mm"):
        assert sum(images[name].values()) == images["total"]
    assert images["with_mask"] == sum(one.mask_area_px is not None for one in records(folder)) == 4
    assert images["empty_slices_skipped"] == 1 + 1 + 3
    split = document["split"]
    assert sum(sum(labels.values()) for labels in split["images"].values()) == images["total"]
    assert sum(split["groups"].values()) == document["groups"]["total"] == summary.group_count
    assert document["groups"]["from"] == {"patient": 11, "near-duplicates": 8, "volume": 4}


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        ("a/again.png", "duplicate", "same pixels as file 0"),
        ("b/again.dcm", "duplicate", "all of its slices were there before"),
        ("c/again.nii", "duplicate", "all of its slices were there before"),
        ("c/black.nii", "rejected", "no content: all of its slices are empty"),
        ("b/text.dcm", "quarantined", "the file says that text is burned into its pixels"),
        ("a/masks/1.png", "used", "a mask"),
        ("a/images/1.png", "accepted", None),
        ("b/ct.dcm", "accepted", None),
    ],
)
def test_each_file_has_its_verdict(run: Run, name: str, verdict: str, reason: str | None) -> None:
    found = verdicts(run[0])[name]
    assert (found.verdict, found.reason) == (verdict, reason)


def test_remarks_say_what_became_of_slices(run: Run) -> None:
    found = verdicts(run[0])
    assert found["c/one.nii"].remarks == (
        "1 empty slices were skipped",
        "1 slices were there before",
    )
    assert found["b/ct.dcm"].remarks == ("the modality is not MR",)
    assert found["c/one.nii"].image_count == 4


def test_a_folder_named_after_the_patient_is_no_label(run: Run) -> None:
    found = verdicts(run[0])["b/NAME/1.dcm"]
    assert (found.label, found.verdict) == ("unlabelled", "accepted")
    assert "NAME" not in run[2]["images"]["labels"]


def test_slices_of_a_patient_are_in_one_group(run: Run) -> None:
    found = verdicts(run[0])
    groups = [found[f"b/{at}.dcm"].group for at in range(9)]
    assert groups[:3] == groups[3:6] == groups[6:]
    assert len(set(groups)) == 3


def test_nothing_of_a_patient_is_written_down(run: Run) -> None:
    for file in ("certificate.json", "images.jsonl"):
        text = (run[0] / "outputs" / file).read_text()
        for trace in ("SECRET", "1.2.1.40", "again.dcm", "images/0.png"):
            assert trace not in text


def test_attributes_are_counted_by_what_became_of_them(run: Run) -> None:
    actions = run[2]["deidentification"]["attributes_by_action"]
    read = 9 + 1 + 1 + 1  # the quarantined one is not
    assert actions["dropped: name of a person"] == read
    assert actions["replaced by a keyed hash"] == 3 * read


def test_windows_are_counted(run: Run) -> None:
    intensity = run[2]["intensity"]
    assert intensity["windows"] == {"percentiles": 15, "kept": 8}
    assert intensity["sixteen_bit_copies"] == 15


def test_rare_things_are_one_bar() -> None:
    counts = _counts(f"{at}" for at in range(MOST_BARS + 7) for _ in range(2 if at == 3 else 1))
    assert len(counts) == MOST_BARS + 1
    assert next(iter(counts)) == "3"
    assert counts["others"] == 7
    assert _counts(Counter({"a": 2, "b": 5})) == {"b": 5, "a": 2}
