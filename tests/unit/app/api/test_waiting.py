import pytest

from app.api.waiting import preferred_s


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=3", 3),
        ("wait=10", 10),
        ("wait=3600", 10),
        ('wait="5"', 5),
        ("respond-async, wait=4", 4),
        ("Wait = 4; foo=bar", 4),
        (None, None),
        ("", None),
        ("wait", None),
        ("wait=-1", None),
        ("wait=soon", None),
        ("await=3", None),
    ],
)
def test_wait_is_read_off_the_header(prefer: str | None, seconds: int | None) -> None:
    assert preferred_s(prefer) == seconds
