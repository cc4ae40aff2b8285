"""What a report says of a generator that somebody else trained, and of images made elsewhere."""

from app import reports
from app.tables import Dataset, Generator, SampleBatch

REAL = Dataset(digest="a")
DRAWN = SampleBatch(curated_by=None)


def test_generator_trained_here_adds_no_limit() -> None:
    assert reports.limits(DRAWN, Generator(origin=None), REAL) == ()


def test_imported_generator_is_believed_only_as_far_as_it_goes() -> None:
    (same,) = reports.limits(DRAWN, Generator(origin={"dataset_digest": "a"}), REAL)
    (other,) = reports.limits(DRAWN, Generator(origin={"dataset_digest": "b"}), REAL)
    assert "what its archive says" in same
    assert "may have seen the holdout" in other


def test_images_that_a_report_has_chosen_look_better_than_fresh_ones() -> None:
    chosen = SampleBatch(curated_by="rpt_1", curated_drop=["double"])
    (limit,) = reports.limits(chosen, Generator(origin=None), REAL)
    assert "chosen by report rpt_1, which dropped what it flagged (double)" in limit


def synthetic(**counts: int) -> Dataset:
    none = {"duplicate_count": 0, "rejected_count": 0, "quarantined_count": 0}
    return Dataset(image_count=9, **(none | counts))


def test_images_made_elsewhere_are_measured_without_trust() -> None:
    limits = reports.limits_of_dataset(synthetic(), 9)
    assert limits == (reports.UNKNOWN_GENERATOR, reports.UNKNOWN_SPLIT)


def test_what_ingest_left_out_of_the_images_is_said() -> None:
    found = synthetic(duplicate_count=3, rejected_count=1, quarantined_count=1)
    _, _, unread, small = reports.limits_of_dataset(found, 7)
    assert "3 images were the same as others and 2 files were refused" in unread
    assert small.startswith("2 of 9 synthetic images")
