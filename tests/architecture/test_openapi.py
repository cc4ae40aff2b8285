"""The document that clients generate code from: complete, and changed only on purpose."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app

SNAPSHOT = Path(__file__).with_name("openapi.json")
DOCUMENT: dict[str, Any] = create_app().openapi()
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
GUARDED = [name for name in OPERATIONS if " /v1/" in name]


def test_document_is_the_snapshot(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-openapi", default=False):
        SNAPSHOT.write_text(json.dumps(DOCUMENT, indent=1) + "\n", encoding="utf-8")
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == DOCUMENT, "run `make openapi`"


def _values(node: object, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from _values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values(value, key)


def _resolved(reference: str) -> object:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_reference_resolves() -> None:
    references = set(_values(DOCUMENT, "$ref"))
    assert "#/components/schemas/Problem" in references
    assert all(isinstance(_resolved(reference), dict) for reference in references)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() and name[0].islower() for name in names)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_says_what_it_does(name: str) -> None:
    assert OPERATIONS[name]["description"].endswith(".")
    assert OPERATIONS[name]["tags"]


@pytest.mark.parametrize("name", GUARDED)
def test_guarded_operation_documents_key_and_refusals(name: str) -> None:
    assert OPERATIONS[name]["security"] == [{"HTTPBearer": []}]
    refusals = {status for status in OPERATIONS[name]["responses"] if status >= "400"}
    assert {"400", "401", "403", "422", "503"} <= refusals
    for status in refusals:
        (media_type,) = OPERATIONS[name]["responses"][status]["content"]
        assert media_type == "application/problem+json"


@pytest.mark.parametrize("name", [name for name in GUARDED if "{" in name])
def test_operation_on_an_id_documents_that_it_may_be_unknown(name: str) -> None:
    assert "404" in OPERATIONS[name]["responses"]


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name.startswith("POST")])
def test_post_takes_an_idempotency_key(name: str) -> None:
    headers = [one["name"] for one in OPERATIONS[name]["parameters"] if one["in"] == "header"]
    assert "idempotency-key" in headers


def _schemas(node: object) -> Iterator[object]:
    """Yield the parts of an operation, and of all that it refers to."""
    seen: set[str] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        yield one
        new = set(_values(one, "$ref")) - seen
        seen |= new
        waiting.extend(_resolved(reference) for reference in new)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_has_an_example(name: str) -> None:
    found = [one for part in _schemas(OPERATIONS[name]) for one in _values(part, "examples")]
    assert found


@pytest.mark.parametrize(
    "name", [name for name, operation in OPERATIONS.items() if "requestBody" in operation]
)
def test_body_has_an_example(name: str) -> None:
    content = OPERATIONS[name]["requestBody"]["content"]
    if "application/json" in content:
        (schema,) = (_resolved(one) for one in _values(content, "$ref"))
        assert isinstance(schema, dict)
        assert schema["examples"]
