"""Run one folder: read `spec.json`, work, leave `result.json`; or draw a phantom.

Each command imports what it needs and nothing else: `ingest` and `report` start without torch.
"""

import argparse
import errno
import signal
import sys
import traceback
from contextlib import closing
from pathlib import Path

from pydantic import JsonValue

from models.progress import FolderProgress, Progress, Stopped
from models.run_folder import (
    EXIT_DISK_FULL,
    IngestSpec,
    Kind,
    Outcome,
    ReportSpec,
    Result,
    RunError,
    SampleSpec,
    TrainSpec,
    UserError,
    write_json,
)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", f"(os error {errno.ENOMEM})")


def main(arguments: list[str]) -> int:
    """Run the command in `arguments` and return the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "phantom":
        # Imported here, as below, so that a command pays for its own libraries alone.
        from models.data.phantom import write_phantom  # noqa: PLC0415

        write_phantom(options.out, options.patients, options.slices, options.size, options.seed)
        return 0
    return run(Kind(options.command), options.run_dir)


def run(kind: Kind, run_dir: Path) -> int:
    """Do what `run_dir/spec.json` asks, write `result.json`, and return 1 after a fault of ours."""
    # The supervisor alone stops a run, by SIGTERM; Ctrl-C in its terminal reaches us too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    try:
        with closing(FolderProgress(run_dir / "events.jsonl")) as progress:
            detail = _work(kind, run_dir, progress)
        result = Result(outcome=Outcome.FINISHED, detail=detail)
    except Stopped as stopped:
        result = Result(outcome=Outcome.STOPPED, detail=stopped.detail)
    except Exception as error:  # noqa: BLE001 - every end of a run must leave a result
        named = _name(error)
        if named is None:
            # Where, not what: the message may hold values of a patient.
            sys.stderr.writelines(traceback.format_tb(error.__traceback__))
            status = 1
            named = RunError(
                code="internal", detail=f"the run ended unexpectedly: {type(error).__name__}"
            )
        result = Result(outcome=Outcome.FAILED, error=named)
    try:
        write_json(run_dir / "result.json", result.model_dump(mode="json"))
    except OSError as error:
        if not _is_disk_full(error):
            raise
        return EXIT_DISK_FULL
    return status


def _work(kind: Kind, run_dir: Path, progress: Progress) -> dict[str, JsonValue]:
    """Import and run the one module that does `kind`."""
    text = (run_dir / "spec.json").read_text(encoding="utf-8")
    if kind is Kind.INGEST:
        from models.data.ingest import ingest  # noqa: PLC0415 - see `main`

        summary = ingest(run_dir, IngestSpec.model_validate_json(text), progress)
        dumped: dict[str, JsonValue] = summary.model_dump(mode="json")
        return dumped
    if kind is Kind.REPORT:
        from models.evaluation.suite import report  # noqa: PLC0415 - see `main`

        return report(run_dir, ReportSpec.model_validate_json(text), progress)
    if kind is Kind.TRAIN:
        from models.training import train  # noqa: PLC0415 - see `main`

        return train(run_dir, TrainSpec.model_validate_json(text), progress)
    from models.sampling import sample  # noqa: PLC0415 - see `main`

    return sample(run_dir, SampleSpec.model_validate_json(text), progress)


def _name(error: Exception) -> RunError | None:
    """Return the failure that a user can act on, or None for a fault of ours."""
    if isinstance(error, UserError):
        return RunError(code=error.code, detail=error.detail)
    if _is_disk_full(error):
        return RunError(code="disk_full", detail="the disk of the worker is full")
    if _is_out_of_memory(error):
        return RunError(
            code="out_of_memory",
            detail="the machine has too little memory: lower batch_size, image_size or channels",
        )
    return None


def _is_disk_full(error: Exception) -> bool:
    """Tell by number, or by text where a library written in Rust raises an error of its own."""
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    return any(f"(os error {number})" in str(error) for number in _DISK_FULL)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell by name, because torch may never have been imported; on a CPU it is a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for kind in Kind:
        command = commands.add_parser(kind.value, help=f"do the {kind.value} in a run folder")
        command.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    phantom = commands.add_parser("phantom", help="write a zip of simulated slices")
    phantom.add_argument("out", type=Path, metavar="OUT.zip")
    for option, default in (("patients", 40), ("slices", 10), ("size", 128), ("seed", 0)):
        phantom.add_argument(f"--{option}", type=int, default=default, metavar="N")
    return parser
