"""/docs: the REST API for people, from the same document as /openapi.json; no script, no CDN."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app import pages

router = APIRouter(include_in_schema=False)
# Nothing is fetched: a page of this service runs no script, ours or a stranger's.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@router.get("/docs", response_class=HTMLResponse)
def get_docs(request: Request) -> HTMLResponse:
    """Show every operation with its parameters, body and answers."""
    state = request.app.state
    if not hasattr(state, "docs"):  # it takes longer than most requests, and needs no key
        state.docs = pages.docs(request.app.openapi())
    return HTMLResponse(state.docs, headers={"Content-Security-Policy": _POLICY})
