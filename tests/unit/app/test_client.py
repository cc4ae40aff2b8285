"""Follow a job over a connection that is lost now and then."""

import httpx
import pytest

from app import client
from app.client import Client, Resource

RUNNING: Resource = {"job": {"id": "job_1", "kind": "ingest", "status": "running"}}
AWAY: Resource = {"proxy": "says that the service is away"}
DONE: Resource = {"job": {"id": "job_1", "kind": "ingest", "status": "succeeded"}}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL_S", 0.0)


def connected(answers: list[Resource | None]) -> Client:
    """A client whose connection is lost where there is no answer, and at the end for good."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = answers.pop(0) if answers else None
        if answer == AWAY:
            return httpx.Response(502, text="bad gateway")
        if answer is None:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, json=answer)

    made = Client("http://service", "key")
    made._http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(handle))
    return made


def test_a_lost_poll_does_not_end_the_watch() -> None:
    seen: list[str] = []
    made = connected([RUNNING, None, AWAY, RUNNING, None, DONE])
    assert made.follow("/v1/datasets/ds_1", lambda job: seen.append(job["status"])) == DONE
    assert seen == ["running", "running", "succeeded"]


def test_a_job_is_cancelled_by_its_resource() -> None:
    assert connected([RUNNING, {}]).cancel("/v1/generators/gen_1")


@pytest.mark.parametrize("answers", [[], [RUNNING], [AWAY], [RUNNING, AWAY]])
def test_what_cannot_be_cancelled_is_no_error(answers: list[Resource | None]) -> None:
    assert not connected(answers).cancel("/v1/generators/gen_1")


def test_a_service_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.05)
    with pytest.raises(httpx.ConnectError):
        connected([RUNNING]).follow("/v1/datasets/ds_1", lambda _job: None)
