"""The same `Idempotency-Key` and body on a POST returns the first answer again.

The key is claimed in a transaction of its own before the request is carried out, so that of two
equal requests at once only one is. The answer is kept in the transaction that carries it out: a
process that is killed leaves both or neither. Refused requests changed nothing and free their key.
"""

import hmac
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.api.auth import identify
from app.api.bodies import limited
from app.api.dependencies import session_of
from app.api_keys import Principal
from app.database import Database
from app.errors import IdempotencyInFlightError, IdempotencyMismatchError
from app.parts import Parts
from app.tables import IdempotencyKey, now

IN_FLIGHT_S = 60.0
"""An unanswered key older than this belonged to a process that died, or that is refused to keep
its answer if it did not."""
MAX_KEY_LENGTH = 255
_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_LENGTH}}}")


def documented_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=f"^{_KEY.pattern}$",
            description="Send the request again with the same key to get the first answer again.",
        ),
    ] = None,
) -> None:
    """Declare the header; `IdempotentRoute` reads it."""


@dataclass(frozen=True)
class Ticket:
    """The right to answer the request with one Idempotency-Key."""

    tenant_id: str
    key: str
    taken_at: datetime


def keep_out(request: Request, field: str) -> None:
    """Store null for a field of the answer to `request`, which a replay must not show."""
    request.state.kept_out = field


def keep(request: Request, session: Session, response: Response) -> None:
    """Keep the answer in the transaction that did what was asked; nothing without a key.

    For handlers with transactions of their own; for all others it is done when they return. They
    may keep a better answer later.

    Raises:
        IdempotencyInFlightError: if another request took the key over meanwhile; the transaction
            must not be committed.
    """
    ticket: Ticket | None = getattr(request.state, "ticket", None)
    if ticket is None:
        return
    kept = {
        name: value
        for name, value in response.headers.items()
        if name in ("content-type", "location")
    }
    body = bytes(response.body).decode()
    kept_out = getattr(request.state, "kept_out", None)
    if kept_out is not None:
        body = json.dumps(json.loads(body) | {kept_out: None})
    mine = session.scalar(
        update(IdempotencyKey)
        .where(*_is(ticket))
        .values(status=response.status_code, headers=kept, body=body)
        .returning(IdempotencyKey.key)
    )
    if mine is None:
        raise IdempotencyInFlightError("it took so long that another took its place; send it again")


class IdempotentRoute(APIRoute):
    """A route that reads small bodies, and whose POSTs honour `Idempotency-Key`.

    An answer belongs to the API key that asked for it: another one of the tenant, which may lack
    the scope, is told that the Idempotency-Key is taken.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # narrower in fastapi's annotation only
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def once(given: Request) -> Response:
            request = limited(given)
            if request.method != "POST" or _key_of(request) is None:
                return await handle(request)
            parts: Parts = request.app.state.parts
            principal = await identify(parts, request)
            body = await request.body()
            first = await run_in_threadpool(claim, parts, principal, request, body)
            if first is not None:
                return first
            try:
                response = await handle(request)
            except BaseException:
                await run_in_threadpool(free, request)
                raise
            if response.status_code >= 300:  # noqa: PLR2004 - the end of success
                await run_in_threadpool(free, request)
            elif (session := session_of(request)) is not None:
                await run_in_threadpool(keep, request, session, response)
            else:
                await run_in_threadpool(_keep_alone, parts.database, request, response)
            return response

        return once


def claim(parts: Parts, caller: Principal, request: Request, content: bytes) -> Response | None:
    """Claim the key of `request`, if it has one, or return the first answer to it.

    `content` is what the request must be equal in, besides its path, query and API key: the body,
    or what stands for it. For handlers that read a body for themselves; all others need not ask.

    Raises:
        IdempotencyMismatchError: if the key was used for another request.
        IdempotencyInFlightError: if the first request has not been answered.
    """
    key = _key_of(request)
    if key is None:
        return None
    # Without a query as it was before queries counted: what was answered then is known still.
    place = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    asked = (caller.key_id.encode(), place.encode(), content)
    # Keyed: a body may quote a file's name, and whoever reads the database may guess.
    secret = parts.secrecy.pseudonym_key(caller.tenant_id)
    digest = hmac.digest(secret, b"\0".join(asked), "sha256").hex()
    claimed = _claim(parts.database, (caller.tenant_id, key), digest)
    if isinstance(claimed, Response):
        return claimed
    request.state.ticket = claimed
    return None


def free(request: Request) -> None:
    """Forget the claim of a request that changed nothing; nothing without one."""
    ticket: Ticket | None = getattr(request.state, "ticket", None)
    request.state.ticket = None
    if ticket is None:
        return
    parts: Parts = request.app.state.parts
    with parts.database.transaction() as session:
        session.execute(delete(IdempotencyKey).where(*_is(ticket), IdempotencyKey.status.is_(None)))


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    return key if key is not None and _KEY.fullmatch(key) else None


def _claim(database: Database, names: tuple[str, str], digest: str) -> Ticket | Response:
    """Claim the key, or return the first answer.

    Raises:
        IdempotencyMismatchError: if the key was used for another request.
        IdempotencyInFlightError: if the first request has not been answered.
    """
    with database.transaction() as session:
        values = {"request_sha256": digest, "created_at": now()}
        claimed = session.scalar(
            insert(IdempotencyKey)
            .values(tenant_id=names[0], key=names[1], **values)
            .on_conflict_do_update(
                index_elements=["tenant_id", "key"],
                set_=values,
                where=IdempotencyKey.status.is_(None)
                & (IdempotencyKey.created_at < now() - timedelta(seconds=IN_FLIGHT_S)),
            )
            .returning(IdempotencyKey.created_at)
        )
        if claimed is not None:
            return Ticket(*names, claimed)
        first = session.get(IdempotencyKey, names)
        if first is None:
            raise IdempotencyInFlightError("it was refused just now; send it again")
        if first.request_sha256 != digest:
            raise IdempotencyMismatchError("use a new Idempotency-Key for a new request")
        if first.status is None:
            raise IdempotencyInFlightError("wait for its answer, then send it again")
        return Response(
            first.body,
            first.status,
            {**(first.headers or {}), "Idempotent-Replayed": "true"},
        )


def _keep_alone(database: Database, request: Request, response: Response) -> None:
    with database.transaction() as session:
        keep(request, session, response)


def _is(ticket: Ticket) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyKey.tenant_id == ticket.tenant_id,
        IdempotencyKey.key == ticket.key,
        IdempotencyKey.created_at == ticket.taken_at,
    )
