"""News of jobs as they are committed: one connection of the process listens, many wait.

PostgreSQL says of which job there are new events (`app.job_events`). A notice may be lost, when the
connection breaks or a pooler stands between, so whoever waits looks again by itself as well.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import make_conninfo

from app.job_events import CHANNEL

log = structlog.get_logger()
LOOK_AGAIN_S = 15.0
"""How long a wait lasts without news, as long as somebody listens."""
LOOK_AGAIN_DEAF_S = 1.0
_RECONNECT_S = 1.0


class Watch:
    """One who waits for news of one job."""

    def __init__(self, notices: "Notices") -> None:
        """Have heard nothing yet."""
        self._notices = notices
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Tell that there may be news."""
        self._news.set()

    async def wait(self, most_s: float) -> None:
        """Wait until there may be news since the last wait, or for a while; then look."""
        again_s = LOOK_AGAIN_S if self._notices.is_listening else LOOK_AGAIN_DEAF_S
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), min(most_s, again_s))
        self._news.clear()


class Notices:
    """The ear of a process, in its event loop."""

    def __init__(self, database_url: str) -> None:
        """Prepare; nothing is connected before `listen`."""
        # SQLAlchemy's URL names its driver.
        url = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._conninfo = make_conninfo(
            url, connect_timeout=5, keepalives_idle=30, keepalives_interval=10
        )
        self._watches: dict[str, set[Watch]] = {}
        self.is_listening = False
        self.is_closing = False

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Yield a watch of the job; begin it before you look, so that nothing falls in between."""
        watch = Watch(self)
        watches = self._watches.setdefault(job_id, set())
        watches.add(watch)
        try:
            yield watch
        finally:
            watches.discard(watch)
            if not watches:
                self._watches.pop(job_id, None)

    async def listen(self) -> None:
        """Listen until cancelled; a connection that is lost is made again."""
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("listener_lost", error=type(error).__name__)
            finally:
                self.is_listening = False
            self._wake_all()  # they wait no longer than without a listener
            await asyncio.sleep(_RECONNECT_S)

    def close(self) -> None:
        """Let everybody who waits come to an end."""
        self.is_closing = True
        self._wake_all()

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        async with connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            self.is_listening = True
            log.info("listening")
            self._wake_all()  # of what was said before, nothing was heard
            async for notice in connection.notifies():
                for watch in self._watches.get(notice.payload, ()):
                    watch.wake()

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
