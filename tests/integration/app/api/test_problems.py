"""What is refused is explained as RFC 9457 problem details, and nothing internal is shown."""

from collections.abc import Callable
from typing import NoReturn

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app import resources
from app.api.bodies import MAX_BODY_BYTES
from app.api.security_headers import security_headers
from app.parts import Parts

Client = Callable[..., httpx.Client]
FIELDS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def _problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert set(body) - {"errors"} == FIELDS
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/problems/{code}")
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["instance"] == answer.request.url.path
    return body


def test_unknown_id(api: httpx.Client) -> None:
    _problem(api.get(f"/v1/datasets/ds_{'0' * 32}"), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/v1", "/v2/datasets", "/v1/datasets/x/y/z", "/v1/%00"])
def test_unknown_path(client: Client, method: str, path: str) -> None:
    answer = client().request(method, path)
    assert answer.json()["code"] == "not_found"
    assert answer.headers["content-type"] == "application/problem+json"


def test_unknown_method_names_those_that_are_known(client: Client) -> None:
    answer = client().patch("/v1/datasets")
    _problem(answer, 405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


def test_each_fault_of_a_body_has_its_place(api: httpx.Client) -> None:
    body = {"name": "", "kind": "fake", "more": 1}
    found = _problem(api.post("/v1/datasets", json=body), 422, "invalid_request")
    assert isinstance(found["errors"], list)
    assert {fault["pointer"] for fault in found["errors"]} == {"/name", "/kind", "/more"}


def test_fault_does_not_quote_the_value(api: httpx.Client) -> None:
    answer = api.post("/v1/datasets", json={"name": "x", "kind": "MUELLER^HANS"})
    assert "MUELLER" not in answer.text


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b"\0"])
def test_body_that_is_no_json(api: httpx.Client, content: bytes) -> None:
    answer = api.post("/v1/datasets", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}, answer.text


@pytest.mark.parametrize(
    "path", ["/v1/datasets", "/v1/generators", "/v1/sample-batches", "/v1/reports", "/v1/api-keys"]
)
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}], ids=["plain", "with_key"])
def test_too_large_body_is_refused(
    api: httpx.Client, path: str, headers: dict[str, str], *, is_declared: bool
) -> None:
    body = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    content = body if is_declared else iter([body[:1000], body[1000:]])
    headers = headers | {"Content-Type": "application/json"}
    _problem(api.post(path, content=content, headers=headers), 413, "too_large")


def test_plain_request_id_is_echoed(client: Client) -> None:
    answer = client().get("/v1/jobs", headers={"X-Request-ID": "from-the-proxy-1"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "from-the-proxy-1"


@pytest.mark.parametrize(
    "given", ["", "a b", "x" * 65, '"}{"level":"error"', "../../etc", "ä".encode()]
)
def test_hostile_request_id_is_replaced(client: Client, given: str | bytes) -> None:
    headers = [("X-Request-ID", given)]
    answer = client().get("/livez", headers=headers)  # type: ignore[arg-type]  # one is of bytes
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"].isalnum()


def test_every_answer_has_security_headers(client: Client) -> None:
    wanted = security_headers("application/json", is_secure=False).items()
    for path in ("/livez", "/v1/jobs", "/nowhere", "/openapi.json"):
        answer = client().get(path)
        assert all(answer.headers[name] == value for name, value in wanted)
        assert "strict-transport-security" not in answer.headers


def test_unexpected_error_shows_nothing_internal(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise ZeroDivisionError("MUELLER^HANS in /srv/secret")

    monkeypatch.setattr(resources, "page", fail)
    answer = api.get("/v1/datasets")
    found = _problem(answer, 500, "internal")
    assert "MUELLER" not in answer.text
    wanted = security_headers("application/problem+json", is_secure=False)
    assert all(answer.headers[name] == value for name, value in wanted.items())
    assert found["detail"] == "the fault is ours; quote the request_id when you report it"


@pytest.mark.parametrize(
    "error", [OperationalError("SELECT", {}, Exception("gone")), PoolTimeoutError("no connection")]
)
def test_database_that_does_not_answer_is_unavailable(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise error

    monkeypatch.setattr(resources, "page", fail)
    answer = api.get("/v1/datasets")
    _problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"


def test_absent_object_is_unavailable_not_a_crash(
    api: httpx.Client, parts: Parts, tenant_id: str, new_dataset: Callable[[str], str]
) -> None:
    dataset_id = new_dataset(tenant_id)
    parts.storage.delete_prefix(f"tenants/{tenant_id}/")
    answer = api.get(f"/v1/datasets/{dataset_id}/preview.png")
    _problem(answer, 503, "unavailable")
