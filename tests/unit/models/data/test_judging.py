import hashlib
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from models.config import IngestConfig, LabelSource
from models.data.archive import Entry
from models.data.judging import DOUBT, NO_TUMOR, TUMOR, Accepted, Judge, Ticket, by_file
from models.data.layout import UNLABELLED, Part
from models.data.masks import Masks
from models.data.outcomes import EMPTY, Decoded, MaskSlice, Opened, Quarantined
from models.data.raw_slices import RawSlice
from models.run_folder import FileVerdict, UserError

RAW = RawSlice(b"", "|u1", 64, 64, "v", 3, 0.0, plane="axial", spacing_mm=(1.0, 2.0))


def judge(**config: object) -> Judge:
    return Judge({}, IngestConfig.model_validate(config))


def ticket(index: int, **part: object) -> Ticket:
    return Ticket(index, Entry(f"{index}.png", "a"), Part(**({"label": "a"} | part)))  # type: ignore[arg-type]


def image(sha256: str) -> Decoded:
    return Decoded(sha256, 64, 64, bytes(256), {})


def test_the_first_of_equal_pictures_is_taken() -> None:
    one = judge()
    first = one.picture(ticket(0), image("x"))
    again = one.picture(ticket(1, label="b"), image("x"))
    other = one.picture(ticket(2), image("y"))
    assert [v.verdict for v in (first, again, other)] == ["accepted", "duplicate", "accepted"]
    assert again.reason == "same pixels as file 0"
    assert [(kept.sha256, kept.label) for kept in one.accepted] == [("x", "a"), ("y", "a")]
    assert one.duplicate_count == 1


def test_refusals_are_counted_by_reason() -> None:
    one = judge()
    for at in range(3):
        one.rejected(ticket(at), "too small")
    verdict = one.quarantine(ticket(3), Quarantined("shows text"))
    assert (one.reasons["too small"], one.quarantined["shows text"]) == (3, 1)
    assert (verdict.verdict, verdict.reason) == ("quarantined", "shows text")


def settled(one: Judge, *outcomes: Decoded | str) -> FileVerdict:
    """Settle a volume of some slices, of which the second of equal ones is a duplicate."""
    opened = one.opened(ticket(7), Opened((), ("is oblique",)))
    for outcome in outcomes:
        one.slice(ticket(7), RAW, outcome, "volume v")
    one.count_settled()
    return one.settled(opened)


def test_a_volume_is_accepted_with_any_of_its_slices() -> None:
    one = judge()
    verdict = settled(one, EMPTY, image("x"), image("x"), EMPTY)
    assert (verdict.verdict, verdict.image_count) == ("accepted", 1)
    assert verdict.remarks == (
        "is oblique",
        "2 empty slices were skipped",
        "1 slices were there before",
    )
    (kept,) = one.accepted
    assert (kept.plane, kept.spacing_mm, kept.slice_number, kept.key) == (
        "axial",
        (1.0, 2.0),
        3,
        "volume v",
    )
    assert not one.reasons


def test_a_volume_of_empty_slices_is_rejected() -> None:
    one = judge()
    verdict = settled(one, EMPTY, EMPTY)
    assert (verdict.verdict, verdict.reason) == (
        "rejected",
        "no content: all of its slices are empty",
    )
    assert one.reasons.total() == 1


def test_a_volume_whose_slices_could_not_be_made_says_why() -> None:
    one = judge()
    assert settled(one, EMPTY, "too large to decode").reason == "too large to decode"
    assert one.reasons["too large to decode"] == 1


def test_a_volume_that_was_there_before_is_a_duplicate() -> None:
    one = judge()
    one.picture(ticket(0), image("x"))
    verdict = settled(one, image("x"), EMPTY)
    assert (verdict.verdict, verdict.image_count) == ("duplicate", 0)
    assert one.reasons.total() == 0


def test_the_manifest_knows_planes_and_groups_better() -> None:
    one = judge()
    one.picture(ticket(0, plane="coronal", group="p1"), image("x"))
    one.opened(ticket(1), Opened(()))
    one.slice(ticket(1), RAW, image("y"), None)
    assert [(kept.plane, kept.key) for kept in one.accepted] == [
        ("coronal", "manifest p1"),
        ("axial", None),
    ]


