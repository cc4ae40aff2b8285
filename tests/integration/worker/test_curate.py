"""What stays of a batch is copied, byte for byte, and says where it comes from."""

import csv
import io
import json
import zipfile
from collections.abc import Callable

import pytest
from sqlalchemy import Update, select, update

from app import curation, jobs, reports, samples
from app.curation import Flag
from app.job_states import Kind, Status
from app.parts import Parts
from app.tables import Dataset, Generator, Job, Report, SampleBatch, SampleImage, now
from models.config import ReportProfile
from worker.tasks import curate, housekeeping

Chain = dict[str, str]
DRAWN = [("glioma", 0), ("glioma", 1), ("glioma", 2), ("meningioma", 0), ("meningioma", 1)]
WITHHELD = ("glioma", 1)
"""By the filter, when it was drawn."""
HEADER = "file,label,index,realism,nearest_distance,unseen_distance,correlation,flags\n"
FLAGS = {("glioma", 0): "", ("glioma", 2): "double;near_copy", ("meningioma", 0): "low_realism"}


def png(folder: str, label: str, index: int) -> bytes:
    return f"{folder} {label} {index}".encode()


def zip_of_source() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        lines = ["file,label,index,mask"]
        for label, index in DRAWN:
            if (label, index) != WITHHELD:
                name = f"{label}/{index:06d}.png"
                lines.append(f"images/{name},{label},{index},masks/{name}")
                for folder in ("images", "masks"):
                    archive.writestr(f"{folder}/{name}", png(folder, label, index))
        archive.writestr("manifest.csv", "\n".join(lines) + "\n")
        drawn = {"label": "glioma", "index": 1, "step": None, "reason": "near_copy"}
        counts = {"glioma": 2, "meningioma": 2}
        provenance = {"synthetic": True, "seed": 5, "counts": counts, "withheld": [drawn]}
        archive.writestr("provenance.json", json.dumps(provenance))
    return out.getvalue()


@pytest.fixture
def chain(parts: Parts, new_chain: Callable[..., Chain], tenant_id: str) -> Chain:
    """Of which the batch has five images with masks, and its report flagged two."""
    chain = new_chain(tenant_id, beside=False)
    with parts.database.transaction() as session:
        generator = session.get_one(Generator, chain["generator_id"])
        wish = samples.Wish({"glioma": 2, "meningioma": 2}, seed=5)
        batch = samples.create(session, generator, wish, checkpoint_id=None, request_id=None)
    prefix, images = f"{samples.prefix(batch)}attempt-1/", []
    for index, (label, number) in enumerate(DRAWN):
        is_kept = (label, number) != WITHHELD
        row: dict[str, object] = {
            "index": index,
            "label": label,
            "label_index": number,
            "step": None,
            "sha256": f"{index}" * 64,
            "mask_sha256": "f" * 64,
            "released": is_kept,
            "withheld_reason": None if is_kept else "near_copy",
        }
        for name, folder in (("key", "images"), ("mask_key", "masks")):
            row[name] = f"{prefix}{folder}-{index}" if is_kept else None
            if is_kept:
                parts.storage.put(str(row[name]), png(folder, label, number), "image/png")
        images.append(row)
    parts.storage.put(f"{prefix}images.zip", zip_of_source(), "application/zip")
    _finish(parts, batch.job_id, samples.seal, f"{prefix}images.zip", images)
    with parts.database.transaction() as session:
        dataset = session.get_one(Dataset, chain["dataset_id"])
        source = session.get_one(SampleBatch, batch.id)
        report = reports.create(
            session, dataset, source, profile=ReportProfile.STANDARD, request_id=None
        )
    key = f"{reports.prefix(report)}samples.csv"
    lines = (
        f"images/{label}/{index:06d}.png,{label},0,1,1,1,1,{flags}\n"
        for (label, index), flags in FLAGS.items()
    )
    parts.storage.put(key, (HEADER + "".join(lines)).encode(), "text/csv")
    _finish(parts, report.job_id, reports.seal, {"verdicts": {}}, {}, key)
    return chain | {"batch_id": batch.id, "report_id": report.id}


def _finish(parts: Parts, job_id: str | None, seal: Callable[..., None], *made: object) -> None:
    assert job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, job_id, owner="test", lease_s=60)
        assert claimed is not None
        seal(session, claimed, *made)
        jobs.finish(session, claimed, Status.SUCCEEDED)


