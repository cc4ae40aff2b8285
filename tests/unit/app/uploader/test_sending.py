import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.client import Client, Resource, ServiceError
from app.uploader import sending
from app.uploader.sending import Sending, stored

CONTENT = bytes(range(256)) * 10
UPLOAD: Resource = {
    "id": "upl_1",
    "part_bytes": 1000,
    "part_count": 3,
    "size_bytes": len(CONTENT),
    "stored": [],
}


class Service(Client):
    """Signs what is asked for, without a network."""

    def __init__(self) -> None:
        self.signed: list[list[int]] = []

    def create(self, path: str, body: Resource) -> Resource:
        assert path == "/v1/uploads/upl_1/parts"
        numbers = body["numbers"]
        self.signed.append(numbers)
        return {"parts": [{"number": n, "url": f"http://s3/{n}?fresh"} for n in numbers]}


def ignore(_size: int) -> None:
    pass


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_FIRST_PAUSE_S", 0.0)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Sending]:
    (tmp_path / "file").write_bytes(CONTENT)

    def build(answer: Callable[[httpx.Request], httpx.Response]) -> Sending:
        storage = httpx.Client(transport=httpx.MockTransport(answer))
        heard: list[int] = []
        return Sending(
            Service(), storage, tmp_path / "file", UPLOAD, heard.append, threading.Event()
        )

    return build


def test_a_part_is_its_bytes_with_their_checksum(make: Callable[..., Sending]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.content == CONTENT[2000:]
        assert request.headers["content-md5"]
        assert "authorization" not in request.headers
        return httpx.Response(200, headers={"ETag": '"e3"'})

    assert make(answer).part(3, "http://s3/3") == (3, '"e3"')


def test_what_may_succeed_later_is_tried_again(make: Callable[..., Sending]) -> None:
    answers: list[httpx.Response | httpx.ReadTimeout] = [
        httpx.Response(503),
        httpx.ReadTimeout("slow"),
        httpx.Response(200, headers={"ETag": "e"}),
    ]

    def answer(_request: httpx.Request) -> httpx.Response:
        one = answers.pop(0)
        if isinstance(one, httpx.ReadTimeout):
            raise one
        return one

    heard: list[int] = []
    on_its_way = replace(make(answer), on_bytes=heard.append)
    assert on_its_way.part(1, "http://s3/1") == (1, "e")
    assert answers == []
    assert sum(heard) == 1000


def test_an_expired_url_is_signed_anew(make: Callable[..., Sending]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "fresh" in str(request.url):
            return httpx.Response(200, headers={"ETag": "e"})
        return httpx.Response(403)

    on_its_way = make(answer)
    assert on_its_way.part(2, "http://s3/2?old") == (2, "e")
    assert isinstance(on_its_way.client, Service)
    assert on_its_way.client.signed == [[2]]


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (500, sending.ATTEMPTS)])
def test_a_refusal_ends_it_and_says_how_to_go_on(
    make: Callable[..., Sending], status: int, tries: int
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status)

    with pytest.raises(ServiceError, match=f"part 1 with {status}; the same command goes on"):
        make(answer).part(1, "http://s3/1")
    assert len(seen) == tries


def test_nothing_is_tried_again_after_a_stop(make: Callable[..., Sending]) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        on_its_way.stopped.set()
        return httpx.Response(503)

    on_its_way = make(answer)
    with pytest.raises(ServiceError):
        on_its_way.part(1, "http://s3/1")


def test_only_whole_parts_count_as_stored() -> None:
    etag = hashlib.md5(b"", usedforsecurity=False).hexdigest()
    found = [(1, 1000), (2, 999), (3, 560)]
    upload = UPLOAD | {
        "stored": [{"number": n, "etag": etag, "size_bytes": size} for n, size in found]
    }
    assert stored(upload) == {1: etag, 3: etag}


def test_many_parts_are_signed_a_hundred_at_a_time() -> None:
    service = Service()
    urls = sending.sign(service, UPLOAD, list(range(1, 251)))
    assert [len(numbers) for numbers in service.signed] == [100, 100, 50]
    assert sorted(urls) == list(range(1, 251))


def test_only_what_the_storage_lacks_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, headers={"ETag": request.url.path})

    upload = UPLOAD | {"stored": [{"number": 2, "etag": "old", "size_bytes": 1000}]}
    heard: list[int] = []
    transport = httpx.MockTransport(answer)
    etags = sending.send(Service(), tmp_path / "file", upload, heard.append, transport=transport)
    assert etags == {1: "/1", 2: "old", 3: "/3"}
    assert sorted(seen) == ["/1", "/3"]
    assert sum(heard) == len(CONTENT) - 1000


def test_a_refusal_waits_for_no_part_that_is_stuck(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    is_stuck, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/1":
            is_stuck.set()
            let_go.wait(30)
            ended.set()
            return httpx.Response(200, headers={"ETag": "e"})
        is_stuck.wait(30)
        return httpx.Response(400)

    transport = httpx.MockTransport(answer)
    with pytest.raises(ServiceError, match="400"):
        sending.send(Service(), tmp_path / "file", UPLOAD, ignore, transport=transport)
    assert not ended.is_set()
    let_go.set()
    assert ended.wait(30)


def test_nothing_missing_sends_nothing(tmp_path: Path) -> None:
    there = [
        {"number": n, "etag": "e", "size_bytes": size}
        for n, size in ((1, 1000), (2, 1000), (3, 560))
    ]
    service = Service()
    etags = sending.send(service, tmp_path / "absent", UPLOAD | {"stored": there}, ignore)
    assert etags == {1: "e", 2: "e", 3: "e"}
    assert service.signed == []
