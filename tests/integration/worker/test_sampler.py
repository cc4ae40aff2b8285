"""The warm sampler of a worker: one child for many jobs, replaced when it is gone."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save, save_file
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import jobs, samples
from app.job_states import Status
from app.parts import Parts
from app.tables import Checkpoint, Dataset, Generator, Job, SampleBatch, SampleImage, now
from models.cli import main
from models.config import DCGANConfig, HybridConfig, Interpolation, SamplingConfig
from models.run_folder import TrainSpec
from worker.tasks import sample

TINY = DCGANConfig(
    image_size=64,
    total_images=8,
    batch_size=4,
    latent_size=4,
    generator_channels=16,
    discriminator_channels=8,
)


MASKED = HybridConfig(
    image_size=64,
    total_images=8,
    batch_size=4,
    latent_size=4,
    generator_channels=4,
    discriminator_channels=4,
    discriminator_widest=16,
    has_masks=True,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a network that has seen eight images."""
    return _trained(tmp_path_factory.mktemp("training"), TINY)


@pytest.fixture(scope="module")
def masked_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Those of one that has seen eight images with their masks."""
    return _trained(tmp_path_factory.mktemp("training"), MASKED)


def _trained(folder: Path, config: DCGANConfig | HybridConfig) -> bytes:
    random, shape = torch.Generator().manual_seed(0), (8, 1, 64, 64)
    tensors = {
        "images": torch.randint(0, 256, shape, dtype=torch.uint8, generator=random),
        "masks": torch.randint(0, 2, shape, dtype=torch.uint8, generator=random),
        "labels": torch.zeros(8, dtype=torch.int64),
        "groups": torch.arange(8),
        "splits": torch.zeros(8, dtype=torch.uint8),
    }
    named = {"labels": '["glioma"]', "size": "64", "digest": "none"}
    save_file(tensors, folder / "packed.safetensors", named)
    spec = TrainSpec(config=config, device="cpu", threads=1)
    (folder / "spec.json").write_text(spec.model_dump_json())
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main(["train", str(folder)]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (folder / "checkpoints" / "step-000000002" / "weights.safetensors").read_bytes()


@pytest.fixture
def generator(
    parts: Parts, new_chain: Callable[[str], dict[str, str]], tenant_id: str, weights: bytes
) -> str:
    """A generator whose checkpoint can be sampled."""
    generator_id = new_chain(tenant_id)["generator_id"]
    _store(parts, weights)
    return generator_id


def _store(parts: Parts, weights: bytes) -> None:
    with parts.database.transaction() as session:
        (prefix,) = session.scalars(select(Checkpoint.prefix)).all()
    parts.storage.put(f"{prefix}weights.safetensors", weights, "application/octet-stream")


def _forget(parts: Parts) -> None:
    sample._sampler(parts).close()
    sample._sampler.cache_clear()


@pytest.fixture(autouse=True)
def sampler(parts: Parts) -> Iterator[None]:
    yield
    _forget(parts)


def _ask(parts: Parts, generator_id: str, count: int = 3, wish: samples.Wish | None = None) -> str:
    """Queue a batch; return its id."""
    with parts.database.transaction() as session:
        row = samples.create(
            session,
            session.get_one(Generator, generator_id),
            wish or samples.Wish({"glioma": count}, copies=False),
            checkpoint_id=None,
            request_id=None,
        )
    return row.id


def _job(parts: Parts, batch_id: str) -> Job:
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        assert row.job is not None
        return row.job


def _draw(parts: Parts, batch_id: str) -> Job:
    sample.generate(parts, _job(parts, batch_id).id)
    return _job(parts, batch_id)


def _children() -> list[psutil.Process]:
    found = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in found if "sampler" in one.cmdline()]


def _await(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.02)


def _later(condition: Callable[[], object], act: Callable[[], None]) -> threading.Thread:
    def wait() -> None:
        _await(condition)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_batch_is_stored_image_by_image_and_as_a_zip(parts: Parts, generator: str) -> None:
    batch_id = _ask(parts, generator, 20)
    job = _draw(parts, batch_id)
    assert job.status == Status.SUCCEEDED, job.error_detail
    assert job.progress is not None
    assert job.progress["fraction"] == 1
    assert job.progress["message"] == "image 20 of 20"
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        images = session.scalars(
            select(SampleImage).where(SampleImage.batch_id == batch_id).order_by(SampleImage.index)
        ).all()
    assert [(one.index, one.label_index) for one in images] == [(n, n) for n in range(20)]
    assert row.archive_key is not None
    with zipfile.ZipFile(io.BytesIO(parts.storage.get(row.archive_key))) as archive:
        assert {"manifest.csv", "provenance.json"} <= set(archive.namelist())
        for image in images:
            name = f"images/glioma/{image.label_index:06d}.png"
            assert archive.read(name) == parts.storage.get(samples.image_key(image))


def test_ways_between_seeds_are_listed_one_after_the_other(parts: Parts, generator: str) -> None:
    config = SamplingConfig(interpolate=Interpolation(to_seed=1, steps=3))
    batch_id = _ask(
        parts, generator, wish=samples.Wish({"glioma": 18}, config=config, copies=False)
    )
    job = _draw(parts, batch_id)
    assert job.status == Status.SUCCEEDED, job.error_detail
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        images = samples.images(session, batch_id, after=-1, limit=100)
    assert [(one.label_index, one.step) for one in images] == [
        (number, step) for number in range(18) for step in range(3)
    ]
    assert row.archive_key is not None
    with zipfile.ZipFile(io.BytesIO(parts.storage.get(row.archive_key))) as archive:
        for image in images:
            name = f"images/glioma/{image.label_index:06d}-{image.step:02d}.png"
            assert archive.read(name) == parts.storage.get(samples.image_key(image))


def test_second_batch_has_the_same_child_and_fetches_no_weights(
    parts: Parts, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [_ask(parts, generator) for _ in range(2)]
    fetched: list[str] = []
    get_file = parts.storage.get_file

    def spy(key: str, path: Path) -> None:
        fetched.append(key)
        get_file(key, path)

    monkeypatch.setattr(parts.storage, "get_file", spy)
    _draw(parts, batches[0])
    (child,) = _children()
    assert _draw(parts, batches[1]).status == Status.SUCCEEDED
    assert _children() == [child]
    assert len(fetched) == 1


def test_child_that_was_killed_between_jobs_is_replaced(parts: Parts, generator: str) -> None:
    first, second = _ask(parts, generator), _ask(parts, generator)
    _draw(parts, first)
    (child,) = _children()
    child.kill()
    # A kill takes its time; a child that dies under a job costs an attempt, which is another test.
    # Its first thread is a zombie before the others are gone, so it is waited for, but not reaped.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _draw(parts, second).status == Status.SUCCEEDED
    assert _children() != [child]


def test_child_that_was_idle_ends_and_is_replaced(parts: Parts, generator: str) -> None:
    hasty = replace(parts, settings=parts.settings.model_copy(update={"sampler_idle_s": 0.2}))
    try:
        _draw(hasty, _ask(parts, generator))
        _await(lambda: _children() == [])
        assert _draw(hasty, _ask(parts, generator)).status == Status.SUCCEEDED
    finally:
        sample._sampler(hasty).close()


def test_child_that_is_killed_in_a_job_costs_an_attempt(parts: Parts, generator: str) -> None:
    batch_id = _ask(parts, generator, 50_000)

    def kill() -> None:
        _children()[0].kill()

    killer = _later(lambda: (_job(parts, batch_id).progress or {}).get("fraction"), kill)
    job = _draw(parts, batch_id)
    killer.join()
    assert (job.status, [one.outcome for one in job.attempts]) == (Status.QUEUED, ["killed"])
    with parts.database.transaction() as session:
        jobs.cancel(session, job.tenant_id, job.id)
    assert _draw(parts, _ask(parts, generator)).status == Status.SUCCEEDED


def test_cancelled_batch_stops_and_the_child_goes_on(parts: Parts, generator: str) -> None:
    batch_id = _ask(parts, generator, 50_000)

    def cancel() -> None:
        with parts.database.transaction() as session:
            job = _job(parts, batch_id)
            jobs.cancel(session, job.tenant_id, job.id)

    canceller = _later(lambda: (_job(parts, batch_id).progress or {}).get("fraction"), cancel)
    assert _draw(parts, batch_id).status == Status.CANCELLED
    canceller.join()
    (child,) = _children()
    assert _draw(parts, _ask(parts, generator)).status == Status.SUCCEEDED
    assert _children() == [child]


def test_bad_weights_are_a_failure_with_a_reason_and_poison_nothing(
    parts: Parts, generator: str, weights: bytes
) -> None:
    _store(parts, weights[:1000])
    job = _draw(parts, _ask(parts, generator))
    assert (job.status, job.error_code) == (Status.FAILED, "checkpoint_unusable")
    assert _draw(parts, _ask(parts, generator)).error_code == "checkpoint_unusable"
    _forget(parts)
    _store(parts, weights)
    assert _draw(parts, _ask(parts, generator)).status == Status.SUCCEEDED


def test_removed_checkpoint_is_a_failure_with_a_reason(parts: Parts, generator: str) -> None:
    batch_id = _ask(parts, generator)
    with parts.database.transaction() as session:
        session.scalars(select(Checkpoint)).one().removed_at = now()
    assert _draw(parts, batch_id).error_code == "checkpoint_removed"


def test_own_folder_is_named_for_this_process(parts: Parts, generator: str) -> None:
    folder = parts.settings.scratch / f"own-{os.getppid()}-{os.getpid()}-x"
    shutil.rmtree(folder, ignore_errors=True)  # the folder outlives the tests of this process
    _draw(parts, _ask(parts, generator))
    assert [path.name for path in folder.iterdir()] == ["weights-1"]


def _dataset(session: Session) -> Dataset:
    """Return what the generator was trained on."""
    return session.scalars(select(Dataset).join(Generator)).one()


def _store_pack(parts: Parts, images: torch.Tensor) -> None:
    """Store images `(N, 1, 64, 64)` as the training set."""
    count = len(images)
    tensors = {
        "images": images.contiguous(),
        "labels": torch.zeros(count, dtype=torch.int64),
        "groups": torch.arange(count),
        "splits": torch.zeros(count, dtype=torch.uint8),
    }
    named = {"labels": '["glioma"]', "size": "64", "digest": "none"}
    with parts.database.transaction() as session:
        pack = _dataset(session).packs["64"]
    assert isinstance(pack, dict)
    parts.storage.put(str(pack["key"]), save(tensors, named), "application/octet-stream")


def _drawn(parts: Parts, batch_id: str) -> torch.Tensor:
    """Return the images of a batch in order."""
    with parts.database.transaction() as session:
        found = samples.images(session, batch_id, after=-1, limit=100)
        keys = [samples.image_key(one) for one in found]
    pictures = [Image.open(io.BytesIO(parts.storage.get(key))) for key in keys]
    return torch.stack([torch.from_numpy(np.array(one)) for one in pictures])[:, None]


def _loud(weights: bytes) -> bytes:
    """Amplify a network that has learnt nothing, so that its images are not all one grey."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    tensors = {
        name: tensor * 8 if tensor.ndim > 1 else tensor for name, tensor in load(weights).items()
    }
    return save(tensors, header["__metadata__"])


