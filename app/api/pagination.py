"""Keyset pagination: a cursor in, a page out, newest first."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

T = TypeVar("T")
R = TypeVar("R")

Limit = Annotated[int, Query(ge=1, le=100, description="Items of a page.")]
After = Annotated[
    str | None,
    Query(pattern=r"^[a-z]{2,3}_[0-9a-f]{32}$", description="`next_cursor` of the page before."),
]
AfterIndex = Annotated[
    int, Query(ge=-1, le=2**31 - 1, description="`next_cursor` of the page before.")
]


class Page(BaseModel, Generic[T]):
    """Part of a list."""

    data: list[T]
    has_more: bool = Field(description="Whether there is a next page.")
    next_cursor: str | None = Field(description="The `after` of the next page.")


def page(
    rows: Sequence[R], limit: int, *, cursor: Callable[[R], object], item: Callable[[R], T]
) -> Page[T]:
    """Make a page of the first `limit` rows; one row more says that there is a next page."""
    shown = rows[:limit]
    has_more = len(rows) > limit
    return Page(
        data=[item(row) for row in shown],
        has_more=has_more,
        next_cursor=str(cursor(shown[-1])) if has_more else None,
    )
