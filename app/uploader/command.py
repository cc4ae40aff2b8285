"""`gliaforge upload PATH`: make an archive, send it in parts, and watch its ingest."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.progress import Progress

from app.bars import bar, byte_bar, progress_bars, show
from app.client import Client, Resource, ServiceError
from app.uploader import packing, sending
from app.uploader.bookmark import Bookmark, place_of

_GONE = 404
_NO_ARCHIVE = 415


@dataclass(frozen=True)
class Wish:
    """What is to be uploaded, and how it is to be taken."""

    path: Path
    name: str | None = None
    kind: str = "real"
    ingest: dict[str, JsonValue] = field(default_factory=dict)
    waits: bool = True
    at_a_time: int = sending.AT_A_TIME


def run(client: Client, url: str, wish: Wish, state: Path, console: Console) -> None:
    """Upload what is wished for, or go on with it, and tell what became of it.

    Raises:
        PackingError: if it cannot be read.
        ServiceError: if the service or its storage refused, or the ingest failed.
        KeyboardInterrupt: having said how to go on.
    """
    place = place_of(state.expanduser(), url, wish.path)
    with progress_bars(console) as bars:
        dataset_id = _upload(client, wish, place, bars)
        path = f"/v1/datasets/{dataset_id}"
        if wish.waits:
            try:
                with bar(bars, "ingest") as task:
                    client.follow(path, lambda job: show(bars, task, job))
            except KeyboardInterrupt:
                console.print(f"The ingest goes on without you: {url}{path}", soft_wrap=True)
                raise
    _summarise(client, console, url, client.get(path))


def _upload(client: Client, wish: Wish, place: Path, bars: Progress) -> str:
    """Send the archive; return the id of its dataset."""
    with _archive(wish.path, bars) as (archive, digest):
        options = json.dumps([wish.name, wish.kind, wish.ingest], sort_keys=True)
        upload = _found(client, Bookmark.read(place), digest, options)
        if upload is None:
            upload = _begin(client, wish, archive, digest)
            Bookmark(
                dataset_id=upload["dataset_id"],
                upload_id=upload["id"],
                sha256=digest,
                options=options,
            ).write(place)
        if upload["status"] != "completed":
            try:
                _send(client, wish, archive, upload, bars)
            except KeyboardInterrupt:
                bars.console.print("Interrupted. The same command sends the rest.")
                raise
            except ServiceError as error:
                if error.status == _NO_ARCHIVE:
                    # No other bytes will come for this dataset.
                    client.delete(f"/v1/datasets/{upload['dataset_id']}")
                    place.unlink(missing_ok=True)
                raise
    place.unlink(missing_ok=True)
    return str(upload["dataset_id"])


@contextmanager
def _archive(path: Path, bars: Progress) -> Iterator[tuple[Path, str]]:
    """Yield the archive of a path, and its SHA-256."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = path
        if not packing.is_archive(path):
            archive = Path(scratch) / "dataset.tar"
            with byte_bar(bars, "packing", packing.total_bytes(path)) as task:
                count = packing.pack(path, archive, lambda size: bars.update(task, advance=size))
                bars.update(task, message=f"{count:,} files")
        with byte_bar(bars, "checksum", archive.stat().st_size) as task:
            digest = packing.sha256(archive, lambda size: bars.update(task, advance=size))
        yield archive, digest


def _found(client: Client, known: Bookmark | None, digest: str, options: str) -> Resource | None:
    """Return the upload that an earlier command began for the same, if it is still there."""
    if known is None:
        return None
    path = f"/v1/uploads/{known.upload_id}"
    if (known.sha256, known.options) != (digest, options):
        # The files, or what is wanted of them, have changed: nobody will finish that one. One that
        # is completed cannot be deleted, and its dataset stays.
        with suppress(ServiceError):
            client.delete(path)
            client.delete(f"/v1/datasets/{known.dataset_id}")
        return None
    try:
        return client.get(path)
    except ServiceError as error:
        if error.status == _GONE:  # it has expired, or its dataset was deleted
            _remove_if_empty(client, f"/v1/datasets/{known.dataset_id}")
            return None
        raise


