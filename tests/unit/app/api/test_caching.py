import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.api.caching import PictureCache


def _fail() -> bytes:
    raise AssertionError("it was drawn again")


def test_picture_is_drawn_once() -> None:
    cache = PictureCache()
    assert cache.get("a", lambda: b"a") == cache.get("a", _fail) == b"a"


def test_those_who_ask_at_once_have_it_drawn_once() -> None:
    cache, drawn, start = PictureCache(), [], threading.Barrier(8)

    def ask(_: int) -> bytes:
        start.wait()
        return cache.get("a", lambda: drawn.append(1) or b"a")  # type: ignore[func-returns-value]  # counts

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {b"a"}
    assert len(drawn) == 1


def test_oldest_go_when_there_is_too_much() -> None:
    cache = PictureCache(most_bytes=2)
    for name in ("a", "b", "a", "c"):
        cache.get(name, lambda: b"x")
    assert [cache.get(name, _fail) for name in ("a", "c")] == [b"x", b"x"]
    with pytest.raises(AssertionError):
        cache.get("b", _fail)


def test_picture_that_is_too_large_is_not_kept() -> None:
    cache = PictureCache(most_bytes=1)
    assert cache.get("a", lambda: b"xx") == b"xx"
    assert cache.get("a", lambda: b"y") == b"y"


def test_failure_is_not_kept() -> None:
    cache = PictureCache()
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: bytes(1 // 0))
    assert cache.get("a", lambda: b"a") == b"a"
