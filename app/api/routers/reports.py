"""/v1/reports and /v1/schemas: measure a batch, read the findings."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import JsonValue
from sqlalchemy.orm import Session as SQLSession

from app import comparison, pages, reports, resources, tables
from app.api.auth import ReportsReader, ReportsWriter, demand
from app.api.caching import cached_png
from app.api.dependencies import RequestID, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import ReportID
from app.api.pagination import After, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import reports as schemas
from app.api_keys import Principal, Scope
from app.errors import (
    ConflictError,
    NotFoundError,
    NotInstalledError,
    NotReadyError,
    TooManyJobsError,
)
from app.parts import Parts

router = APIRouter(prefix="/v1", tags=["reports"], route_class=IdempotentRoute)
_PDF = {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}
_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}

RedactReals = Annotated[
    bool,
    Query(
        description="Leave out the images of patients, and the generated ones unless none of "
        "them is suspected to be a copy."
    ),
]


@router.post(
    "/reports",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError, NotReadyError, TooManyJobsError),
)
def create_report(
    body: schemas.NewReport,
    caller: ReportsWriter,
    session: Session,
    response: Response,
    request_id: RequestID,
) -> schemas.Report:
    """Compare a batch with the real images that its generator never saw.

    Or a dataset of synthetic images that any other tool made, with the real images of another one.
    """
    row = _create(session, body, caller.tenant_id, request_id)
    response.headers["Location"] = f"/v1/reports/{row.id}"
    return schemas.report(session, row)


def _create(
    session: SQLSession, body: schemas.NewReport, tenant_id: str, request_id: str
) -> tables.Report:
    def dataset(dataset_id: str) -> tables.Dataset:
        return resources.get(session, tables.Dataset, tenant_id, dataset_id, to_derive=True)

    real = dataset(body.real_dataset_id)
    if body.synthetic_dataset_id is not None:
        return reports.create_of_dataset(
            session,
            real,
            dataset(body.synthetic_dataset_id),
            image_size=body.image_size,
            profile=body.profile,
            request_id=request_id,
        )
    assert body.sample_batch_id is not None, "the schema demands one of the two"
    batch = resources.get(
        session, tables.SampleBatch, tenant_id, body.sample_batch_id, to_derive=True
    )
    return reports.create(session, real, batch, profile=body.profile, request_id=request_id)


@router.get("/reports", responses=documented())
def list_reports(
    caller: ReportsReader, session: Session, limit: Limit = 20, after: After = None
) -> Page[schemas.Report]:
    """List reports, newest first."""
    rows = resources.page(session, tables.Report, caller.tenant_id, after=after, limit=limit)
    return page(
        rows, limit, cursor=lambda row: row.id, item=lambda row: schemas.report(session, row)
    )


@router.get("/reports/{report_id}", responses=documented(NotFoundError))
def get_report(report_id: ReportID, caller: ReportsReader, session: Session) -> schemas.Report:
    """Show a report."""
    row = resources.get(session, tables.Report, caller.tenant_id, report_id)
    return schemas.report(session, row)


@router.delete(
    "/reports/{report_id}", status_code=204, responses=documented(NotFoundError, ConflictError)
)
def delete_report(report_id: ReportID, caller: ReportsWriter, session: Session) -> None:
    """Delete a report and its plots."""
    row = resources.get(session, tables.Report, caller.tenant_id, report_id)
    resources.delete(session, row)


@router.get(
    "/reports/{report_id}/html",
    response_class=HTMLResponse,
    responses=documented(NotFoundError, NotReadyError),
)
def get_report_page(
    report_id: ReportID,
    caller: ReportsReader,
    parts: ServiceParts,
    *,
    redact_reals: RedactReals = False,
) -> HTMLResponse:
    """Return the report as one page to read, print or keep: no script, nothing loaded.

    Without the scope `datasets:read` it is redacted.
    """
    return HTMLResponse(_page(report_id, caller, parts, redact_reals=redact_reals))


@router.get(
    "/reports/{report_id}/pdf",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError, NotInstalledError)
    | {200: {"description": "A PDF", "content": _PDF}},
)
def get_report_pdf(
    report_id: ReportID,
    caller: ReportsReader,
    parts: ServiceParts,
    *,
    redact_reals: RedactReals = False,
) -> Response:
    """Return the page as a PDF, where the extra `pdf` is installed."""
    page = _page(report_id, caller, parts, redact_reals=redact_reals)
    return Response(pages.pdf(page), media_type="application/pdf")


def _page(report_id: str, caller: Principal, parts: Parts, *, redact_reals: bool) -> str:
    with parts.database.transaction() as session:  # over before the storage is asked
        row = resources.get(session, tables.Report, caller.tenant_id, report_id)
        document = reports.document(row) | {"notes": reports.notes(session, row)}
        with_patients = caller.may(Scope.DATASETS_READ) and not redact_reals
        keys = reports.shown_plots(row, with_patients=with_patients)
        left_out = row.plots.keys() - keys.keys()
        about = row.sample_batch_id or row.synthetic_dataset_id
        assert about is not None, "a report is about one of the two"
        real_dataset_id = row.real_dataset_id
        assert row.job is not None, "a report that is ready has a job"
        assert row.job.finished_at is not None, "which has ended"
        measured_at = f"{row.job.finished_at:%Y-%m-%d %H:%M} UTC"
    plots = {name: parts.storage.get(key) for name, key in keys.items()}
    return pages.report(
        document,
        plots,
        report_id=report_id,
        about=about,
        real_dataset_id=real_dataset_id,
        measured_at=measured_at,
        left_out=left_out,
    )


@router.get(
    "/reports/{report_id}/plots/{name}.png",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError)
    | {
        200: {"description": "A PNG", "content": _PNG},
        304: {"description": "The picture that you have is the current one"},
    },
)
def get_report_plot(
    report_id: ReportID,
    name: str,
    caller: ReportsReader,
    parts: ServiceParts,
    session: Session,
    request: Request,
) -> Response:
    """Return a plot; `intensity` is the overlay of real and generated distributions.

    `closest` and `real-<number>` show images of patients, and `generated` and `synthetic-<number>`
    may while copies are suspected: these need the scope `datasets:read` too.
    """
    row = resources.get(session, tables.Report, caller.tenant_id, report_id)
    key = reports.plot_key(row, name)
    if name not in reports.shown_plots(row, with_patients=False):
        demand(caller, Scope.DATASETS_READ)
    return cached_png(request, key, lambda: parts.storage.get(key))


@router.get(
    "/reports/{report_id}/samples.csv",
    status_code=307,
    response_class=RedirectResponse,
    responses=documented(NotFoundError, NotReadyError)
    | {307: {"description": "A presigned URL of a CSV: a line for each generated image"}},
)
def get_report_samples(
    report_id: ReportID, caller: ReportsReader, parts: ServiceParts, session: Session
) -> RedirectResponse:
    """Redirect to what was found of each generated image: its distances, realism and flags.

    There is none in the profile `quick`.
    """
    row = resources.get(session, tables.Report, caller.tenant_id, report_id)
    return RedirectResponse(
        parts.storage.presigned_get(
            reports.samples_key(row),
            lifetime_s=parts.settings.presigned_lifetime_s,
            filename=f"{row.id}-samples.csv",
        ),
        status_code=307,
    )


@router.get(
    "/reports/{report_id}/compare",
    response_model=schemas.Comparison,
    responses=documented(NotFoundError, NotReadyError, ConflictError)
    | {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def compare_reports(
    report_id: ReportID,
    to: Annotated[ReportID, Query(description="The other report.")],
    caller: ReportsReader,
    session: Session,
    request: Request,
) -> schemas.Comparison | Response:
    """Put two reports side by side that were measured alike: `a`, and `b`, which `to` names.

    As JSON, or as a page for `Accept: text/html`.
    """
    rows = [resources.get(session, tables.Report, caller.tenant_id, one) for one in (report_id, to)]
    documents = [reports.document(row) for row in rows]
    found = comparison.compare(*documents)
    sides = dict(zip("ab", rows, strict=True))
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(pages.comparison(found, documents[0], sides))
    return schemas.Comparison.model_validate({**sides, **found}, from_attributes=True)


@router.get("/schemas/report", responses=documented())
def get_report_schema(_caller: ReportsReader) -> dict[str, JsonValue]:
    """Return the JSON Schema of a report."""
    return schemas.Report.model_json_schema()
