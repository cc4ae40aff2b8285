"""Who gets in: a good key with the right scope, and nobody is told why not."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import delete, update

from app.api_keys import Scope
from app.main import create_app
from app.parts import Parts
from app.tables import APIKey, now

Client = Callable[..., httpx.Client]
NewKey = Callable[..., str]

SCOPES = {
    "createDataset": Scope.DATASETS_WRITE,
    "putDatasetContent": Scope.DATASETS_WRITE,
    "createUpload": Scope.DATASETS_WRITE,
    "getUpload": Scope.DATASETS_WRITE,
    "signUploadParts": Scope.DATASETS_WRITE,
    "completeUpload": Scope.DATASETS_WRITE,
    "deleteUpload": Scope.DATASETS_WRITE,
    "deleteDataset": Scope.DATASETS_WRITE,
    "listDatasets": Scope.DATASETS_READ,
    "getDataset": Scope.DATASETS_READ,
    "listDatasetFiles": Scope.DATASETS_READ,
    "getDatasetPreview": Scope.DATASETS_READ,
    "getDatasetCertificate": Scope.DATASETS_READ,
    "getDatasetContactSheet": Scope.DATASETS_READ,
    "listPresets": Scope.GENERATORS_READ,
    "createGenerator": Scope.GENERATORS_TRAIN,
    "deleteGenerator": Scope.GENERATORS_TRAIN,
    "listGenerators": Scope.GENERATORS_READ,
    "getGenerator": Scope.GENERATORS_READ,
    "getGeneratorHistory": Scope.GENERATORS_READ,
    "listGeneratorCheckpoints": Scope.GENERATORS_READ,
    "getGeneratorProgress": Scope.GENERATORS_READ,
    "createSampleBatch": Scope.SAMPLES_GENERATE,
    "deleteSampleBatch": Scope.SAMPLES_GENERATE,
    "listSampleBatches": Scope.SAMPLES_READ,
    "getSampleBatch": Scope.SAMPLES_READ,
    "listSampleImages": Scope.SAMPLES_READ,
    "getSamplePreview": Scope.SAMPLES_READ,
    "getSampleArchive": Scope.SAMPLES_READ,
    "curateSampleBatch": Scope.SAMPLES_GENERATE,
    "createReport": Scope.REPORTS_WRITE,
    "deleteReport": Scope.REPORTS_WRITE,
    "createExport": Scope.DATASETS_WRITE,
    "listExports": Scope.DATASETS_READ,
    "importGenerator": Scope.GENERATORS_TRAIN,
    "exportGenerator": Scope.GENERATORS_READ,
    "getExport": Scope.DATASETS_READ,
    "getExportArchive": Scope.DATASETS_READ,
    "deleteExport": Scope.DATASETS_WRITE,
    "listReports": Scope.REPORTS_READ,
    "getReport": Scope.REPORTS_READ,
    "getReportPlot": Scope.REPORTS_READ,
    "getReportPage": Scope.REPORTS_READ,
    "getReportSamples": Scope.REPORTS_READ,
    "getReportPdf": Scope.REPORTS_READ,
    "compareReports": Scope.REPORTS_READ,
    "getReportSchema": Scope.REPORTS_READ,
    "listJobs": Scope.JOBS_READ,
    "getJob": Scope.JOBS_READ,
    "listJobEvents": Scope.JOBS_READ,
    "cancelJob": Scope.JOBS_WRITE,
    "pauseJob": Scope.JOBS_WRITE,
    "resumeJob": Scope.JOBS_WRITE,
    "createApiKey": Scope.ADMIN,
    "listApiKeys": Scope.ADMIN,
    "revokeApiKey": Scope.ADMIN,
}
UNKNOWN = {
    "dataset_id": f"ds_{'0' * 32}",
    "upload_id": f"upl_{'0' * 32}",
    "export_id": f"exp_{'0' * 32}",
    "generator_id": f"gen_{'0' * 32}",
    "batch_id": f"smp_{'0' * 32}",
    "report_id": f"rpt_{'0' * 32}",
    "job_id": f"job_{'0' * 32}",
    "key_id": f"key_{'0' * 32}",
    "name": "intensity",
}
OPERATIONS = {
    operation["operationId"]: (method.upper(), path.format(**UNKNOWN))
    for path, methods in create_app().openapi()["paths"].items()
    if path.startswith("/v1/")
    for method, operation in methods.items()
}
BAD_HEADERS = {
    "none": None,
    "empty": "",
    "scheme alone": "Bearer",
    "blank key": "Bearer  \t x",
    "another scheme": "Basic Z2Y6eA==",
    "no scheme": "gf_0_0",
    "not a key": "Bearer key",
    "another mark": f"Bearer gh_{'0' * 32}_secret",
    "no secret": f"Bearer gf_{'0' * 32}",
    "empty secret": f"Bearer gf_{'0' * 32}_",
    "unknown": f"Bearer gf_{'0' * 32}_secret",
    "quotes": "Bearer gf_'; DROP TABLE api_keys; --_secret",
    "not ASCII": "Bearer gf_ä_ü".encode("latin-1"),
    "long": f"Bearer gf_{'0' * 5000}_{'0' * 5000}",
}


def _refusal(answer: httpx.Response) -> dict[str, object]:
    """Return what a refused caller sees, less what differs with each request."""
    assert answer.status_code == 401, answer.text
    body: dict[str, object] = answer.json()
    assert answer.headers["www-authenticate"] == "Bearer"
    assert body.pop("request_id") == answer.headers["x-request-id"]
    return body


def test_every_operation_has_a_scope_here() -> None:
    assert set(SCOPES) == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_without_key_nothing_is_told(client: Client, operation: str) -> None:
    method, path = OPERATIONS[operation]
    body = _refusal(client().request(method, path))
    assert body["instance"] == path
    assert body["code"] == "unauthorized"


@pytest.mark.parametrize("kind", BAD_HEADERS)
def test_malformed_and_unknown_keys_are_refused_alike(client: Client, kind: str) -> None:
    anonymous = client()
    reference = _refusal(anonymous.get("/v1/jobs"))
    header = BAD_HEADERS[kind]
    headers = [] if header is None else [("Authorization", header)]
    request = anonymous.build_request("GET", "/v1/jobs", headers=headers)  # type: ignore[arg-type]  # one is of bytes
    assert _refusal(anonymous.send(request)) == reference


@pytest.mark.parametrize("fault", ["wrong secret", "expired", "revoked"])
def test_key_that_was_good_is_refused_alike(
    client: Client, parts: Parts, new_key: NewKey, tenant_id: str, fault: str
) -> None:
    key = new_key(tenant_id)
    assert client(key).get("/v1/jobs").status_code == 200
    reference = _refusal(client().get("/v1/jobs"))
    if fault == "wrong secret":
        key = key[:-1] + ("a" if key[-1] != "a" else "b")
    with parts.database.transaction() as session:
        if fault == "expired":
            session.execute(update(APIKey).values(expires_at=now() - timedelta(seconds=1)))
        if fault == "revoked":
            session.execute(delete(APIKey))
    assert _refusal(client(key).get("/v1/jobs")) == reference


@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_other_scopes_are_not_enough(
    client: Client, new_key: NewKey, tenant_id: str, operation: str
) -> None:
    wanted = SCOPES[operation]
    key = new_key(tenant_id, *(set(Scope) - {wanted, Scope.ADMIN}))
    method, path = OPERATIONS[operation]
    answer = client(key).request(method, path)
    assert answer.status_code == 403, answer.text
    assert answer.json()["code"] == "forbidden"
    assert wanted in answer.json()["detail"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_its_scope_is_enough(
    client: Client, new_key: NewKey, tenant_id: str, operation: str
) -> None:
    method, path = OPERATIONS[operation]
    answer = client(new_key(tenant_id, SCOPES[operation])).request(method, path)
    assert answer.status_code in {200, 404, 422}, answer.text


def test_key_is_shown_once_and_works(api: httpx.Client, client: Client) -> None:
    body = {"name": "reader", "scopes": ["datasets:read", "datasets:read"]}
    made = api.post("/v1/api-keys", json=body)
    assert made.status_code == 201
    key = made.json()["key"]
    assert made.json()["scopes"] == ["datasets:read"]
    assert client(key).get("/v1/datasets").status_code == 200
    assert key.rsplit("_", 1)[1] not in api.get("/v1/api-keys").text


def test_revoked_key_is_refused_from_then_on(api: httpx.Client, client: Client) -> None:
    made = api.post("/v1/api-keys", json={"name": "reader", "scopes": ["jobs:read"]}).json()
    reader = client(made["key"])
    assert reader.get("/v1/jobs").status_code == 200
    assert api.delete(f"/v1/api-keys/{made['id']}").status_code == 204
    assert reader.get("/v1/jobs").status_code == 401


def test_key_does_not_revoke_itself(api: httpx.Client) -> None:
    own = api.get("/v1/api-keys").json()["data"][0]["id"]
    assert api.delete(f"/v1/api-keys/{own}").status_code == 409
    assert api.get("/v1/api-keys").status_code == 200


@pytest.mark.parametrize(
    "moment",
    [
        *("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "9000-01-01T00:00:00Z"),
        *(0, "0", 1893456000.5, True, "2030-01-01", "2030-01-01T00:00:00"),
    ],
)
def test_expiry_that_is_no_storable_time_is_refused(api: httpx.Client, moment: object) -> None:
    body = {"name": "late", "scopes": ["admin"], "expires_at": moment}
    answer = api.post("/v1/api-keys", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/expires_at"
    assert api.get("/v1/api-keys").status_code == 200


def test_expiry_is_obeyed(api: httpx.Client, client: Client) -> None:
    body = {"name": "old", "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}
    assert (
        client(api.post("/v1/api-keys", json=body).json()["key"]).get("/v1/jobs").status_code == 401
    )
