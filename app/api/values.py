"""Values in a body, as strict as their JSON Schema: pydantic alone would take 0 for a time."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

LAST_YEAR = 9000
"""A time that is in year 10000 in UTC can be stored, and then not be read by Python."""


_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d")


def _text(value: object) -> object:
    # A number of seconds is a time for pydantic, in digits too.
    if not isinstance(value, str) or _DATE_AND_TIME.match(value) is None:
        raise ValueError("must be a time in RFC 3339, such as 2030-01-31T12:00:00Z")
    return value


def _storable(moment: datetime) -> datetime:
    if not datetime(1, 1, 3, tzinfo=UTC) < moment < datetime(LAST_YEAR, 1, 1, tzinfo=UTC):
        raise ValueError(f"must be before the year {LAST_YEAR}")
    return moment


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic answers a ValueError alone
    return value


def _measure(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004 - see above
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_storable)]
WHOLE = BeforeValidator(_number)
"""No boolean and no text, but 1.0, which JSON cannot tell from 1."""
Integer = Annotated[int, WHOLE]
Number = Annotated[float, BeforeValidator(_measure)]
"""No boolean and no text."""