def test_near_copies_are_withheld_counted_and_made_up_for(
    parts: Parts, generator: str, weights: bytes
) -> None:
    _store(parts, _loud(weights))
    plain = _ask(parts, generator, 8)
    _draw(parts, plain)
    _store_pack(parts, _drawn(parts, plain)[[1, 4]].flip(3))
    batch_id = _ask(parts, generator, wish=samples.Wish({"glioma": 6}))
    job = _draw(parts, batch_id)
    assert job.status == Status.SUCCEEDED, job.error_detail
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        images = samples.images(session, batch_id, after=-1, limit=100)
    assert [one.label_index for one in images] == list(range(len(images)))
    withheld = {one.label_index: one.withheld_reason for one in images if not one.released}
    assert {1, 4} <= withheld.keys(), "others may resemble these by chance"
    assert set(withheld.values()) == {"near_copy"}
    kept = set(range(len(images))) - withheld.keys()
    count = len(withheld)
    assert (len(kept), row.released, row.withheld) == (6, 6, count)
    assert row.withheld_by_label == {"glioma": count}
    assert row.archive_key is not None
    with zipfile.ZipFile(io.BytesIO(parts.storage.get(row.archive_key))) as archive:
        named = {name for name in archive.namelist() if name.endswith(".png")}
    assert named == {f"images/glioma/{n:06d}.png" for n in kept}
    stored = list(parts.storage.keys(samples.prefix(row)))
    assert len([key for key in stored if key.endswith(".png")]) == 6


