import pytest

from app.api.problems import documented, pointer
from app.errors import GliaforgeError, NotFoundError, NotReadyError


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (("body",), "/"),
        (("body", "name"), "/name"),
        (("body", "counts", "a/b~c"), "/counts/a~1b~0c"),
        (("body", "scopes", 0), "/scopes/0"),
        (("query", "limit"), "query/limit"),
        (("header", "idempotency-key"), "header/idempotency-key"),
    ],
)
def test_pointer_is_of_rfc_6901_for_the_body(
    location: tuple[str | int, ...], expected: str
) -> None:
    assert pointer(location) == expected


def test_lone_surrogate_in_a_pointer_can_be_sent() -> None:
    pointer(("body", "\ud800")).encode()


def test_every_route_documents_what_any_request_may_meet() -> None:
    assert set(documented()) == {400, 401, 403, 408, 413, 422, 503}


def test_errors_of_one_status_share_their_description() -> None:
    described = documented(NotFoundError, NotReadyError)
    assert "`not_ready`" in str(described[409]["description"])
    assert "`not_found`" in str(described[404]["description"])


def test_codes_are_stable_and_titles_are_sentences() -> None:
    def kinds(kind: type[GliaforgeError]) -> set[type[GliaforgeError]]:
        return {kind}.union(*(kinds(one) for one in kind.__subclasses__()))

    found = kinds(GliaforgeError) - {GliaforgeError}
    assert len({kind.code for kind in found}) == len(found)
    assert all(kind.title[0].isupper() and 400 <= kind.status < 600 for kind in found)
