"""Images that any other tool made are measured as a dataset of the kind synthetic."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy.exc import IntegrityError

from app import tables
from app.parts import Parts
from worker.tasks import housekeeping

NewDataset = Callable[..., str]


@pytest.fixture
def real_id(new_dataset: NewDataset, tenant_id: str) -> str:
    return new_dataset(tenant_id)


@pytest.fixture
def synthetic_id(new_dataset: NewDataset, tenant_id: str) -> str:
    return new_dataset(tenant_id, kind="synthetic", sizes=(64, 128, 256))


@pytest.fixture
def post(api: httpx.Client, real_id: str, synthetic_id: str) -> Callable[..., httpx.Response]:
    usual = {"real_dataset_id": real_id, "synthetic_dataset_id": synthetic_id}
    return lambda **body: api.post("/v1/reports", json=usual | body)


def image_size(parts: Parts, report_id: str) -> int | None:
    with parts.database.transaction() as session:
        return session.get_one(tables.Report, report_id).image_size


def test_report_names_the_dataset_and_no_batch(
    api: httpx.Client, post: Callable[..., httpx.Response], synthetic_id: str
) -> None:
    answer = post()
    assert answer.status_code == 202, answer.text
    shown = api.get(answer.headers["location"]).json()
    assert (shown["sample_batch_id"], shown["synthetic_dataset_id"]) == (None, synthetic_id)
    assert (shown["status"], shown["profile"]) == ("queued", "quick")


def test_size_is_the_largest_of_both_unless_asked_for(
    parts: Parts, post: Callable[..., httpx.Response]
) -> None:
    assert image_size(parts, post().json()["id"]) == 128
    assert image_size(parts, post(image_size=64).json()["id"]) == 64


def test_size_that_one_of_them_lacks_is_refused(post: Callable[..., httpx.Response]) -> None:
    answer = post(image_size=256)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "64, 128 pixels, the synthetic ones for 64, 128, 256" in answer.json()["detail"]


def test_datasets_without_a_common_size_are_refused(
    post: Callable[..., httpx.Response], new_dataset: NewDataset, tenant_id: str
) -> None:
    other = new_dataset(tenant_id, kind="synthetic", sizes=(256,))
    assert post(synthetic_dataset_id=other).status_code == 422


def test_kinds_must_be_as_they_are_named(
    post: Callable[..., httpx.Response], real_id: str, synthetic_id: str
) -> None:
    both_real = post(synthetic_dataset_id=real_id)
    assert both_real.status_code == 422
    assert f"{real_id} is a dataset of real images" in both_real.json()["detail"]
    both_synthetic = post(real_dataset_id=synthetic_id)
    assert both_synthetic.status_code == 422
    assert f"{synthetic_id} is a dataset of synthetic images" in both_synthetic.json()["detail"]


def test_batch_is_not_measured_against_synthetic_images(
    post: Callable[..., httpx.Response],
    new_chain: Callable[..., dict[str, str]],
    tenant_id: str,
    synthetic_id: str,
) -> None:
    batch_id = new_chain(tenant_id)["batch_id"]
    answer = post(real_dataset_id=synthetic_id, synthetic_dataset_id=None, sample_batch_id=batch_id)
    assert answer.status_code == 422
    assert "is a dataset of synthetic images" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"sample_batch_id": f"smp_{'0' * 32}"}, "give either"),
        ({"synthetic_dataset_id": None}, "give either"),
        (
            {
                "synthetic_dataset_id": None,
                "sample_batch_id": f"smp_{'0' * 32}",
                "image_size": 64,
            },
            "give no image_size",
        ),
        ({"image_size": 100}, "/image_size"),
    ],
)
def test_sides_are_named_once(
    post: Callable[..., httpx.Response], body: dict[str, object], says: str
) -> None:
    answer = post(**body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_dataset_that_is_not_ready_is_refused(
    api: httpx.Client, post: Callable[..., httpx.Response]
) -> None:
    empty = api.post("/v1/datasets", json={"name": "x", "kind": "synthetic"}).json()["id"]
    answer = post(synthetic_dataset_id=empty)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")


def test_dataset_of_another_tenant_is_unknown(
    post: Callable[..., httpx.Response], new_dataset: NewDataset, new_tenant: Callable[[], str]
) -> None:
    theirs = new_dataset(new_tenant(), kind="synthetic")
    assert post(synthetic_dataset_id=theirs).status_code == 404


def test_measured_dataset_stays_until_its_reports_go(
    api: httpx.Client, parts: Parts, post: Callable[..., httpx.Response], synthetic_id: str
) -> None:
    report_id = post().json()["id"]
    refused = api.delete(f"/v1/datasets/{synthetic_id}")
    assert (refused.status_code, refused.json()["derived"]) == (409, [report_id])
    assert api.delete(f"/v1/datasets/{synthetic_id}?cascade=true").status_code == 204
    assert api.get(f"/v1/reports/{report_id}").status_code == 404
    housekeeping.purge(parts)
    with parts.database.transaction() as session:
        assert session.get(tables.Dataset, synthetic_id) is None


def test_report_has_one_generated_side_in_the_database_too(
    parts: Parts, tenant_id: str, real_id: str
) -> None:
    with (
        pytest.raises(IntegrityError, match="ck_reports_generated"),
        parts.database.transaction() as session,
    ):
        session.add(
            tables.Report(id="rpt_1", tenant_id=tenant_id, real_dataset_id=real_id, profile="quick")
        )
