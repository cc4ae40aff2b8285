"""/v1/sample-batches: draw images, look at them, fetch them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse

from app import job_states, resources, samples, tables
from app.api import waiting
from app.api.auth import SamplesGenerator, SamplesReader, demand
from app.api.caching import cached_png
from app.api.dependencies import Cascade, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key, keep
from app.api.ids import SampleBatchID
from app.api.middleware import request_id
from app.api.pagination import After, AfterIndex, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import samples as schemas
from app.api.waiting import PreferredWait
from app.api_keys import Principal, Scope
from app.errors import (
    ConflictError,
    HasDerivedError,
    NotFoundError,
    NotReadyError,
    TooManyJobsError,
)
from app.parts import Parts

router = APIRouter(prefix="/v1/sample-batches", tags=["samples"], route_class=IdempotentRoute)
MOST_WAITED_FOR = 64
"""Images of a batch for which `Prefer: wait` is honoured."""
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError, NotReadyError, TooManyJobsError)
    | {200: {"model": schemas.SampleBatch, "description": "It was waited for, and has ended."}},
)
async def create_sample_batch(
    body: schemas.NewSampleBatch,
    caller: SamplesGenerator,
    parts: ServiceParts,
    request: Request,
    response: Response,
    prefer: PreferredWait = None,
) -> schemas.SampleBatch:
    """Draw synthetic images from a generator.

    With `Prefer: wait=10` the answer to a request for at most 64 images waits up to 10 s for the
    batch: 200 once it is ready or has failed, 202 if it takes longer.
    """
    wait_s = waiting.preferred_s(prefer)
    made = await run_in_threadpool(_create, parts, caller, body, request)
    response.headers["Location"] = f"/v1/sample-batches/{made.id}"
    if wait_s is None or made.requested > MOST_WAITED_FOR or made.job is None:
        return made
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    ended = await waiting.until(
        request, made.job.id, wait_s, lambda: _ended(parts, caller, made.id)
    )
    if ended is None:
        return made
    response.status_code = 200
    return ended


def _create(
    parts: Parts, caller: Principal, body: schemas.NewSampleBatch, request: Request
) -> schemas.SampleBatch:
    with parts.database.transaction() as session:
        generator = resources.get(
            session, tables.Generator, caller.tenant_id, body.generator_id, to_derive=True
        )
        row = samples.create(
            session,
            generator,
            _wish(body, generator),
            checkpoint_id=body.checkpoint_id,
            request_id=request_id(request.scope),
        )
        made = schemas.sample_batch(session, row)
        headers = {"Location": f"/v1/sample-batches/{row.id}"}
        keep(request, session, JSONResponse(made.model_dump(mode="json"), 202, headers))
        return made


def _wish(body: schemas.NewSampleBatch, generator: tables.Generator) -> samples.Wish:
    counts = body.counts
    if counts is None:
        assert body.count is not None, "the schema demands one of the two"
        counts = samples.apportion(body.count, body.mixture or dict.fromkeys(generator.labels, 1.0))
    copies = None if body.filter is None else body.filter.copies
    return samples.Wish(counts, body.seed, body.config, copies, body.format)


def _ended(parts: Parts, caller: Principal, batch_id: str) -> schemas.SampleBatch | None:
    """Return the batch if its job has ended."""
    with parts.database.transaction() as session:
        row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
        has_ended = row.job is not None and row.job.status in job_states.FINAL
        return schemas.sample_batch(session, row) if has_ended else None


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
    released: Annotated[
        bool | None, Query(description="Only images that were released; false: only withheld ones.")
    ] = None,
) -> Page[schemas.SampleImage]:
    """List the images in order, each with a presigned URL, and one of its mask if it has one."""
    row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
    samples.archive_key(row)
    lifetime_s = parts.settings.presigned_lifetime_s

    def signed(key: str | None) -> str | None:
        return None if key is None else parts.storage.presigned_get(key, lifetime_s=lifetime_s)

    def show(image: tables.SampleImage) -> schemas.SampleImage:
        keys = (image.key, image.mask_key) if image.released else (None, None)
        return schemas.sample_image(image, row.seed, *map(signed, keys))

    found = samples.images(session, row.id, after=after, limit=limit, released=released)
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
    """Draw a labelled grid of the first images of each label; of ways between seeds, one a row."""
    with parts.database.transaction() as session:  # over before the storage is asked
        row = resources.get(session, tables.SampleBatch, caller.tenant_id, batch_id)
        choice = samples.choose(session, row, count)
    return cached_png(
        request,
        f"{samples.archive_key(row)}-{count}-{choice.columns}",
        lambda: samples.preview(parts.storage, row, choice),
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
