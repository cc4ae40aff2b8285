"""Which checkpoint of a generator is the best one."""

from collections.abc import Callable

import pytest

from app import generators, jobs, tables
from app.jobs import Claim
from app.parts import Parts
from models.config import PRESETS


@pytest.fixture
def training(parts: Parts, tenant_id: str, new_dataset: Callable[[str], str]) -> Claim:
    dataset_id = new_dataset(tenant_id)
    with parts.database.transaction() as session:
        row = generators.create(
            session,
            session.get_one(tables.Dataset, dataset_id),
            name="x",
            preset="demo",
            config=PRESETS["demo"].config,
            seed=0,
            request_id=None,
        )
        job_id = row.job_id
    assert job_id is not None
    with parts.database.transaction() as session:
        claimed = jobs.claim(session, job_id, owner="test", lease_s=60)
    assert claimed is not None
    return claimed


def _save(parts: Parts, claimed: Claim, step: int, distance: float | None) -> None:
    values = {"none/generator_loss": 1.0} | ({} if distance is None else {"all/kid": distance})
    with parts.database.transaction() as session:
        generators.add_history(session, claimed, step, 10 * step, values)
        generators.add_checkpoint(
            session, claimed, step=step, images_seen=10 * step, key_prefix=f"k/{step}/"
        )


def _best_step(parts: Parts, claimed: Claim) -> int:
    with parts.database.transaction() as session:
        row = session.get_one(tables.Generator, claimed.resource_id)
        return generators.checkpoint(session, row, None).step


def test_the_nearest_to_unseen_images_is_best(parts: Parts, training: Claim) -> None:
    best = []
    for step, distance in ((1, 0.9), (2, 0.3), (3, 0.5), (4, 0.2)):
        _save(parts, training, step, distance)
        best.append(_best_step(parts, training))
    assert best == [1, 2, 2, 4]


def test_without_a_measurement_the_last_is_best(parts: Parts, training: Claim) -> None:
    for step in (1, 2):
        _save(parts, training, step, None)
    assert _best_step(parts, training) == 2


def test_a_step_that_is_saved_again_counts_once_and_anew(parts: Parts, training: Claim) -> None:
    _save(parts, training, 1, 0.3)
    _save(parts, training, 2, 0.1)
    _save(parts, training, 2, 0.5)
    assert _best_step(parts, training) == 1
