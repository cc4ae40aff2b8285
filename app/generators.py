"""Generators: ask for a training, follow its checkpoints and losses."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import datasets, jobs
from app.contact_sheet import draw, split_mosaic
from app.errors import ConflictError, InvalidRequestError, NotFoundError, NotReadyError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.resources import start_job
from app.storage import Storage, resource_prefix
from app.tables import Checkpoint, Dataset, Generator, HistoryPoint
from models import release
from models.config import (
    MIN_TRAINING_IMAGES,
    POOLED_LABEL,
    TRAINING_CONFIG,
    DCGANConfig,
    HybridConfig,
    Networks,
)
from models.release import DISTANCE, Release


def create(
    session: Session,
    dataset: Dataset,
    *,
    name: str,
    preset: str,
    config: DCGANConfig | HybridConfig,
    seed: int,
    request_id: str | None,
) -> Generator:
    """Add a generator and queue its training.

    Raises:
        NotReadyError: if the dataset is not sealed.
        InvalidRequestError: if a network would have too few images to learn from, or no masks.
    """
    labels = check(dataset, config)
    row = Generator(
        id=new_id(Prefix.GENERATOR),
        tenant_id=dataset.tenant_id,
        dataset_id=dataset.id,
        name=name,
        preset=preset,
        config=config.model_dump(mode="json"),
        seed=seed,
        labels=labels,
    )
    start_job(session, row, Kind.TRAIN, request_id)
    return row


def check(dataset: Dataset, config: DCGANConfig | HybridConfig) -> list[str]:
    """Return the labels that could be sampled once it was trained so, sorted.

    Raises:
        NotReadyError: if the dataset is not sealed.
        NotFoundError: if no image of it is large enough.
        InvalidRequestError: naming the labels of which there are too few training images; or if
            masks are to be generated and the dataset has none.
    """
    datasets.pack(dataset, config.image_size)
    if config.planes > 1 and not dataset.mask_count:
        raise InvalidRequestError(
            "/config/has_masks: the dataset has no masks to learn from; upload them beside the"
            " images, or train without"
        )
    train = dataset.splits.get("train", {})
    pooled = {POOLED_LABEL: sum(train.values())}
    if isinstance(config, HybridConfig):
        # One network learns all labels, and draws each that it has seen.
        labels, least, counted = sorted(dataset.labels), 1, dict(train)
    elif config.networks == Networks.PER_LABEL:
        labels, least, counted = sorted(dataset.labels), MIN_TRAINING_IMAGES, dict(train)
    else:
        labels, least, counted = [POOLED_LABEL], MIN_TRAINING_IMAGES, pooled
    total = sum(train.values())
    if total < MIN_TRAINING_IMAGES:
        raise InvalidRequestError(
            f"too few training images: there are {total} in all, and a network needs at least"
            f" {MIN_TRAINING_IMAGES}; upload more"
        )
    few = {label: count for label in labels if (count := counted.get(label, 0)) < least}
    if few:
        raise InvalidRequestError(_too_few(few, least))
    return labels


def _too_few(few: dict[str, int], least: int) -> str:
    """Say which labels have too few of the images that are enough in all, and what would help."""
    named = ", ".join(f"{label} ({count})" for label, count in few.items())
    if least == 1:
        return (
            f"no training images of {named}: each label needs at least one; upload more of it, or"
            " leave it out"
        )
    # The generator of all labels needs one of each.
    other = "" if 0 in few.values() else " the preset cpu-64, or"
    return (
        f"too few training images of {named}: the network of a label needs at least {least};"
        f" upload more, or train one network on all labels:{other} config.networks per_dataset"
    )


def training_pack_key(session: Session, row: Generator) -> str | None:
    """Return the key of the packed images that it was trained on; None if they are not here."""
    if row.dataset_id is None:  # imported, and perhaps not yet
        return None
    query = select(Dataset).where(Dataset.id == row.dataset_id, Dataset.deleted_at.is_(None))
    dataset = session.scalar(query)
    size_px = TRAINING_CONFIG.validate_python(row.config).image_size
    pack = dataset.packs.get(str(size_px)) if dataset else None
    return str(pack["key"]) if isinstance(pack, dict) and pack["count"] else None


def prefix(row: Generator) -> str:
    """Return the key prefix of everything that belongs to the generator."""
    return resource_prefix(row.tenant_id, "generators", row.id)


def add_checkpoint(
    session: Session, claim: Claim, *, step: int, images_seen: int, key_prefix: str
) -> str:
    """Record a checkpoint whose objects are complete; return its id.

    A step that an earlier attempt had reached too keeps its id and takes the new objects.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    values = {"images_seen": images_seen, "prefix": key_prefix}
    checkpoint_id: str | None = session.scalar(
        insert(Checkpoint)
        .values(id=new_id(Prefix.CHECKPOINT), generator_id=claim.resource_id, step=step, **values)
        .on_conflict_do_update(index_elements=["generator_id", "step"], set_=values)
        .returning(Checkpoint.id)
    )
    assert checkpoint_id is not None, "an upsert returns its row"
    row = session.get_one(Generator, claim.resource_id)
    row.images_seen = images_seen
    session.flush()
    row.best_checkpoint_id = _best(session, row.id).id
    return checkpoint_id


