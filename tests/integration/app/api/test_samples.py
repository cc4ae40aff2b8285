"""What can be asked of a batch, and what of it is shown."""

import io
from collections.abc import Callable, Sequence

import httpx
import pytest
from PIL import Image
from sqlalchemy import delete, select

from app import samples
from app.parts import Parts
from app.tables import Dataset, HistoryPoint, SampleBatch, SampleImage

NewChain = Callable[[str], dict[str, str]]
Post = Callable[..., httpx.Response]


@pytest.fixture
def post(api: httpx.Client, new_chain: NewChain, tenant_id: str) -> Post:
    generator_id = new_chain(tenant_id)["generator_id"]

    def ask(**body: object) -> httpx.Response:
        return api.post("/v1/sample-batches", json={"generator_id": generator_id, **body})

    return ask


def test_mixture_divides_the_count(post: Post) -> None:
    answer = post(count=10, mixture={"meningioma": 0.26, "glioma": 0.74})
    assert answer.json()["counts"] == {"meningioma": 3, "glioma": 7}


def test_label_that_gets_no_image_is_left_out(post: Post) -> None:
    assert post(count=1).json()["counts"] == {"glioma": 1}
    assert post(count=1, mixture={"glioma": 0.1, "meningioma": 1}).json()["counts"] == {
        "meningioma": 1
    }


