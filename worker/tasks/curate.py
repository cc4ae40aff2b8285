"""sample_batch.curate: what stays of a batch becomes a batch, copied inside the object storage."""

import csv
import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from app import curation, samples
from app.curation import Flag, Plan
from app.parts import Parts
from app.tables import SampleBatch, now
from app.threads import Pool
from worker.child import Progress
from worker.run import JobFailedError, Run, attempt

COPY_THREADS = 8
SOURCE, ARCHIVE = "source.zip", "images.zip"
_OWN = ("manifest.csv", "provenance.json")
"""Files of a zip that are no images."""
_PROGRESS_S = 1.0


def curate(parts: Parts, job_id: str) -> None:
    """Make the batch of job `job_id` of what its report did not flag."""
    with attempt(parts, job_id) as run:
        if run is None:
            return
        with run.transaction() as session:
            row = session.get_one(SampleBatch, run.claim.resource_id)
            plan = curation.plan(session, row)
            prefix = f"{samples.prefix(row)}{run.key_prefix}"
        if plan is None:
            raise JobFailedError("source_removed", "the batch or its report was deleted meanwhile")
        flagged = curation.read(parts.storage.get(plan.samples_key))
        dropped = curation.reasons(flagged, plan.drop)
        if dropped.keys() - {_file(one) for one in plan.images if one["released"]}:
            # What is not found cannot be dropped, and must not stay for that.
            raise JobFailedError(
                "samples_unusable", "the report flagged images that are not in the batch"
            )
        with run.phase("download"):
            parts.storage.get_file(plan.archive_key, run.folder / SOURCE)
        _write_zip(run, row, plan, dropped)
        images = [_image(one, prefix, dropped) for one in plan.images]
        with run.phase("upload"):
            _copy(run, plan.images, images)
            parts.storage.put_file(f"{prefix}{ARCHIVE}", run.folder / ARCHIVE, "application/zip")
        run.check_stop()
        kept = {_file(one) for one in images if one["released"]}
        notes = curation.notes(row, dropped, len(kept - flagged.keys()))
        run.conclude = lambda session: samples.seal(
            session, run.claim, f"{prefix}{ARCHIVE}", images, notes
        )


def _file(image: Mapping[str, object]) -> str:
    label, label_index, step = (image[name] for name in ("label", "label_index", "step"))
    return samples.file_name(str(label), cast("int", label_index), cast("int | None", step))


def _image(
    source: Mapping[str, object], prefix: str, dropped: Mapping[str, Flag]
) -> dict[str, object]:
    """Return the row of an image in the new batch; what was withheld before stays so."""
    reason = dropped.get(_file(source)) if source["released"] else None
    if reason is not None:
        gone = {"key": None, "mask_key": None, "released": False, "withheld_reason": reason.value}
        return {**source, **gone}
    keys = {
        name: source[name] and f"{prefix}{folder}/{source['index']:06d}.png"
        for name, folder in (("key", "images"), ("mask_key", "masks"))
    }
    return {**source, **keys}


def _copy(
    run: Run, sources: Sequence[Mapping[str, object]], images: Sequence[Mapping[str, object]]
) -> None:
    """Copy the objects of what stays, and tell how far it is.

    Raises:
        StoppedError: if the run must stop.
        ClientError, ...: if the storage fails.
    """
    pairs = [
        (str(source[name]), str(image[name]))
        for source, image in zip(sources, images, strict=True)
        for name in ("key", "mask_key")
        if image[name] is not None
    ]
    progress, told_s = Progress(run), time.monotonic()
    pool = Pool(COPY_THREADS, "copy")
    try:
        pending = [pool.submit(run.parts.storage.copy, *pair) for pair in pairs]
        for done, future in enumerate(pending):
            run.check_stop()
            future.result()
            if time.monotonic() - told_s >= _PROGRESS_S:
                told_s = time.monotonic()
                message = f"object {done + 1:,} of {len(pairs):,}"
                progress.tell({"fraction": (done + 1) / len(pairs), "message": message})
    finally:
        pool.shutdown(cancel_futures=True)


def _write_zip(run: Run, row: SampleBatch, plan: Plan, dropped: Mapping[str, Flag]) -> None:
    """Write the zip of what stays, with a manifest and a provenance of its own."""
    with (
        zipfile.ZipFile(run.folder / SOURCE) as source,
        zipfile.ZipFile(run.folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr("manifest.csv", _manifest(source.read("manifest.csv"), dropped))
        provenance = json.loads(source.read("provenance.json"))
        archive.writestr(
            "provenance.json", json.dumps(_provenance(provenance, row, plan, dropped), indent=1)
        )
        for name in _staying(source, dropped):
            run.check_stop()
            archive.writestr(name, source.read(name))


def _staying(source: zipfile.ZipFile, dropped: Mapping[str, Flag]) -> Iterator[str]:
    """Yield the names of the images, and of the masks, that were not dropped."""
    for name in source.namelist():
        _, _, place = name.partition("/")  # images/... or masks/...
        if name not in _OWN and f"images/{place}" not in dropped:
            yield name


def _manifest(text: bytes, dropped: Mapping[str, Flag]) -> str:
    """Return the lines of what stays."""
    lines = list(csv.reader(io.StringIO(text.decode())))
    at = lines[0].index("file")
    out = io.StringIO(newline="")
    csv.writer(out).writerows(line for line in lines if line[at] not in dropped)
    return out.getvalue()


def _provenance(
    source: dict[str, Any], row: SampleBatch, plan: Plan, dropped: Mapping[str, Flag]
) -> dict[str, Any]:
    """Return what the source says of how its images were drawn, and what was dropped since."""
    gone = [
        {"label": one["label"], "index": one["label_index"], "step": one["step"], "reason": reason}
        for one in plan.images
        if one["released"] and (reason := dropped.get(_file(one))) is not None
    ]
    lost = Counter(str(one["label"]) for one in gone)
    step = {
        "batch": row.id,
        "from": row.curated_from,
        "by_report": row.curated_by,
        "drop": list(plan.drop),
        "dropped": dict(Counter(dropped.values())),
        "created_at": now().isoformat(timespec="seconds"),
    }
    return {
        **source,
        "counts": {label: count - lost[label] for label, count in source["counts"].items()},
        "withheld": [*source["withheld"], *gone],
        "curated": [*source.get("curated", ()), step],
    }
