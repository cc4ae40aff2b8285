from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.samples import apportion


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (6, {"a": 2, "b": 2, "c": 2}),
        (7, {"a": 3, "b": 2, "c": 2}),
        (2, {"a": 1, "b": 1, "c": 0}),
        (1, {"a": 1, "b": 0, "c": 0}),
    ],
)
def test_images_are_shared_earlier_labels_first(count: int, expected: dict[str, int]) -> None:
    assert apportion(count, {"a": 1, "b": 1, "c": 1}) == expected


@given(st.integers(1, 100_000), st.integers(1, 100))
def test_even_shares_sum_up_and_differ_by_one_at_most(count: int, labels: int) -> None:
    counts = apportion(count, {str(number): 0.1 for number in range(labels)}).values()
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1


def test_left_over_images_go_to_the_largest_remainders() -> None:
    # Quotas 4.7, 3.1 and 2.2, of Hamilton's method.
    assert apportion(10, {"a": 0.47, "b": 0.31, "c": 0.22}) == {"a": 5, "b": 3, "c": 2}


@given(
    st.integers(1, 100_000),
    st.dictionaries(st.text(), st.floats(0, 1, exclude_min=True), min_size=1, max_size=100),
)
def test_each_label_gets_its_quota_up_to_one(count: int, shares: dict[str, float]) -> None:
    counts = apportion(count, shares)
    assert sum(counts.values()) == count
    total = sum(map(Fraction, shares.values()))
    assert all(abs(counts[one] - count * Fraction(shares[one]) / total) < 1 for one in shares)
