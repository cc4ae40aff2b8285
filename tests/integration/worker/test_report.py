"""A report as the worker makes it: what is fetched, measured and kept."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from botocore.exceptions import ClientError
from sqlalchemy import select

from app import datasets, reports, tables
from app.job_states import Status
from app.parts import Parts
from models.config import ReportProfile
from models.data.packing import PackWriter
from models.run_folder import ImageRecord, ReportSpec
from worker import features
from worker.run import Run
from worker.tasks import housekeeping, report

SIDE = 64


def write_pack(path: Path, labels: list[int], splits: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    writer = PackWriter(path, SIDE, 2)
    for _ in labels:
        writer.append(random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8).tobytes())
    metadata = {"labels": json.dumps(["glioma", "meningioma"]), "size": "64", "digest": "d"}
    writer.seal(labels, list(range(len(labels))), splits, metadata)


@pytest.fixture
def packed(
    parts: Parts, new_dataset: Callable[..., str], tenant_id: str, tmp_path: Path
) -> Callable[..., str]:
    """Make a dataset that is ready, with a pack of noise."""

    def make(kind: str, count: int) -> str:
        dataset_id = new_dataset(tenant_id, kind=kind, sizes=(SIDE,))
        write_pack(tmp_path / kind, [k % 2 for k in range(count)], [k % 3 for k in range(count)], 1)
        with parts.database.transaction() as session:
            row = session.get_one(tables.Dataset, dataset_id)
            key = str(row.packs["64"]["key"])  # type: ignore[index]  # as the fixture makes it
            row.packs = {"64": {"key": key, "count": count}}
        parts.storage.put_file(key, tmp_path / kind)
        return dataset_id

    return make


@dataclass
class Child:
    """Stands for the process that measures: it leaves files, and remembers what it was given."""

    leaves: dict[str, bytes] = field(default_factory=dict)
    given: dict[str, bytes] = field(default_factory=dict)
    spec: ReportSpec = field(default_factory=ReportSpec)
    meanwhile: Callable[[], object] = lambda: None

    def __call__(self, run: Run, _kind: object, spec: ReportSpec) -> None:
        self.spec = spec
        self.given = {
            str(path.relative_to(run.folder)): path.read_bytes()
            for path in run.folder.rglob("*")
            if path.is_file()
        }
        for name, data in {"report.json": b"{}", **self.leaves}.items():
            path = run.folder / "outputs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.meanwhile()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    one = Child()
    monkeypatch.setattr(report, "run_child", one)
    return one


@pytest.fixture
def measure(parts: Parts, packed: Callable[..., str]) -> Callable[..., str]:
    """Measure a synthetic dataset beside a real one, the same at each call; return the report."""
    ids: dict[str, str] = {}

    def run(profile: ReportProfile = ReportProfile.STANDARD) -> str:
        for kind in ("real", "synthetic"):
            ids[kind] = ids.get(kind) or packed(kind, 3)
        with parts.database.transaction() as session:
            row = reports.create_of_dataset(
                session,
                session.get_one(tables.Dataset, ids["real"]),
                session.get_one(tables.Dataset, ids["synthetic"]),
                image_size=64,
                profile=profile,
                request_id=None,
            )
            assert row.job_id is not None
        report.measure(parts, row.job_id)
        return row.id

    return run


def test_what_was_found_of_each_image_is_kept(
    parts: Parts, child: Child, measure: Callable[..., str]
) -> None:
    child.leaves = {"samples.csv": b"file,flags\n"}
    report_id = measure()
    with parts.database.transaction() as session:
        key = reports.samples_key(session.get_one(tables.Report, report_id))
    assert parts.storage.get(key) == b"file,flags\n"


def test_images_of_a_synthetic_dataset_are_told_by_numbers(
    child: Child, measure: Callable[..., str]
) -> None:
    measure()
    assert child.spec.generated_records is not None
    (line,) = child.given[child.spec.generated_records].splitlines()
    record = ImageRecord.model_validate_json(line)
    assert (record.index, record.file_index, record.rows["64"]) == (0, 0, 0)
    assert record.exported_name == "images/glioma/000000.png"
    assert b"0.png" not in line  # which the file was called


NAME = f"{'a1' * 32}.safetensors"


def stored(parts: Parts, report_id: str) -> dict[str, bytes]:
    """Return what is kept of the images of a report's real dataset."""
    with parts.database.transaction() as session:
        row = session.get_one(tables.Report, report_id)
        prefix = datasets.features_prefix(session.get_one(tables.Dataset, row.real_dataset_id), 64)
    keys = parts.storage.keys(prefix)
    return {key.removeprefix(prefix): parts.storage.get(key) for key in keys}


