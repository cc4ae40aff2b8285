"""The card that leaves with a generator: what it is, what it has learnt from, and its limits."""

from models.exchange import DESCRIPTION, WEIGHTS, Description, Verdict

_SPLITS = ("train", "validation", "holdout")
_KINDS = {
    "real": "images of patients, de-identified on ingest",
    "synthetic": "synthetic images",
}


def card(described: Description) -> str:
    """Return the card as Markdown; it has counts and settings, and nothing of any one image."""
    return f"""# Generator of synthetic brain MRI slices

It draws grey slices of {described.image_size} x {described.image_size} px for the labels
{", ".join(described.labels)}{_masks(described)}.
What it draws is synthetic. **Not for diagnosis**, and for no decision about a patient.

Licence: as its owner decides; none is granted by this file.

## Files

- `{WEIGHTS}`: {described.value_count:,} numbers, {described.size_bytes:,} bytes; SHA-256
  `{described.sha256}`
- `{DESCRIPTION}`: this card for programs

Both are numbers and text: to load them runs no code. `POST /v1/generators/import` of Gliaforge
takes the zip as it is; the same seed then gives the same pixels as where it was trained.

## What it has learnt from

{_KINDS[described.dataset_kind].capitalize()}. Digest of the dataset: `{described.dataset_digest}`.
It was trained on the split `train` alone; `validation` chose among its checkpoints, and `holdout`
was never shown to it.

{_counts(described)}

## Training

{described.images_seen:,} images shown in {described.step:,} steps, seed {described.seed}.

{_table(("setting", "value"), _settings(described))}

## Whether its images may be used

{_verdict(described.release)}

## What was measured while it was trained

{_metrics(described)}

## Limits

- A generator may draw images that are nearly those of its training. Have a report look for copies
  before images, or the generator itself, are given away.
- It knows the scanners, planes and patients of one dataset, in its proportions, and no others.
- A label says what the network was asked for, not that the lesion is there.
- The numbers above are of its training. A report of images that it draws measures more.

Written by {described.software}.
"""


def _verdict(found: Verdict | None) -> str:
    if found is None:
        return (
            "**Unknown**: how near its images are to unseen real ones was not measured of this"
            " checkpoint."
        )
    if found.is_passed:
        return (
            "**Passed** by the release rule of where it was trained: its images are near enough to"
            "\nunseen real ones, and not all alike. That keeps out noise and collapse; it says"
            " nothing of anatomy."
        )
    reasons = "".join(f"\n- {reason}" for reason in found.reasons)
    return f"**Not fit for use**, by the release rule of where it was trained:\n{reasons}"


def _masks(described: Description) -> str:
    return "; beside each a mask of its tumour" if described.config.planes > 1 else ""


def _counts(described: Description) -> str:
    labels = sorted({label for counts in described.images.values() for label in counts})
    if not labels:
        return "How many images it was is not known."
    rows = [
        (label, *(described.images.get(split, {}).get(label, 0) for split in _SPLITS))  # type: ignore[call-overload]  # they are its literals
        for label in labels
    ]
    return _table(("label", *_SPLITS), rows)


def _settings(described: Description) -> list[tuple[object, ...]]:
    return list(described.config.model_dump(mode="json").items())


def _metrics(described: Description) -> str:
    if not described.metrics:
        return "Nothing."
    rows = [(name, f"{value:.6g}") for name, value in sorted(described.metrics.items())]
    return _table(("measure", "value"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]] | list[tuple[str, str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
