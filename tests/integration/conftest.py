"""The real servers, started once; each test gets an empty database and plays the worker itself."""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from redis import Redis

from app import (
    api_keys,
    curation,
    datasets,
    exports,
    generator_archives,
    generators,
    job_states,
    jobs,
    migrations,
    reports,
    samples,
    tables,
    uploads,
)
from app.api_keys import Scope
from app.embedded.home import Home
from app.embedded.stack import Servers, start_servers
from app.identifiers import Prefix, new_id
from app.job_states import Status
from app.jobs import Claim
from app.parts import Parts, make_parts
from app.settings import Settings, base_environment
from app.storage import STORAGE_ERRORS, Storage
from models.config import PRESETS, ReportProfile
from models.exchange import Description

MAX_UPLOAD_BYTES = 12 << 20
"""More than one part of an upload, so that a refused one has parts to leave behind."""


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with (
        Home(tmp_path_factory.mktemp("servers") / "home") as home,
        start_servers(home, base_environment(), lambda _message: None, _answers) as servers,
    ):
        yield servers


def _answers(servers: Servers) -> bool:
    storage = Storage(
        endpoint_internal=servers.s3_endpoint,
        endpoint_public=servers.s3_endpoint,
        region="us-east-1",
        bucket=servers.s3_bucket,
        access_key=servers.s3_access_key,
        secret_key=servers.s3_secret_key,
    )
    try:
        storage.ensure_bucket()
        storage.put("ready", b"ready", "text/plain")
    except STORAGE_ERRORS:
        return False
    finally:
        storage.close()
    return True


