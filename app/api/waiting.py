"""`Prefer: wait=N` (RFC 7240, section 4.3): an answer that waits a while for what it asked for."""

import re
import time
from typing import Annotated

from fastapi import Header, Request
from fastapi.concurrency import run_in_threadpool

from app import jobs
from app.notices import Notices
from app.parts import Parts
from app.tables import Job

LONGEST_S = 10
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;\s])", re.IGNORECASE)

PreferredWait = Annotated[
    str | None,
    Header(
        alias="Prefer",
        max_length=200,
        description="`wait=10` to wait up to 10 s; other preferences are ignored.",
        examples=["wait=10"],
    ),
]


def preferred_s(prefer: str | None) -> int | None:
    """Return how long the header asks to wait, at most 10 s; None if it does not, or not well."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), LONGEST_S) if found else None


async def has_ended(request: Request, job_id: str, wait_s: float) -> bool:
    """Wait for the end of a job; return whether it came. No thread or connection is held."""
    notices: Notices = request.app.state.notices
    parts: Parts = request.app.state.parts
    end_s = time.monotonic() + wait_s
    with notices.watch(job_id) as watch:
        while not await run_in_threadpool(_is_final, parts, job_id):
            left_s = end_s - time.monotonic()
            if left_s <= 0 or notices.is_closing:
                return False
            await watch.wait(left_s)
    return True


def _is_final(parts: Parts, job_id: str) -> bool:
    with parts.database.transaction() as session:
        job = session.get(Job, job_id)
        return job is None or job.status in jobs.FINAL
