"""API keys: made once, shown once, stored as a digest; each carries scopes of one tenant."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import ConflictError, NotFoundError, UnauthorizedError
from app.identifiers import Prefix, new_id
from app.tables import APIKey, Tenant, now


class Scope(StrEnum):
    """What a key may do; `admin` includes everything within the tenant."""

    DATASETS_READ = "datasets:read"
    DATASETS_WRITE = "datasets:write"
    GENERATORS_READ = "generators:read"
    GENERATORS_TRAIN = "generators:train"
    SAMPLES_READ = "samples:read"
    SAMPLES_GENERATE = "samples:generate"
    REPORTS_READ = "reports:read"
    REPORTS_WRITE = "reports:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """Who is calling, and what they may do."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        """Tell whether the key allows `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


def issue(
    session: Session,
    tenant_id: str,
    *,
    name: str,
    scopes: list[Scope],
    expires_at: datetime | None = None,
) -> tuple[APIKey, str]:
    """Add a key; return its row and the key itself, which is not stored and cannot be had again."""
    secret = secrets.token_urlsafe(32)
    row = APIKey(
        id=new_id(Prefix.API_KEY),
        tenant_id=tenant_id,
        name=name,
        secret_sha256=_digest(secret),
        scopes=sorted({scope.value for scope in scopes}),
        expires_at=expires_at,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    return row, f"gf_{row.id.removeprefix('key_')}_{secret}"


def authenticate(session: Session, key: str) -> Principal:
    """Return who presents `key`.

    Raises:
        UnauthorizedError: if the key is malformed, unknown, revoked or expired; it does not say
            which.
    """
    mark, _, rest = key.partition("_")
    key_id, _, secret = rest.partition("_")
    well_formed = mark == "gf" and key_id.isalnum() and key_id.isascii() and bool(secret)
    row = session.get(APIKey, f"key_{key_id}") if well_formed else None
    # 256 random bits need no slow hash; the comparison takes the same time for every secret.
    stored = row.secret_sha256 if row else ""
    matches = hmac.compare_digest(stored, _digest(secret))
    if row is None or not matches or (row.expires_at is not None and row.expires_at <= now()):
        raise UnauthorizedError(
            "send `Authorization: Bearer <key>` with a key of this service",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return Principal(row.tenant_id, row.id, frozenset(row.scopes))


def is_known(session: Session, key: str) -> bool:
    """Tell whether `key` would be admitted."""
    try:
        authenticate(session, key)
    except UnauthorizedError:
        return False
    return True


def ensure_tenant(session: Session, name: str) -> str:
    """Return the id of the tenant called `name`, made if it is not there."""
    tenant = session.scalars(select(Tenant).where(Tenant.name == name)).one_or_none()
    if tenant is None:
        tenant = Tenant(id=new_id(Prefix.TENANT), name=name)
        session.add(tenant)
        session.flush()
    return tenant.id


def limit(session: Session, tenant_name: str, max_running: int) -> None:
    """Set how many jobs of one kind the tenant may have running at a time.

    Raises:
        NotFoundError: if there is no such tenant.
    """
    tenant = session.scalars(select(Tenant).where(Tenant.name == tenant_name)).one_or_none()
    if tenant is None:
        raise NotFoundError(f"there is no tenant {tenant_name!r}; gliaforge bootstrap makes one")
    tenant.max_running = max_running


def bootstrap(session: Session, tenant_name: str) -> str:
    """Create a tenant and return its first key, which has every scope.

    Raises:
        ConflictError: if the tenant has a key already.
    """
    tenant_id = ensure_tenant(session, tenant_name)
    if session.scalars(select(APIKey.id).where(APIKey.tenant_id == tenant_id).limit(1)).first():
        raise ConflictError(
            f"tenant {tenant_name!r} has a key already; make more with POST /v1/api-keys"
        )
    return issue(session, tenant_id, name="bootstrap", scopes=[Scope.ADMIN])[1]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
