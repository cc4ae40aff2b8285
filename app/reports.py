"""Reports: ask for one, keep what was measured, hand out its plots."""

from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import counts, datasets, jobs, metrics, samples
from app.errors import InvalidRequestError, NotFoundError
from app.identifiers import Prefix, new_id
from app.job_states import Kind
from app.jobs import Claim
from app.resources import require_ready, start_job
from app.storage import resource_prefix
from app.tables import Dataset, DatasetImage, Generator, Report, SampleBatch
from models.config import TRAINING_CONFIG, ReportProfile, shows_generated, shows_patients

UNKNOWN_GENERATOR = (
    "Nothing is known about how these images were made: what needs the generator itself, such as"
    " the gap of its discriminator, was not measured."
)
UNKNOWN_SPLIT = (
    "Whether whoever trained the generator of these images respected the split of the real dataset"
    " is not known: copies were looked for in the training split only, and the holdout may have"
    " been trained on."
)


def create(
    session: Session,
    dataset: Dataset,
    batch: SampleBatch,
    *,
    profile: ReportProfile,
    request_id: str | None,
) -> Report:
    """Add a report about a batch and queue its measuring.

    Raises:
        NotReadyError: if the dataset or the batch is not ready.
        InvalidRequestError: if the images of the dataset are synthetic, or the batch's generator
            was trained on another one, whose split says nothing about this one. What an imported
            generator was trained on is for the caller to know.
    """
    _demand_real(dataset)
    generator = session.get_one(Generator, batch.generator_id)
    if generator.dataset_id not in {None, dataset.id}:
        raise InvalidRequestError(
            "the sample batch comes from a generator that was trained on another dataset;"
            f" use real_dataset_id {generator.dataset_id}"
        )
    samples.archive_key(batch)
    datasets.pack(dataset, TRAINING_CONFIG.validate_python(generator.config).image_size)
    row = Report(
        id=new_id(Prefix.REPORT),
        tenant_id=dataset.tenant_id,
        real_dataset_id=dataset.id,
        sample_batch_id=batch.id,
        profile=profile,
        plots={},
    )
    start_job(session, row, Kind.REPORT, request_id)
    return row


def create_of_dataset(
    session: Session,
    real: Dataset,
    synthetic: Dataset,
    *,
    image_size: int | None,
    profile: ReportProfile,
    request_id: str | None,
) -> Report:
    """Add a report about images that came from any other tool, and queue its measuring.

    Without an `image_size` it is the largest that both datasets have images of and to which most of
    the synthetic ones were not enlarged: what is enlarged is blurred.

    Raises:
        NotReadyError: if one of the datasets is not ready.
        InvalidRequestError: if one is not of the kind it is named as, or has no image that is large
            enough.
    """
    _demand_real(real)
    if synthetic.kind != "synthetic":
        raise InvalidRequestError(
            f"/synthetic_dataset_id: {synthetic.id} is a dataset of real images; upload the"
            " synthetic ones as a dataset of the kind synthetic"
        )
    require_ready(real)
    require_ready(synthetic)
    row = Report(
        id=new_id(Prefix.REPORT),
        tenant_id=real.tenant_id,
        real_dataset_id=real.id,
        synthetic_dataset_id=synthetic.id,
        image_size=_common_size(session, real, synthetic, image_size),
        profile=profile,
        plots={},
    )
    start_job(session, row, Kind.REPORT, request_id)
    return row


def _demand_real(dataset: Dataset) -> None:
    if dataset.kind != "real":
        raise InvalidRequestError(
            f"/real_dataset_id: {dataset.id} is a dataset of synthetic images; they can be"
            " measured, as synthetic_dataset_id, and not be measured against"
        )


def _common_size(session: Session, real: Dataset, synthetic: Dataset, asked: int | None) -> int:
    sizes, others = datasets.sizes(real), datasets.sizes(synthetic)
    common = sizes & others if asked is None else sizes & others & {asked}
    if not common:
        raise InvalidRequestError(
            "/image_size: both datasets must have images that are large enough; the real ones are"
            f" for {_listed(sizes)} pixels, the synthetic ones for {_listed(others)}"
        )
    longer = func.greatest(DatasetImage.width, DatasetImage.height)
    usual = session.scalar(
        select(func.percentile_disc(0.5).within_group(longer)).where(
            DatasetImage.dataset_id == synthetic.id
        )
    )
    not_enlarged = {size for size in common if usual is None or size <= usual}
    return max(not_enlarged, default=min(common))


def _listed(sizes: set[int]) -> str:
    return ", ".join(map(str, sorted(sizes))) or "no"


