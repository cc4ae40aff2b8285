"""No value in any field of any request is a fault of ours: never a 5xx."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx
import pytest

from app.main import create_app

STRINGS = [
    "",
    "\0",
    "a\0b",
    "\x01\x1f\x7f",
    "\ud800",
    "\u202e\u200b",
    "\U0001f9e0" * 50,
    "x" * 10_000,
    "'; DROP TABLE jobs; --",
    "../../../etc/passwd",
    "{{7*7}}${7*7}%s%n",
]
NUMBERS = [-1, 0, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400), 1e308, float("nan")]
VALUES: list[object] = [*STRINGS, *NUMBERS, None, True, [], {}, [[]], {"\0": "\0"}, {"\ud800": 1}]

KNOB_VALUES: list[object] = [*NUMBERS, None, [], "", "\0"]

DOCUMENT = create_app().openapi()
ID = "0" * 32
BODIES: dict[str, dict[str, object]] = {
    "/v1/datasets": {"name": "x", "description": "x", "kind": "real"},
    "/v1/datasets/{dataset_id}/uploads": {"size_bytes": 1, "sha256": ID * 2, "filename": "x.zip"},
    "/v1/uploads/{upload_id}/parts": {"numbers": [1]},
    "/v1/uploads/{upload_id}/complete": {"parts": [{"number": 1, "etag": ID}]},
    "/v1/datasets/{dataset_id}/exports": {
        "image_size": 64,
        "splits": ["train"],
        "with_sixteen_bits": False,
    },
    "/v1/generators": {
        "name": "x",
        "dataset_id": f"ds_{ID}",
        "preset": "demo",
        "config": {},
        "seed": 0,
    },
    "/v1/sample-batches": {
        "generator_id": f"gen_{ID}",
        "checkpoint_id": f"ckp_{ID}",
        "count": 1,
        "counts": {"x": 1},
        "mixture": {"x": 1},
        "seed": 0,
        "temperature": 1,
        "interpolate": {"to_seed": 1, "steps": 2},
        "filter": {"copies": True, "realism": 0.1},
        "format": "png",
    },
    "/v1/sample-batches/{batch_id}/curate": {"report_id": f"rpt_{ID}", "drop": ["double"]},
    "/v1/reports": {
        "real_dataset_id": f"ds_{ID}",
        "sample_batch_id": f"smp_{ID}",
        "synthetic_dataset_id": f"ds_{ID}",
        "image_size": 64,
        "profile": "quick",
    },
    "/v1/api-keys": {"name": "x", "scopes": ["jobs:read"], "expires_at": "2030-01-01T00:00:00Z"},
}
KNOBS = {
    preset: DOCUMENT["components"]["schemas"][schema]["properties"]
    for preset, schema in (("demo", "DCGANConfig"), ("cpu-64", "HybridConfig"))
}


def _bodies(path: str) -> Iterator[object]:
    good = BODIES[path]
    yield from VALUES
    for field in good:
        for value in VALUES:
            yield good | {field: value}
            if field in {"counts", "mixture", "config", "scopes", "numbers", "parts", "drop"}:
                yield good | {field: {"x": value}}
                yield good | {field: [value]}
    yield from (good | {name: 1} for name in STRINGS)
    if "parts" in good:
        for value in VALUES:
            yield {"parts": [{"number": value, "etag": ID}]}
            yield {"parts": [{"number": 1, "etag": value}]}
    if "config" in good:
        yield from (
            good | {"preset": preset, "config": {knob: value}}
            for preset, knobs in KNOBS.items()
            for knob in knobs
            for value in KNOB_VALUES
        )
        yield from (good | {"config": {name: 1}} for name in STRINGS)
    if "synthetic_dataset_id" in good:
        yield from _reports(good)
    if "counts" in good:
        yield from _batches(good)


def _reports(good: dict[str, object]) -> Iterator[object]:
    for other in ("sample_batch_id", "synthetic_dataset_id"):
        alone = {name: value for name, value in good.items() if name != other}
        yield from (alone | {field: value} for field in alone for value in VALUES)


def _batches(good: dict[str, object]) -> Iterator[object]:
    alone = {name: value for name, value in good.items() if name != "count"}
    alone = {name: value for name, value in alone.items() if name != "mixture"}
    yield from (alone | {"counts": {name: 1}} for name in STRINGS)
    mixed = {name: value for name, value in good.items() if name != "counts"}
    yield from (mixed | {"mixture": {name: 1}} for name in STRINGS)
    yield from (mixed | {"mixture": {"glioma": value}} for value in VALUES)
    for field in ("copies", "realism"):
        yield from (mixed | {"filter": {field: value}, "mixture": None} for value in VALUES)
    for field in ("to_seed", "steps"):
        way = {"to_seed": 1, "steps": 2}
        yield from (mixed | {"interpolate": way | {field: value}} for value in VALUES)
    yield from (mixed | {"temperature": value, "mixture": None} for value in VALUES)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def test_every_body_is_tried() -> None:
    posts = {
        path
        for path, methods in DOCUMENT["paths"].items()
        if "application/json" in methods.get("post", {}).get("requestBody", {}).get("content", {})
    }
    assert posts == set(BODIES)


@pytest.mark.parametrize("path", BODIES)
def test_body_values(
    api: httpx.Client, tenant_id: str, path: str, new_chain: Callable[[str], dict[str, str]]
) -> None:
    headers = {"Content-Type": "application/json"}
    filled = path.format(**new_chain(tenant_id)) if "{" in path else path
    for body in _bodies(path):
        answer = api.post(filled, content=_json(body), headers=headers)
        assert answer.status_code < 500, (ascii(body)[:300], answer.text)


def test_config_values_with_a_real_dataset(
    api: httpx.Client, tenant_id: str, new_chain: Callable[[str], dict[str, str]]
) -> None:
    chain = new_chain(tenant_id)
    headers = {"Content-Type": "application/json"}
    for body in _bodies("/v1/sample-batches"):
        if isinstance(body, dict):
            filled = body | {"generator_id": chain["generator_id"], "checkpoint_id": None}
            answer = api.post("/v1/sample-batches", content=_json(filled), headers=headers)
            assert answer.status_code < 500, (ascii(body)[:300], answer.text)


@pytest.mark.parametrize("path", ["/v1/generators", "/v1/sample-batches"])
@pytest.mark.parametrize("value", [True, "1", "", None, 1.5])
def test_whole_number_of_another_type_is_refused(
    api: httpx.Client, path: str, value: object
) -> None:
    answer = api.post(path, json=BODIES[path] | {"seed": value})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == "/seed"


PATHS = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    if "{" in path
    for method in methods
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_path_values(api: httpx.Client, method: str, path: str) -> None:
    names = [
        *("dataset_id", "export_id", "upload_id", "generator_id", "batch_id", "report_id"),
        *("job_id", "key_id", "name"),
    ]
    for value in STRINGS:
        hostile = quote(value[:2000].encode("utf-8", "surrogatepass"), safe="")
        hostile_path = path.format(**dict.fromkeys(names, hostile))
        body = BODIES.get(path) if method == "POST" else None
        query = {"to": f"rpt_{ID}"} if path.endswith("/compare") else {}
        answer = api.request(method, hostile_path, json=body, params=query)
        assert answer.status_code in {400, 404, 405, 307}, (ascii(value), answer.text)


QUERIES = [
    (path, parameter["name"])
    for path, methods in DOCUMENT["paths"].items()
    for parameter in methods.get("get", {}).get("parameters", ())
    if parameter["in"] == "query"
]


def test_query_values(
    api: httpx.Client, tenant_id: str, new_chain: Callable[[str], dict[str, str]]
) -> None:
    chain = new_chain(tenant_id)
    for path, name in QUERIES:
        filled = path.format(**chain)
        for value in (*STRINGS, *map(str, (-1, 2**31, 2**53, 2**63, 2**64, 10**400, "nan"))):
            hostile = quote(value[:2000].encode("utf-8", "surrogatepass"), safe="")
            answer = api.get(f"{filled}?{name}={hostile}", follow_redirects=False)
            assert answer.status_code < 500, (path, name, ascii(value), answer.text)
