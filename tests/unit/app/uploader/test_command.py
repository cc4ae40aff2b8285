import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from app.client import Client, Resource, ServiceError
from app.uploader import command, sending
from app.uploader.bookmark import Bookmark, place_of
from app.uploader.command import Wish, _found

URL = "http://service"
MARK = Bookmark(dataset_id="ds_1", upload_id="upl_1", sha256="a", options="[]")


class Service(Client):
    """Keeps what is deleted, and refuses to delete a completed upload."""

    def __init__(self, *, is_completed: bool = False) -> None:
        self.deleted: list[str] = []
        self._is_completed = is_completed

    def get(self, path: str) -> Resource:
        return {"id": path.rsplit("/", 1)[1]}

    def delete(self, path: str) -> None:
        if self._is_completed and "uploads" in path:
            raise ServiceError("it is completed", 409)
        self.deleted.append(path)


def test_the_same_files_and_wishes_go_on() -> None:
    assert _found(Service(), MARK, "a", "[]") == {"id": "upl_1"}
    assert _found(Service(), None, "a", "[]") is None


@pytest.mark.parametrize(("digest", "options"), [("b", "[]"), ("a", '["synthetic"]')])
def test_other_files_or_wishes_abandon_what_was_begun(digest: str, options: str) -> None:
    service = Service()
    assert _found(service, MARK, digest, options) is None
    assert service.deleted == ["/v1/uploads/upl_1", "/v1/datasets/ds_1"]


def test_changed_files_leave_a_completed_dataset_alone() -> None:
    service = Service(is_completed=True)
    assert _found(service, MARK, "b", "[]") is None
    assert service.deleted == []


class Memory(Client):
    """Datasets and uploads in memory, as the API shows them."""

    def __init__(self) -> None:
        self.datasets: dict[str, Resource] = {}
        self.uploads: dict[str, Resource] = {}
        self.followed: list[str] = []

    def create(self, path: str, body: Resource) -> Resource:
        if path == "/v1/datasets":
            name = f"ds_{len(self.datasets) + 1}"
            self.datasets[name] = body | {"id": name, "status": "empty"}
            return self.datasets[name]
        owner, verb = path.split("/")[-2:]
        if verb == "uploads":
            self.datasets[owner]["status"] = "uploading"
            name = f"upl_{len(self.datasets)}"
            self.uploads[name] = {
                "id": name,
                "dataset_id": owner,
                "status": "open",
                "size_bytes": body["size_bytes"],
                "part_bytes": 1 << 23,
                "part_count": 1,
                "stored": [],
            }
            return self.uploads[name]
        self.complete(owner)
        return self.datasets[self.uploads[owner]["dataset_id"]]

    def complete(self, upload_id: str) -> None:
        upload = self.uploads[upload_id]
        upload["status"] = "completed"
        self.datasets[upload["dataset_id"]]["status"] = "ingesting"

    def get(self, path: str) -> Resource:
        _, _, kind, name = path.split("/")
        known = self.datasets if kind == "datasets" else self.uploads
        if name not in known:
            raise ServiceError("404", 404)
        return known[name]

    def delete(self, path: str) -> None:
        found = self.get(path)
        if "dataset_id" not in found:
            del self.datasets[found["id"]]
        elif found["status"] == "completed":
            raise ServiceError("409", 409)
        else:
            self.datasets[found["dataset_id"]]["status"] = "empty"
            del self.uploads[found["id"]]

    def follow(self, path: str, on_job: Callable[[Resource], None]) -> Resource:
        self.followed.append(path)
        on_job({"progress": None, "queue": None, "status": "running"})
        raise KeyboardInterrupt


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK first")
    return path


@pytest.fixture
def upload(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Upload as told, with a storage that takes all, or Ctrl-C; return what was printed."""

    def run(
        service: Memory, *, ctrl_c: bool = False, waits: bool = False, kind: str = "real"
    ) -> str:
        def send(*_given: object) -> sending.Etags:
            if ctrl_c:
                raise KeyboardInterrupt
            return {1: "e"}

        monkeypatch.setattr(sending, "send", send)
        out = io.StringIO()
        wish = Wish(archive, waits=waits, kind=kind)
        try:
            command.run(service, URL, wish, tmp_path / "state", Console(file=out, width=200))
        except KeyboardInterrupt:
            out.write("Ctrl-C")
        return out.getvalue()

    return run


@pytest.fixture
def place(archive: Path, tmp_path: Path) -> Path:
    return place_of(tmp_path / "state", URL, archive)


def test_the_same_command_goes_on_with_the_same_upload(
    upload: Callable[..., str], place: Path
) -> None:
    service = Memory()
    assert "The same command sends the rest" in upload(service, ctrl_c=True)
    assert place.exists()
    upload(service)
    assert list(service.datasets) == ["ds_1"]
    assert service.datasets["ds_1"]["status"] == "ingesting"
    assert not place.exists()


def test_changed_bytes_begin_another_and_leave_nothing_of_the_first(
    upload: Callable[..., str], archive: Path
) -> None:
    service = Memory()
    upload(service, ctrl_c=True)
    archive.write_bytes(b"PK second, longer")
    upload(service)
    assert [one["status"] for one in service.datasets.values()] == ["ingesting"]
    assert [one["size_bytes"] for one in service.uploads.values()] == [17]


def test_other_options_begin_another(upload: Callable[..., str]) -> None:
    service = Memory()
    upload(service, ctrl_c=True)
    upload(service, kind="synthetic")
    assert [one["kind"] for one in service.datasets.values()] == ["synthetic"]


def test_content_that_arrived_stays_when_the_files_change(
    upload: Callable[..., str], archive: Path
) -> None:
    service = Memory()
    upload(service, ctrl_c=True)
    service.complete("upl_1")  # and the answer was lost
    archive.write_bytes(b"PK second")
    upload(service)
    assert list(service.datasets) == ["ds_1", "ds_2"]


def test_what_expired_begins_anew(upload: Callable[..., str]) -> None:
    service = Memory()
    upload(service, ctrl_c=True)
    service.uploads.clear()
    service.datasets["ds_1"]["status"] = "empty"
    upload(service)
    assert [one["status"] for one in service.datasets.values()] == ["ingesting"]


def test_a_lost_answer_to_completing_sends_nothing_again(upload: Callable[..., str]) -> None:
    service = Memory()
    upload(service, ctrl_c=True)
    service.complete("upl_1")
    assert "Ctrl-C" not in upload(service, ctrl_c=True)
    assert list(service.datasets) == ["ds_1"]


def test_ctrl_c_while_ingesting_leaves_the_job_and_says_so(
    upload: Callable[..., str], place: Path
) -> None:
    service = Memory()
    said = upload(service, waits=True)
    assert f"The ingest goes on without you: {URL}/v1/datasets/ds_1" in said
    assert service.followed == ["/v1/datasets/ds_1"]
    assert not place.exists()


def test_a_bookmark_is_written_before_anything_is_sent(
    upload: Callable[..., str], place: Path
) -> None:
    upload(Memory(), ctrl_c=True)
    found = Bookmark.read(place)
    assert found is not None
    assert (found.dataset_id, found.upload_id) == ("ds_1", "upl_1")
