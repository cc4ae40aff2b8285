"""API keys as they cross the wire."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.api.schemas.datasets import Name
from app.api.values import Moment
from app.api_keys import Scope


class NewAPIKey(BaseModel):
    """What a key may do, and until when."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "nightly", "scopes": ["samples:generate"]}]},
    )

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_at: Moment | None = None


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
