import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import JsonValue
from safetensors.numpy import load_file

from models.data import decoders
from models.data.decoders import DEADLY, Decoders
from models.data.ingest import ingest
from models.data.outcomes import DecodeConfig, FileTask, Outcome, Task
from models.progress import Silent, Stopped
from models.run_folder import (
    SIXTEEN_BITS,
    FileVerdict,
    ImageRecord,
    IngestSpec,
    IngestSummary,
    UserError,
)
from tests.unit.models.data.dicom_files import dicom


def png(seed: int, size: int = 64) -> bytes:
    """A smooth random picture; each seed has its own."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC).save(data, "PNG")
    return data.getvalue()


DATASET = {f"{label}/{k}.png": png(100 * i + k) for i, label in enumerate("ab") for k in range(12)}


def write_zip(run_dir: Path, files: Mapping[str, bytes]) -> None:
    run_dir.mkdir(exist_ok=True)
    with zipfile.ZipFile(run_dir / "content", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def verdicts(run_dir: Path) -> list[FileVerdict]:
    lines = (run_dir / "outputs" / "files.jsonl").read_text().splitlines()
    return [FileVerdict.model_validate_json(line) for line in lines]


def records(run_dir: Path) -> list[ImageRecord]:
    lines = (run_dir / "outputs" / "images.jsonl").read_text().splitlines()
    return [ImageRecord.model_validate_json(line) for line in lines]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IngestSummary]:
    """One ingest of good, bad and repeated files."""
    run_dir = tmp_path_factory.mktemp("mixed")
    files = {
        **DATASET,
        "a/again.png": DATASET["a/0.png"],
        "a/notes.txt": b"not a picture",
        "root.png": png(900),
        " a /spaced.png": png(901, 256),
        "$bad/x.png": png(902),
        "../x.png": png(903),
        "a/nested.zip": b"PK\x03\x04" + bytes(50),
        "a/empty.png": b"",
    }
    write_zip(run_dir, files)
    return run_dir, ingest(run_dir, IngestSpec(), Silent())


def test_every_file_gets_one_verdict_in_order(mixed: tuple[Path, IngestSummary]) -> None:
    found = verdicts(mixed[0])
    assert [v.index for v in found] == list(range(32))
    assert [v.verdict for v in found[24:]] == [
        "duplicate",
        "rejected",
        "accepted",
        "accepted",
        *["rejected"] * 4,
    ]
    assert [v.reason for v in found[24:]] == [
        "same pixels as file 0",
        "not an image (DICOM, NIfTI, PNG, JPEG, TIFF, BMP, WebP or npz)",
        None,
        None,
        "the name of its folder cannot be a label",
        "path leaves the archive",
        "not an image (DICOM, NIfTI, PNG, JPEG, TIFF, BMP, WebP or npz)",
        "the file is empty",
    ]
    assert [v.label for v in found[26:28]] == ["unlabelled", "a"]


def test_summary_counts_add_up(mixed: tuple[Path, IngestSummary]) -> None:
    summary = mixed[1]
    counts = (summary.image_count, summary.duplicate_count, summary.rejected_count)
    assert counts == (26, 1, 5)
    assert summary.labels == {"a": 13, "b": 12, "unlabelled": 1}
    assert summary.packs == {"64": 26, "128": 26, "256": 1}
    assert sum(sum(labels.values()) for labels in summary.splits.values()) == 26


def test_pack_rows_match_the_verdicts(mixed: tuple[Path, IngestSummary]) -> None:
    run_dir, summary = mixed
    tensors = load_file(run_dir / "outputs" / "packed-64.safetensors")
    names = sorted(summary.labels)
    files = verdicts(run_dir)
    for image_record in records(run_dir):
        row, verdict = image_record.rows["64"], files[image_record.file_index]
        assert names[tensors["labels"][row]] == verdict.label == image_record.label
        assert tensors["groups"][row] == verdict.group == image_record.group
        split = ("train", "validation", "holdout")[tensors["splits"][row]]
        assert split == verdict.split == image_record.split
        if verdict.name in DATASET:
            image = np.asarray(Image.open(io.BytesIO(DATASET[verdict.name])))
            assert (tensors["images"][row, 0] == image).all()


def test_groups_never_straddle_splits(mixed: tuple[Path, IngestSummary]) -> None:
    pairs = {(v.group, v.split) for v in verdicts(mixed[0]) if v.verdict == "accepted"}
    assert len(pairs) == mixed[1].group_count


def test_digest_and_splits_ignore_order_and_archive_format(tmp_path: Path) -> None:
    write_zip(tmp_path / "zip", DATASET)
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / "content", "w:gz") as archive:
        for name in sorted(DATASET, reverse=True):
            info = tarfile.TarInfo(f"./data/{name}")
            info.size = len(DATASET[name])
            archive.addfile(info, io.BytesIO(DATASET[name]))
    runs = [tmp_path / "zip", tmp_path / "tar"]
    first, second = (ingest(run, IngestSpec(), Silent()) for run in runs)
    assert first == second
    of_zip, of_tar = ({v.sha256: v.split for v in verdicts(run)} for run in runs)
    assert of_zip == of_tar


def test_nothing_usable_says_what_to_do(tmp_path: Path) -> None:
    write_zip(tmp_path, {"a/x.txt": b"text", "a/.DS_Store": b"x", "b/y.txt": b"text"})
    with pytest.raises(UserError, match="0 of 3 files could be used: 2 not an image") as caught:
        ingest(tmp_path, IngestSpec(), Silent())
    assert caught.value.code == "no_usable_images"


def test_pictures_in_a_folder_that_is_a_patients_lose_its_name(tmp_path: Path) -> None:
    """They cannot know; the DICOM files beside them do, even those that are quarantined."""
    values = np.random.default_rng(1).integers(0, 4096, (48, 48)).astype(np.uint16)
    named = {"PatientName": "Doe^Jane", "BurnedInAnnotation": "YES"}
    write_zip(
        tmp_path,
        {
            "doe_jane/1.png": png(1),
            "doe_jane/2.png": png(1),
            "doe_jane/3.dcm": dicom(values, **named),
            "glioma/4.png": png(4),
        },
    )
    assert ingest(tmp_path, IngestSpec(), Silent()).labels == {"glioma": 1, "unlabelled": 1}
    found = [(one.verdict, one.label) for one in verdicts(tmp_path)]
    assert found == [
        ("accepted", "unlabelled"),
        ("duplicate", "unlabelled"),
        ("quarantined", None),
        ("accepted", "glioma"),
    ]


@pytest.mark.parametrize("other", ["2", ""])
def test_class_that_happens_to_hold_a_patients_number_is_kept(tmp_path: Path, other: str) -> None:
    """Another patient of the class says that it names nobody; a file without a patient cannot."""
    values = np.random.default_rng(2).integers(0, 4096, (2, 48, 48)).astype(np.uint16)
    files = {
        f"grade 1/{number}.dcm": dicom(one, PatientID=patient, SeriesInstanceUID=f"1.{number}")
        for number, (one, patient) in enumerate(zip(values, ("1", other), strict=True))
    }
    write_zip(tmp_path, files | {"grade 1/3.png": png(3)})
    labels = ingest(tmp_path, IngestSpec(), Silent()).labels
    assert labels == ({"grade 1": 2, "unlabelled": 1} if other else {"unlabelled": 3})


def test_too_many_labels_are_counted(tmp_path: Path) -> None:
    write_zip(tmp_path, {f"c{k}/x.png": png(k) for k in range(5)})
    spec = IngestSpec.model_validate({"config": {"max_labels": 3}})
    with pytest.raises(UserError, match="found 5 class folders") as caught:
        ingest(tmp_path, spec, Silent())
    assert caught.value.code == "too_many_labels"


def test_progress_reaches_the_end_and_stop_is_obeyed(tmp_path: Path) -> None:
    class Watch(Silent):
        events: list[Mapping[str, JsonValue]] = []  # noqa: RUF012 - one watcher a test
        is_stopping = False

        def event(self, kind: str, data: Mapping[str, JsonValue]) -> None:
            assert kind == "progress"
            self.events.append(data)

        def should_stop(self) -> bool:
            return self.is_stopping

    watch = Watch()
    write_zip(tmp_path, {"a/x.png": png(1), "a/y.png": png(2)})
    ingest(tmp_path, IngestSpec(), watch)
    assert watch.events[-1]["step"] == 2
    speed = {"images_per_second", "eta_s"}
    assert set(watch.events[0]) == {"fraction", "step", "total_steps", "message"} | speed
    step, fraction, per_s, eta_s = (
        float(str(watch.events[-1][name]))
        for name in ("step", "fraction", "images_per_second", "eta_s")
    )
    # Counted from the first file; the grouping that follows takes next to nothing here.
    assert per_s * eta_s == pytest.approx((step - 1) * (1 - fraction) / fraction, rel=0.05)
    watch.is_stopping = True
    with pytest.raises(Stopped):
        ingest(tmp_path, IngestSpec(), watch)


def nifti(values: NDArray[np.generic]) -> bytes:
    data: bytes = nibabel.Nifti1Image(values, np.diag([1.0, 1, 3, 1])).to_bytes()
    return data


def test_what_is_kept_leads_back_to_the_values_of_the_scanner(tmp_path: Path) -> None:
    """To within half a step: of the window from 8 bits, of the range from 16."""
    ramp = np.linspace(-500.0, 3000.0, 64 * 64 * 4).reshape(64, 64, 4).astype(np.float32)
    write_zip(tmp_path, {"a/volume.nii": nifti(ramp)})
    ingest(tmp_path, IngestSpec(), Silent())
    packed = load_file(tmp_path / "outputs" / "packed-64.safetensors")["images"]
    assert len(records(tmp_path)) == 4
    for record in records(tmp_path):
        # As it is looked at: columns from right to left, rows from the front to the back.
        real = ramp[::-1, ::-1, record.slice_number].T
        assert record.window is not None
        low, high, slope, intercept = (
            float(str(record.window[name])) for name in ("low", "high", "slope", "intercept")
        )
        with zipfile.ZipFile(tmp_path / "outputs" / SIXTEEN_BITS) as archive:
            deep = np.asarray(Image.open(archive.open(f"{record.index:06d}.png")))
        assert np.abs(deep * slope + intercept - real).max() <= 3500 / 65535
        shown = packed[record.rows["64"], 0] / 255 * (high - low) + low
        is_inside = (real > low) & (real < high)
        assert np.abs(shown - real)[is_inside].max() <= 0.51 * (high - low) / 255


def test_a_tumour_of_one_voxel_is_a_tumour(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 900, (256, 256, 3)).astype(np.int16)
    labels = np.zeros_like(noise, np.uint8)
    labels[100, 120, 1] = 1
    write_zip(tmp_path, {"p1/scan.nii": nifti(noise), "p1/scan_mask.nii": nifti(labels)})
    spec = IngestSpec.model_validate({"config": {"labels": "mask"}})
    assert ingest(tmp_path, spec, Silent()).labels == {"no_tumor": 2, "tumor": 1}
    found = records(tmp_path)
    assert [record.mask_area_px for record in found] == [0, 1, 0]
    for size in ("64", "128", "256"):
        masks = load_file(tmp_path / "outputs" / f"packed-{size}.safetensors")["masks"]
        assert [int(masks[record.rows[size]].sum()) for record in found] == [0, 1, 0]


def test_a_file_that_is_not_what_the_manifest_says_is_rejected(tmp_path: Path) -> None:
    digest = hashlib.sha256(png(1)).hexdigest()
    rows = f"image,sha256\na.png,{digest}\nb.png,{digest}\n"
    write_zip(tmp_path, {"a.png": png(1), "b.png": png(2), "manifest.csv": rows.encode()})
    ingest(tmp_path, IngestSpec(), Silent())
    assert [(one.verdict, one.reason) for one in verdicts(tmp_path)] == [
        ("accepted", None),
        ("rejected", "its SHA-256 is not what the manifest says"),
        ("used", "the manifest"),
    ]


def die_of(task: Task) -> str:
    """Stand in for a decoder with a fatal fault: the word kills the process."""
    assert isinstance(task, FileTask)
    if task.data == b"deadly":
        os._exit(1)
    return task.data.decode()


def die_of_batch(
    tasks: list[Task], config: DecodeConfig, room_bytes: int | None = None
) -> list[Outcome]:
    return [die_of(task) for task in tasks]


def test_a_child_that_dies_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_decode_batch", die_of_batch)
    monkeypatch.setattr(decoders, "_start_child", int)
    monkeypatch.setattr(decoders, "BATCH_FILES", 2)
    config = DecodeConfig(1, 1, (64,))
    files: list[tuple[int, Task | None]] = [
        (k, FileTask(b"deadly" if k == 3 else b"fine")) for k in range(8)
    ]
    with Decoders[int](config, 1) as pool:
        outcomes = dict(pool.run([*files, (8, None)]))
    assert outcomes == {**dict.fromkeys(range(8), "fine"), 3: DEADLY, 8: None}


def test_result_is_plain_json(mixed: tuple[Path, IngestSummary]) -> None:
    assert json.loads(mixed[1].model_dump_json())["digest"] == mixed[1].digest
