"""`Prefer: wait=N` (RFC 7240, section 4.3): an answer that waits a while for what it asked for."""

import re
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header, Request
from fastapi.concurrency import run_in_threadpool

from app.notices import Notices

T = TypeVar("T")
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


async def until(
    request: Request, job_id: str, wait_s: float, look: Callable[[], T | None]
) -> T | None:
    """Return what `look` finds once there is news of the job, or None when the time is over.

    It looks in a thread; between two looks no thread or connection is held.
    """
    notices: Notices = request.app.state.notices
    end_s = time.monotonic() + wait_s
    with notices.watch(job_id) as watch:
        while (found := await run_in_threadpool(look)) is None:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or notices.is_closing:
                return None
            await watch.wait(left_s)
    return found
