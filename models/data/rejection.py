"""The verdict that a file cannot be used, apart from all decoders."""


class Rejection(Exception):  # noqa: N818 - it is a verdict on a file, not an error of ours
    """Raise for a file that is not usable, with a reason for a person and no value of the file."""


class Quarantine(Rejection):
    """Raise for a file that may show who the patient is."""

    has_personal_label: bool | None = None
    """Whether the label that was meant for it names its patient; None if nobody can say."""
