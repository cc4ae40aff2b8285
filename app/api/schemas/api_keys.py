"""API keys as they cross the wire."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from app.api.schemas.datasets import Name
from app.api_keys import Scope

LAST_YEAR = 9000
"""A time that is in year 10000 in UTC can be stored, and then not be read by Python."""


def _storable(moment: datetime) -> datetime:
    if not datetime(1, 1, 3, tzinfo=UTC) < moment < datetime(LAST_YEAR, 1, 1, tzinfo=UTC):
        raise ValueError(f"must be before the year {LAST_YEAR}")
    return moment


class NewAPIKey(BaseModel):
    """What a key may do, and until when."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "nightly", "scopes": ["samples:generate"]}]},
    )

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_at: Annotated[AwareDatetime, AfterValidator(_storable)] | None = None


class APIKey(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None


class IssuedAPIKey(APIKey):
    """A fresh key; `key` is shown this once."""

    key: str | None = Field(description="Null when a POST is replayed: it is stored nowhere.")
