"""/livez and /readyz: for whoever restarts and routes."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.api.dependencies import ServiceParts
from app.parts import Parts

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    """The process answers."""

    status: str = Field(examples=["alive"])


class Readiness(BaseModel):
    """Which parts answer."""

    status: str = Field(examples=["ready"])
    failed: list[str] = Field(description="`database`, `broker`, `storage`: what does not answer.")


@router.get("/livez")
def livez() -> Liveness:
    """Tell that the process answers; it looks at nothing else."""
    return Liveness(status="alive")


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A part is missing"}})
def readyz(parts: ServiceParts, response: Response) -> Readiness:
    """Tell whether every part that the service stands on answers, and name what does not."""
    answers = {
        "database": _database_answers(parts),
        "broker": parts.queue.is_reachable(),
        "storage": parts.storage.is_reachable(),
    }
    failed = [part for part, is_there in answers.items() if not is_there]
    if failed:
        response.status_code = 503
    return Readiness(status="unready" if failed else "ready", failed=failed)


def _database_answers(parts: Parts) -> bool:
    try:
        with parts.database.transaction() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True
