"""Annotated parameters of handlers: the parts of the service, and one transaction a request."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy.orm import Session as SQLSession

from app.api.middleware import request_id
from app.parts import Parts


def _parts(request: Request) -> Parts:
    found = request.app.state.parts
    assert isinstance(found, Parts)
    return found


ServiceParts = Annotated[Parts, Depends(_parts)]


def _session(parts: ServiceParts, request: Request) -> Iterator[SQLSession]:
    with parts.database.transaction() as session:
        request.state.session = session
        yield session


def session_of(request: Request) -> SQLSession | None:
    """Return the session of a request that was handled and not yet committed, if it has one."""
    found: SQLSession | None = getattr(request.state, "session", None)
    return found


# Scope "function": committed before the answer is sent, so that an answer is never a lie.
Session = Annotated[SQLSession, Depends(_session, scope="function")]


def _request_id(request: Request) -> str:
    return request_id(request.scope)


RequestID = Annotated[str, Depends(_request_id)]

Cascade = Annotated[
    bool, Query(description="Delete what was made from it too; what runs is cancelled.")
]