def test_batch_of_near_copies_alone_fails_by_name(parts: Parts, generator: str) -> None:
    plain = _ask(parts, generator, 4)
    _draw(parts, plain)
    _store_pack(parts, _drawn(parts, plain))
    batch_id = _ask(parts, generator, wish=samples.Wish({"glioma": 2}))
    job = _draw(parts, batch_id)
    assert (job.status, job.error_code) == (Status.FAILED, "all_withheld")
    assert "4 of glioma as near copies of training images" in str(job.error_detail)
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        assert (row.released, row.withheld, row.withheld_by_label) == (0, 4, {"glioma": 4})


def test_training_images_that_are_gone_fail_by_name(parts: Parts, generator: str) -> None:
    batch_id = _ask(parts, generator, wish=samples.Wish({"glioma": 2}))
    with parts.database.transaction() as session:
        _dataset(session).packs = {}
    job = _draw(parts, batch_id)
    assert (job.status, job.error_code) == (Status.FAILED, "dataset_removed")


def _files(parts: Parts, batch_id: str) -> tuple[list[SampleImage], dict[str, bytes]]:
    """Return the images of a batch in order, and what its zip holds."""
    with parts.database.transaction() as session:
        images = samples.images(session, batch_id, after=-1, limit=100)
        key = samples.archive_key(session.get_one(SampleBatch, batch_id))
    with zipfile.ZipFile(io.BytesIO(parts.storage.get(key))) as archive:
        return images, {name: archive.read(name) for name in archive.namelist()}


