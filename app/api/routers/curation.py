"""/v1/sample-batches/{id}/curate: a new batch without what a report flagged."""

from fastapi import APIRouter, Depends, Response

from app import curation, resources, tables
from app.api.auth import SamplesGenerator
from app.api.dependencies import RequestID, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import SampleBatchID
from app.api.problems import documented
from app.api.schemas import samples as schemas
from app.errors import ConflictError, NotFoundError, NotReadyError, TooManyJobsError

router = APIRouter(prefix="/v1/sample-batches", tags=["samples"], route_class=IdempotentRoute)


@router.post(
    "/{batch_id}/curate",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError, NotReadyError, TooManyJobsError),
)
def curate_sample_batch(
    batch_id: SampleBatchID,
    body: schemas.NewCuration,
    caller: SamplesGenerator,
    parts: ServiceParts,
    session: Session,
    response: Response,
    request_id: RequestID,
) -> schemas.SampleBatch:
    """Make a new batch of the images that a report did not flag; the old one stays as it is."""
    tenant_id = caller.tenant_id
    batch = resources.get(session, tables.SampleBatch, tenant_id, batch_id)
    # The new batch stands on the generator, and on neither the old one nor the report.
    resources.get(session, tables.Generator, tenant_id, batch.generator_id, to_derive=True)
    report = resources.get(session, tables.Report, tenant_id, body.report_id)
    flagged = curation.read(parts.storage.get(curation.samples_key(batch, report)))
    row = curation.create(session, batch, report, flagged, drop=body.drop, request_id=request_id)
    response.headers["Location"] = f"/v1/sample-batches/{row.id}"
    return schemas.sample_batch(session, row)
