"""Why files are not taken, in a few classes that can be counted."""

from enum import StrEnum


class Reason(StrEnum):
    """The class of a reason; what a person is told of a file is longer, and may have numbers."""

    PERSONAL = "personal"
    """The file may show who the patient is."""
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    EMPTY = "empty"
    DAMAGED = "damaged"
    UNSAFE = "unsafe"
    LAYOUT = "layout"
    """Its name, its folder or the manifest does not fit."""
    NOT_READ = "not_read"
    VALUES = "values"
    OTHER = "other"


# The first that fits counts.
_WORDS = (
    (Reason.PERSONAL, ("burned",)),
    (Reason.UNSAFE, ("preamble", "leaves the archive", "links are", "regular file", "bomb")),
    (Reason.LAYOUT, ("not listed", "without an image", "its sha-256", "be a label", "longer than",
                     "has no name", "system file")),
    (Reason.TOO_LARGE, ("too large", "larger than", "inflates to", "more than", "too long",
                        "too much")),
    (Reason.TOO_SMALL, ("shorter side",)),
    (Reason.EMPTY, ("is empty", "no content", "no pixels", "no slice", "every slice")),
    (Reason.DAMAGED, ("damaged", "truncated", "how it is encoded", "dimensions that cannot be",
                      "decoder")),
    (Reason.VALUES, ("nan", "infinite", "integers outside", "outside 0..1", "beyond what")),
    (Reason.NOT_READ, ("not an image", "not nifti", "not a nifti", "not read", "unsupported",
                       "unknown transfer", "several arrays", "the array", "encrypted",
                       "compressed by")),
)  # fmt: skip


def reason_class(reason: str) -> Reason:
    """Return the class of what an ingest says of a file; `OTHER` for words it does not know."""
    said = reason.lower()
    for found, words in _WORDS:
        if any(word in said for word in words):
            return found
    return Reason.OTHER