def _best(session: Session, generator_id: str) -> Checkpoint:
    """Return the checkpoint whose images measured nearest to the validation split.

    Where nothing was measured, for want of validation images, the last one is the best known.
    """
    known = [one for one in checkpoints(session, generator_id) if one.removed_at is None]
    points = {point.step: point.values for point in history(session, generator_id)}
    measured = [one for one in known if DISTANCE in points.get(one.step, {})]
    return min(measured, key=lambda one: points[one.step][DISTANCE]) if measured else known[0]


def add_history(
    session: Session, claim: Claim, step: int, images_seen: int, values: dict[str, float]
) -> None:
    """Record one point of the loss curves; a resumed attempt overwrites what it repeats.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    point = {"images_seen": images_seen, "values": values}
    session.execute(
        insert(HistoryPoint)
        .values(generator_id=claim.resource_id, step=step, **point)
        .on_conflict_do_update(index_elements=["generator_id", "step"], set_=point)
    )


def history(session: Session, generator_id: str) -> list[HistoryPoint]:
    """Return the points of the curves in step order."""
    return list(
        session.scalars(
            select(HistoryPoint)
            .where(HistoryPoint.generator_id == generator_id)
            .order_by(HistoryPoint.step)
        )
    )


def checkpoints(session: Session, generator_id: str) -> list[Checkpoint]:
    """Return the checkpoints, the last one first."""
    return list(
        session.scalars(
            select(Checkpoint)
            .where(Checkpoint.generator_id == generator_id)
            .order_by(Checkpoint.step.desc())
        )
    )


def checkpoint(session: Session, row: Generator, checkpoint_id: str | None) -> Checkpoint:
    """Return a checkpoint of the generator; without an id, the best one.

    Raises:
        NotFoundError: if the generator has no checkpoint of this id.
        NotReadyError: if it has none at all yet.
        ConflictError: if its weights were removed since.
    """
    wanted = checkpoint_id or row.best_checkpoint_id
    if wanted is None:
        raise NotReadyError("the generator has no checkpoint yet; wait for its first snapshot")
    found = session.get(Checkpoint, wanted)
    if found is None or found.generator_id != row.id:
        raise NotFoundError("the generator has no such checkpoint")
    if found.removed_at is not None:
        raise ConflictError("its weights had their time and were removed; take the best or last")
    return found


def checkpoint_at(session: Session, row: Generator, step: int | None) -> Checkpoint:
    """Return the checkpoint at `step`, or the last one.

    Raises:
        NotFoundError: if there is none at `step`.
        NotReadyError: if there is none at all yet.
    """
    found = checkpoints(session, row.id)
    if not found:
        raise NotReadyError("the generator has no checkpoint yet; wait for its first snapshot")
    if step is None:
        return found[0]
    for one in found:
        if one.step == step:
            return one
    raise NotFoundError(f"no checkpoint at step {step}; there are {[one.step for one in found]}")


def progress_sheet(storage: Storage, row: Generator, shown: Checkpoint) -> bytes:
    """Draw the samples of the same latents at a checkpoint: the paper's figure 2."""
    tiles = split_mosaic(storage.get(f"{shown.prefix}samples.png"), row.labels)
    title = f"Step {shown.step}, {shown.images_seen} images seen"
    return draw(tiles, title=title, columns=8, synthetic=True)


def judged(session: Session, row: Generator, checkpoint_id: str | None = None) -> Release | None:
    """Return what the release rule says of a checkpoint, or else the best; None if unmeasured.

    What an imported one says of itself is not a measurement.
    """
    if row.dataset_id is None:
        return None
    wanted = checkpoint_id or row.best_checkpoint_id
    shown = session.get(Checkpoint, wanted) if wanted else None
    if shown is None:
        return None
    point = session.get(HistoryPoint, (shown.generator_id, shown.step))
    return release.judge(point.values) if point else None


def ended_by(row: Generator) -> str | None:
    """Return the rule that ended the training before its time; None if it ran to its end."""
    progress = row.job.progress if row.job else None
    rule = (progress or {}).get("ended_by")
    return str(rule) if rule is not None else None


def few_images(session: Session, row: Generator) -> dict[str, int]:
    """Return the labels with too few training images to be more than copies -> how many."""
    dataset = session.get(Dataset, row.dataset_id) if row.dataset_id else None
    if dataset is None or row.labels == [POOLED_LABEL]:
        return {}
    train = dataset.splits.get("train", {})
    counts = {label: train.get(label, 0) for label in row.labels}
    return {label: count for label, count in counts.items() if count < datasets.FEW_IMAGES}


def latest_values(session: Session, generator_id: str) -> dict[str, float]:
    """Return the last point of the curves; empty before the first."""
    last = session.scalars(
        select(HistoryPoint)
        .where(HistoryPoint.generator_id == generator_id)
        .order_by(HistoryPoint.step.desc())
        .limit(1)
    ).one_or_none()
    return last.values if last else {}


def values_at(points: list[HistoryPoint], step: int) -> dict[str, float]:
    """Return the values of the last of `points`, in step order, at or before `step`."""
    before = [point.values for point in points if point.step <= step]
    return before[-1] if before else {}
