import re
import time

import pytest

from app.identifiers import Prefix, new_id, uuid7


def test_version_and_variant_are_of_rfc_9562() -> None:
    for _ in range(100):
        made = uuid7()
        assert made.version == 7
        assert made.variant == "specified in RFC 4122"


def test_first_48_bits_are_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 9562, appendix A.6: this moment is 017F22E2-79B0 in hex.
    monkeypatch.setattr(time, "time_ns", lambda: 0x017F22E279B0 * 1_000_000)
    assert uuid7().hex.startswith("017f22e279b07")


def test_later_ids_sort_after() -> None:
    first = new_id(Prefix.JOB)
    time.sleep(0.002)
    assert new_id(Prefix.JOB) > first


def test_ids_are_not_repeated() -> None:
    assert len({new_id(Prefix.JOB) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("prefix", Prefix)
def test_id_has_its_prefix_and_32_digits(prefix: Prefix) -> None:
    assert re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", new_id(prefix))
