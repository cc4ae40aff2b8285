"""A report as the worker makes it: what is fetched, measured and kept."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app import reports, tables
from app.job_states import Status
from app.parts import Parts
from models.config import ReportProfile
from models.data.packing import PackWriter
from worker.run import Run
from worker.tasks import report

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


def test_what_was_found_of_each_image_is_kept(
    parts: Parts, packed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(run: Run, *_: object) -> None:
        (run.folder / "outputs").mkdir()
        (run.folder / "outputs/report.json").write_text("{}")
        (run.folder / "outputs/samples.csv").write_text("file,flags\n")

    monkeypatch.setattr(report, "run_child", judge)
    with parts.database.transaction() as session:
        row = reports.create_of_dataset(
            session,
            session.get_one(tables.Dataset, packed("real", 3)),
            session.get_one(tables.Dataset, packed("synthetic", 3)),
            image_size=64,
            profile=ReportProfile.STANDARD,
            request_id=None,
        )
        assert row.job_id is not None
    report.measure(parts, row.job_id)
    with parts.database.transaction() as session:
        key = reports.samples_key(session.get_one(tables.Report, row.id))
    assert parts.storage.get(key) == b"file,flags\n"


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
