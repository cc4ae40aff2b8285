import pytest

from app.traceparent import Traceparent, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_example_of_the_standard_is_read() -> None:
    known = Traceparent(int(TRACE, 16), int(SPAN, 16), is_sampled=True)
    assert parse(f"00-{TRACE}-{SPAN}-01") == known
    assert str(known) == f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False)])
def test_lowest_flag_says_whether_it_is_kept(flags: str, *, is_sampled: bool) -> None:
    found = parse(f"00-{TRACE}-{SPAN}-{flags}")
    assert found is not None
    assert found.is_sampled is is_sampled


@pytest.mark.parametrize("more", ["", "-", "-what-comes-in-a-later-version"])
def test_later_version_is_read_as_far_as_it_is_the_same(more: str) -> None:
    assert parse(f"cc-{TRACE}-{SPAN}-01{more}") == parse(f"00-{TRACE}-{SPAN}-01")


def test_leading_zeros_stay() -> None:
    text = f"00-{1:032x}-{2:016x}-01"
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01-\u00fc",
        f"0x-{TRACE}-{SPAN}-01",
    ],
)
def test_malformed_is_none(text: str | None) -> None:
    assert parse(text) is None