def _remove_if_empty(client: Client, path: str) -> None:
    """Remove the dataset of an upload that has expired, unless it has other content by now."""
    with suppress(ServiceError):
        if client.get(path)["status"] == "empty":
            client.delete(path)


def _begin(client: Client, wish: Wish, archive: Path, digest: str) -> Resource:
    body: Resource = {"name": wish.name or "upload", "kind": wish.kind, "ingest": wish.ingest}
    dataset = client.create("/v1/datasets", body)
    size = archive.stat().st_size
    path = f"/v1/datasets/{dataset['id']}"
    try:
        begun = client.create(f"{path}/uploads", {"size_bytes": size, "sha256": digest})
    except ServiceError:
        with suppress(ServiceError):  # the reason to show is the first
            client.delete(path)
        raise
    return begun


def _send(client: Client, wish: Wish, archive: Path, upload: Resource, bars: Progress) -> None:
    """Send what is missing and complete the upload."""
    size = upload["size_bytes"]
    is_open = upload["status"] == "open"
    there = sending.stored(upload) if is_open else {}
    done = sum(sending.part_size(upload, number) for number in there) if is_open else size
    with byte_bar(bars, "upload", size, done) as task:
        if there:
            bars.console.print(f"going on: {len(there)} of {upload['part_count']} parts are there")
        etags: sending.Etags = {}
        if is_open:
            etags = sending.send(
                client,
                archive,
                upload,
                lambda size: bars.update(task, advance=size),
                wish.at_a_time,
            )
        # Once the parts are one object, their ETags are asked for no longer.
        numbers = range(1, upload["part_count"] + 1)
        parts = [{"number": number, "etag": etags.get(number, "-")} for number in numbers]
        client.create(f"/v1/uploads/{upload['id']}/complete", {"parts": parts})


def _summarise(client: Client, console: Console, url: str, dataset: Resource) -> None:
    path = f"{url}/v1/datasets/{dataset['id']}"
    if dataset["status"] != "ready":
        console.print(f"Dataset {dataset['id']}: {dataset['status']}. {path}", soft_wrap=True)
        return
    labels = ", ".join(f"{count:,} {name}" for name, count in sorted(dataset["labels"].items()))
    splits = ", ".join(
        f"{sum(dataset['splits'].get(name, {}).values()):,} {name}"
        for name in ("train", "validation", "holdout")
    )
    files = client.get(f"/v1/datasets/{dataset['id']}/certificate")["files"]
    console.print(
        f"Dataset {dataset['id']} is ready: {dataset['image_count']:,} images ({labels}) of"
        f" {dataset['group_count']:,} patients or groups, split into {splits};"
        f" {dataset['mask_count']:,} with a mask. Left out: {dataset['rejected_count']:,} files"
        f" rejected{_reasons(files['rejected_because'])},"
        f" {dataset['quarantined_count']:,} quarantined{_reasons(files['quarantined_because'])},"
        f" {dataset['duplicate_count']:,} duplicates.",
        soft_wrap=True,
    )
    for remark, count in sorted(files["remarks"].items()):
        console.print(f"  remark, {count:,} times: {remark}", soft_wrap=True)
    for name, what in (
        ("certificate", "what was done to the files, also as a page (Accept: text/html)"),
        ("contact-sheet.png", "some slices of each label and plane, with their masks"),
        ("files?verdict=rejected", "each rejected file with the reason"),
    ):
        console.print(f"  {path}/{name}  {what}", soft_wrap=True)


def _reasons(counts: dict[str, int]) -> str:
    """Return ` (3 of one reason, 1 of another)`, or nothing if there are none."""
    most_first = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return f" ({', '.join(f'{count:,} {name}' for name, count in most_first)})" if counts else ""
