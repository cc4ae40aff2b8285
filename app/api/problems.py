"""Errors as RFC 9457 problem details (application/problem+json)."""

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.api.middleware import request_id
from app.api.security_headers import security_headers
from app.errors import (
    BadRequestError,
    ForbiddenError,
    GliaforgeError,
    HasDerivedError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    TooSlowError,
    UnauthorizedError,
    UnavailableError,
)
from app.storage import STORAGE_ERRORS

log = structlog.get_logger()
_ROUTING_ADVICE = {
    404: "there is no such path; /openapi.json lists them all",
    405: "the path has other methods, see the Allow header and /openapi.json",
}
MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One fault in a request."""

    pointer: str = Field(description="JSON pointer into the body, or the parameter's place.")
    detail: str


class Problem(BaseModel):
    """What went wrong, for a program (`code`) and for a person (`detail`)."""

    type: str = Field(examples=["/problems/not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no such dataset"])
    instance: str = Field(examples=["/v1/datasets/ds_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    code: str = Field(examples=["not_found"])
    request_id: str
    errors: list[FieldProblem] | None = Field(
        None, description="Each fault of a malformed request."
    )
    derived: list[str] | None = Field(
        None, description="Ids of what was made from the resource, directly or not."
    )


def documented(*errors: type[GliaforgeError]) -> dict[int | str, dict[str, object]]:
    """Return the `responses` of an operation that can end in `errors`.

    Every operation under /v1 can also answer 400, 401, 403, 408, 413, 422 and 503.
    """
    always: tuple[type[GliaforgeError], ...] = (
        BadRequestError,
        UnauthorizedError,
        ForbiddenError,
        TooSlowError,
        TooLargeError,
        InvalidRequestError,
        UnavailableError,
    )
    titles: dict[int, list[str]] = {}
    for error in (*always, *errors):
        titles.setdefault(error.status, []).append(f"{error.title} (`{error.code}`)")
    return {status: describe("; ".join(texts)) for status, texts in sorted(titles.items())}


def describe(description: str) -> dict[str, object]:
    """Return the OpenAPI response object of a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with problem details; nothing internal is shown."""
    app.add_exception_handler(GliaforgeError, _known)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    for error in (OperationalError, InterfaceError, PoolTimeoutError, *STORAGE_ERRORS):
        app.add_exception_handler(error, _part_missing)
    app.add_exception_handler(Exception, _unknown)


def answer(
    request: Request,
    error: GliaforgeError,
    *,
    errors: list[FieldProblem] | None = None,
) -> JSONResponse:
    """Return the problem response for `error`."""
    derived = error.derived if isinstance(error, HasDerivedError) else None
    members = {"errors": errors, "derived": derived}
    return _respond(
        request, error.status, error.code, error.title, error.detail, error.headers, members
    )


def _respond(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> JSONResponse:
    problem = Problem(
        type=f"/problems/{code}",
        title=title,
        status=status,
        # A lone surrogate, which JSON can carry and UTF-8 cannot, may be quoted from the request.
        detail=detail.encode(errors="replace").decode(),
        instance=request.url.path,
        code=code,
        request_id=request_id(request.scope),
    ).model_copy(update=members)
    return JSONResponse(
        problem.model_dump(exclude_none=True), status, dict(headers or {}), media_type=MEDIA_TYPE
    )


def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, GliaforgeError)
    return answer(request, error)


def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if faults and all(fault["loc"][0] == "path" for fault in faults):
        # An id that cannot exist is answered like one that does not.
        return answer(request, NotFoundError("no such resource"))
    problems = [
        FieldProblem(pointer=pointer(fault["loc"]), detail=str(fault["msg"])) for fault in faults
    ]
    first = f"{problems[0].pointer}: {problems[0].detail}" if problems else "malformed"
    return answer(request, InvalidRequestError(first), errors=problems)


def pointer(location: tuple[int | str, ...]) -> str:
    """Return the JSON pointer (RFC 6901) of a place in the body, or the place of a parameter."""
    place, *rest = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    found = "/" + "/".join(rest) if place == "body" else "/".join((place, *rest))
    return found.encode(errors="replace").decode()


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name.lower()
    if error.status_code == TooLargeError.status:
        return answer(request, TooLargeError("the body is larger than this route takes"))
    if error.status_code == TooSlowError.status:
        detail = "the body came too slowly, or stopped; send it again, a large one in parts"
        return answer(request, TooSlowError(detail, headers={"Connection": "close"}))
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(_methods(request)) or headers["Allow"]
    return _respond(
        request,
        error.status_code,
        code,
        HTTPStatus(error.status_code).phrase,
        _ROUTING_ADVICE.get(error.status_code, str(error.detail)),
        headers=headers,
    )


def _methods(request: Request) -> list[str]:
    """Return the methods of the path: the router names those of the first route alone."""
    paths: dict[str, dict[str, object]] = request.app.openapi()["paths"]
    if own := paths.get(request.url.path):  # one that others would match by a parameter
        return sorted(method.upper() for method in own)
    return sorted(
        method.upper()
        for template, operations in paths.items()
        if compile_path(template)[0].fullmatch(request.url.path)
        for method in operations
    )


def _part_missing(request: Request, error: Exception) -> JSONResponse:
    log.error("dependency_failed", error=type(error).__name__, exc_info=error)
    detail = "the database or the object storage does not answer; try again"
    return answer(request, UnavailableError(detail, headers={"Retry-After": "5"}))


def _unknown(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected_error", error=type(error).__name__, exc_info=error)
    return _respond(
        request,
        500,
        "internal",
        "Unexpected error",
        "the fault is ours; quote the request_id when you report it",
        # This answer is given outside the middleware that adds them to all others.
        headers={
            "X-Request-ID": request_id(request.scope),
            **security_headers(MEDIA_TYPE, is_secure=request.url.scheme == "https"),
        },
    )