@pytest.mark.parametrize("source", LabelSource)
def test_masks_are_matched_and_may_give_the_label(tmp_path: Path, source: LabelSource) -> None:
    one = judge(labels=source)
    masks = {"two": ("m1", "m2"), "empty": ("m0",), "other size": ("small",), "none": ()}
    for at, (name, paths) in enumerate(masks.items()):
        one.picture(ticket(at, masks=paths), image(name))
    with Masks(tmp_path, ()) as kept:
        for path, size, area in (("m1", 64, 5), ("m2", 64, 7), ("m0", 64, 0), ("small", 32, 9)):
            kept.add(path, (MaskSlice(size, size, area, {}),))
        one.match_masks(kept)
    assert [accepted.mask_area_px for accepted in one.accepted] == [12, 0, None, None]
    assert [len(accepted.masks) for accepted in one.accepted] == [2, 1, 0, 0]
    assert one.remarks["its mask could not be used, or has another size"] == 1
    by_mask = [TUMOR, NO_TUMOR, UNLABELLED, UNLABELLED]
    expected = by_mask if source is LabelSource.MASK else ["a"] * 4
    assert [accepted.label for accepted in one.accepted] == expected


def test_nothing_usable_says_what_was_wrong() -> None:
    one = judge()
    one.rejected(ticket(0), "too small")
    one.file_count = 1
    with pytest.raises(UserError, match="0 of 1 files could be used: 1 too small; upload DICOM"):
        one.check()


def test_too_many_labels_are_refused() -> None:
    one = judge(max_labels=2)
    for at in range(3):
        one.picture(ticket(at, label=f"label {at}"), image(str(at)))
    with pytest.raises(UserError, match="found 3 class folders; at most 2"):
        one.check()


def test_little_is_kept_of_an_image() -> None:
    count = 2000
    with tempfile.TemporaryFile() as fingerprints:
        one = Judge({}, IngestConfig(), fingerprints)
        tracemalloc.start()
        try:
            for at in range(count):
                digest = hashlib.sha256(str(at).encode()).hexdigest()
                one.picture(ticket(at, label=b"glioma".decode()), image(digest))
            kept_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert kept_bytes / count < 700


def test_fingerprints_are_rows_in_the_order_of_the_images() -> None:
    one = judge()
    for at in range(3):
        decoded = Decoded(str(at), 64, 64, bytes([at]) * 256, {})
        one.picture(ticket(at), decoded)
        one.picture(ticket(10 + at), decoded)  # a duplicate has none
    assert one.all_fingerprints()[:, 0].tolist() == [0, 1, 2]


def test_images_are_collected_by_file() -> None:
    images = [
        Accepted(file_index, 0, "a", None, str(at), (1, 1), ())
        for at, file_index in enumerate((4, 2, 4))
    ]
    assert [(index, [one.sha256 for one in own]) for index, own in by_file(images)] == [
        (4, ["0", "2"]),
        (2, ["1"]),
    ]


def volumes(one: Judge, *labels: str, key: str = "volume {}", **part: object) -> Judge:
    """Take a slice of one volume for each label."""
    for at, label in enumerate(labels):
        whose = ticket(at, label=label, **part)
        one.opened(whose, Opened(()))
        one.slice(whose, RAW, image(str(at)), key.format(at))
    one.check()
    return one


def test_labels_that_may_be_patients_are_doubted() -> None:
    assert volumes(judge(), "01", "01", "05", "05").remarks[DOUBT] == 2


def test_labels_of_many_volumes_or_of_known_patients_are_not_doubted() -> None:
    assert DOUBT not in volumes(judge(), *["a", "b"] * 5).remarks
    assert DOUBT not in volumes(judge(), "01", "05", key="patient {}").remarks
    assert DOUBT not in volumes(judge(), "01", "05", is_label_given=True).remarks
    assert DOUBT not in volumes(judge(), "01").remarks
    assert DOUBT not in volumes(judge(labels=LabelSource.MASK), "01", "05").remarks
