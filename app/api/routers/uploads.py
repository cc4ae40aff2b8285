"""/v1/uploads: take an archive in parts that the client sends straight to the object storage."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app import datasets, resources, tables, uploads
from app.api.auth import DatasetsWriter
from app.api.dependencies import RequestID, ServiceParts
from app.api.idempotency import IdempotentRoute, documented_key, keep
from app.api.ids import DatasetID, UploadID
from app.api.problems import documented
from app.api.schemas import datasets as dataset_schemas
from app.api.schemas import uploads as schemas
from app.errors import (
    ConflictError,
    GliaforgeError,
    NotFoundError,
    TooLargeError,
    TooManyJobsError,
    UnsupportedArchiveError,
    UploadIncompleteError,
)
from app.parts import Parts
from app.tables import Upload

router = APIRouter(prefix="/v1", tags=["uploads"], route_class=IdempotentRoute)


@router.post(
    "/datasets/{dataset_id}/uploads",
    status_code=201,
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError),
)
def create_upload(
    dataset_id: DatasetID,
    body: schemas.NewUpload,
    caller: DatasetsWriter,
    parts: ServiceParts,
    request: Request,
    response: Response,
) -> schemas.BegunUpload:
    """Begin to upload an archive in parts; a dataset has one open upload at a time.

    PUT each part at its URL, several at a time if you like, keep the ETags, then complete it.
    """
    most = parts.settings.max_upload_bytes
    if body.size_bytes > most:
        raise TooLargeError(f"an upload has at most {most} bytes")
    with parts.database.transaction() as session:  # over before the storage is asked
        dataset = resources.get(session, tables.Dataset, caller.tenant_id, dataset_id)
        datasets.check_takes_content(dataset)
    key = uploads.new_key(dataset)
    begun = parts.storage.begin_upload(key)
    try:
        with parts.database.transaction() as session:
            row = uploads.create(
                session,
                resources.get(session, tables.Dataset, caller.tenant_id, dataset_id),
                key=key,
                storage_upload_id=begun,
                size_bytes=body.size_bytes,
                sha256=body.sha256,
            )
            first = range(1, min(uploads.part_count(row), schemas.SIGNED_AT_ONCE) + 1)
            known = schemas.upload(row, "open", [], parts.settings.upload_lifetime_s)
            shown = schemas.BegunUpload(
                **known.model_dump(), parts=_signed(parts, row, list(first))
            )
            response.headers["Location"] = f"/v1/uploads/{row.id}"
            kept = JSONResponse(shown.model_dump(mode="json"), 201, dict(response.headers))
            keep(request, session, kept)
    except GliaforgeError:
        # Another upload was quicker, or the dataset was deleted: nobody knows this one.
        parts.storage.abort_upload(key, begun)
        raise
    return shown


@router.get("/uploads/{upload_id}", responses=documented(NotFoundError))
def get_upload(upload_id: UploadID, caller: DatasetsWriter, parts: ServiceParts) -> schemas.Upload:
    """Show an upload and which of its parts the storage has, so that any client can go on."""
    with parts.database.transaction() as session:
        row = uploads.get(session, caller.tenant_id, upload_id)
    return _shown(parts, row)


@router.post(
    "/uploads/{upload_id}/parts",
    dependencies=[Depends(documented_key)],
    responses=documented(NotFoundError, ConflictError),
)
def sign_upload_parts(
    upload_id: UploadID, body: schemas.PartNumbers, caller: DatasetsWriter, parts: ServiceParts
) -> schemas.SignedParts:
    """Sign parts: those beyond the first hundred, and any whose URL has expired.

    A URL is good for an hour or so and a large archive takes longer; to sign all at once would
    make all of them expire together. A POST, since it hands out leave to write.
    """
    with parts.database.transaction() as session:
        row = uploads.get_open(session, caller.tenant_id, upload_id)
    return schemas.SignedParts(parts=_signed(parts, row, body.numbers))


@router.post(
    "/uploads/{upload_id}/complete",
    status_code=202,
    dependencies=[Depends(documented_key)],
    responses=documented(
        NotFoundError,
        ConflictError,
        UploadIncompleteError,
        UnsupportedArchiveError,
        TooManyJobsError,
    ),
)
def complete_upload(
    upload_id: UploadID,
    body: schemas.SentParts,
    caller: DatasetsWriter,
    parts: ServiceParts,
    request: Request,
    response: Response,
    request_id: RequestID,
) -> dataset_schemas.Dataset:
    """Put the parts together and start the ingest of the dataset.

    Their sizes, their ETags and the first bytes of the archive are checked here, the SHA-256 of
    the whole by the ingest. Completing it again gives the same answer.
    """
    with parts.database.transaction() as session:
        row = uploads.get(session, caller.tenant_id, upload_id)
    if row.completed_at is None:
        _assemble(parts, row, [(part.number, part.etag.strip('"')) for part in body.parts])
    with parts.database.transaction() as session:
        dataset = uploads.start_ingest(session, caller.tenant_id, upload_id, request_id)
        shown = dataset_schemas.dataset(session, dataset)
        response.headers["Location"] = f"/v1/datasets/{dataset.id}"
        kept = JSONResponse(shown.model_dump(mode="json"), 202, dict(response.headers))
        keep(request, session, kept)
    return shown


@router.delete(
    "/uploads/{upload_id}", status_code=204, responses=documented(NotFoundError, ConflictError)
)
def delete_upload(upload_id: UploadID, caller: DatasetsWriter, parts: ServiceParts) -> None:
    """Abort an upload and remove the parts that were sent; one that is completed stays."""
    with parts.database.transaction() as session:
        row = uploads.get_open(session, caller.tenant_id, upload_id)
    _discard(parts, row)


def _shown(parts: Parts, row: Upload) -> schemas.Upload:
    """Show an upload beside what the storage has of it.

    Raises:
        NotFoundError: if the storage has forgotten it.
    """
    lifetime_s = parts.settings.upload_lifetime_s
    if row.completed_at is not None:
        return schemas.upload(row, "completed", [], lifetime_s)
    stored = parts.storage.stored_parts(row.key, row.storage_upload_id)
    if stored is not None:
        return schemas.upload(row, "open", stored, lifetime_s)
    if parts.storage.size_of(row.key) is None:
        raise NotFoundError("no such upload")
    return schemas.upload(row, "assembled", [], lifetime_s)


def _signed(parts: Parts, row: Upload, numbers: list[int]) -> list[schemas.SignedPart]:
    lifetime_s = parts.settings.presigned_lifetime_s
    return schemas.signed(uploads.sign(parts.storage, row, numbers, lifetime_s=lifetime_s))


def _assemble(parts: Parts, row: Upload, sent: list[tuple[int, str]]) -> None:
    try:
        uploads.assemble(parts.storage, row, sent)
    except UnsupportedArchiveError:
        _discard(parts, row)  # no other parts can make an archive of it
        raise


def _discard(parts: Parts, row: Upload) -> None:
    with parts.database.transaction() as session:
        is_mine = uploads.forget(session, row.id)
    if is_mine:  # else it was completed, or discarded, meanwhile
        uploads.remove(parts.storage, row)