def prefix(row: Report) -> str:
    """Return the key prefix of everything that belongs to the report."""
    return resource_prefix(row.tenant_id, "reports", row.id)


def notes(session: Session, row: Report) -> list[str]:
    """Return what was known of the images when they were drawn, such as that they are not fit."""
    if row.sample_batch_id is None:
        return []
    return list(session.get_one(SampleBatch, row.sample_batch_id).notes)


def limits(batch: SampleBatch, generator: Generator, dataset: Dataset) -> tuple[str, ...]:
    """Say what a report cannot show of a batch, by what was done to it, and by whom it was made."""
    found = []
    if batch.curated_by is not None:
        dropped = ", ".join(batch.curated_drop or ())
        found.append(
            f"These images were chosen by report {batch.curated_by}, which dropped what it flagged"
            f" ({dropped}): where it looked at the same unseen images they look better here than"
            " fresh ones would."
        )
    return (*found, *_limits_of_origin(generator, dataset))


def _limits_of_origin(generator: Generator, dataset: Dataset) -> tuple[str, ...]:
    if generator.origin is None:
        return ()
    limit = (
        "The generator was imported, and its archive names another dataset: copies of the images"
        " that it was trained on are not looked for, and it may have seen the holdout."
    )
    if generator.origin.get("dataset_digest") == dataset.digest:
        limit = (
            "The generator was imported; that it was trained on this dataset, and on its training"
            " split alone, is what its archive says."
        )
    return (limit,)


def limits_of_dataset(synthetic: Dataset, count: int) -> tuple[str, ...]:
    """Say what a report cannot show of images that were made elsewhere, of which it has `count`."""
    found = [UNKNOWN_GENERATOR, UNKNOWN_SPLIT]
    same = synthetic.duplicate_count
    refused = synthetic.rejected_count + synthetic.quarantined_count
    if same or refused:
        found.append(
            f"When the synthetic dataset was read, {same} images were the same as others and"
            f" {refused} files were refused: the counts of repeated, constant and unusable images"
            " are without them."
        )
    if count < synthetic.image_count:
        found.append(
            f"{synthetic.image_count - count} of {synthetic.image_count} synthetic images were too"
            " small for the size of this report and are not in it."
        )
    return tuple(found)


def seal(
    session: Session,
    claim: Claim,
    document: dict[str, object],
    plots: dict[str, str],
    samples_key: str | None = None,
) -> None:
    """Record what was measured, and the keys of plots and samples.csv, whose objects are complete.

    Raises:
        LeaseLostError: if the attempt no longer owns the job.
    """
    jobs.fence(session, claim)
    row = session.get_one(Report, claim.resource_id)
    row.document, row.plots, row.samples_key = document, plots, samples_key
    verdicts = cast("dict[str, dict[str, str]]", document.get("verdicts", {}))
    for axis, found in verdicts.items():
        counts.add(session, metrics.REPORT_VERDICTS, axis, found["verdict"])


def document(row: Report) -> dict[str, object]:
    """Return what was measured.

    Raises:
        NotReadyError: if the report is not finished.
    """
    require_ready(row)
    assert row.document is not None, "a report that is ready has one"
    return row.document


def shown_plots(row: Report, *, with_patients: bool) -> dict[str, str]:
    """Return the keys of the plots that a reader may see, by name.

    Without patients those that show them are left out, and so are the generated images unless none
    of them is suspected to be a copy.
    """
    if with_patients:
        return dict(row.plots)
    verdicts = document(row).get("verdicts", {})
    assert isinstance(verdicts, dict), "as it was sealed"
    is_clear = verdicts.get("copies", {}).get("verdict") == "green"
    return {
        name: key
        for name, key in row.plots.items()
        if not shows_patients(name) and (is_clear or not shows_generated(name))
    }


def plot_key(row: Report, name: str) -> str:
    """Return the key of a plot's PNG.

    Raises:
        NotReadyError: if the report is not finished.
        NotFoundError: if it has no such plot.
    """
    require_ready(row)
    if name not in row.plots:
        raise NotFoundError(f"no such plot; there are {', '.join(sorted(row.plots))}")
    return row.plots[name]


def samples_key(row: Report) -> str:
    """Return the key of samples.csv, which has a line for each generated image.

    Raises:
        NotReadyError: if the report is not finished.
        NotFoundError: if it looked at no image by itself.
    """
    require_ready(row)
    if row.samples_key is None:
        raise NotFoundError(
            f"this report, of the profile {row.profile}, did not judge images one by one; ask for"
            " one of the profile standard"
        )
    return row.samples_key
