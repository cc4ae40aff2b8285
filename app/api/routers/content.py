"""/v1/datasets/{id}/content: take an archive of any size as it arrives."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app import datasets, resources, tables
from app.api.auth import DatasetsWriter
from app.api.dependencies import RequestID, ServiceParts
from app.api.ids import DatasetID
from app.api.incoming import store_body
from app.api.problems import documented
from app.api.schemas import datasets as schemas
from app.errors import (
    ConflictError,
    GliaforgeError,
    NotFoundError,
    TooManyJobsError,
    UnsupportedArchiveError,
)
from app.parts import Parts
from app.storage import incoming_prefix

router = APIRouter(tags=["datasets"])

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


@router.put(
    "/v1/datasets/{dataset_id}/content",
    status_code=202,
    openapi_extra=_CONTENT,
    responses=documented(NotFoundError, ConflictError, UnsupportedArchiveError, TooManyJobsError),
)
async def put_dataset_content(
    dataset_id: DatasetID,
    caller: DatasetsWriter,
    parts: ServiceParts,
    request: Request,
    response: Response,
    request_id: RequestID,
    filename: Annotated[
        str | None,
        Query(
            max_length=255,
            description="Ignored: the format is read off the bytes. Name no patient.",
        ),
    ] = None,
) -> schemas.Dataset:
    """Upload the images as one archive and start their ingest.

    The body goes to object storage as it arrives; nothing is kept of an upload that breaks off.
    """
    del filename  # it may name a patient, and nothing needs it
    key = await run_in_threadpool(_new_content_key, parts, caller.tenant_id, dataset_id)
    size_bytes = await store_body(
        parts.storage,
        request,
        key,
        most_bytes=parts.settings.max_upload_bytes,
        check=datasets.check_archive,
    )
    response.headers["Location"] = f"/v1/datasets/{dataset_id}"
    return await run_in_threadpool(
        _start_ingest, parts, caller.tenant_id, dataset_id, (key, size_bytes, request_id)
    )


def _new_content_key(parts: Parts, tenant_id: str, dataset_id: str) -> str:
    with parts.database.transaction() as session:
        row = resources.get(session, tables.Dataset, tenant_id, dataset_id)
        datasets.check_takes_content(row)
        return f"{incoming_prefix(tenant_id, row.id)}{uuid.uuid4().hex}"


def _start_ingest(
    parts: Parts, tenant_id: str, dataset_id: str, upload: tuple[str, int, str]
) -> schemas.Dataset:
    try:
        with parts.database.transaction() as session:
            row = resources.get(session, tables.Dataset, tenant_id, dataset_id)
            datasets.start_ingest(session, row, *upload)
            return schemas.dataset(session, row)
    except GliaforgeError:
        # Another upload was quicker, the dataset was deleted or there are too many jobs already:
        # nobody knows this object's key.
        parts.storage.delete(upload[0])
        raise
