"""What a generator shows of its training."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import select

from app.parts import Parts
from app.tables import Job

Chain = dict[str, str]


@pytest.fixture
def path(new_chain: Callable[..., Chain], tenant_id: str) -> str:
    return f"/v1/generators/{new_chain(tenant_id, beside=False)['generator_id']}"


def test_training_that_was_ended_early_says_by_which_rule(
    api: httpx.Client, parts: Parts, path: str
) -> None:
    made = api.get(path).json()
    assert made["ended_by"] is None
    with parts.database.transaction() as session:
        row = session.scalars(select(Job).where(Job.id == made["job"]["id"])).one()
        row.progress = {"fraction": 1.0, "message": "ended early", "ended_by": "plateau"}
    shown = api.get(path).json()
    assert (shown["ended_by"], shown["job"]["progress"]["eta"]) == ("plateau", None)
    assert shown["job"]["progress"]["message"] == "ended early"
