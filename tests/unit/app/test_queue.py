import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from app.database import Database
from app.jobs import TASKS
from app.queue import QUEUES, Queue, Task, enqueue, make_celery

NOWHERE = "redis://127.0.0.1:9/0"
Sent = list[tuple[Task, str]]


@pytest.fixture
def sent() -> Sent:
    return []


@pytest.fixture
def database(sent: Sent) -> Database:
    """A database of one transaction at a time that notes what is delivered."""
    made = Database("postgresql+psycopg://", deliver=lambda *arguments: sent.append(arguments))
    made.engine = create_engine("sqlite://")
    return made


def test_commit_delivers_in_order(database: Database, sent: Sent) -> None:
    with database.transaction() as session:
        enqueue(session, Task.INGEST, "job_1")
        enqueue(session, Task.TRAIN, "job_2")
        assert sent == []
    assert sent == [(Task.INGEST, "job_1"), (Task.TRAIN, "job_2")]


def _fail(session: Session) -> None:
    enqueue(session, Task.INGEST, "job_1")
    raise ZeroDivisionError


def test_rollback_delivers_nothing(database: Database, sent: Sent) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as session:
        _fail(session)
    assert sent == []


def test_every_task_has_a_queue() -> None:
    assert set(QUEUES) == set(Task)
    routes = make_celery(NOWHERE).conf.task_routes
    assert routes["generator.train"] == {"queue": "gpu.train"}


def test_tasks_are_acknowledged_early_and_never_prefetched() -> None:
    conf = make_celery(NOWHERE).conf
    assert conf.task_acks_late is False
    assert conf.worker_disable_prefetch is True
    assert conf.worker_prefetch_multiplier == 1
    assert conf.task_ignore_result is True
    assert conf.accept_content == ["json"]


def test_error_text_of_the_database_hides_values() -> None:
    made = Database("postgresql+psycopg://u:p@127.0.0.1:9/d")
    assert made.engine.hide_parameters
    made.close()


def test_queue_connects_to_nothing_by_itself() -> None:
    Queue(NOWHERE).close()


def test_each_kind_of_job_has_a_queue_of_its_own() -> None:
    # The length of a queue is what the sweep takes for the messages of one kind.
    queues = [QUEUES[task] for task in TASKS.values()]
    assert len(set(queues)) == len(queues)
