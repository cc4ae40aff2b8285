"""Uploads in parts as they cross the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app import uploads
from app.api.values import Integer
from app.storage import StoredPart
from app.tables import Upload as UploadRow

SIGNED_AT_ONCE = 100
_SHA256 = "0fa3a50b5cd5b4f7e3d9c4f4a5d0f1e8a4e5d1c2b3a495867768594a3b2c1d0e"
_ETAG = "79b281060d337b9b2b84ccf390adcf74"
Number = Annotated[Integer, Field(ge=1, le=uploads.MOST_PARTS)]


class NewUpload(BaseModel):
    """The archive that is to come."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"size_bytes": 734003200, "sha256": _SHA256}]},
    )

    size_bytes: Annotated[Integer, Field(ge=1)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None,
        description="Of the whole archive, in hex: an ingest of other bytes fails with"
        " `checksum_mismatch`.",
    )
    filename: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        None, description="Ignored: the format is read off the bytes. Name no patient."
    )


class PartNumbers(BaseModel):
    """Parts to sign."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"numbers": [101, 102, 103]}]}
    )

    numbers: list[Number] = Field(min_length=1, max_length=SIGNED_AT_ONCE)


class SentPart(BaseModel):
    """A part that was sent, and what the storage answered."""

    model_config = ConfigDict(extra="forbid")

    number: Number
    etag: Annotated[str, StringConstraints(pattern=r'^"?[!#-~]{1,200}"?$')] = Field(
        description="The `ETag` of the answer, with or without its quotes."
    )


class SentParts(BaseModel):
    """All parts of an upload."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"parts": [{"number": 1, "etag": _ETAG}]}]},
    )

    parts: list[SentPart] = Field(min_length=1, max_length=uploads.MOST_PARTS)


class SignedPart(BaseModel):
    """Where to PUT a part."""

    number: int
    size_bytes: int = Field(description="Its exact size; the URL is good for no other.")
    url: str = Field(
        description="In the object storage: PUT the bytes there, without the API key. It answers"
        " with the `ETag`, and refuses bytes that do not fit a `Content-MD5` if you send one."
    )


class SignedParts(BaseModel):
    """Where to PUT parts."""

    parts: list[SignedPart]


class PartInStorage(BaseModel):
    """A part that the storage has."""

    number: int
    etag: str = Field(description="As a rule the MD5 of its bytes, in hex.", examples=[_ETAG])
    size_bytes: int


class Upload(BaseModel):
    """An archive that arrives in parts."""

    id: str = Field(examples=["upl_0193f5c07b7e7a1e8d1f0a2b3c4d5e6f"])
    dataset_id: str
    status: Literal["open", "assembled", "completed"] = Field(
        description="`assembled`: all bytes are there, and the ingest was not started: complete it"
        " again."
    )
    size_bytes: int
    part_bytes: int = Field(description="Of every part but the last, which may be smaller.")
    part_count: int
    sha256: str | None
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime = Field(description="It is removed then unless it was completed.")
    stored: list[PartInStorage] = Field(
        description="The parts that the storage has. One that was sent twice may be shown twice."
    )


class BegunUpload(Upload):
    """An upload, and where to PUT its first parts."""

    parts: list[SignedPart] = Field(
        description=f"The first {SIGNED_AT_ONCE}; POST /v1/uploads/{{id}}/parts signs the others,"
        " and any again."
    )


def upload(
    row: UploadRow,
    status: Literal["open", "assembled", "completed"],
    stored: list[StoredPart],
    lifetime_s: float,
) -> Upload:
    """Show an upload's row beside what the storage has of it."""
    return Upload(
        id=row.id,
        dataset_id=row.dataset_id,
        status=status,
        size_bytes=row.size_bytes,
        part_bytes=row.part_bytes,
        part_count=uploads.part_count(row),
        sha256=row.sha256,
        created_at=row.created_at,
        completed_at=row.completed_at,
        expires_at=uploads.expires_at(row, lifetime_s),
        stored=[
            PartInStorage(number=part.number, etag=part.etag, size_bytes=part.size_bytes)
            for part in stored
        ],
    )


def signed(parts: list[tuple[int, int, str]]) -> list[SignedPart]:
    """Show parts that were signed."""
    return [SignedPart(number=number, size_bytes=size, url=url) for number, size, url in parts]
