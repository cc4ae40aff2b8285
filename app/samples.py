"""Sample batches: ask for images by label, list them, hand them out."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from PIL import Image
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app import counts, datasets, generators, jobs, metrics
from app.contact_sheet import Tile, draw
from app.errors import InvalidRequestError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.resources import require_ready, start_job
from app.storage import Storage, resource_prefix
from app.tables import Checkpoint, Generator, SampleBatch, SampleImage
from models.config import SamplingConfig

ROWS_AT_ONCE = 1000
MOST_COLUMNS = 20
"""Steps of a way that a preview shows side by side."""
UNMEASURED = "how near they are to unseen real images was not measured of this checkpoint"
NOT_COMPARED = "not compared with the training images: it may hold near copies of them"


@dataclass(frozen=True)
class Wish:
    """What is to be drawn."""

    counts: Mapping[str, int]
    """Label -> number of images; labels with none are left out."""
    seed: int = 0
    config: SamplingConfig = field(default_factory=SamplingConfig)
    """Its `filter.copies` gives way to the next."""
    copies: bool | None = None
    """Withhold near copies of training images; None does where those are at hand."""
    image_format: str = "png"


@dataclass(frozen=True)
class Choice:
    """The images of a preview, row by row."""

    images: tuple[SampleImage | None, ...]
    """None where one was withheld."""
    columns: int


def create(
    session: Session,
    generator: Generator,
    wish: Wish,
    *,
    checkpoint_id: str | None,
    request_id: str | None,
) -> SampleBatch:
    """Add a batch and queue its drawing.

    Raises:
        NotReadyError: if the generator has no checkpoint yet.
        NotFoundError: if it has no such checkpoint.
        InvalidRequestError: if it cannot make one of the labels, or a filter is asked for that has
            nothing to compare with.
    """
    checkpoint = generators.checkpoint(session, generator, checkpoint_id)
    unknown = sorted(set(wish.counts) - set(generator.labels))
    if unknown:
        raise InvalidRequestError(
            f"the generator cannot make {', '.join(unknown)};"
            f" it makes {', '.join(generator.labels)}"
        )
    config, notes = _with_filter(session, generator, wish)
    notes += _doubts(session, generator, checkpoint, wish)
    row = SampleBatch(
        id=new_id(Prefix.SAMPLE_BATCH),
        tenant_id=generator.tenant_id,
        generator_id=generator.id,
        checkpoint_id=checkpoint.id,
        counts={label: count for label, count in wish.counts.items() if count},
        seed=wish.seed,
        config=config.model_dump(mode="json"),
        notes=notes,
        format=wish.image_format,
    )
    start_job(session, row, Kind.GENERATE, request_id)
    return row


def _with_filter(
    session: Session, generator: Generator, wish: Wish
) -> tuple[SamplingConfig, list[str]]:
    """Decide whether near copies are withheld; return how to draw, and what to say about it."""
    is_at_hand = generators.training_pack_key(session, generator) is not None
    copies = is_at_hand if wish.copies is None else wish.copies
    if (copies or wish.config.filter.realism is not None) and not is_at_hand:
        raise InvalidRequestError(
            "the images that the generator was trained on are not here, so a filter has nothing to"
            " compare with; ask without it"
        )
    chosen = wish.config.filter.model_copy(update={"copies": copies})
    return wish.config.model_copy(update={"filter": chosen}), [] if copies else [NOT_COMPARED]


def _doubts(
    session: Session, generator: Generator, checkpoint: Checkpoint, wish: Wish
) -> list[str]:
    """Say what speaks against the images before there are any."""
    judged = generators.judged(session, generator, checkpoint.id)
    few = generators.few_images(session, generator)
    found = [UNMEASURED]
    if judged is not None:
        found = [f"not fit for use: {one}" for one in judged.reasons]
    return found + [
        f"{label} has {few[label]} training images, fewer than {datasets.FEW_IMAGES}: expect"
        " copies of them"
        for label, count in wish.counts.items()
        if count and label in few
    ]


def apportion(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide `count` images over the labels in proportion to their shares, all above 0.

    Each label gets its quota rounded down; the images left over go to the largest remainders, and
    among equal ones to the earlier label. In fractions, since rounding would break the ties.
    """
    total = sum(map(Fraction, shares.values()))
    quotas = {label: count * Fraction(share) / total for label, share in shares.items()}
    counts = {label: int(quota) for label, quota in quotas.items()}
    rest = count - sum(counts.values())
    for label in sorted(quotas, key=lambda one: counts[one] - quotas[one])[:rest]:
        counts[label] += 1
    return counts


def prefix(row: SampleBatch) -> str:
    """Return the key prefix of everything that belongs to the batch."""
    return resource_prefix(row.tenant_id, "sample-batches", row.id)


