import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app import tracing
from app.telemetry import configure_logging
from app.traceparent import Traceparent


@pytest.fixture(autouse=True)
def logging_kept() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_record_is_one_json_line_with_the_bound_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "api")
    structlog.contextvars.bind_contextvars(request_id="r-1", job_id="job_1")
    structlog.get_logger("test").info("request", status=200)
    (line,) = _lines(capsys)
    assert line["event"] == "request"
    assert (line["request_id"], line["job_id"], line["process"]) == ("r-1", "job_1", "api")
    assert (line["level"], line["status"]) == ("info", 200)
    assert "timestamp" in line


def test_libraries_log_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "worker")
    structlog.contextvars.bind_contextvars(job_id="job_1")
    logging.getLogger("some.library").warning("two\nlines of %s", "text")
    (line,) = _lines(capsys)
    assert (line["event"], line["job_id"]) == ("two\nlines of text", "job_1")
    assert line["logger"] == "some.library"


def test_traceback_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "api")
    try:
        int("x")
    except ValueError:
        structlog.get_logger("test").exception("failed")
    (line,) = _lines(capsys)
    assert "ValueError" in str(line["exception"])


def test_level_is_obeyed_and_noisy_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG", "api")
    logging.getLogger("botocore.hooks").info("a header")
    logging.getLogger("uvicorn.access").info("GET /?name=MUELLER")
    logging.getLogger("ours").debug("detail")
    assert [line["event"] for line in _lines(capsys)] == ["detail"]


def test_line_says_which_trace_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "api")
    with tracing.within(Traceparent(0xAB, 2, is_sampled=True)):
        structlog.get_logger("test").info("ours")
        logging.getLogger("some.library").warning("theirs")
    structlog.get_logger("test").info("outside")
    lines = _lines(capsys)
    assert [line.get("trace_id") for line in lines] == [f"{0xAB:032x}"] * 2 + [None]


def test_no_line_quotes_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "worker")
    try:
        int("MUELLER^HANS")
    except ValueError as error:
        context = {"name": "dataset.ingest", "exc": repr(error)}
        logging.getLogger("celery.app.trace").exception("Task %(name)s: %(exc)s", context)
        structlog.get_logger("test").exception("failed")
    told = capsys.readouterr().err
    assert "MUELLER" not in told
    first, second = map(json.loads, told.splitlines())
    assert first["event"] == "Task %(name)s: %(exc)s"
    assert (first["exception"], second["exception"]) == ("ValueError", "ValueError")
    assert first["frames"] == second["frames"]
