"""The whole service on real servers, each part of which a test may kill; and the audit after it."""

import io
import os
import random
import signal
import socket
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from sqlalchemy import select

from app import api_keys, job_states, laptop
from app.api_keys import Scope
from app.embedded.home import Home
from app.embedded.postgres import run_postgres
from app.embedded.processes import Child, Command, start
from app.embedded.seaweedfs import run_seaweedfs
from app.embedded.stack import Restarts, Servers, Stack, run_services, start_servers
from app.embedded.valkey import run_valkey
from app.parts import Parts, make_parts
from app.settings import Settings, base_environment
from app.tables import Checkpoint, Job
from tests.faults import audit_of_jobs

TINY = {
    "image_size": 64,
    "total_images": 120,
    "batch_size": 8,
    "snapshot_images": 40,
    "generator_channels": 16,
    "discriminator_channels": 8,
}
LONG = TINY | {"total_images": 12_800, "snapshot_images": 1_280}
OVERRIDES = {
    "GLIAFORGE_LEASE_S": "4",
    "GLIAFORGE_LEASE_RENEWAL_S": "1",
    "GLIAFORGE_REAP_INTERVAL_S": "1",
    # A job must outlive as many kills as a test may deal it at one point.
    "GLIAFORGE_MAX_ATTEMPTS": "20",
    "GLIAFORGE_THREADS": "1",
    "GLIAFORGE_DEVICE": "cpu",
}
_RUN = {"postgres": run_postgres, "valkey": run_valkey, "seaweedfs": run_seaweedfs}