def test_features_of_a_dataset_are_kept_for_the_next_report(
    parts: Parts, child: Child, measure: Callable[..., str]
) -> None:
    child.leaves = {f"features/{NAME}": b"x"}
    report_id = measure()
    assert stored(parts, report_id) == {NAME: b"x"}
    assert not any(name.startswith("features/") for name in child.given)
    measure()  # as two that run at once do, it writes what is there
    assert stored(parts, report_id) == {NAME: b"x"}
    child.leaves = {}
    measure()
    assert child.given[f"features/{NAME}"] == b"x"
    measure(ReportProfile.QUICK)
    assert f"features/{NAME}" not in child.given


def test_features_that_are_no_such_files_or_do_not_come_are_done_without(
    parts: Parts, child: Child, measure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child.leaves = {f"features/{NAME}": b"x"}
    report_id = measure()
    with parts.database.transaction() as session:
        row = session.get_one(tables.Report, report_id)
        prefix = datasets.features_prefix(session.get_one(tables.Dataset, row.real_dataset_id), 64)
    parts.storage.put(f"{prefix}x.safetensors", b"x", "application/octet-stream")
    child.leaves = {}
    measure()
    assert {name for name in child.given if "x.safetensors" in name} == set()

    def vanish(key: str, path: Path) -> None:
        if key.startswith(prefix):
            raise ClientError({"Error": {"Code": "404"}}, "GetObject")
        fetch(key, path)

    fetch = parts.storage.get_file
    monkeypatch.setattr(parts.storage, "get_file", vanish)
    report_id = measure()
    assert f"features/{NAME}" not in child.given
    with parts.database.transaction() as session:
        job = session.get_one(tables.Report, report_id).job
        assert job is not None
        assert job.status == Status.SUCCEEDED


def test_features_that_cannot_be_stored_fail_no_report(
    parts: Parts, child: Child, measure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str, path: Path, *_: object) -> None:
        if "/features/" in key:
            raise ClientError({"Error": {"Code": "507"}}, "PutObject")
        put(key, path)

    put = parts.storage.put_file
    packed_first = measure()  # the packs are stored, and nothing is left yet
    monkeypatch.setattr(parts.storage, "put_file", refuse)
    child.leaves = {f"features/{NAME}": b"x"}
    report_id = measure()
    with parts.database.transaction() as session:
        job = session.get_one(tables.Report, report_id).job
        assert job is not None
        assert job.status == Status.SUCCEEDED
    assert stored(parts, packed_first) == {}


def test_features_go_with_their_dataset(
    parts: Parts, child: Child, measure: Callable[..., str], tenant_id: str
) -> None:
    def delete() -> None:
        with parts.database.transaction() as session:
            for row in session.scalars(select(tables.Dataset)):
                if row.tenant_id == tenant_id and row.kind == "real":
                    row.deleted_at = tables.now()

    child.leaves = {f"features/{NAME}": b"x"}
    first = measure()
    assert stored(parts, first) == {NAME: b"x"}
    other = f"{'b2' * 32}.safetensors"
    child.leaves, child.meanwhile = {f"features/{other}": b"y"}, delete
    measure()
    assert stored(parts, first) == {NAME: b"x"}
    with parts.database.transaction() as session:
        for row in session.scalars(
            select(tables.Report).where(tables.Report.tenant_id == tenant_id)
        ):
            row.deleted_at = tables.now()
    housekeeping.purge(parts)
    assert [key for key in parts.storage.keys(f"tenants/{tenant_id}/") if "/features/" in key] == []


def test_features_that_are_old_make_room_for_new_ones(
    parts: Parts, child: Child, measure: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child.leaves = {f"features/{NAME}": b"x"}
    report_id = measure()
    other = f"{'b2' * 32}.safetensors"
    child.leaves = {f"features/{other}": b"y"}
    monkeypatch.setattr(features, "LIFETIME", timedelta(days=-1))
    measure()
    assert NAME not in stored(parts, report_id)


def test_dataset_is_measured_with_all_its_splits(
    parts: Parts, packed: Callable[..., str], scratch: Path
) -> None:
    real_id, synthetic_id = packed("real", 30), packed("synthetic", 24)
    with parts.database.transaction() as session:
        row = reports.create_of_dataset(
            session,
            session.get_one(tables.Dataset, real_id),
            session.get_one(tables.Dataset, synthetic_id),
            image_size=None,
            profile=ReportProfile.QUICK,
            request_id=None,
        )
        assert row.job_id is not None
    report.measure(parts, row.job_id)
    with parts.database.transaction() as session:
        made = session.get_one(tables.Report, row.id)
        assert made.job is not None
        assert (made.job.status, made.job.error_detail) == (Status.SUCCEEDED, None)
        document = reports.document(made)
    assert document["counts"]["generated"] == {"glioma": 12, "meningioma": 12}  # type: ignore[index]
    assert {reports.UNKNOWN_GENERATOR, reports.UNKNOWN_SPLIT} <= set(document["limits"])  # type: ignore[call-overload]
    assert any("16 of 40 synthetic images" in one for one in document["limits"])  # type: ignore[attr-defined]
    assert list(scratch.glob("run-*")) == []