def deletion(resource_id: str, table: type[Report | SampleBatch]) -> Update:
    return update(table).where(table.id == resource_id).values(deleted_at=now())


def asked(parts: Parts, chain: Chain, *drop: Flag) -> tuple[str, str]:
    """Ask for a curated batch; return its id and its job's."""
    with parts.database.transaction() as session:
        batch = session.get_one(SampleBatch, chain["batch_id"])
        report = session.get_one(Report, chain["report_id"])
        flagged = curation.read(parts.storage.get(curation.samples_key(batch, report)))
        row = curation.create(session, batch, report, flagged, drop=drop, request_id=None)
    assert row.job_id is not None
    return row.id, row.job_id


def curated(parts: Parts, chain: Chain, *drop: Flag) -> SampleBatch:
    batch_id, job_id = asked(parts, chain, *drop)
    curate.curate(parts, job_id)
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        assert row.job is not None
        assert (row.job.status, row.job.error_detail) == (Status.SUCCEEDED, None)
        return row


def rows(parts: Parts, batch: SampleBatch) -> list[SampleImage]:
    with parts.database.transaction() as session:
        found = select(SampleImage).where(SampleImage.batch_id == batch.id)
        return list(session.scalars(found.order_by(SampleImage.index)))


def opened(parts: Parts, batch: SampleBatch) -> zipfile.ZipFile:
    assert batch.archive_key is not None
    return zipfile.ZipFile(io.BytesIO(parts.storage.get(batch.archive_key)))


def test_flagged_images_are_withheld_with_their_flag(parts: Parts, chain: Chain) -> None:
    batch = curated(parts, chain, Flag.NEAR_COPY, Flag.LOW_REALISM)
    found = rows(parts, batch)
    assert [one.withheld_reason for one in found] == [
        None,
        "near_copy",
        "near_copy",
        "low_realism",
        None,
    ]
    assert [one.released for one in found] == [one.key is not None for one in found]
    assert [one.sha256[0] for one in found] == list("01234")
    assert (batch.released, batch.withheld) == (2, 3)
    assert batch.withheld_by_label == {"glioma": 2, "meningioma": 1}
    told, unjudged = batch.notes[-2:]
    assert told.endswith("flagged were dropped: 1 near_copy, 1 low_realism")
    assert unjudged == f"1 of the other images were not judged by {chain['report_id']}"


def test_what_stays_are_the_same_bytes_under_keys_of_its_own(parts: Parts, chain: Chain) -> None:
    batch = curated(parts, chain, Flag.DOUBLE)
    kept = [one for one in rows(parts, batch) if one.released]
    assert [(one.label, one.label_index) for one in kept] == [
        ("glioma", 0),
        ("meningioma", 0),
        ("meningioma", 1),
    ]
    for one in kept:
        for key, folder in ((one.key, "images"), (one.mask_key, "masks")):
            assert key is not None
            assert key.startswith(samples.prefix(batch))
            assert parts.storage.get(key) == png(folder, one.label, one.label_index)


def test_zip_has_what_stays_and_a_manifest_of_it(parts: Parts, chain: Chain) -> None:
    archive = opened(parts, curated(parts, chain, Flag.DOUBLE))
    kept = ["glioma/000000.png", "meningioma/000000.png", "meningioma/000001.png"]
    names = {f"{folder}/{name}" for folder in ("images", "masks") for name in kept}
    assert set(archive.namelist()) == names | {"manifest.csv", "provenance.json"}
    assert archive.read("masks/glioma/000000.png") == png("masks", "glioma", 0)
    lines = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode())))
    assert [one["file"] for one in lines] == [f"images/{name}" for name in kept]


def test_provenance_says_what_was_dropped_and_by_which_report(parts: Parts, chain: Chain) -> None:
    batch = curated(parts, chain, Flag.DOUBLE)
    found = json.loads(opened(parts, batch).read("provenance.json"))
    assert (found["synthetic"], found["seed"]) == (True, 5)
    assert found["counts"] == {"glioma": 1, "meningioma": 2}
    assert found["withheld"] == [
        {"label": "glioma", "index": 1, "step": None, "reason": "near_copy"},
        {"label": "glioma", "index": 2, "step": None, "reason": "double"},
    ]
    (step,) = found["curated"]
    assert (step["batch"], step["from"]) == (batch.id, chain["batch_id"])
    assert (step["by_report"], step["drop"]) == (chain["report_id"], ["double"])
    assert step["dropped"] == {"double": 1}


