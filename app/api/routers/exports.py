"""/v1/exports: a sealed dataset as a zip in the conventions of hubs."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse

from app import exports, resources, tables
from app.api.auth import DatasetsReader, DatasetsWriter
from app.api.dependencies import RequestID, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import DatasetID, ExportID
from app.api.pagination import After, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import exports as schemas
from app.errors import ConflictError, NotFoundError, NotReadyError, TooManyJobsError

router = APIRouter(prefix="/v1", tags=["exports"], route_class=IdempotentRoute)


@router.post(
    "/datasets/{dataset_id}/exports",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError, NotReadyError, TooManyJobsError),
)
def create_export(
    dataset_id: DatasetID,
    body: schemas.NewExport,
    caller: DatasetsWriter,
    session: Session,
    response: Response,
    request_id: RequestID,
) -> schemas.Export:
    """Make a zip of images by label, masks, metadata.csv and a Croissant metadata.json."""
    dataset = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id, to_derive=True)
    row = exports.create(
        session,
        dataset,
        image_size=body.image_size,
        splits=list(dict.fromkeys(body.splits)),
        with_sixteen_bits=body.with_sixteen_bits,
        request_id=request_id,
    )
    response.headers["Location"] = f"/v1/exports/{row.id}"
    return schemas.export(session, row)


@router.get("/exports", responses=documented())
def list_exports(
    caller: DatasetsReader, session: Session, limit: Limit = 20, after: After = None
) -> Page[schemas.Export]:
    """List exports, newest first."""
    rows = resources.page(session, tables.Export, caller.tenant_id, after=after, limit=limit)
    return page(
        rows, limit, cursor=lambda row: row.id, item=lambda row: schemas.export(session, row)
    )


@router.get("/exports/{export_id}", responses=documented(NotFoundError))
def get_export(export_id: ExportID, caller: DatasetsReader, session: Session) -> schemas.Export:
    """Show an export."""
    row = resources.get(session, tables.Export, caller.tenant_id, export_id)
    return schemas.export(session, row)


@router.get(
    "/exports/{export_id}/archive",
    status_code=307,
    response_class=RedirectResponse,
    responses=documented(NotFoundError, NotReadyError)
    | {307: {"description": "A presigned URL of the zip"}},
)
def get_export_archive(
    export_id: ExportID, caller: DatasetsReader, parts: ServiceParts, session: Session
) -> RedirectResponse:
    """Redirect to the zip."""
    row = resources.get(session, tables.Export, caller.tenant_id, export_id)
    return RedirectResponse(
        parts.storage.presigned_get(
            exports.archive_key(row),
            lifetime_s=parts.settings.presigned_lifetime_s,
            filename=f"{row.id}.zip",
        ),
        status_code=307,
    )


@router.delete(
    "/exports/{export_id}", status_code=204, responses=documented(NotFoundError, ConflictError)
)
def delete_export(export_id: ExportID, caller: DatasetsWriter, session: Session) -> None:
    """Delete an export and its zip."""
    row = resources.get(session, tables.Export, caller.tenant_id, export_id)
    resources.delete(session, row)
