"""What was exported is taken in elsewhere and draws the same; what is wrong leaves a reason."""

import io
import signal
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sqlalchemy import select

from app import generator_archives, generators, samples
from app.identifiers import Prefix, new_id
from app.job_states import Status
from app.parts import Parts
from app.storage import incoming_prefix
from app.tables import Checkpoint, Generator, Job, SampleBatch, SampleImage
from models.cli import main
from models.config import DCGANConfig
from models.run_folder import TrainSpec
from worker.tasks import housekeeping, imports, retention, sample

TINY = DCGANConfig(
    image_size=64,
    total_images=8,
    batch_size=4,
    latent_size=4,
    generator_channels=16,
    discriminator_channels=8,
)
Chain = dict[str, str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of two networks that have seen a few images."""
    folder = tmp_path_factory.mktemp("training")
    tensors = {
        "images": torch.randint(0, 256, (16, 1, 64, 64), dtype=torch.uint8),
        "labels": torch.arange(16) % 2,
        "groups": torch.arange(16),
        "splits": torch.zeros(16, dtype=torch.uint8),
    }
    named = {"labels": '["glioma", "meningioma"]', "size": "64", "digest": "0" * 64}
    save_file(tensors, folder / "packed.safetensors", named)
    spec = TrainSpec(config=TINY, device="cpu", threads=1)
    (folder / "spec.json").write_text(spec.model_dump_json())
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main(["train", str(folder)]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    (last,) = (folder / "checkpoints").glob("step-*")
    return (last / "weights.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def sampler(parts: Parts) -> Iterator[None]:
    yield
    sample._sampler(parts).close()
    sample._sampler.cache_clear()


@pytest.fixture
def trained(parts: Parts, new_chain: Callable[..., Chain], tenant_id: str, weights: bytes) -> str:
    generator_id = new_chain(tenant_id, beside=False)["generator_id"]
    with parts.database.transaction() as session:
        prefix = session.scalars(select(Checkpoint.prefix)).one()
    parts.storage.put(f"{prefix}weights.safetensors", weights, "application/octet-stream")
    return generator_id


def _export(parts: Parts, generator_id: str) -> bytes:
    with parts.database.transaction() as session:
        row = session.get_one(Generator, generator_id)
        planned = generator_archives.plan(session, row, generators.checkpoint(session, row, None))
    generator_archives.make(parts.storage, planned)
    return parts.storage.get(planned.key)


def _import(parts: Parts, tenant_id: str, archive: bytes) -> tuple[str, Job]:
    generator_id = new_id(Prefix.GENERATOR)
    key = f"{incoming_prefix(tenant_id, generator_id)}1"
    parts.storage.put(key, archive, "application/zip")
    with parts.database.transaction() as session:
        row = generator_archives.create(
            session,
            tenant_id,
            generator_id=generator_id,
            name="theirs",
            content_key=key,
            request_id=None,
        )
        assert row.job_id is not None
    imports.take_in(parts, row.job_id)
    with parts.database.transaction() as session:
        return generator_id, session.get_one(Job, row.job_id)


def _pixels(parts: Parts, generator_id: str) -> list[bytes]:
    with parts.database.transaction() as session:
        row = samples.create(
            session,
            session.get_one(Generator, generator_id),
            samples.Wish({"glioma": 3, "meningioma": 2}, seed=11, copies=False),
            checkpoint_id=None,
            request_id=None,
        )
    assert row.job_id is not None
    sample.generate(parts, row.job_id)
    with parts.database.transaction() as session:
        assert session.get_one(Job, row.job_id).status == Status.SUCCEEDED
        keys = session.scalars(
            select(SampleImage.key)
            .where(SampleImage.batch_id == session.get_one(SampleBatch, row.id).id)
            .order_by(SampleImage.index)
        ).all()
    assert len(keys) == 5
    return [Image.open(io.BytesIO(parts.storage.get(key))).tobytes() for key in keys if key]


def _changed(archive: bytes, name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for one in old.namelist():
            new.writestr(one, content if one == name else old.read(one))
    return out.getvalue()


def test_another_tenant_draws_the_same_pixels(
    parts: Parts, trained: str, new_tenant: Callable[[], str]
) -> None:
    other = new_tenant()
    imported, job = _import(parts, other, _export(parts, trained))
    assert (job.status, job.error_detail) == (Status.SUCCEEDED, None)
    with parts.database.transaction() as session:
        row = session.get_one(Generator, imported)
        assert (row.labels, row.dataset_id) == (["glioma", "meningioma"], None)
        assert row.images_seen == 8
        assert generators.latest_values(session, imported) == {"glioma/generator_loss": 1.0}
    assert _pixels(parts, imported) == _pixels(parts, trained)


def test_what_is_exported_again_has_the_same_bytes(
    parts: Parts, trained: str, tenant_id: str
) -> None:
    first = _export(parts, trained)
    imported, _ = _import(parts, tenant_id, first)
    assert _export(parts, imported) == first


def test_imported_generator_shows_its_samples_and_the_archive_goes(
    parts: Parts, trained: str, tenant_id: str
) -> None:
    imported, _ = _import(parts, tenant_id, _export(parts, trained))
    with parts.database.transaction() as session:
        row = session.get_one(Generator, imported)
        shown = generators.checkpoint(session, row, None)
    assert Image.open(io.BytesIO(generators.progress_sheet(parts.storage, row, shown))).width > 64
    housekeeping.purge(parts)
    retention.tidy(parts)
    assert list(parts.storage.keys(f"incoming/{tenant_id}/")) == []
    kept = [key.rsplit("/", 1)[1] for key in parts.storage.keys(shown.prefix)]
    assert sorted(kept) == ["samples.png", "weights.safetensors"]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("config.json", b"{}", "description_unusable"),
        ("weights.safetensors", b"\x80\x04.", "checksum_mismatch"),
        ("model_card.md", b"a" * (2 << 20), "archive_too_large"),
    ],
)
def test_unusable_archive_fails_with_its_reason_and_leaves_nothing(
    parts: Parts, trained: str, tenant_id: str, name: str, content: bytes, code: str
) -> None:
    imported, job = _import(parts, tenant_id, _changed(_export(parts, trained), name, content))
    assert (job.status, job.error_code) == (Status.FAILED, code)
    housekeeping.purge(parts)
    prefixes = (f"tenants/{tenant_id}/generators/{imported}/", f"incoming/{tenant_id}/")
    assert [key for prefix in prefixes for key in parts.storage.keys(prefix)] == []
    with parts.database.transaction() as session:
        assert generators.checkpoints(session, imported) == []


def test_archive_that_waits_for_its_import_is_kept(parts: Parts, tenant_id: str) -> None:
    key = f"{incoming_prefix(tenant_id, 'gen_1')}1"
    parts.storage.put(key, b"zip", "application/zip")
    with parts.database.transaction() as session:
        generator_archives.create(
            session,
            tenant_id,
            generator_id="gen_1",
            name="x",
            content_key=key,
            request_id=None,
        )
    housekeeping.purge(parts)
    hasty = parts.settings.model_copy(update={"upload_lifetime_s": 0.0})
    retention._remove_unfinished_uploads(replace(parts, settings=hasty))
    assert list(parts.storage.keys(f"incoming/{tenant_id}/")) == [key]


def test_scratch_is_clean_after_an_import(parts: Parts, tenant_id: str, scratch: Path) -> None:
    _, job = _import(parts, tenant_id, b"PK\x03\x04")
    assert job.error_code == "unsupported_archive"
    assert list(scratch.glob("run-*")) == []
