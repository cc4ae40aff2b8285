"""Write what became of every file and image of an archive, a line each."""

from pathlib import Path

from models.data.judging import Judge, by_file
from models.data.packing import SPLITS
from models.run_folder import FileVerdict, ImageRecord


def write_files(partial: Path, final: Path, judge: Judge) -> None:
    """Complete the verdicts, now that slices, groups and splits are known."""
    images = dict(by_file(judge.accepted))
    with partial.open(encoding="utf-8") as lines, final.open("w", encoding="utf-8") as out:
        for line in lines:
            verdict = judge.settled(FileVerdict.model_validate_json(line))
            own = images.get(verdict.index, [])
            if own:
                # Slices of a volume belong to one group and may differ in their label.
                labels = {image.label for image in own}
                update = {
                    "group": own[0].group,
                    "split": SPLITS[own[0].split] if own[0].split >= 0 else None,
                    "label": labels.pop() if len(labels) == 1 else None,
                    "width": own[0].size_px[0],
                    "height": own[0].size_px[1],
                }
                verdict = verdict.model_copy(update=update)
            out.write(verdict.model_dump_json() + "\n")
    partial.unlink()


def write_images(path: Path, judge: Judge) -> None:
    """Write a record of each accepted image, in the order of the packs."""
    with path.open("w", encoding="utf-8") as out:
        for index, image in enumerate(judge.accepted):
            record = ImageRecord(
                index=index,
                file_index=image.file_index,
                slice_number=image.slice_number,
                label=image.label,
                group=image.group,
                split=SPLITS[image.split],
                sha256=image.sha256,
                width=image.size_px[0],
                height=image.size_px[1],
                rows={
                    str(size): row
                    for size, row in zip(judge.packs, image.rows, strict=True)
                    if row is not None
                },
                mask_area_px=image.mask_area_px,
                plane=image.plane,
                spacing_mm=image.spacing_mm,
                window=image.window,
            )
            out.write(record.model_dump_json() + "\n")
