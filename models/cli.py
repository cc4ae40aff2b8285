"""Run one folder: read `spec.json`, work, leave `result.json`; or draw a phantom.

Each command imports what it needs and nothing else: `ingest` and `report` start without torch.
"""

import argparse
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue

from models.progress import Progress, Silent, Stopped
from models.run import run_in
from models.run_folder import (
    ExportSpec,
    ImportSpec,
    IngestSpec,
    Kind,
    ReportSpec,
    SampleSpec,
    TrainSpec,
    UserError,
)


def main(arguments: list[str]) -> int:
    """Run the command in `arguments` and return the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "phantom":
        # Imported here, as below, so that a command pays for its own libraries alone.
        from models.data.phantom import write_phantom  # noqa: PLC0415

        write_phantom(options.out, options.patients, options.slices, options.size, options.seed)
        return 0
    if options.command == "sampler":
        from models.sampler import serve  # noqa: PLC0415

        serve(options.memory_bytes, options.idle_s)
        return 0
    return run(Kind(options.command), options.run_dir)


def run(kind: Kind, run_dir: Path) -> int:
    """Do what `run_dir/spec.json` asks and return the exit status."""
    if kind is Kind.TRAIN:
        return _train(run_dir)
    return run_in(run_dir, lambda progress: _work(kind, run_dir, progress))


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
    if kind is Kind.EXPORT:
        from models.data.export import export  # noqa: PLC0415 - see `main`

        return export(run_dir, ExportSpec.model_validate_json(text), progress)
    if kind is Kind.IMPORT:
        from models.admission import admit  # noqa: PLC0415 - see `main`

        return admit(run_dir, ImportSpec.model_validate_json(text), progress)
    from models.sampling import sample  # noqa: PLC0415 - see `main`

    return sample(run_dir, SampleSpec.model_validate_json(text), progress)


def _train(run_dir: Path) -> int:
    """Train, alone or as one of the processes that torchrun has started."""
    from models.ranks import join, leave  # noqa: PLC0415 - see `main`
    from models.training import train  # noqa: PLC0415

    ranks = join()

    def work(progress: Progress) -> dict[str, JsonValue]:
        text = (run_dir / "spec.json").read_text(encoding="utf-8")
        return train(run_dir, TrainSpec.model_validate_json(text), progress, ranks)

    try:
        if ranks.is_first:
            return run_in(run_dir, work)
        # The first process writes and tells, also what was wrong; here only the work is wanted.
        with suppress(Stopped, UserError):
            work(Silent())
        return 0
    finally:
        leave()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for kind in Kind:
        command = commands.add_parser(kind.value, help=f"do the {kind.value} in a run folder")
        command.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    sampler = commands.add_parser("sampler", help="draw for run folders named on standard input")
    sampler.add_argument("--memory-bytes", type=int, default=2 << 30, metavar="N")
    sampler.add_argument("--idle-s", type=float, default=300.0, metavar="S")
    phantom = commands.add_parser("phantom", help="write a zip of simulated slices")
    phantom.add_argument("out", type=Path, metavar="OUT.zip")
    for option, default in (("patients", 40), ("slices", 10), ("size", 128), ("seed", 0)):
        phantom.add_argument(f"--{option}", type=int, default=default, metavar="N")
    return parser
