"""/v1/datasets: create, upload, look at, delete."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from starlette.requests import ClientDisconnect

from app import datasets, resources, tables
from app.api.auth import DatasetsReader, DatasetsWriter
from app.api.caching import cached_png
from app.api.dependencies import RequestID, ServiceParts, Session
from app.api.idempotency import IdempotentRoute, documented_key
from app.api.pagination import After, AfterIndex, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import datasets as schemas
from app.errors import (
    BadRequestError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    TooLargeError,
    UnsupportedArchiveError,
)
from app.parts import Parts
from app.storage import PART_BYTES

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=IdempotentRoute)

SNIFF_BYTES = 262  # a tar says so at offset 257
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = {
    "requestBody": {
        "required": True,
        "description": "A .zip, .tar or .tar.gz with the images in one folder per label.",
        "content": dict.fromkeys(
            (
                "application/octet-stream",
                "application/zip",
                "application/x-tar",
                "application/gzip",
            ),
            _BINARY,
        ),
    }
}


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
def get_dataset(dataset_id: str, caller: DatasetsReader, session: Session) -> schemas.Dataset:
    """Show a dataset."""
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    return schemas.dataset(session, row)


@router.delete("/{dataset_id}", status_code=204, responses=documented(NotFoundError, ConflictError))
def delete_dataset(dataset_id: str, caller: DatasetsWriter, session: Session) -> None:
    """Delete a dataset and its files; refused while a generator or report stands on it."""
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    resources.delete(session, row)


@router.put(
    "/{dataset_id}/content",
    status_code=202,
    openapi_extra=_CONTENT,
    responses=documented(NotFoundError, ConflictError, UnsupportedArchiveError),
)
async def put_dataset_content(
    dataset_id: str,
    caller: DatasetsWriter,
    parts: ServiceParts,
    request: Request,
    response: Response,
    request_id: RequestID,
    filename: Annotated[
        str | None,
        Query(max_length=255, description="For your own records: the format is read off the bytes"),
    ] = None,
) -> schemas.Dataset:
    """Upload the images as one archive and start their ingest.

    The body goes to object storage as it arrives; nothing is kept of an upload that breaks off.
    """
    del filename  # it may name a patient, and nothing needs it
    key = await run_in_threadpool(_new_content_key, parts, caller.tenant_id, dataset_id)
    size_bytes = await _store_body(parts, request, key)
    response.headers["Location"] = f"/v1/datasets/{dataset_id}"
    return await run_in_threadpool(
        _start_ingest, parts, caller.tenant_id, dataset_id, (key, size_bytes, request_id)
    )


@router.get("/{dataset_id}/files", responses=documented(NotFoundError))
def list_dataset_files(
    dataset_id: str,
    caller: DatasetsReader,
    session: Session,
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
    return page(files, limit, cursor=lambda file: file.index, item=schemas.dataset_file)


@router.get(
    "/{dataset_id}/preview.png",
    response_class=Response,
    responses=documented(NotFoundError, NotReadyError)
    | {
        200: {"description": "A PNG", "content": {"image/png": _BINARY}},
        304: {"description": "The picture that you have is the current one"},
    },
)
def get_dataset_preview(  # noqa: PLR0913, PLR0917 - FastAPI's parameters
    dataset_id: str,
    caller: DatasetsReader,
    parts: ServiceParts,
    session: Session,
    request: Request,
    count: Annotated[int, Query(ge=1, le=100)] = 20,
    label: Annotated[str | None, Query(max_length=64)] = None,
    seed: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
) -> Response:
    """Draw a labelled grid of real slices."""
    row = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
    datasets.pack(row, 64)
    return cached_png(
        request,
        f"{row.id}-{row.digest}-{count}-{label}-{seed}",
        lambda: datasets.preview(session, parts.storage, row, count=count, label=label, seed=seed),
    )


def _new_content_key(parts: Parts, tenant_id: str, dataset_id: str) -> str:
    with parts.database.transaction() as session:
        row = resources.get(session, tables.Dataset, tenant_id, dataset_id)
        datasets.check_takes_content(row)
        return f"{datasets.prefix(row)}incoming/{uuid.uuid4().hex}"


async def _store_body(parts: Parts, request: Request, key: str) -> int:
    """Stream the body to `key`; return its size in bytes.

    Raises:
        TooLargeError: before anything is stored if the length is declared, else as soon as it is.
        UnsupportedArchiveError: if the first bytes are of no archive.
        InvalidRequestError: if there is no body.
        BadRequestError: if the client went away.
    """
    most = parts.settings.max_upload_bytes
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most:
        raise TooLargeError(f"an upload has at most {most} bytes")
    buffer, size_bytes, upload = bytearray(), 0, None
    try:
        async for chunk in request.stream():
            size_bytes += len(chunk)
            if size_bytes > most:
                raise TooLargeError(f"an upload has at most {most} bytes")
            buffer += chunk
            if upload is None and len(buffer) >= SNIFF_BYTES:
                _refuse_unless_archive(bytes(buffer[:SNIFF_BYTES]))
                upload = await run_in_threadpool(
                    parts.storage.multipart, key, "application/octet-stream"
                )
            if upload is not None and len(buffer) >= PART_BYTES:
                part, buffer = buffer, bytearray()
                await run_in_threadpool(upload.add, part)
        if upload is None:
            _refuse_unless_archive(bytes(buffer))
            upload = await run_in_threadpool(
                parts.storage.multipart, key, "application/octet-stream"
            )
        await run_in_threadpool(upload.add, buffer)
        await run_in_threadpool(upload.complete)
    except ClientDisconnect as error:
        raise BadRequestError("the upload broke off; nothing was kept") from error
    finally:
        if upload is not None:
            await run_in_threadpool(upload.close)
    return size_bytes


def _refuse_unless_archive(head: bytes) -> None:
    if not head:
        raise InvalidRequestError("the body is empty; send a .zip, .tar or .tar.gz")
    if not (
        head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")) or head[257:262] == b"ustar"
    ):
        raise UnsupportedArchiveError("the body is neither .zip, nor .tar, nor .tar.gz")


def _start_ingest(
    parts: Parts, tenant_id: str, dataset_id: str, upload: tuple[str, int, str]
) -> schemas.Dataset:
    with parts.database.transaction() as session:
        row = resources.get(session, tables.Dataset, tenant_id, dataset_id)
        datasets.start_ingest(session, row, *upload)
        return schemas.dataset(session, row)
