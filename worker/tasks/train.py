"""generator.train: a sealed dataset becomes checkpoints; taken up where the last attempt left."""

import shutil
from typing import cast

from pydantic import JsonValue

from app import datasets, generators, jobs
from app.job_events import NewEvent
from app.parts import Parts
from app.tables import Dataset, Generator
from models.config import TRAINING_CONFIG
from models.run_folder import Kind, TrainSpec, checkpoint_name
from worker.child import run_child
from worker.run import Run, attempt

SPEED = "all/images_per_second"
CHECKPOINT_FILES = ("weights.safetensors", "state.safetensors", "checkpoint.json", "samples.png")


def train(parts: Parts, job_id: str) -> None:
    """Train the generator that job `job_id` asks for, from its last checkpoint if there is one."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Generator, run.claim.resource_id)
            config = TRAINING_CONFIG.validate_python(row.config)
            pack = datasets.pack(session.get_one(Dataset, row.dataset_id), config.image_size)
            found = generators.checkpoints(session, row.id)
            prefix = f"{generators.prefix(row)}{run.key_prefix}"
        resume = None
        with run.phase("download"):
            parts.storage.get_file(str(pack["key"]), run.folder / "packed.safetensors")
            if found:
                resume = _fetch_checkpoint(run, found[0].step, found[0].prefix)
        if found:
            with run.transaction() as session:
                jobs.note_resume(session, run.claim, found[0].id)
        spec = TrainSpec(
            config=config,
            seed=row.seed,
            resume=resume,
            device=parts.settings.device,
            threads=parts.settings.threads,
        )

        def on_event(kind: str, data: dict[str, JsonValue]) -> None:
            if kind == "metrics":
                _record_metrics(run, data)
            elif kind == "checkpoint":
                _upload_checkpoint(run, data, prefix)

        run_child(run, Kind.TRAIN, spec, on_event)


def _fetch_checkpoint(run: Run, step: int, prefix: str) -> str:
    folder = run.folder / "checkpoints" / checkpoint_name(step)
    folder.mkdir(parents=True)
    for name in CHECKPOINT_FILES:
        run.parts.storage.get_file(f"{prefix}{name}", folder / name)
    return str(folder.relative_to(run.folder))


def _upload_checkpoint(run: Run, data: dict[str, JsonValue], prefix: str) -> None:
    folder = run.folder / cast("str", data["folder"])
    key_prefix = f"{prefix}checkpoints/{folder.name}/"
    with run.phase("upload"):
        for name in CHECKPOINT_FILES:
            run.parts.storage.put_file(f"{key_prefix}{name}", folder / name)
    step, images_seen = cast("int", data["step"]), cast("int", data["images_seen"])
    with run.transaction() as session:
        checkpoint_id = generators.add_checkpoint(
            session, run.claim, step=step, images_seen=images_seen, key_prefix=key_prefix
        )
        shown: dict[str, JsonValue] = {
            "message": "checkpoint saved",
            "checkpoint_id": checkpoint_id,
            "step": step,
        }
        jobs.record(session, run.claim, [NewEvent("message", shown)])
    shutil.rmtree(folder)  # only now: until the row is there, the event may be handled again


def _record_metrics(run: Run, data: dict[str, JsonValue]) -> None:
    step, images_seen = cast("int", data["step"]), cast("int", data["images_seen"])
    values = cast("dict[str, float]", data["values"])
    speed = cast("float", data["images_per_second"])
    with run.transaction() as session:
        known = {**values, SPEED: speed}
        generators.add_history(session, run.claim, step, images_seen, known)
        jobs.record(session, run.claim, [NewEvent("metrics", data)])
