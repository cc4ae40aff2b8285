"""Which images are dropped, and what is said of it."""

from app import curation
from app.curation import Flag
from app.samples import file_name
from app.tables import SampleBatch

CSV = b"""file,label,index,realism,nearest_distance,unseen_distance,correlation,flags
images/a/0.png,a,0,0.9,1,1,0.5,
images/a/1.png,a,1,0.9,1,1,0.5,double;near_copy
images/a/2.png,a,2,0.1,1,1,0.5,low_realism
images/a/3.png,a,3,0.9,1,1,0.5,a_flag_of_tomorrow
images/of a stranger/4.png,of a stranger,4,,,,,
"""
FLAGGED = curation.read(CSV)


def test_flags_are_read_image_by_image() -> None:
    assert FLAGGED["images/a/1.png"] == {"double", "near_copy"}
    assert len(FLAGGED) == 4


def test_image_that_was_not_judged_has_no_flags() -> None:
    assert "images/of a stranger/4.png" not in FLAGGED


def test_only_what_is_named_is_dropped() -> None:
    assert curation.reasons(FLAGGED, [Flag.DOUBLE]) == {"images/a/1.png": Flag.DOUBLE}
    assert curation.reasons(FLAGGED, [Flag.EXACT_COPY]) == {}
    assert len(curation.reasons(FLAGGED, list(Flag))) == 2


def test_worst_flag_is_the_reason() -> None:
    found = curation.reasons(FLAGGED, [Flag.DOUBLE, Flag.NEAR_COPY])
    assert found == {"images/a/1.png": Flag.NEAR_COPY}


def test_notes_count_what_was_dropped_and_what_nobody_judged() -> None:
    row = SampleBatch(curated_from="smp_1", curated_by="rpt_1")
    dropped = curation.reasons(FLAGGED, list(Flag))
    told, unjudged = curation.notes(row, dropped, 1200)
    assert told == ("2 images of smp_1 that rpt_1 flagged were dropped: 1 near_copy, 1 low_realism")
    assert unjudged == "1,200 of the other images were not judged by rpt_1"
    assert curation.notes(row, {}, 0) == ["0 images of smp_1 that rpt_1 flagged were dropped"]


def test_images_have_the_names_that_drawing_gives_them() -> None:
    assert file_name("a b", 7, None) == "images/a b/000007.png"
    assert file_name("a", 7, 3) == "images/a/000007-03.png"
