"""Who is calling and what they may do: an API key becomes a `Principal`.

A handler's signature says who may call it: `caller: DatasetsReader`.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPBearer

from app import api_keys
from app.api.dependencies import ServiceParts
from app.api_keys import Principal, Scope
from app.errors import ForbiddenError
from app.parts import Parts

OPEN_PATHS = frozenset({"/livez", "/readyz", "/openapi.json", "/docs"})
"""All that is answered without a key: it tells nothing of a tenant, and costs next to nothing."""

bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer gf_...`")


def authenticate(parts: Parts, request: Request) -> Principal:
    """Return who sent `request`.

    Raises:
        UnauthorizedError: if its API key is absent or no good.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    with parts.database.transaction() as session:
        return api_keys.authenticate(session, key.strip() if scheme.lower() == "bearer" else "")


async def identify(parts: Parts, request: Request) -> Principal:
    """Return who sent `request`, and name the tenant in all that is logged from here on.

    Raises:
        UnauthorizedError: as `authenticate`.
    """
    principal = await run_in_threadpool(authenticate, parts, request)
    # In the request's own context: what a thread binds, only that thread has.
    structlog.contextvars.bind_contextvars(tenant_id=principal.tenant_id)
    return principal


def requires(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    """Return a dependency that admits only keys with `scope`."""

    async def admit(
        parts: ServiceParts, request: Request, _: Annotated[object, Depends(bearer)]
    ) -> Principal:
        principal = await identify(parts, request)
        demand(principal, scope)
        return principal

    return admit


def demand(caller: Principal, *scopes: Scope) -> None:
    """Refuse a caller who lacks one of `scopes`.

    Raises:
        ForbiddenError: naming what is missing.
    """
    missing = [scope for scope in scopes if not caller.may(scope)]
    if missing:
        raise ForbiddenError(f"this needs the scope {', '.join(missing)}")


DatasetsReader = Annotated[Principal, Depends(requires(Scope.DATASETS_READ))]
DatasetsWriter = Annotated[Principal, Depends(requires(Scope.DATASETS_WRITE))]
GeneratorsReader = Annotated[Principal, Depends(requires(Scope.GENERATORS_READ))]
GeneratorsTrainer = Annotated[Principal, Depends(requires(Scope.GENERATORS_TRAIN))]
SamplesReader = Annotated[Principal, Depends(requires(Scope.SAMPLES_READ))]
SamplesGenerator = Annotated[Principal, Depends(requires(Scope.SAMPLES_GENERATE))]
ReportsReader = Annotated[Principal, Depends(requires(Scope.REPORTS_READ))]
ReportsWriter = Annotated[Principal, Depends(requires(Scope.REPORTS_WRITE))]
JobsReader = Annotated[Principal, Depends(requires(Scope.JOBS_READ))]
JobsWriter = Annotated[Principal, Depends(requires(Scope.JOBS_WRITE))]
Admin = Annotated[Principal, Depends(requires(Scope.ADMIN))]
