from typing import Any

import pytest

from app.api_keys import Principal, Scope, authenticate
from app.errors import UnauthorizedError
from app.tables import APIKey


class NoRows:
    """A session that finds nothing, and notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, _table: type[APIKey], key_id: str) -> None:
        self.asked.append(key_id)


def no_rows() -> Any:
    return NoRows()


@pytest.mark.parametrize(
    "key",
    ["", "gf", "gf_", "gf__", "gf_abc", "gf_abc_", "gh_abc_secret", "gf_a-c_secret", "gf_\u00e4_x"],
)
def test_malformed_key_asks_the_database_nothing(key: str) -> None:
    session = no_rows()
    with pytest.raises(UnauthorizedError):
        authenticate(session, key)
    assert session.asked == []


def test_well_formed_key_is_looked_up_by_its_id() -> None:
    session = no_rows()
    with pytest.raises(UnauthorizedError):
        authenticate(session, "gf_abc_secret_with_underscores")
    assert session.asked == ["key_abc"]


@pytest.mark.parametrize("key", ["gf_abc_wrong", "nonsense"])
def test_refusal_does_not_say_why(key: str) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        authenticate(no_rows(), key)
    assert caught.value.detail == "send `Authorization: Bearer <key>` with a key of this service"
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


def test_scope_allows_itself_and_admin_allows_all() -> None:
    reader = Principal("ten_1", "key_1", frozenset({"jobs:read"}))
    admin = Principal("ten_1", "key_1", frozenset({"admin"}))
    assert [scope for scope in Scope if reader.may(scope)] == [Scope.JOBS_READ]
    assert all(admin.may(scope) for scope in Scope)
