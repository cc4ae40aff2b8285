"""/v1/sample-batches: draw images, look at them, fetch them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from app import resources, samples, tables
from app.api.auth import SamplesGenerator, SamplesReader, demand
from app.api.caching import cached_png
from app.api.dependencies import Cascade, RequestID, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import SampleBatchID
from app.api.pagination import After, AfterIndex, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import samples as schemas
from app.api_keys import Scope
from app.errors import (
    ConflictError,
    HasDerivedError,
    NotFoundError,
    NotReadyError,
    TooManyJobsError,
)

router = APIRouter(prefix="/v1/sample-batches", tags=["samples"], route_class=IdempotentRoute)
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError, NotReadyError, TooManyJobsError),
)
def create_sample_batch(
    body: schemas.NewSampleBatch,
    caller: SamplesGenerator,
    session: Session,
    response: Response,
    request_id: RequestID,
) -> schemas.SampleBatch:
    """Draw synthetic images from a generator."""
    generator = resources.get(
        session, tables.Generator, caller.tenant_id, body.generator_id, to_derive=True
    )
    counts = body.counts or samples.even_counts(generator.labels, body.count or 0)
    row = samples.create(
        session,
        generator,
        checkpoint_id=body.checkpoint_id,
        counts=counts,
        seed=body.seed,
        image_format=body.format,
        request_id=request_id,
    )
    response.headers["Location"] = f"/v1/sample-batches/{row.id}"
    return schemas.sample_batch(session, row)


@router.get("", responses=documented())
def list_sample_batches(
    caller: SamplesReader, session: Session, limit: Limit = 20, after: After = None
) -> Page[schemas.SampleBatch]:
    """List sample batches, newest first."""
    rows = resources.page(session, tables.SampleBatch, caller.tenant_id, after=after, limit=limit)
    return page(
        rows, limit, cursor=lambda row: row.id, item=lambda row: schemas.sample_batch(session, row)
    )


@router.get("/{batch_id}", responses=documented(NotFoundError))
def get_sample_batch(
    batch_id: SampleBatchID, caller: SamplesReader, session: Session
) -> schemas.SampleBatch:
    """Show a sample batch."""
    row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
    return schemas.sample_batch(session, row)


@router.delete("/{batch_id}", status_code=204, responses=documented(NotFoundError, HasDerivedError))
def delete_sample_batch(
    batch_id: SampleBatchID, caller: SamplesGenerator, session: Session, *, cascade: Cascade = False
) -> None:
    """Delete a sample batch and its images; refused, unless told to cascade, if it was measured."""
    if cascade:
        demand(caller, Scope.REPORTS_WRITE)
    row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
    resources.delete(session, row, cascade=cascade)


@router.get("/{batch_id}/images", responses=documented(NotFoundError, NotReadyError))
def list_sample_images(
    batch_id: SampleBatchID,
    caller: SamplesReader,
    parts: ServiceParts,
    session: Session,
    limit: Limit = 20,
    after: AfterIndex = -1,
) -> Page[schemas.SampleImage]:
    """List the images in order, each with a presigned URL."""
    row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
    samples.archive_key(row)
    lifetime_s = parts.settings.presigned_lifetime_s

    def show(image: tables.SampleImage) -> schemas.SampleImage:
        url = parts.storage.presigned_get(image.key, lifetime_s=lifetime_s)
        return schemas.sample_image(image, row.seed, url if image.released else None)

    found = samples.images(session, row.id, after=after, limit=limit)
    return page(found, limit, cursor=lambda image: image.index, item=show)


@router.get(
    "/{batch_id}/preview.png",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError)
    | {
        200: {"description": "A PNG", "content": _PNG},
        304: {"description": "The picture that you have is the current one"},
    },
)
def get_sample_preview(
    batch_id: SampleBatchID,
    caller: SamplesReader,
    parts: ServiceParts,
    request: Request,
    count: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Draw a labelled grid of the first images of each label."""
    with parts.database.transaction() as session:  # over before the storage is asked
        row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
        images = samples.choose(session, row, count)
    return cached_png(
        request,
        f"{samples.archive_key(row)}-{count}",
        lambda: samples.preview(parts.storage, row, images),
    )


@router.get(
    "/{batch_id}/archive",
    status_code=307,
    response_class=RedirectResponse,
    responses=documented(NotFoundError, NotReadyError)
    | {307: {"description": "A presigned URL of a zip: the images, manifest and provenance"}},
)
def get_sample_archive(
    batch_id: SampleBatchID, caller: SamplesReader, parts: ServiceParts, session: Session
) -> RedirectResponse:
    """Redirect to a zip of the images with manifest.csv and provenance.json."""
    row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
    return RedirectResponse(
        parts.storage.presigned_get(
            samples.archive_key(row),
            lifetime_s=parts.settings.presigned_lifetime_s,
            filename=f"{row.id}-synthetic.zip",
        ),
        status_code=307,
    )
