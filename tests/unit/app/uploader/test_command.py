import pytest

from app.client import Client, Resource, ServiceError
from app.uploader.bookmark import Bookmark
from app.uploader.command import _found

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
