"""Run the whole service on one machine: the servers, then the processes of the application.

Everything is started from the main thread, in order, each part waited for, and stopped in reverse
order. However this process ends, nothing it started stays: see `guard` and `reaper`.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from app.embedded import reaper
from app.embedded.home import Home
from app.embedded.ports import forget_ports
from app.embedded.postgres import run_postgres
from app.embedded.processes import Child, Command, PartFailedError, running, start
from app.embedded.seaweedfs import BUCKET, run_seaweedfs
from app.embedded.valkey import run_valkey

_STORAGE_TIMEOUT_S = 30.0
_WATCH_S = 0.2

Progress = Callable[[str], None]
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Servers:
    """How the application reaches the running servers."""

    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    s3_endpoint: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    s3_bucket: str
    children: tuple[Child, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Service:
    """A process of the application, as its caller wants it started.

    `environment` is all that it gets. Without `ready`, it is ready once it runs. A one-shot service
    must end well, within `ready_timeout_s`, before the next is started.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    is_one_shot: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 20.0

    def command(self, home: Home) -> Command:
        """Return how to start it."""
        return Command(
            name=self.name,
            argv=tuple(self.argv),
            environment=self.environment,
            folder=home.path,
            stop_signal=self.stop_signal,
            grace_s=self.grace_s,
        )


@dataclass(frozen=True)
class Restarts:
    """How often a service that ended by itself is started again, and how soon.

    The delay doubles each time; the count starts anew once it ran for `healthy_s`.
    """

    limit: int = 5
    first_delay_s: float = 1.0
    healthy_s: float = 60.0


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end this process as Ctrl-C does, by KeyboardInterrupt.

    The contexts within it then stop their parts; each further signal cuts one grace period short.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def start_servers(
    home: Home,
    environment: Mapping[str, str],
    on_progress: Progress,
    is_storage_ready: Callable[[Servers], bool] | None = None,
) -> Iterator[Servers]:
    """Run PostgreSQL, Valkey and SeaweedFS on the data of an open home.

    `environment` is what the servers inherit (`settings.base_environment()`). `is_storage_ready`
    puts and gets an object with the key, which only a client of S3 can.

    Raises:
        PartFailedError: naming the part that did not start, with the last lines of its log.
    """
    with ExitStack() as exits:
        exits.enter_context(_reaped(home))
        postgres = _enter(
            exits, home, "postgres", on_progress, lambda: run_postgres(home, environment)
        )
        valkey = _enter(exits, home, "valkey", on_progress, lambda: run_valkey(home, environment))
        seaweedfs = _enter(
            exits, home, "seaweedfs", on_progress, lambda: run_seaweedfs(home, environment)
        )
        servers = Servers(
            database_url=postgres.url,
            broker_url=valkey.url,
            s3_endpoint=seaweedfs.endpoint,
            s3_access_key=home.credentials.s3_access_key,
            s3_secret_key=home.credentials.s3_secret_key,
            s3_bucket=BUCKET,
            children=(postgres.child, valkey.child, seaweedfs.child),
        )
        if is_storage_ready is not None:
            seaweedfs.child.wait_until(lambda: is_storage_ready(servers), _STORAGE_TIMEOUT_S)
        yield servers


@contextmanager
def run_services(
    home: Home,
    servers: Servers,
    services: Sequence[Service],
    on_progress: Progress,
    restarts: Restarts = Restarts(),
) -> Iterator["Stack"]:
    """Run the processes of the application beside the servers; one-shots first, in order.

    Raises:
        PartFailedError: naming the service that did not start, with the last lines of its log.
    """
    stack = Stack(home, servers, on_progress, restarts)
    try:
        stack.start(services)
        yield stack
    finally:
        stack.stop()


