"""Logs of whichever process starts: one JSON object a line, with the request's or job's ids.

Within a request each line has `request_id` and, once the caller is known, `tenant_id`; within a
job `job_id`, `attempt`, `kind`, `tenant_id` and the `request_id` that asked for it; and where there
are traces, `trace_id`. No line has the text of an error, which may hold values of a patient.
"""

import logging
import sys
import traceback

import structlog

from app import tracing


def configure_logging(level: str, process: str) -> None:
    """Send structlog's and the standard library's records to stderr as JSON lines."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_trace,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _tell_where,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_keep_template, *shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _name_process(process),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Request lines come from our middleware, with the request's id; boto3 logs headers at DEBUG.
    for noisy in (
        "celery.beat",
        "uvicorn.access",
        "botocore",
        "boto3",
        "s3transfer",
        "urllib3",
        "celery.redirected",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A collector that is away is told of by `app.otlp`, seldom.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


def _name_trace(
    _logger: object, _method: str, record: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Say which trace the line belongs to, if any."""
    span = tracing.current()
    if span is not None:
        record["trace_id"] = f"{span.trace_id:032x}"
    return record


def _keep_template(
    _logger: object, _method: str, record: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Of a library's line about an exception keep what it says of all: it quotes the message."""
    line = record["_record"]
    if line.exc_info:
        record["event"] = str(line.msg)
    return record


def _tell_where(
    _logger: object, _method: str, record: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Replace an exception by its type and frames: its message may hold values of a patient."""
    found = record.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        record["exception"] = type(error).__qualname__
        record["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return record


def _name_process(process: str) -> structlog.types.Processor:
    def add(
        _logger: object, _method: str, record: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        record["process"] = process
        return record

    return add
