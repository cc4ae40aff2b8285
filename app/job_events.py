"""What jobs tell: numbered events, of which PostgreSQL gives notice when they are committed."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from app.tables import JobEvent, now

CHANNEL = "job_events"
"""Where PostgreSQL tells, at the commit, of which job there are new events."""


@dataclass(frozen=True)
class NewEvent:
    """An event before it has a number."""

    type: str
    data: dict[str, JsonValue]
    level: str = "info"


def append(session: Session, job_id: str, first_seq: int, events: Sequence[NewEvent]) -> None:
    """Store the events of a job from the number `first_seq` on, and give notice of them."""
    if not events:
        return
    moment = now()
    rows = [
        {
            "job_id": job_id,
            "seq": first_seq + place,
            "at": moment,
            "level": event.level,
            "type": event.type,
            "data": event.data,
        }
        for place, event in enumerate(events)
    ]
    session.execute(insert(JobEvent), rows)
    session.execute(select(func.pg_notify(CHANNEL, job_id)))


def events_after(session: Session, job_id: str, after: int, limit: int) -> list[JobEvent]:
    """Return events of the job, oldest first, from the one numbered `after` + 1."""
    return list(
        session.scalars(
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.seq > after)
            .order_by(JobEvent.seq)
            .limit(limit)
        )
    )