class Stack:
    """The running services, and the watch over them and the servers."""

    def __init__(
        self, home: Home, servers: Servers, on_progress: Progress, restarts: Restarts
    ) -> None:
        """Start nothing yet."""
        self._home = home
        self._servers = servers
        self._on_progress = on_progress
        self._restarts = restarts
        self._members: list[_Member] = []

    def start(self, services: Sequence[Service]) -> None:
        """Start the services and wait until all are ready.

        Those that stay are started together after the one-shots: most of their start is waiting.

        Raises:
            PartFailedError: naming the service that did not start.
        """
        for service in services:
            if service.is_one_shot:
                with _announced(service.name, self._on_progress):
                    _run_once(self._home, service)
        for service in services:
            if not service.is_one_shot:
                self._members.append(
                    _Member(service, start(self._home, service.command(self._home)))
                )
        for member in self._members:
            with _announced(member.service.name, self._on_progress):
                member.child.wait_until(
                    member.service.ready or (lambda: True), member.service.ready_timeout_s
                )

    def wait(self, timeout_s: float | None = None) -> None:
        """Watch until interrupted, or for a time: a service that ends is started again.

        Raises:
            PartFailedError: if a server ended, or a service too often.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while deadline_s is None or time.monotonic() < deadline_s:
            for child in self._servers.children:
                child.require_running()
            for member in self._members:
                self._tend(member)
            time.sleep(_WATCH_S)

    def stop(self) -> None:
        """Ask all services to stop, last first, and wait for each; they share the grace period."""
        children = [member.child for member in reversed(self._members)]
        try:
            for child in children:
                child.ask_to_stop()
            for member in reversed(self._members):
                self._on_progress(f"stopping {member.service.name}")
                member.child.stop()
        finally:
            for child in children:
                child.kill()

    def _tend(self, member: "_Member") -> None:
        if member.child.is_running:
            return
        now_s = time.monotonic()
        if member.due_s is None:
            member.child.kill()  # what it had started
            member.due_s = now_s + self._delay_s(member, now_s)
        elif now_s >= member.due_s:
            member.restart(self._home)

    def _delay_s(self, member: "_Member", now_s: float) -> float:
        if now_s - member.started_s > self._restarts.healthy_s:
            member.restart_count = 0
        if member.restart_count >= self._restarts.limit:
            raise member.child.failure(
                f"{member.child.ending()}, after {member.restart_count} restarts"
            )
        delay_s = self._restarts.first_delay_s * 2.0**member.restart_count
        ended = member.child.failure(member.child.ending())
        self._on_progress(f"{ended}\nstarting {member.service.name} again in {delay_s:g} s")
        return delay_s


class _Member:
    """A service, its process, and its past."""

    def __init__(self, service: Service, child: Child) -> None:
        self.service = service
        self.child = child
        self.started_s = time.monotonic()
        self.restart_count = 0
        self.due_s: float | None = None

    def restart(self, home: Home) -> None:
        self.child = start(home, self.service.command(home))
        self.started_s = time.monotonic()
        self.restart_count += 1
        self.due_s = None


def _run_once(home: Home, service: Service) -> None:
    with running(home, service.command(home)) as child:
        child.wait_for_end(service.ready_timeout_s)


@contextmanager
def _announced(name: str, on_progress: Progress) -> Iterator[None]:
    started_s = time.monotonic()
    on_progress(f"starting {name}")
    yield
    on_progress(f"{name} is ready after {time.monotonic() - started_s:.1f} s")


def _enter(
    exits: ExitStack,
    home: Home,
    name: str,
    on_progress: Progress,
    part: Callable[[], AbstractContextManager[_Part]],
) -> _Part:
    """Enter a part; once more, with other ports, if somebody took one of its ports meanwhile."""
    with _announced(name, on_progress):
        try:
            return exits.enter_context(part())
        except PartFailedError as error:
            if not error.is_port_taken:
                raise
            forget_ports(home, name)
            return exits.enter_context(part())


@contextmanager
def _reaped(home: Home) -> Iterator[None]:
    """End what the stack leaves when this context is left, or this process killed."""
    stack = home.credentials.stack_id
    # The last reaper may have been killed with its parent, for instance by a full memory.
    reaper.end_stack(stack, home.path)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, stack, str(home.path)],
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(home.lock_descriptor,),
        start_new_session=True,
    ):
        yield
