"""The same `Idempotency-Key` and body on a POST returns the first answer again.

The key is claimed in a transaction of its own before the request is carried out, so that of two
equal requests at once only one is. Refused requests changed nothing and free their key.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert

from app.api.auth import authenticate
from app.api.bodies import limited
from app.database import Database
from app.errors import IdempotencyInFlightError, IdempotencyMismatchError
from app.parts import Parts
from app.tables import IdempotencyKey, now

IN_FLIGHT_S = 300.0
"""An unanswered key older than this belonged to a process that died."""
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


def keep_out(request: Request, field: str) -> None:
    """Store null for a field of the answer to `request`, which a replay must not show."""
    request.state.kept_out = field


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
            key = request.headers.get("idempotency-key")
            if request.method != "POST" or key is None or _KEY.fullmatch(key) is None:
                return await handle(request)
            parts: Parts = request.app.state.parts
            principal = await run_in_threadpool(authenticate, parts, request)
            digest = hashlib.sha256(
                b"\0".join(
                    (principal.key_id.encode(), request.url.path.encode(), await request.body())
                )
            ).hexdigest()
            names = (principal.tenant_id, key)
            replay = await run_in_threadpool(_claim, parts.database, names, digest)
            if replay is not None:
                return replay
            response: Response | None = None
            try:
                response = await handle(request)
            finally:
                kept_out = getattr(request.state, "kept_out", None)
                await run_in_threadpool(_settle, parts.database, names, response, kept_out)
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


def _settle(
    database: Database, names: tuple[str, str], response: Response | None, kept_out: str | None
) -> None:
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
        body = bytes(response.body).decode()
        if kept_out is not None:
            body = json.dumps(json.loads(body) | {kept_out: None})
        session.execute(
            update(IdempotencyKey)
            .where(*mine)
            .values(status=response.status_code, headers=kept, body=body)
        )
