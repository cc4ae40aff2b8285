import pytest

from models.metrics.share import clopper_pearson


@pytest.mark.parametrize(
    ("count", "total", "interval"),
    [(5, 100, (0.0164, 0.1128)), (0, 20, (0, 0.1684)), (20, 20, (0.8316, 1)), (0, 0, (0, 1))],
)
def test_interval_is_that_of_the_tables(
    count: int, total: int, interval: tuple[float, float]
) -> None:
    assert clopper_pearson(count, total) == pytest.approx(interval, abs=1e-4)