def test_source_and_report_may_go_and_the_batch_stays(parts: Parts, chain: Chain) -> None:
    batch = curated(parts, chain, Flag.DOUBLE)
    with parts.database.transaction() as session:
        for table, name in ((Report, "report_id"), (SampleBatch, "batch_id")):
            session.execute(deletion(chain[name], table))
    housekeeping.purge(parts)
    with parts.database.transaction() as session:
        assert session.get(SampleBatch, chain["batch_id"]) is None
        row = session.get_one(SampleBatch, batch.id)
        assert row.curated_from == chain["batch_id"]
    keys = [one.key for one in rows(parts, batch) if one.key]
    assert [len(parts.storage.get(key)) > 0 for key in keys] == [True] * 3
    assert opened(parts, batch).testzip() is None


@pytest.mark.parametrize(("table", "name"), [(Report, "report_id"), (SampleBatch, "batch_id")])
def test_source_that_goes_before_the_job_begins_is_named(
    parts: Parts, chain: Chain, table: type[Report | SampleBatch], name: str
) -> None:
    _, job_id = asked(parts, chain, Flag.DOUBLE)
    with parts.database.transaction() as session:
        session.execute(deletion(chain[name], table))
    curate.curate(parts, job_id)
    with parts.database.transaction() as session:
        job = session.get_one(Job, job_id)
        assert (job.status, job.error_code) == (Status.FAILED, "source_removed")


def test_flag_of_an_image_that_is_not_there_is_not_passed_over(parts: Parts, chain: Chain) -> None:
    _, job_id = asked(parts, chain, Flag.DOUBLE)
    with parts.database.transaction() as session:
        key = session.get_one(Report, chain["report_id"]).samples_key
    assert key is not None
    line = "images/Glioma/000000.png,Glioma,0,1,1,1,1,double\n"
    parts.storage.put(key, (HEADER + line).encode(), "text/csv")
    curate.curate(parts, job_id)
    with parts.database.transaction() as session:
        assert session.get_one(Job, job_id).error_code == "samples_unusable"


def test_curated_batch_can_be_measured_and_curated_again(parts: Parts, chain: Chain) -> None:
    first = curated(parts, chain, Flag.DOUBLE)
    with parts.database.transaction() as session:
        dataset = session.get_one(Dataset, chain["dataset_id"])
        report = reports.create(
            session,
            dataset,
            session.get_one(SampleBatch, first.id),
            profile=ReportProfile.STANDARD,
            request_id=None,
        )
    key = f"{reports.prefix(report)}samples.csv"
    line = "images/meningioma/000001.png,meningioma,0,1,1,1,1,exact_copy\n"
    parts.storage.put(key, (HEADER + line).encode(), "text/csv")
    _finish(parts, report.job_id, reports.seal, {"verdicts": {}}, {}, key)
    again = chain | {"batch_id": first.id, "report_id": report.id}
    second = curated(parts, again, Flag.EXACT_COPY)
    assert [one.withheld_reason for one in rows(parts, second)] == [
        None,
        "near_copy",
        "double",
        None,
        "exact_copy",
    ]
    history = json.loads(opened(parts, second).read("provenance.json"))["curated"]
    assert [one["batch"] for one in history] == [first.id, second.id]


def test_progress_is_told(parts: Parts, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "_PROGRESS_S", 0)
    batch = curated(parts, chain, Flag.DOUBLE)
    assert batch.job is not None
    assert batch.job.progress == {"fraction": 1, "message": "object 6 of 6"}


def test_cancelled_job_leaves_nothing(parts: Parts, chain: Chain, tenant_id: str) -> None:
    batch_id, job_id = asked(parts, chain, Flag.DOUBLE)
    with parts.database.transaction() as session:
        jobs.cancel(session, tenant_id, job_id)
    curate.curate(parts, job_id)
    assert list(parts.storage.keys(f"tenants/{tenant_id}/sample-batches/{batch_id}/")) == []
    with parts.database.transaction() as session:
        assert session.get_one(Job, job_id).kind == Kind.CURATE
        assert session.get_one(Job, job_id).status == Status.CANCELLED