def seal(
    session: Session,
    claim: Claim,
    archive_key: str,
    images: Iterable[dict[str, object]],
    notes: Sequence[str] = (),
) -> None:
    """Record the images, whose objects are complete, and the archive of those released.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(SampleBatch, claim.resource_id)
    session.execute(delete(SampleImage).where(SampleImage.batch_id == row.id))
    rows = [{"batch_id": row.id, **image} for image in images]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        session.execute(insert(SampleImage), rows[start : start + ROWS_AT_ONCE])
    withheld = Counter(str(one["label"]) for one in rows if not one["released"])
    row.archive_key, row.released = archive_key, len(rows) - withheld.total()
    row.withheld, row.withheld_by_label = withheld.total(), dict(withheld)
    row.notes = [*row.notes, *notes]
    if row.curated_from is None:  # else they were counted when they were drawn
        counts.add(session, metrics.SAMPLED_IMAGES, metrics.RELEASED, by=row.released)
        counts.add(session, metrics.SAMPLED_IMAGES, metrics.WITHHELD, by=row.withheld)


def note_withheld(session: Session, claim: Claim, withheld: Mapping[str, int]) -> None:
    """Record how many images of each label were withheld of a batch of which nothing is left.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(SampleBatch, claim.resource_id)
    row.withheld, row.withheld_by_label = sum(withheld.values()), dict(withheld)
    counts.add(session, metrics.SAMPLED_IMAGES, metrics.WITHHELD, by=row.withheld)


def archive_key(row: SampleBatch) -> str:
    """Return the key of the zip with the images.

    Raises:
        NotReadyError: if the batch is not finished.
    """
    require_ready(row)
    assert row.archive_key is not None, "a batch is sealed before its job succeeds"
    return row.archive_key


def file_name(label: str, label_index: int, step: int | None) -> str:
    """Return the path of an image in the zip of its batch, as `models.run_folder` has it."""
    suffix = "" if step is None else f"-{step:02d}"
    return f"images/{label}/{label_index:06d}{suffix}.png"


def images(
    session: Session, batch_id: str, *, after: int, limit: int, released: bool | None = None
) -> list[SampleImage]:
    """Return up to `limit` + 1 images in order, from the index `after` + 1.

    Only those that were released, or withheld, where `released` says so.
    """
    query = select(SampleImage).where(SampleImage.batch_id == batch_id, SampleImage.index > after)
    if released is not None:
        query = query.where(SampleImage.released == released)
    return list(session.scalars(query.order_by(SampleImage.index).limit(limit + 1)))


def choose(session: Session, row: SampleBatch, count: int) -> Choice:
    """Return the first images of each label in turn, up to `count` in all.

    Of a batch of ways between two seeds, the first ways of each label in turn, one a row.

    Raises:
        NotReadyError: if the batch is not finished.
    """
    archive_key(row)
    way = SamplingConfig.model_validate(row.config).interpolate
    if way is not None:
        return _ways(session, row, count, way.steps)
    turn = func.row_number().over(partition_by=SampleImage.label, order_by=SampleImage.index)
    chosen = session.scalars(
        select(SampleImage)
        .where(SampleImage.batch_id == row.id, SampleImage.released)
        .order_by(turn, SampleImage.label)
        .limit(count)
    )
    found = tuple(chosen)
    return Choice(found, max(1, min(5, len(found))))


def _ways(session: Session, row: SampleBatch, count: int, steps: int) -> Choice:
    """Return whole ways; of more steps than there is room for, some at equal distances.

    What was withheld of a way leaves its place free.
    """
    columns = min(steps, count, MOST_COLUMNS)
    shown = {round(place * (steps - 1) / max(columns - 1, 1)) for place in range(columns)}
    found = session.scalars(
        select(SampleImage)
        .where(SampleImage.batch_id == row.id, SampleImage.step.in_(shown))
        .order_by(SampleImage.label_index, SampleImage.label, SampleImage.step)
        .limit(count // columns * columns)
    )
    return Choice(tuple(one if one.released else None for one in found), columns)


def preview(storage: Storage, row: SampleBatch, choice: Choice) -> bytes:
    """Draw images with their labels and steps, under a notice that they are synthetic."""
    tiles = [None if one is None else _tile(storage, one) for one in choice.images]
    way = SamplingConfig.model_validate(row.config).interpolate
    seeds = f"seed {row.seed}" if way is None else f"seed {row.seed} to {way.to_seed}"
    title = f"{len(tiles) - tiles.count(None)} of {row.released} images, {seeds}"
    return draw(tiles, title=title, columns=choice.columns, synthetic=True)


def _tile(storage: Storage, image: SampleImage) -> Tile:
    caption = image.label if image.step is None else f"step {image.step}, {image.label}"
    return Tile(_decode(storage.get(image_key(image))), caption)


def image_key(image: SampleImage) -> str:
    """Return the key of a released image."""
    assert image.key is not None, "what is released is stored"
    return image.key


def _decode(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png), formats=["PNG"])
