"""The queries by which KEDA scales workers count what each worker takes, in the tables that are."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from app.job_states import OWNED, Kind, Status
from app.jobs import TASKS
from app.queue import QUEUES
from app.tables import Table
from tests.unit.deploy.rendering import Manifest, find, objects_of, of_kind

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which holds Kustomize, is not installed"
)
CLASSES = ("worker-cpu", "worker-generate", "worker-train")
in_each_class = pytest.mark.parametrize("name", CLASSES)
Add = Callable[..., None]


def trigger(name: str) -> Manifest:
    """Return by what a worker class is scaled."""
    scaled = find(objects_of("base", "components/scale-from-zero"), "ScaledObject", name)
    (only,) = scaled["spec"]["triggers"]
    found: Manifest = only["metadata"]
    return found


def options(name: str) -> dict[str, str]:
    """Return the options of its command."""
    spec = find(objects_of("base"), "Deployment", name)["spec"]["template"]["spec"]
    pairs = (option.partition("=") for option in spec["containers"][0]["args"])
    return {key: value for key, _, value in pairs}


def kinds(name: str) -> list[Kind]:
    """Return the kinds of jobs that it takes."""
    queues = options(name)["--queues"].split(",")
    return [kind for kind, task in TASKS.items() if QUEUES[task] in queues]


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """Hold the columns of the two tables, with nothing demanded of them."""
    with sqlite3.connect(":memory:") as connection:
        connection.create_function("least", 2, min)
        connection.create_function("greatest", 2, max)
        for table in (Table.metadata.tables[name] for name in ("jobs", "tenants")):
            columns = ", ".join(f'"{column.name}"' for column in table.columns)
            connection.execute(f"CREATE TABLE {table.name} ({columns})")
        yield connection
    connection.close()


@pytest.fixture
def add(database: sqlite3.Connection) -> Add:
    numbers = count()

    def insert(kind: Kind, status: Status, *, tenant: str = "a", most: int = 4) -> None:
        exists = database.execute("SELECT 1 FROM tenants WHERE id = ?", (tenant,)).fetchone()
        if not exists:
            database.execute("INSERT INTO tenants (id, max_running) VALUES (?, ?)", (tenant, most))
        database.execute(
            "INSERT INTO jobs (id, tenant_id, kind, status) VALUES (?, ?, ?, ?)",
            (next(numbers), tenant, kind, status),
        )

    return insert


def ask(database: sqlite3.Connection, name: str) -> int:
    """Return what the query of a worker class says."""
    (value,) = database.execute(trigger(name)["query"]).fetchone()
    return int(value)


@in_each_class
def test_no_job_no_worker(database: sqlite3.Connection, name: str) -> None:
    assert ask(database, name) == 0


def test_every_kind_has_its_class() -> None:
    assert sorted(kind for name in CLASSES for kind in kinds(name)) == sorted(Kind)


@in_each_class
def test_what_waits_or_runs_counts(database: sqlite3.Connection, add: Add, name: str) -> None:
    for kind in Kind:
        for status in Status:
            add(kind, status)
    assert ask(database, name) == len(kinds(name)) * len({Status.QUEUED, *OWNED})


def test_tenant_waits_for_its_own_jobs(database: sqlite3.Connection, add: Add) -> None:
    for _ in range(5):
        add(Kind.TRAIN, Status.QUEUED, tenant="a", most=2)
    add(Kind.TRAIN, Status.QUEUED, tenant="b")
    assert ask(database, "worker-train") == 3


def test_lowered_limit_ends_nothing(database: sqlite3.Connection, add: Add) -> None:
    for _ in range(3):
        add(Kind.TRAIN, Status.RUNNING, most=1)
    assert ask(database, "worker-train") == 3


def test_limit_is_of_each_kind(database: sqlite3.Connection, add: Add) -> None:
    for kind in (Kind.INGEST, Kind.REPORT, Kind.REPORT):
        add(kind, Status.QUEUED, most=1)
    assert ask(database, "worker-cpu") == 2


@in_each_class
def test_worker_is_asked_for_as_many_as_it_takes(name: str) -> None:
    assert trigger(name)["targetQueryValue"] == options(name)["--concurrency"]


@in_each_class
def test_idle_worker_goes_first(name: str) -> None:
    objects = objects_of("base", "components/scale-from-zero")
    spec = find(objects, "Deployment", name)["spec"]
    # `worker.scratch.new_run_folder` makes the folder, and it is removed with the attempt.
    command = spec["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
    assert command == ["sh", "-c", "ls -d /scratch/run-*"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": "100%", "maxSurge": 0}
    budget = find(objects, "PodDisruptionBudget", name)["spec"]
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_scaling_starts_at_none_and_keeps_what_runs() -> None:
    scaled = of_kind(objects_of("base", "components/scale-from-zero"), "ScaledObject")
    assert sorted(one["metadata"]["name"] for one in scaled) == list(CLASSES)
    for one in scaled:
        assert one["spec"]["minReplicaCount"] == 0 < one["spec"]["maxReplicaCount"]
        assert "fallback" not in one["spec"]
