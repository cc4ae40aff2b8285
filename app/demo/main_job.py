"""The main job through the REST API: upload, ingest, train, sample, report, with progress bars."""

import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from app.bars import bar, byte_bar, progress_bars, show
from app.client import Client, Resource, ServiceError
from app.settings import base_environment

PHANTOM_PATIENTS, PHANTOM_SLICES, PHANTOM_PX = 60, 5, 128


@dataclass(frozen=True)
class Wish:
    """What the demo is asked to do."""

    dataset: Path | None
    preset: str
    config: dict[str, JsonValue]
    epochs: int | None
    images_per_label: int
    seed: int


def run(client: Client, wish: Wish, output: Path, console: Console) -> None:
    """Walk the main job and save its pictures and numbers under `output`.

    Raises:
        ServiceError: if the service refused something or a job failed.
    """
    presets = [one["name"] for one in client.get("/v1/presets")["data"]]
    if wish.preset not in presets:
        raise ServiceError(f"there is no preset {wish.preset}: there are {', '.join(presets)}")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, progress_bars(console) as bars:
        archive = _archive(wish, Path(scratch), bars)
        dataset = _upload(client, archive, wish, bars)
        client.download(f"/v1/datasets/{dataset['id']}/preview.png", output / "1-real.png")
        generator = _train(client, dataset, wish, bars)
        client.download(f"/v1/generators/{generator['id']}/progress.png", output / "2-training.png")
        history = client.get(f"/v1/generators/{generator['id']}/history")
        (output / "history.json").write_text(json.dumps(history))
        batch = _sample(client, generator, wish, bars)
        client.download(f"/v1/sample-batches/{batch['id']}/preview.png", output / "synthetic.png")
        client.download(f"/v1/sample-batches/{batch['id']}/archive", output / "synthetic.zip")
        report = _report(client, dataset, batch, bars)
        client.download(
            f"/v1/reports/{report['id']}/plots/intensity.png", output / "3-intensity.png"
        )
        (output / "report.json").write_text(json.dumps(report, indent=1))
        client.download(f"/v1/reports/{report['id']}/html", output / "report.html")
    _summarise(console, dataset, batch, report, output)


def _archive(wish: Wish, scratch: Path, bars: Progress) -> Path:
    """Return an archive of what the user brought, or of a phantom."""
    if wish.dataset is None:
        with bar(bars, "phantom") as task:
            bars.update(task, message="drawing heads with tumours from the MNI152 template")
            return _phantom(scratch / "phantom.zip", wish.seed)
    if wish.dataset.is_file():
        return wish.dataset
    if not wish.dataset.is_dir():
        raise ServiceError(f"{wish.dataset} is neither a file nor a folder")
    with bar(bars, "packing") as task:
        bars.update(task, message="putting the folder into one archive")
        archive = scratch / "dataset.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(wish.dataset, arcname=".")
        return archive


