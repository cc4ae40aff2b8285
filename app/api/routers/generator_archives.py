"""/v1/generators/import and /v1/generators/{id}/export: take a generator in, and give one away."""

from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse

from app import generator_archives, generators, resources, tables
from app.api import idempotency
from app.api.auth import GeneratorsReader, GeneratorsTrainer
from app.api.dependencies import ServiceParts
from app.api.idempotency import documented_key
from app.api.ids import CheckpointID, GeneratorID
from app.api.incoming import store_body
from app.api.middleware import request_id
from app.api.problems import documented
from app.api.schemas import generators as schemas
from app.api.schemas.datasets import Name
from app.api_keys import Principal
from app.errors import (
    ConflictError,
    GliaforgeError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    TooManyJobsError,
    UnsupportedArchiveError,
)
from app.identifiers import Prefix, new_id, uuid7
from app.parts import Parts
from app.storage import incoming_prefix

router = APIRouter(prefix="/v1/generators", tags=["generators"])

_ZIP = b"PK\x03\x04"
_CONTENT = {
    "requestBody": {
        "required": True,
        "description": "A zip as GET /v1/generators/{generator_id}/export gives it.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in ("application/zip", "application/octet-stream")
        },
    }
}


@router.api_route("/import", methods=["GET", "DELETE"], include_in_schema=False)
def refuse_other_methods(_caller: GeneratorsTrainer) -> None:
    """Answer as any path does that has another method: `import` is no generator's id."""
    raise HTTPException(405, headers={"Allow": "POST"})


@router.post(
    "/import",
    status_code=202,
    openapi_extra=_CONTENT,
    dependencies=[Depends(documented_key)],
    responses=documented(ConflictError, UnsupportedArchiveError, TooManyJobsError)
    | {202: {"model": schemas.Generator, "description": "Its job judges the archive."}},
)
async def import_generator(
    caller: GeneratorsTrainer,
    parts: ServiceParts,
    request: Request,
    name: Annotated[Name, Query(description="What to call it.")] = "imported",
) -> Response:
    """Take in a generator that was exported elsewhere; it can be sampled, not trained on.

    The body goes to object storage as it arrives; a job then judges it, and keeps nothing of it
    unless all is in order.
    """
    generator_id, digest = new_id(Prefix.GENERATOR), sha256()
    key = f"{incoming_prefix(caller.tenant_id, generator_id)}{uuid7().hex}"
    await store_body(
        parts.storage,
        request,
        key,
        most_bytes=parts.settings.max_import_bytes,
        check=_check_zip,
        see=digest.update,
    )
    content = digest.hexdigest().encode()
    return await run_in_threadpool(
        _create, parts, caller, request, content, (generator_id, name, key)
    )


def _check_zip(head: bytes) -> None:
    if not head:
        raise InvalidRequestError("the body is empty; send the zip of a generator")
    if not head.startswith(_ZIP):
        raise UnsupportedArchiveError(
            "the body is no zip with files; send the exported file itself, as"
            " curl --data-binary @FILE does"
        )


def _create(
    parts: Parts,
    caller: Principal,
    request: Request,
    content: bytes,
    asked: tuple[str, str, str],
) -> Response:
    """Make a generator (id, name, key of its archive), unless the request was answered before."""
    generator_id, name, key = asked
    is_new = False
    try:
        first = idempotency.claim(parts, caller, request, content)
        if first is not None:
            return first
        with parts.database.transaction() as session:
            row = generator_archives.create(
                session,
                caller.tenant_id,
                generator_id=generator_id,
                name=name,
                content_key=key,
                request_id=request_id(request.scope),
            )
            shown = schemas.generator(session, row, {}).model_dump(mode="json")
            answer = JSONResponse(shown, 202, {"Location": f"/v1/generators/{row.id}"})
            idempotency.keep(request, session, answer)
        is_new = True
        return answer
    finally:
        if not is_new:
            # Nobody knows this object's key.
            parts.storage.delete(key)
            idempotency.free(request)


@router.get(
    "/{generator_id}/export",
    status_code=307,
    response_class=RedirectResponse,
    responses=documented(NotFoundError, ConflictError, NotReadyError)
    | {307: {"description": "A presigned URL of a zip: weights, description and model card"}},
)
def export_generator(
    generator_id: GeneratorID,
    caller: GeneratorsReader,
    parts: ServiceParts,
    checkpoint_id: Annotated[
        CheckpointID | None, Query(description="The best one if absent.")
    ] = None,
) -> RedirectResponse:
    """Redirect to a zip of a checkpoint that can be imported elsewhere."""
    asked = (caller.tenant_id, generator_id, checkpoint_id)
    planned = _plan(parts, *asked)
    generator_archives.make(parts.storage, planned)
    try:
        _plan(parts, *asked)
    except GliaforgeError:
        # What was deleted meanwhile may have been purged before the archive was there.
        parts.storage.delete(planned.key)
        raise
    return RedirectResponse(
        parts.storage.presigned_get(
            planned.key,
            lifetime_s=parts.settings.presigned_lifetime_s,
            filename=f"{generator_id}.zip",
        ),
        status_code=307,
    )


def _plan(
    parts: Parts, tenant_id: str, generator_id: str, checkpoint_id: str | None
) -> generator_archives.Plan:
    with parts.database.transaction() as session:
        row = resources.get(session, tables.Generator, tenant_id, generator_id)
        found = generators.checkpoint(session, row, checkpoint_id)
        return generator_archives.plan(session, row, found)
