"""The engine and its sessions: `transaction()` commits or rolls back; nobody else commits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from app import counts


class Database:
    """A pool of connections and the transactions on it."""

    def __init__(
        self, url: str, *, deliver: Callable[..., None] | None = None, pool_size: int = 10
    ) -> None:
        """Prepare a pool for `url`; nothing is connected before the first transaction.

        `deliver` is called, after a commit, with what `app.queue.enqueue` put into the session.
        With a `pool_size` of 0 nothing is pooled: each transaction has a connection of its own.
        """
        self._deliver = deliver
        pool: dict[str, Any] = (
            {"pool_size": pool_size, "max_overflow": pool_size, "pool_pre_ping": True}
            if pool_size
            else {"poolclass": NullPool}
        )
        self.engine: Engine = create_engine(
            url,
            **pool,
            hide_parameters=True,  # in the texts of errors, which are logged
            # A statement or lock that waits for ever would hold an HTTP thread for ever.
            connect_args={
                "connect_timeout": 5,
                "options": "-c statement_timeout=30000 -c lock_timeout=10000",
            },
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Yield a session that is committed at the end, or rolled back by an exception."""
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
                counts.write(session)
            if self._deliver is not None:
                for arguments in session.info.pop("after_commit", ()):
                    self._deliver(*arguments)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
