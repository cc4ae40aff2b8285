import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.samples import even_counts


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (6, {"a": 2, "b": 2, "c": 2}),
        (7, {"a": 3, "b": 2, "c": 2}),
        (2, {"a": 1, "b": 1}),
        (1, {"a": 1}),
    ],
)
def test_images_are_shared_earlier_labels_first(count: int, expected: dict[str, int]) -> None:
    assert even_counts(["a", "b", "c"], count) == expected


@given(st.integers(1, 100_000), st.integers(1, 100))
def test_shares_sum_up_and_differ_by_one_at_most(count: int, labels: int) -> None:
    shares = even_counts([str(number) for number in range(labels)], count).values()
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1