def test_unknown_label_is_named_though_it_got_no_image(post: Post) -> None:
    answer = post(count=1, mixture={"glioma": 1, "pituitary": 0.1})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "pituitary" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"count": 1, "mixture": {"glioma": 0}}, "/mixture/glioma"),
        ({"count": 1, "mixture": {"glioma": "1"}}, "/mixture/glioma"),
        ({"count": 1, "mixture": {}}, "/mixture"),
        ({"counts": {"glioma": 1}, "mixture": {"glioma": 1}}, "/"),
        ({"count": 1, "temperature": 0}, "/temperature"),
        ({"count": 1, "temperature": 1.3}, "/temperature"),
        ({"count": 1, "temperature": True}, "/temperature"),
        ({"count": 1, "interpolate": {"to_seed": 1, "steps": 1}}, "/interpolate/steps"),
        ({"count": 1, "interpolate": {"to_seed": -1, "steps": 2}}, "/interpolate/to_seed"),
        ({"count": 1, "filter": {"copies": "yes"}}, "/filter/copies"),
        ({"count": 1, "filter": {"realism": 1}}, "/filter/realism"),
        ({"count": 1001, "interpolate": {"to_seed": 1, "steps": 100}}, "/"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_pointed_at(
    post: Post, body: dict[str, object], pointer: str
) -> None:
    answer = post(**body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_temperature_is_kept_and_shown(post: Post) -> None:
    assert post(count=1, temperature=0.7).json()["temperature"] == 0.7
    assert post(count=1).json()["temperature"] == 1


def test_way_to_another_seed_counts_each_of_its_images(post: Post) -> None:
    way = {"to_seed": 2, "steps": 100}
    shown = post(count=1000, interpolate=way).json()
    assert (shown["requested"], shown["interpolate"]) == (100_000, way)


def test_copies_are_withheld_where_the_training_images_are_at_hand(post: Post) -> None:
    shown = post(count=1).json()
    assert shown["filter"] == {"copies": True, "realism": None}
    filters: list[object] = [None, {}, {"copies": None}, {"copies": True}]
    for asked in filters:
        shown = post(count=1, filter=asked).json()
        assert shown["filter"] == {"copies": True, "realism": None}
        assert (shown["withheld"], shown["withheld_by_label"]) == (0, {})
        assert samples.NOT_COMPARED not in shown["notes"]


def test_batch_that_is_not_compared_says_so(post: Post, parts: Parts) -> None:
    shown = post(count=1, filter={"copies": False}).json()
    assert (shown["filter"]["copies"], shown["notes"][0]) == (False, samples.NOT_COMPARED)
    with parts.database.transaction() as session:
        for dataset in session.scalars(select(Dataset)):
            dataset.packs = {}
    shown = post(count=1).json()
    assert (shown["filter"]["copies"], shown["notes"][0]) == (False, samples.NOT_COMPARED)


def test_batch_says_of_which_labels_there_were_few_training_images(
    post: Post, parts: Parts
) -> None:
    few = "20 training images, fewer than 30: expect copies of them"
    assert f"glioma has {few}" in post(counts={"glioma": 1}).json()["notes"]
    with parts.database.transaction() as session:
        for dataset in session.scalars(select(Dataset)):
            dataset.splits = {"train": {"glioma": 30, "meningioma": 29}}
    assert post(counts={"glioma": 1}).json()["notes"] == [samples.UNMEASURED]


def test_batch_of_a_generator_that_is_not_fit_says_so(
    api: httpx.Client, post: Post, parts: Parts
) -> None:
    generator = post(counts={"glioma": 1}).json()["generator_id"]
    assert api.get(f"/v1/generators/{generator}").json()["release"] is None
    values = {"all/kid": 3.0, "all/kid_noise": 4.0, "all/kid_floor": 0.5}
    with parts.database.transaction() as session:
        point = session.scalars(select(HistoryPoint)).one()
        point.values = {**values, "all/recall": 0.2}
    release = api.get(f"/v1/generators/{generator}").json()["release"]
    assert (release["is_passed"], release["floor_ratio"], release["most_distance"]) == (False, 6, 2)
    (reason,) = release["reasons"]
    assert f"not fit for use: {reason}" in post(counts={"glioma": 1}).json()["notes"]


@pytest.mark.parametrize("asked", [{"copies": True}, {"realism": 0.1}])
def test_filter_without_the_training_images_is_refused(
    post: Post, parts: Parts, asked: dict[str, object]
) -> None:
    with parts.database.transaction() as session:
        for dataset in session.scalars(select(Dataset)):
            dataset.packs = {}
    answer = post(count=1, filter=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "nothing to compare with" in answer.json()["detail"]


def test_mask_is_listed_where_there_is_one(
    api: httpx.Client, parts: Parts, new_chain: NewChain, tenant_id: str
) -> None:
    path = f"/v1/sample-batches/{new_chain(tenant_id)['batch_id']}/images"
    (shown,) = api.get(path).json()["data"]
    assert (shown["mask_sha256"], shown["mask_url"]) == (None, None)
    parts.storage.put("masks/0.png", b"mask", "image/png")
    with parts.database.transaction() as session:
        image = session.scalars(select(SampleImage)).one()
        image.mask_sha256, image.mask_key = "1" * 64, "masks/0.png"
    (shown,) = api.get(path).json()["data"]
    assert shown["mask_sha256"] == "1" * 64
    assert httpx.get(shown["mask_url"]).content == b"mask"
    with parts.database.transaction() as session:
        session.scalars(select(SampleImage)).one().released = False
    (shown,) = api.get(path).json()["data"]
    assert (shown["url"], shown["mask_url"]) == (None, None)


def _lay(parts: Parts, batch_id: str, rows: Sequence[tuple[str, int, int | None, bool]]) -> None:
    """Let the batch have these images: label, index in it, step, and whether it was released."""
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "PNG")
    parts.storage.put("images/laid.png", out.getvalue(), "image/png")
    with parts.database.transaction() as session:
        session.execute(delete(SampleImage).where(SampleImage.batch_id == batch_id))
        session.add_all(
            SampleImage(
                batch_id=batch_id,
                index=index,
                label=label,
                label_index=label_index,
                step=step,
                sha256="0" * 64,
                key="images/laid.png" if released else None,
                released=released,
                withheld_reason=None if released else "near_copy",
            )
            for index, (label, label_index, step, released) in enumerate(rows)
        )


def test_images_are_listed_by_whether_they_were_released(
    api: httpx.Client, parts: Parts, new_chain: NewChain, tenant_id: str
) -> None:
    batch_id = new_chain(tenant_id)["batch_id"]
    _lay(parts, batch_id, [("glioma", n, None, n % 3 != 1) for n in range(6)])
    path = f"/v1/sample-batches/{batch_id}/images"

    def listed(query: str) -> list[int]:
        return [one["index"] for one in api.get(f"{path}{query}").json()["data"]]

    assert listed("") == list(range(6))
    assert listed("?released=false") == [1, 4]
    assert listed("?released=true&limit=2&after=0") == [2, 3]
    assert api.get(f"{path}?released=true&limit=2").json()["next_cursor"] == "2"


@pytest.mark.parametrize(
    ("steps", "count", "columns", "shown"),
    [
        (4, 20, 4, [0, 1, 2, 3]),
        (4, 3, 3, [0, 2, 3]),
        (39, 20, 20, list(range(0, 39, 2))),
        (4, 1, 1, [0]),
    ],
)
def test_preview_of_ways_has_one_a_row(
    parts: Parts,
    new_chain: NewChain,
    tenant_id: str,
    steps: int,
    count: int,
    columns: int,
    shown: list[int],
) -> None:
    batch_id = new_chain(tenant_id)["batch_id"]
    laid = [
        (label, way, step, (way, step) != (0, 0))
        for label in ("glioma", "none")
        for way in range(3)
        for step in range(steps)
    ]
    _lay(parts, batch_id, laid)
    with parts.database.transaction() as session:
        row = session.get_one(SampleBatch, batch_id)
        row.config = {"interpolate": {"to_seed": 9, "steps": steps}}
        choice = samples.choose(session, row, count)
    first, *rest = choice.images[:columns]
    assert first is None, "it was withheld, and its place stays free"
    assert choice.columns == columns
    assert len(choice.images) == count // columns * columns
    assert [one.step for one in rest if one is not None] == shown[1:]
    sheet = Image.open(io.BytesIO(samples.preview(parts.storage, row, choice)))
    assert sheet.width == max(columns * 136 + 8, 640)