def _phantom(path: Path, seed: int) -> Path:
    arguments = {"patients": PHANTOM_PATIENTS, "slices": PHANTOM_SLICES, "size": PHANTOM_PX}
    options = [part for name, n in arguments.items() for part in (f"--{name}", str(n))]
    done = subprocess.run(
        [sys.executable, "-m", "models", "phantom", str(path), *options, "--seed", str(seed)],
        env=base_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ServiceError(f"the phantom could not be made: {last[0]}")
    return path


def _upload(client: Client, archive: Path, wish: Wish, bars: Progress) -> Resource:
    name = wish.dataset.name if wish.dataset else "phantom"
    dataset = client.create("/v1/datasets", {"name": f"demo: {name}"[:200], "kind": "real"})
    path = f"/v1/datasets/{dataset['id']}"
    with byte_bar(bars, "upload", archive.stat().st_size) as task:
        client.upload(f"{path}/content", archive, lambda size: bars.update(task, advance=size))
    with bar(bars, "ingest") as task:
        dataset = _follow(client, path, bars, task)
        counts = ", ".join(f"{count} {label}" for label, count in dataset["labels"].items())
        others = dataset["duplicate_count"], dataset["rejected_count"]
        message = f"{counts}; {others[0]} duplicates, {others[1]} rejected"
        bars.update(task, message=message)
    return dataset


def _train(client: Client, dataset: Resource, wish: Wish, bars: Progress) -> Resource:
    config = dict(wish.config)
    if wish.epochs is not None:
        total = wish.epochs * sum(dataset["splits"]["train"].values())
        config |= {"total_images": total, "snapshot_images": max(total // 5, 1)}
    body = {
        "name": "demo",
        "dataset_id": dataset["id"],
        "preset": wish.preset,
        "config": config,
        "seed": wish.seed,
    }
    generator = client.create("/v1/generators", body)
    with bar(bars, "train") as task:
        return _follow(client, f"/v1/generators/{generator['id']}", bars, task)


def _sample(client: Client, generator: Resource, wish: Wish, bars: Progress) -> Resource:
    body = {
        "generator_id": generator["id"],
        "counts": dict.fromkeys(generator["labels"], wish.images_per_label),
        "seed": wish.seed,
    }
    batch = client.create("/v1/sample-batches", body)
    with bar(bars, "sample") as task:
        return _follow(client, f"/v1/sample-batches/{batch['id']}", bars, task)


def _report(client: Client, dataset: Resource, batch: Resource, bars: Progress) -> Resource:
    body = {
        "real_dataset_id": dataset["id"],
        "sample_batch_id": batch["id"],
        "profile": "quick",
    }
    report = client.create("/v1/reports", body)
    with bar(bars, "report") as task:
        return _follow(client, f"/v1/reports/{report['id']}", bars, task)


def _follow(client: Client, path: str, bars: Progress, task: TaskID) -> Resource:
    """Follow a job to its end; Ctrl-C cancels it, or the next demo would wait for it."""
    try:
        return client.follow(path, lambda job: show(bars, task, job))
    except KeyboardInterrupt:
        bars.console.print("\ninterrupted: cancelling the job of this demo", soft_wrap=True)
        if not client.cancel(path):
            bars.console.print(
                f"the service has not taken it: the next start goes on with {path}, until you"
                " cancel its job (POST /v1/jobs/{id}/cancel)",
                soft_wrap=True,
                markup=False,
            )
        raise


def _summarise(
    console: Console, dataset: Resource, batch: Resource, report: Resource, output: Path
) -> None:
    table = Table(title="How close the grey values are (quick report)", title_justify="left")
    for heading in ("measure", "where", "label", "generated", "unseen real (5-95 %)", "verdict"):
        table.add_column(heading)
    for metric in report["metrics"]:
        floor = metric["floor"]
        band = f"{floor['median']:.3f} ({floor['q05']:.3f}-{floor['q95']:.3f})" if floor else "-"
        value = "-" if metric["value"] is None else f"{metric['value']:.3f}"
        label = metric["label"] or "all"
        row = (metric["id"], metric["space"], label, value, band, metric["verdict"])
        table.add_row(*row)
    console.print(table)
    for axis, found in report["verdicts"].items():
        console.print(f"[bold]{axis}[/bold]: {found['verdict']}. {found['reason']}")
    console.print("Whether the images may be used, a report says from profile standard on.")
    for note in batch["notes"]:
        console.print(f"[bold]synthetic images[/bold]: {escape(note)}", soft_wrap=True)
    train = sum(dataset["splits"]["train"].values())
    console.print(f"\nTrained on {train} real images; the report used others that it never saw.")
    for name, what in (
        ("1-real.png", "20 real slices (figure 1)"),
        ("2-training.png", "what training drew from the same latents (figure 2)"),
        ("3-intensity.png", "grey values, real and generated (figure 3)"),
        ("synthetic.png", "some of the synthetic images"),
        ("synthetic.zip", "all of them, with manifest and provenance"),
        ("report.html", "the report, to be read"),
        ("report.json", "every number of it, with its floor and what it cannot say"),
    ):
        console.print(f"  {output / name}  {what}", soft_wrap=True)
    console.print(
        "\nNext: `gliaforge demo --dataset YOUR.zip` with one folder of images per class, or"
        " `gliaforge up` and the REST API (README.md).",
        soft_wrap=True,
    )
