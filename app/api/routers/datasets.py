"""/v1/datasets: create, look at, delete."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from app import datasets, pages, resources, tables
from app.api.auth import DatasetsReader, DatasetsWriter, demand
from app.api.caching import cached_png
from app.api.dependencies import Cascade, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.ids import DatasetID
from app.api.pagination import After, AfterIndex, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import datasets as schemas
from app.api_keys import Scope
from app.errors import ConflictError, HasDerivedError, NotFoundError, NotReadyError

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=IdempotentRoute)

_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(documented_key)],
    responses=documented(ConflictError),
)
def create_dataset(
    body: schemas.NewDataset, caller: DatasetsWriter, session: Session, response: Response
) -> schemas.Dataset:
    """Register a dataset, empty until its content is uploaded."""
    row = datasets.create(
        session,
        caller.tenant_id,
        name=body.name,
        description=body.description,
        kind=body.kind,
        options=body.ingest,
    )
    response.headers["Location"] = f"/v1/datasets/{row.id}"
    return schemas.dataset(session, row)


@router.get("", responses=documented())
def list_datasets(
    caller: DatasetsReader, session: Session, limit: Limit = 20, after: After = None
) -> Page[schemas.Dataset]:
    """List datasets, newest first."""
    rows = resources.page(session, tables.Dataset, caller.tenant_id, after=after, limit=limit)
    return page(
        rows, limit, cursor=lambda row: row.id, item=lambda row: schemas.dataset(session, row)
    )


@router.get("/{dataset_id}", responses=documented(NotFoundError))
def get_dataset(dataset_id: DatasetID, caller: DatasetsReader, session: Session) -> schemas.Dataset:
    """Show a dataset."""
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    return schemas.dataset(session, row)


@router.delete(
    "/{dataset_id}", status_code=204, responses=documented(NotFoundError, HasDerivedError)
)
def delete_dataset(
    dataset_id: DatasetID, caller: DatasetsWriter, session: Session, *, cascade: Cascade = False
) -> None:
    """Delete a dataset and its files; refused, unless told to cascade, if it was used."""
    if cascade:
        demand(caller, Scope.GENERATORS_TRAIN, Scope.SAMPLES_GENERATE, Scope.REPORTS_WRITE)
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    resources.delete(session, row, cascade=cascade)


@router.get("/{dataset_id}/files", responses=documented(NotFoundError))
def list_dataset_files(
    dataset_id: DatasetID,
    caller: DatasetsReader,
    session: Session,
    parts: ServiceParts,
    verdict: Annotated[schemas.FileVerdict | None, Query()] = None,
    limit: Limit = 20,
    after: AfterIndex = -1,
) -> Page[schemas.DatasetFile]:
    """List the verdict on every file of the archive, in its order."""
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    query = select(tables.DatasetFile).where(
        tables.DatasetFile.dataset_id == row.id, tables.DatasetFile.index > after
    )
    if verdict is not None:
        query = query.where(tables.DatasetFile.verdict == verdict)
    files = session.scalars(query.order_by(tables.DatasetFile.index).limit(limit + 1)).all()

    def shown(file: tables.DatasetFile) -> schemas.DatasetFile:
        sealed = file.sealed_name
        name = parts.secrecy.open(caller.tenant_id, sealed) if sealed is not None else ""
        return schemas.dataset_file(file, name)

    return page(files, limit, cursor=lambda file: file.index, item=shown)


@router.get(
    "/{dataset_id}/certificate",
    response_model=schemas.Certificate,
    responses=documented(NotFoundError, NotReadyError)
    | {200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_dataset_certificate(
    dataset_id: DatasetID, caller: DatasetsReader, session: Session, request: Request
) -> schemas.Certificate | Response:
    """Say what ingest did: counts by verdict and action, splits, rules, versions.

    As JSON, or as a page for `Accept: text/html`.
    """
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    document = datasets.certificate(row)
    assert row.job is not None, "a sealed dataset has a job"
    assert row.job.finished_at is not None, "which has ended"
    sealed_at = row.job.finished_at
    if "text/html" in request.headers.get("accept", ""):
        page = pages.certificate(
            document,
            name=row.name,
            dataset_id=row.id,
            sealed_at=f"{sealed_at:%Y-%m-%d %H:%M} UTC",
            keeps_original=row.content_key is not None and bool(row.options.get("keep_original")),
        )
        return HTMLResponse(page)
    about = {"dataset_id": row.id, "dataset_name": row.name, "sealed_at": sealed_at}
    return schemas.Certificate.model_validate(about | document)


@router.get(
    "/{dataset_id}/preview.png",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError)
    | {
        200: {"description": "A PNG", "content": {"image/png": _BINARY}},
        304: {"description": "The picture that you have is the current one"},
    },
)
def get_dataset_preview(
    dataset_id: DatasetID,
    caller: DatasetsReader,
    parts: ServiceParts,
    request: Request,
    count: Annotated[int, Query(ge=1, le=100)] = 20,
    label: Annotated[str | None, Query(max_length=64)] = None,
    seed: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
) -> Response:
    """Draw a labelled grid of real slices."""
    with parts.database.transaction() as session:  # over before the storage is asked
        row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
        images = datasets.choose(session, row, count=count, label=label, seed=seed)
    return cached_png(
        request,
        f"{row.id}-{row.digest}-{count}-{label}-{seed}",
        lambda: datasets.preview(parts.storage, row, images),
    )


@router.get(
    "/{dataset_id}/contact-sheet.png",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError)
    | {
        200: {"description": "A PNG", "content": {"image/png": _BINARY}},
        304: {"description": "The picture that you have is the current one"},
    },
)
def get_dataset_contact_sheet(
    dataset_id: DatasetID,
    caller: DatasetsReader,
    parts: ServiceParts,
    request: Request,
    seed: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
) -> Response:
    """Draw real slices of each label and plane, with the outline of their masks."""
    with parts.database.transaction() as session:  # over before the storage is asked
        row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
        images = datasets.choose_by_plane(session, row, seed=seed)
    return cached_png(
        request,
        f"{row.id}-{row.digest}-sheet-{seed}",
        lambda: datasets.contact_sheet(parts.storage, row, images),
    )
