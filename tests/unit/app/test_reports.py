"""What a report says of a generator that somebody else trained."""

from app import reports
from app.tables import Dataset, Generator

REAL = Dataset(digest="a")


def test_generator_trained_here_adds_no_limit() -> None:
    assert reports.limits(Generator(origin=None), REAL) == ()


def test_imported_generator_is_believed_only_as_far_as_it_goes() -> None:
    (same,) = reports.limits(Generator(origin={"dataset_digest": "a"}), REAL)
    (other,) = reports.limits(Generator(origin={"dataset_digest": "b"}), REAL)
    assert "what its archive says" in same
    assert "may have seen the holdout" in other