@pytest.fixture(scope="session")
def settings(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.model_validate(
        {
            "database_url": servers.database_url,
            "broker_url": servers.broker_url,
            "s3_endpoint_internal": servers.s3_endpoint,
            "s3_endpoint_public": servers.s3_endpoint,
            "s3_bucket": servers.s3_bucket,
            "s3_access_key": servers.s3_access_key,
            "s3_secret_key": servers.s3_secret_key,
            "data_key": "of the tests alone",
            "max_upload_bytes": MAX_UPLOAD_BYTES,
            "lease_s": 30,
            "lease_renewal_s": 0.5,
            "stop_grace_s": 5,
            "scratch": tmp_path_factory.mktemp("scratch"),
            "device": "cpu",
            "threads": 1,
            "ingest_workers": 1,
            "log_level": "WARNING",
        }
    )


@pytest.fixture(scope="session")
def connected(settings: Settings) -> Iterator[Parts]:
    parts = make_parts(settings)
    migrations.upgrade(parts.database.engine)
    yield parts
    parts.close()


@pytest.fixture
def parts(connected: Parts, broker: Redis) -> Parts:
    with connected.database.transaction() as session:
        for table in reversed(tables.Table.metadata.sorted_tables):
            session.execute(table.delete())  # faster than TRUNCATE, which makes new files
    broker.flushall()
    return connected


@pytest.fixture(scope="session")
def broker(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.broker_url.get_secret_value()) as client:
        yield client


@pytest.fixture
def sent(broker: Redis) -> Callable[[str], int]:
    """Count the messages that wait in a queue."""
    return lambda queue: int(broker.llen(f"gliaforge:{queue}"))


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """Undo what a process does to the root logger when it starts."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


NewTenant = Callable[[], str]
NewKey = Callable[..., str]


@pytest.fixture
def new_tenant(parts: Parts) -> NewTenant:
    def create() -> str:
        row = tables.Tenant(id=new_id(Prefix.TENANT), name=new_id(Prefix.TENANT))
        with parts.database.transaction() as session:
            session.add(row)
        return row.id

    return create


@pytest.fixture
def tenant_id(new_tenant: NewTenant) -> str:
    return new_tenant()


@pytest.fixture
def new_key(parts: Parts) -> NewKey:
    def create(tenant_id: str, *scopes: Scope) -> str:
        with parts.database.transaction() as session:
            return api_keys.issue(
                session, tenant_id, name="test", scopes=list(scopes or (Scope.ADMIN,))
            )[1]

    return create


NewJob = Callable[..., str]
Work = Callable[[str], Claim]


@pytest.fixture
def new_job(parts: Parts, tenant_id: str) -> NewJob:
    """Queue a job of no resource."""

    def create(kind: job_states.Kind = job_states.Kind.INGEST, owner: str = tenant_id) -> str:
        with parts.database.transaction() as session:
            return jobs.create(
                session, tenant_id=owner, kind=kind, resource_id="nothing", request_id="r-1"
            ).id

    return create


@pytest.fixture
def claim(parts: Parts) -> Work:
    """Claim a job as a worker does."""

    def take(job_id: str) -> Claim:
        with parts.database.transaction() as session:
            found = jobs.claim(session, job_id, owner="test", lease_s=60)
        assert found is not None
        return found

    return take


Chain = dict[str, str]
NewChain = Callable[..., Chain]


@pytest.fixture
def new_chain(parts: Parts, new_key: NewKey) -> NewChain:
    """Make one of each resource, ready; the result has an id for each name in a route's path.

    The upload has a dataset of its own; without `beside` there is none of it, and no export.
    """

    def create(tenant_id: str, *, beside: bool = True) -> Chain:
        dataset_id = ready_dataset(parts, tenant_id)
        generator_id, checkpoint_id = _generator(parts, tenant_id, dataset_id)
        batch_id = _batch(parts, tenant_id, generator_id)
        report_id, job_id = _report(parts, tenant_id, dataset_id, batch_id)
        key_id = "key_" + new_key(tenant_id).split("_")[1]
        return {
            "dataset_id": dataset_id,
            **(_beside(parts, tenant_id, dataset_id) if beside else {}),
            "generator_id": generator_id,
            "checkpoint_id": checkpoint_id,
            "batch_id": batch_id,
            "report_id": report_id,
            "job_id": job_id,
            "key_id": key_id,
            "name": "intensity",
        }

    return create


@pytest.fixture
def new_dataset(parts: Parts) -> Callable[..., str]:
    """Make a dataset that is ready to be trained on."""
    return partial(ready_dataset, parts)


SUMMARY: dict[str, object] = {
    "image_count": 40,
    "duplicate_count": 0,
    "rejected_count": 0,
    "quarantined_count": 0,
    "mask_count": 1,
    "group_count": 40,
    "labels": {"glioma": 20, "meningioma": 20},
    "splits": {"train": {"glioma": 20, "meningioma": 20}},
    "digest": "0" * 64,
}

CERTIFICATE: dict[str, object] = {
    "schema_version": "1",
    "files": {
        "total": 40,
        "verdicts": {"accepted": 40},
        "rejected_because": {},
        "quarantined_because": {},
        "remarks": {"the modality is not MR": 2},
    },
    "images": {
        "total": 40,
        "labels": {"glioma": 20, "meningioma": 20},
        "planes": {"axial": 40},
        "with_mask": 1,
        "duplicates": 0,
        "empty_slices_skipped": 3,
        "sizes_px": {"128x128": 40},
        "spacing_mm": {"1.00x1.00": 40},
    },
    "groups": {"total": 40, "from": {"patient": 40}, "rule": "the patient"},
    "split": {
        "by": "group",
        "images": {"train": {"glioma": 20, "meningioma": 20}},
        "groups": {"train": 40},
        "near_duplicates_of_training": {
            "compared": 0,
            "same_picture": 0,
            "nearly_the_same": 0,
            "same_picture_bits": 12,
            "nearly_the_same_bits": 60,
        },
    },
    "deidentification": {
        "method": "keep-list",
        "attributes_by_action": {"dropped: private": 7},
        "text_in_pixels": "looked for",
    },
    "intensity": {"rule": "percentiles", "windows": {"file": 40}, "sixteen_bit_copies": 40},
    "digests": {"dataset": "0" * 64},
    "software": {"gliaforge": "0.1.0"},
    "limits": ["proves nothing"],
}


def ready_dataset(
    parts: Parts, tenant_id: str, *, kind: str = "real", sizes: tuple[int, ...] = (64, 128)
) -> str:
    with parts.database.transaction() as session:
        row = datasets.create(session, tenant_id, name="set", description=None, kind=kind)
        datasets.start_ingest(session, row, f"{datasets.prefix(row)}incoming/1", 10, None)
    key = f"{datasets.prefix(row)}attempt-1/packed"
    parts.storage.put(key, bytes(128 * 128), "application/octet-stream")
    packs: dict[str, object] = {
        str(size): {"key": key, "count": 40, "data_offset": 0, "mask_offset": 0} for size in sizes
    }
    file = {
        "index": 0,
        "name": "0.png",
        "verdict": "accepted",
        "reason": None,
        "label": "glioma",
        "group": 0,
        "split": "train",
        "sha256": "0" * 64,
        "width": 128,
        "height": 128,
    }
    image = {
        "index": 0,
        "file_index": 0,
        "slice_number": 0,
        "label": "glioma",
        "group": 0,
        "split": "train",
        "sha256": "0" * 64,
        "width": 128,
        "height": 128,
        "rows": {"64": 0, "128": 0},
        "mask_area_px": 5,
        "plane": "axial",
        "spacing_mm": (1.0, 1.0),
        "window": None,
    }
    made = datasets.Sealed(SUMMARY, packs, None, CERTIFICATE, [file], [image])
    assert row.job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        datasets.seal(session, claimed, parts.secrecy, made)
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id


def _beside(parts: Parts, tenant_id: str, dataset_id: str) -> Chain:
    return {
        "upload_id": _upload(parts, tenant_id),
        "export_id": ready_export(parts, dataset_id),
    }


def ready_export(parts: Parts, dataset_id: str) -> str:
    """Make an export of the dataset whose zip is there."""
    with parts.database.transaction() as session:
        row = exports.create(
            session,
            session.get_one(tables.Dataset, dataset_id),
            image_size=64,
            splits=["train"],
            with_sixteen_bits=False,
            request_id=None,
        )
        assert row.job_id is not None
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        key = f"{exports.prefix(row)}{claimed.job_id}/export.zip"
        parts.storage.put(key, b"zip", "application/zip")
        exports.seal(session, claimed, key, size_bytes=3, image_count=1)
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id


def _upload(parts: Parts, tenant_id: str) -> str:
    """Begin an upload to a dataset of its own."""
    with parts.database.transaction() as session:
        dataset = datasets.create(session, tenant_id, name="set", description=None, kind="real")
    key = uploads.new_key(dataset)
    begun = parts.storage.begin_upload(key)
    with parts.database.transaction() as session:
        dataset = session.get_one(tables.Dataset, dataset.id)
        row = uploads.create(
            session, dataset, key=key, storage_upload_id=begun, size_bytes=10, sha256=None
        )
    return row.id


def _generator(parts: Parts, tenant_id: str, dataset_id: str) -> tuple[str, str]:
    with parts.database.transaction() as session:
        row = generators.create(
            session,
            session.get_one(tables.Dataset, dataset_id),
            name="tiny",
            preset="demo",
            config=PRESETS["demo"].config,
            seed=0,
            request_id=None,
        )
    prefix = f"{generators.prefix(row)}attempt-1/checkpoints/step-000000001/"
    parts.storage.put(f"{prefix}samples.png", _png(64, 128), "image/png")
    weights = weights_file(row.config, row.labels)
    parts.storage.put(f"{prefix}weights.safetensors", weights, "application/octet-stream")
    assert row.job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        generators.add_history(session, claimed, 1, 10, {"glioma/generator_loss": 1.0})
        checkpoint_id = generators.add_checkpoint(
            session, claimed, step=1, images_seen=10, key_prefix=prefix
        )
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id, checkpoint_id


def imported_generator(parts: Parts, tenant_id: str) -> str:
    """Make a generator that was trained elsewhere, whose import has ended well."""
    config = PRESETS["demo"].config.model_dump(mode="json")
    weights = weights_file(config, ["glioma"])
    described = Description.model_validate(
        weights_header(config, ["glioma"])
        | {
            "sha256": hashlib.sha256(weights).hexdigest(),
            "size_bytes": len(weights),
            "value_count": 1,
            "software": "Gliaforge 0.1.0",
        }
    )
    with parts.database.transaction() as session:
        row = generator_archives.create(
            session,
            tenant_id,
            generator_id=new_id(Prefix.GENERATOR),
            name="theirs",
            content_key="gone",
            request_id=None,
        )
        assert row.job_id is not None
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        prefix = f"{generators.prefix(row)}{row.job_id}/attempt-1/checkpoints/step-000000001/"
        parts.storage.put(f"{prefix}samples.png", _png(64, 64), "image/png")
        parts.storage.put(f"{prefix}weights.safetensors", weights, "application/octet-stream")
        generator_archives.seal(session, claimed, described, prefix)
        row.content_key = None
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id


def weights_header(config: dict[str, object], labels: list[str]) -> dict[str, object]:
    """Return what weights say of themselves."""
    return {
        "format_version": 1,
        "config": config,
        "labels": labels,
        "image_size": config["image_size"],
        "step": 1,
        "images_seen": 10,
        "seed": 0,
        "dataset_digest": "0" * 64,
    }


def weights_file(config: dict[str, object], labels: list[str]) -> bytes:
    """Return a safetensors file of one number that says what weights say of themselves."""
    header = {
        "__metadata__": {"gliaforge": json.dumps(weights_header(config, labels))},
        "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


IMAGE: dict[str, object] = {
    "index": 0,
    "label": "glioma",
    "label_index": 0,
    "step": None,
    "sha256": "0" * 64,
    "released": True,
    "withheld_reason": None,
}


def _batch(parts: Parts, tenant_id: str, generator_id: str) -> str:
    with parts.database.transaction() as session:
        row = samples.create(
            session,
            session.get_one(tables.Generator, generator_id),
            samples.Wish({"glioma": 1}),
            checkpoint_id=None,
            request_id=None,
        )
    prefix = f"{samples.prefix(row)}attempt-1/"
    parts.storage.put(f"{prefix}0.png", _png(64, 64), "image/png")
    parts.storage.put(f"{prefix}images.zip", b"zip", "application/zip")
    image = {**IMAGE, "key": f"{prefix}0.png"}
    assert row.job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        samples.seal(session, claimed, f"{prefix}images.zip", [image])
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id


MEASURED: dict[str, object] = {
    "schema_version": "1",
    "profile": "quick",
    "verdicts": {"integrity": {"verdict": "green", "reason": "whole"}},
    "uses": {
        use: {"verdict": "grey", "reason": "not measured"}
        for use in ("augment", "share", "demonstrate")
    },
    "checks": [],
    "metrics": [],
    "limits": ["proves nothing"],
    "method": {
        "foreground": "above",
        "foreground_threshold": 9,
        "resampling": "draws",
        "mix": {},
        "control": "gamma",
        "seed": 0,
    },
    "counts": {
        "training": {"glioma": 28},
        "holdout": {"glioma": 8},
        "holdout_groups": {"glioma": 8},
        "generated": {"glioma": 4},
        "generated_unusable": 0,
    },
    "image_size_px": 64,
    "dataset_digest": "0" * 64,
    "strips": ["glioma"],
    "software": {"numpy": "2"},
}


JUDGED = (
    "file,label,index,realism,nearest_distance,unseen_distance,correlation,flags\n"
    "images/glioma/000000.png,glioma,0,1.0,0.5,0.5,0.9,\n"
)


def curated_batch(parts: Parts, chain: Chain) -> str:
    """Make a batch of the chain's that was curated by its report, which dropped nothing."""
    with parts.database.transaction() as session:
        row = curation.create(
            session,
            session.get_one(tables.SampleBatch, chain["batch_id"]),
            session.get_one(tables.Report, chain["report_id"]),
            {},
            drop=[curation.Flag.DOUBLE],
            request_id=None,
        )
        assert row.job_id is not None
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        prefix = f"{samples.prefix(row)}{claimed.job_id}/attempt-1/"
        for name in ("0.png", "images.zip"):
            parts.storage.put(f"{prefix}{name}", b"x", "application/zip")
        image = {**IMAGE, "key": f"{prefix}0.png"}
        samples.seal(session, claimed, f"{prefix}images.zip", [image])
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id


def _report(parts: Parts, tenant_id: str, dataset_id: str, batch_id: str) -> tuple[str, str]:
    with parts.database.transaction() as session:
        row = reports.create(
            session,
            session.get_one(tables.Dataset, dataset_id),
            session.get_one(tables.SampleBatch, batch_id),
            profile=ReportProfile.QUICK,
            request_id=None,
        )
    key = f"{reports.prefix(row)}attempt-1/plots/intensity.png"
    parts.storage.put(key, _png(8, 8), "image/png")
    samples_key = f"{reports.prefix(row)}attempt-1/samples.csv"
    parts.storage.put(samples_key, JUDGED.encode(), "text/csv")
    assert row.job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, row.job_id, owner="test", lease_s=60)
        assert claimed is not None
        plots = dict.fromkeys(("closest", "generated", "intensity", "real-0", "synthetic-0"), key)
        reports.seal(session, claimed, MEASURED, plots, samples_key)
        jobs.finish(session, claimed, Status.SUCCEEDED)
    return row.id, row.job_id


def _png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (width, height)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def scratch(settings: Settings) -> Path:
    return settings.scratch
