from fastapi import Request

from app.api.caching import cached_png


def _request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


def test_current_picture_is_not_drawn_again() -> None:
    first = cached_png(_request(), "a", lambda: b"png")
    assert (first.status_code, first.body) == (200, b"png")
    assert "private" in first.headers["cache-control"]
    etag = first.headers["etag"]
    again = cached_png(_request(if_none_match=f'"other", {etag}'), "a", lambda: b"drawn again")
    assert (again.status_code, again.body) == (304, b"")
    assert again.headers["etag"] == etag


def test_another_picture_has_another_etag() -> None:
    etag = cached_png(_request(), "a", lambda: b"png").headers["etag"]
    answer = cached_png(_request(if_none_match=etag), "b", lambda: b"new")
    assert (answer.status_code, answer.body) == (200, b"new")