def test_masks_are_stored_beside_their_images(
    parts: Parts, generator: str, masked_weights: bytes
) -> None:
    _store(parts, masked_weights)
    batch_id = _ask(parts, generator, 18)
    job = _draw(parts, batch_id)
    assert job.status == Status.SUCCEEDED, job.error_detail
    assert job.progress is not None
    assert job.progress["message"] == "image 18 of 18"
    images, files = _files(parts, batch_id)
    table = list(csv.DictReader(files["manifest.csv"].decode().splitlines()))
    for image, row in zip(images, table, strict=True):
        name = f"glioma/{image.label_index:06d}.png"
        assert (row["file"], row["mask"]) == (f"images/{name}", f"masks/{name}")
        assert image.key is not None
        assert image.mask_key == image.key.replace("/images/", "/masks/")
        mask = parts.storage.get(image.mask_key)
        assert mask == files[f"masks/{name}"] != files[f"images/{name}"]
        assert hashlib.sha256(mask).hexdigest() == image.mask_sha256 == row["mask_sha256"]


def test_mask_of_a_withheld_image_is_stored_nowhere(
    parts: Parts, generator: str, masked_weights: bytes
) -> None:
    _store(parts, masked_weights)
    plain = _ask(parts, generator, 4)
    _draw(parts, plain)
    _store_pack(parts, _drawn(parts, plain)[[2]])
    batch_id = _ask(parts, generator, wish=samples.Wish({"glioma": 3}))
    assert _draw(parts, batch_id).status == Status.SUCCEEDED
    images, files = _files(parts, batch_id)
    withheld = [one for one in images if not one.released]
    assert 2 in {one.label_index for one in withheld}
    assert all((one.key, one.mask_key) == (None, None) and one.mask_sha256 for one in withheld)
    stored = parts.storage.keys(samples.prefix(_batch(parts, batch_id)))
    assert len([key for key in stored if "/masks/" in key]) == 3
    kept = {f"masks/glioma/{one.label_index:06d}.png" for one in images if one.released}
    assert {name for name in files if name.startswith("masks/")} == kept


def test_generator_without_masks_stores_none(parts: Parts, generator: str) -> None:
    batch_id = _ask(parts, generator)
    _draw(parts, batch_id)
    images, files = _files(parts, batch_id)
    assert {(one.mask_key, one.mask_sha256) for one in images} == {(None, None)}
    assert not [name for name in files if "mask" in name]


def _batch(parts: Parts, batch_id: str) -> SampleBatch:
    with parts.database.transaction() as session:
        return session.get_one(SampleBatch, batch_id)
