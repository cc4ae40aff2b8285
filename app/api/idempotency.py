"""The same `Idempotency-Key` and body on a POST returns the first answer again.

The key is claimed in a transaction of its own before the request is carried out, so that of two
equal requests at once only one is. Refused requests changed nothing and free their key.
"""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert

from app.api.auth import authenticate
from app.database import Database
from app.errors import IdempotencyInFlightError, IdempotencyMismatchError
from app.parts import Parts
from app.tables import IdempotencyKey, now

IN_FLIGHT_S = 60.0
"""An unanswered key older than this belonged to a process that died."""
MAX_KEY_LENGTH = 255


def documented_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=MAX_KEY_LENGTH,
            description="Send the request again with the same key to get the first answer again.",
        ),
    ] = None,
) -> None:
    """Declare the header; `IdempotentRoute` reads it."""


class IdempotentRoute(APIRoute):
    """A route whose POSTs honour `Idempotency-Key`."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # narrower in fastapi's annotation only
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or not key or len(key) > MAX_KEY_LENGTH:
                return await handle(request)
            parts: Parts = request.app.state.parts
            principal = await run_in_threadpool(authenticate, parts, request)
            digest = hashlib.sha256(
                b"\0".join((request.url.path.encode(), await request.body()))
            ).hexdigest()
            names = (principal.tenant_id, key)
            replay = await run_in_threadpool(_claim, parts.database, names, digest)
            if replay is not None:
                return replay
            response: Response | None = None
            try:
                response = await handle(request)
            finally:
                await run_in_threadpool(_settle, parts.database, names, response)
            return response

        return once


def _claim(database: Database, names: tuple[str, str], digest: str) -> Response | None:
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
            .returning(IdempotencyKey.key)
        )
        if claimed is not None:
            return None
        first = session.get_one(IdempotencyKey, names)
        if first.request_sha256 != digest:
            raise IdempotencyMismatchError("use a new Idempotency-Key for a new request")
        if first.status is None:
            raise IdempotencyInFlightError("wait for its answer, then send it again")
        return Response(
            first.body,
            first.status,
            {**(first.headers or {}), "Idempotent-Replayed": "true"},
        )


def _settle(database: Database, names: tuple[str, str], response: Response | None) -> None:
    mine = (IdempotencyKey.tenant_id == names[0], IdempotencyKey.key == names[1])
    with database.transaction() as session:
        if response is None or response.status_code >= 300:  # noqa: PLR2004 - the end of success
            session.execute(delete(IdempotencyKey).where(*mine))
            return
        kept = {
            name: value
            for name, value in response.headers.items()
            if name in ("content-type", "location")
        }
        session.execute(
            update(IdempotencyKey)
            .where(*mine)
            .values(status=response.status_code, headers=kept, body=bytes(response.body).decode())
        )
