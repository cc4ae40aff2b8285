"""generator.import: the archive of a generator that was made elsewhere becomes a checkpoint."""

from app import generator_archives, generators
from app.parts import Parts
from app.tables import Generator
from models.exchange import WEIGHTS, Description
from models.run_folder import ImportSpec, Kind, checkpoint_name
from worker.child import run_child
from worker.run import attempt

FILES = {WEIGHTS: "application/octet-stream", "samples.png": "image/png"}


def take_in(parts: Parts, job_id: str) -> None:
    """Judge the archive that job `job_id` names, and keep its weights."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(Generator, run.claim.resource_id)
            content_key = row.content_key
            prefix = f"{generators.prefix(row)}{run.key_prefix}checkpoints/"
        assert content_key is not None, "it is kept until the job has ended"
        with run.phase("download"):
            parts.storage.get_file(content_key, run.folder / "content")
        spec = ImportSpec(max_bytes=parts.settings.max_import_bytes, threads=parts.settings.threads)
        result = run_child(run, Kind.IMPORT, spec)
        run.check_stop()
        described = Description.model_validate(result.detail)
        key_prefix = f"{prefix}{checkpoint_name(described.step)}/"
        outputs = run.folder / "outputs"
        with run.phase("upload"):
            for name, content_type in FILES.items():
                parts.storage.put_file(f"{key_prefix}{name}", outputs / name, content_type)
        run.conclude = lambda session: generator_archives.seal(
            session, run.claim, described, key_prefix
        )