@dataclass
class House:
    """The service and its servers, and the means to break and to follow them."""

    home: Home
    stack: Stack
    url: str
    key: str
    parts: Parts
    variables: Mapping[str, str]
    environment: Mapping[str, str]
    servers: dict[str, Child]
    again: dict[str, ExitStack] = field(default_factory=dict)
    """Servers that were started again after a crash."""

    def tend(self, seconds: float = 0.2) -> None:
        """Start again what was killed, as the laptop does; Kubernetes would."""
        self.stack.wait(timeout_s=seconds)

    def until(self, condition: Callable[[], object], timeout_s: float = 90) -> Any:
        """Tend the house until something comes about, and return it."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < deadline_s, self.jobs()
            self.tend()
        return found

    def process(self, service: str) -> psutil.Process:
        """Return the main process of a service."""
        (member,) = (one for one in self.stack._members if one.service.name == service)
        return psutil.Process(member.child.pid)

    def models(self) -> list[psutil.Process]:
        """Return the processes that train, sample, ingest or measure for a job."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                words, mark = process.cmdline(), process.environ().get("GLIAFORGE_STACK")
            except psutil.NoSuchProcess:
                continue
            is_ours = mark == self.home.credentials.stack_id
            if is_ours and "models" in words and "sampler" not in words:
                found.append(process)
        return found

    def crash(self, server: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a server without a word."""
        child = self.servers[server]
        os.kill(child.pid, number)
        child._process.wait(30)
        child.kill()

    def start(self, server: str) -> None:
        """Start a server that has crashed, on the same port and data."""
        self.again.pop(server, ExitStack()).close()
        exits = self.again.setdefault(server, ExitStack())
        run: Any = _RUN[server]
        self.servers[server] = exits.enter_context(run(self.home, self.environment)).child

    @contextmanager
    def extra_worker(self, name: str, queue: str) -> Iterator[psutil.Process]:
        """Run one more worker for a while."""
        (member,) = (one for one in self.stack._members if one.service.name == "worker-train")
        options = ("-n", f"{name}@%h", "-c", "1", "-Q", queue)
        argv = (*member.service.argv[:6], "--without-mingle", *options)
        child = start(self.home, Command(name, argv, self.variables, self.home.path))
        try:
            yield psutil.Process(child.pid)
        finally:
            child.stop()

    def ask(self, method: str, path: str, timeout_s: float = 100, **options: Any) -> httpx.Response:
        """Send a request as a patient client does: again, with the same key, until it is answered.

        A read, a POST with an Idempotency-Key or a DELETE may be sent again after any failure.
        """
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": uuid.uuid4().hex}
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                answer = httpx.request(
                    method, self.url + path, headers=headers, timeout=60, trust_env=False, **options
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and not _is_passing(answer):
                return answer
            assert time.monotonic() < deadline_s, answer and answer.text
            self.tend()

    def get(self, path: str) -> Any:
        """Return what is at a path of the API."""
        return self.ask("GET", path).raise_for_status().json()

    def make(self, path: str, body: Mapping[str, object]) -> Any:
        """Make a resource."""
        answer = self.ask("POST", path, json=body)
        assert answer.status_code in {201, 202}, answer.text
        return answer.json()

    def upload(self, archive: bytes) -> str:
        """Make a dataset of an archive; return its path, while it is ingested."""
        path = f"/v1/datasets/{self.make('/v1/datasets', {'name': 'heads'})['id']}"
        answer = self.ask("PUT", f"{path}/content", content=archive)
        # 409: the answer to the first was lost, and it had been taken.
        assert answer.status_code in {202, 409}, answer.text
        return path

    def train(self, dataset: str, *, long: bool = False, **overrides: object) -> str:
        """Ask for a generator; return its path."""
        dataset_id = dataset.rsplit("/", 1)[1]
        config = (LONG if long else TINY) | overrides
        body = {"name": "g", "dataset_id": dataset_id, "preset": "demo", "config": config}
        return f"/v1/generators/{self.make('/v1/generators', body)['id']}"

    def sample(self, generator: str, count: int = 20) -> str:
        """Ask for a batch; return its path."""
        body = {"generator_id": generator.rsplit("/", 1)[1], "count": count}
        return f"/v1/sample-batches/{self.make('/v1/sample-batches', body)['id']}"

    def job(self, path: str) -> Any:
        """Return the job of the resource at a path."""
        return self.get(path)["job"]

    def ended(self, path: str, status: str = "succeeded", timeout_s: float = 120) -> Any:
        """Wait for the end of a resource's job, and return the job."""
        job = self.until(
            lambda: (one := self.job(path))["status"] in job_states.FINAL and one, timeout_s
        )
        assert job["status"] == status, job
        return job

    def outcomes(self, path: str) -> list[str]:
        """Return how the attempts of a resource's job ended."""
        return [attempt["outcome"] for attempt in self.job(path)["attempts"]]

    def checkpoints(self, path: str) -> int:
        """Count the checkpoints of a generator."""
        return len(self.get(f"{path}/checkpoints")["data"])

    def weights(self, path: str) -> bytes:
        """Return the last weights of a generator."""
        with self.parts.database.transaction() as session:
            last = session.scalars(
                select(Checkpoint)
                .where(Checkpoint.generator_id == path.rsplit("/", 1)[1])
                .order_by(Checkpoint.step.desc())
                .limit(1)
            ).one()
        return self.parts.storage.get(f"{last.prefix}weights.safetensors")

    def jobs(self) -> list[tuple[str, str, str, str | None]]:
        """Return all jobs, for a message when a test fails."""
        with self.parts.database.transaction() as session:
            rows = session.scalars(select(Job).order_by(Job.id)).all()
            return [
                (row.kind, row.status, str([a.outcome for a in row.attempts]), row.error_detail)
                for row in rows
            ]


def _is_passing(answer: httpx.Response) -> bool:
    """Tell whether the same request may have another answer in a while."""
    if answer.status_code == 503:
        return True
    return answer.status_code == 409 and answer.json()["code"] == "idempotency_in_flight"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    def quiet(_message: str) -> None:
        pass

    environment = base_environment()
    with (
        ExitStack() as exits,
        Home(tmp_path_factory.mktemp("faults") / "home") as home,
        start_servers(home, environment, quiet, laptop._storage_answers) as servers,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        port = listener.getsockname()[1]
        listener.close()
        known = laptop.service_variables(home, servers)
        variables = environment | known | OVERRIDES
        restarts = Restarts(limit=1000, first_delay_s=0.2, healthy_s=0)
        apart: Servers = replace(servers, children=())  # the tests look after these
        services = laptop.services(home, variables, port)
        with run_services(home, apart, services, quiet, restarts) as stack:
            values = {name.removeprefix("GLIAFORGE_").lower(): known[name] for name in known}
            parts = make_parts(Settings.model_validate(values))
            exits.callback(parts.close)
            with parts.database.transaction() as session:
                tenant_id = api_keys.ensure_tenant(session, "faults")
                key = api_keys.issue(session, tenant_id, name="t", scopes=[Scope.ADMIN])[1]
            children = dict(zip(_RUN, servers.children, strict=True))
            made = House(
                home,
                stack,
                f"http://127.0.0.1:{port}",
                key,
                parts,
                variables,
                environment,
                children,
            )
            try:
                yield made
            finally:
                for again in made.again.values():
                    exits.push(again)


@pytest.fixture(scope="session")
def archive() -> bytes:
    """Sixty drawn heads in two classes."""
    buffer = io.BytesIO()
    across = np.hypot(*np.meshgrid(np.arange(72) - 36, np.arange(72) - 36))
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(60):
            noise = np.random.default_rng(number)
            inside = across < noise.integers(20, 34)
            pixels = np.where(inside, noise.normal(120, 25, (72, 72)), 0).clip(0, 255)
            png = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(png, "PNG")
            label = ("glioma", "meningioma")[number % 2]
            file.writestr(f"set/{label}/{number:03d}.png", png.getvalue())
    return buffer.getvalue()


@pytest.fixture(scope="session")
def dataset(house: House, archive: bytes) -> str:
    path = house.upload(archive)
    house.ended(path)
    return path


@pytest.fixture(scope="session")
def reference(house: House, dataset: str) -> bytes:
    """The weights of an uninterrupted long training."""
    path = house.train(dataset, long=True)
    house.ended(path)
    return house.weights(path)


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """A seeded generator: a failure can be had again."""
    return random.Random(request.node.name)  # noqa: S311 - no secret


@pytest.fixture(autouse=True)
def audit(house: House) -> Iterator[None]:
    """Find, after each test, no job, process, object or row that nobody owns."""
    yield
    house.until(lambda: all(one.is_running for one in house.servers.values()))
    house.until(lambda: _unowned(house) == [], 60)
    audit_of_jobs.require_sound_jobs(house.parts)
    _require_no_stray_process(house)
    audit_of_jobs.require_no_orphan_object(house.parts)


def _unowned(house: House) -> list[str]:
    """Return the jobs that wait for somebody although no test does, and folders of runs."""
    folders = (house.home.path / "scratch").glob("run-*")
    return audit_of_jobs.unended(house.parts) + [path.name for path in folders]


def _require_no_stray_process(house: House) -> None:
    assert house.models() == []
    mark = f"GLIAFORGE_STACK={house.home.credentials.stack_id}".encode()
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        try:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        assert mark not in environ.split(b"\0") or process.pid in ours, process.cmdline()
