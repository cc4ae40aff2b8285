"""/v1/api-keys: make, list and revoke keys of the own tenant."""

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import select

from app import api_keys, tables
from app.api.auth import Admin
from app.api.dependencies import Session
from app.api.idempotency import IdempotentRoute, documented_key, keep_out
from app.api.ids import APIKeyID
from app.api.pagination import After, Limit, Page, page
from app.api.problems import documented
from app.api.schemas import api_keys as schemas
from app.errors import ConflictError, NotFoundError

router = APIRouter(prefix="/v1/api-keys", tags=["api-keys"], route_class=IdempotentRoute)


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(documented_key)],
    responses=documented(ConflictError),
)
def create_api_key(
    body: schemas.NewAPIKey,
    caller: Admin,
    session: Session,
    request: Request,
    response: Response,
) -> schemas.IssuedAPIKey:
    """Make a key; the answer shows it this once, and its replay does not."""
    keep_out(request, "key")
    row, key = api_keys.issue(
        session, caller.tenant_id, name=body.name, scopes=body.scopes, expires_at=body.expires_at
    )
    response.headers["Location"] = f"/v1/api-keys/{row.id}"
    return schemas.IssuedAPIKey(**_show(row).model_dump(), key=key)


@router.get("", responses=documented())
def list_api_keys(
    caller: Admin, session: Session, limit: Limit = 20, after: After = None
) -> Page[schemas.APIKey]:
    """List the keys of the tenant, newest first, without their secrets."""
    query = select(tables.APIKey).where(tables.APIKey.tenant_id == caller.tenant_id)
    if after is not None:
        query = query.where(tables.APIKey.id < after)
    rows = session.scalars(query.order_by(tables.APIKey.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, cursor=lambda row: row.id, item=_show)


@router.delete("/{key_id}", status_code=204, responses=documented(NotFoundError, ConflictError))
def revoke_api_key(key_id: APIKeyID, caller: Admin, session: Session) -> None:
    """Revoke a key at once; the key of this request cannot revoke itself."""
    row = session.get(tables.APIKey, key_id)
    if row is None or row.tenant_id != caller.tenant_id:
        raise NotFoundError("no such API key")
    if row.id == caller.key_id:
        raise ConflictError("a key cannot revoke itself; use another key with the admin scope")
    session.delete(row)


def _show(row: tables.APIKey) -> schemas.APIKey:
    return schemas.APIKey.model_validate(row, from_attributes=True)
