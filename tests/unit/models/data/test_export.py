import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data.export import export
from models.data.ingest import ingest
from models.data.packing import open_pack
from models.progress import Silent
from models.run_folder import EXPORTED, ExportSpec, IngestSpec, UserError

WHOLE = ExportSpec()
LABELS = ("glioma", "no tumour (2)")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 24 slices of two labels in 8 groups, half with masks; names of patients."""
    run_dir = tmp_path_factory.mktemp("sealed")
    random = np.random.default_rng(0)
    rows = ["image,mask,label,group"]
    with zipfile.ZipFile(run_dir / "content", "w") as archive:
        for number in range(24):
            image = random.integers(0, 256, (96, 96))
            name = f"MEIER_{number}.png"
            archive.writestr(f"images/{name}", png(image))
            mask = ""
            if number % 2:
                mask = f"masks/{name}"
                box = np.zeros((96, 96))
                box[30:60, 40:70] = 255
                archive.writestr(mask, png(box))
            rows.append(f"images/{name},{mask},{LABELS[number % 2]},p{number // 3}")
        archive.writestr("manifest.csv", "\n".join(rows))
    ingest(run_dir, IngestSpec(workers=1), Silent())
    for name in ("images.jsonl", "certificate.json"):
        (run_dir / "outputs" / name).rename(run_dir / name)
    (run_dir / "outputs" / "packed-64.safetensors").rename(run_dir / "packed.safetensors")
    return run_dir


def exported(sealed: Path, spec: ExportSpec = WHOLE) -> zipfile.ZipFile:
    export(sealed, spec, Silent())
    return zipfile.ZipFile(io.BytesIO((sealed / "outputs" / EXPORTED).read_bytes()))


def table(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode())))


def pixels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(archive.read(name))) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_pictures_are_those_of_the_pack_in_folders_by_label(sealed: Path) -> None:
    archive, pack = exported(sealed), open_pack(sealed / "packed.safetensors")
    rows = table(archive)
    assert len(rows) == 24
    for row in rows:
        folder, label, name = row["file_name"].split("/")
        assert folder == "images"
        assert label in LABELS
        at = int(name.removesuffix(".png"))
        assert (pixels(archive, row["file_name"]) == pack.images[at]).all()


def test_masks_have_the_names_of_their_images_and_two_values(sealed: Path) -> None:
    archive = exported(sealed)
    with_mask = [row for row in table(archive) if row["mask_file_name"]]
    assert len(with_mask) == 12
    for row in with_mask:
        assert row["mask_file_name"] == row["file_name"].replace("images/", "masks/")
        mask = pixels(archive, row["mask_file_name"])
        assert set(np.unique(mask)) == {0, 255}
        assert (mask[22:38, 28:45] == 255).all()


def test_every_picture_is_listed_and_every_listed_one_is_there(sealed: Path) -> None:
    archive = exported(sealed)
    listed = {row[column] for row in table(archive) for column in ("file_name", "mask_file_name")}
    assert {name for name in archive.namelist() if name.endswith(".png")} == listed - {""}


def test_groups_stay_in_their_split(sealed: Path) -> None:
    splits: dict[str, set[str]] = {}
    for row in table(exported(sealed)):
        splits.setdefault(row["group"], set()).add(row["split"])
    assert len(splits) == 8
    assert all(len(found) == 1 for found in splits.values())


def test_only_the_splits_that_are_asked_for(sealed: Path) -> None:
    rows = table(exported(sealed, ExportSpec(splits=("holdout",))))
    assert {row["split"] for row in rows} == {"holdout"}
    assert 0 < len(rows) < 24


def test_no_split_no_export(sealed: Path) -> None:
    with pytest.raises(UserError) as caught:
        exported(sealed, ExportSpec(splits=()))
    assert caught.value.code == "nothing_to_export"


def test_nothing_names_a_patient(sealed: Path) -> None:
    archive = exported(sealed)
    everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"MEIER" not in everything
    assert not any("MEIER" in name for name in archive.namelist())


def test_the_same_dataset_gives_the_same_bytes(sealed: Path) -> None:
    exported(sealed)
    first = (sealed / "outputs" / EXPORTED).read_bytes()
    exported(sealed)
    assert (sealed / "outputs" / EXPORTED).read_bytes() == first


def test_croissant_describes_the_table_and_the_pictures(sealed: Path) -> None:
    archive = exported(sealed)
    document = json.loads(archive.read("metadata.json"))
    assert document["@type"] == "sc:Dataset"
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    by_id = {one["@id"]: one for one in document["distribution"]}
    digest = hashlib.sha256(archive.read("metadata.csv")).hexdigest()
    assert by_id["metadata.csv"]["sha256"] == digest
    assert by_id["images"]["includes"] == "images/*/*.png"
    assert "masks" in by_id
    (records,) = document["recordSet"]
    columns = [field["source"]["extract"]["column"] for field in records["field"]]
    assert columns == list(table(archive)[0])


@pytest.mark.parametrize(("kind", "says"), [("real", "Confidential"), ("synthetic", "Synthetic")])
def test_the_card_says_what_the_images_are(sealed: Path, kind: str, says: str) -> None:
    archive = exported(sealed, ExportSpec(kind=kind))
    assert says in archive.read("README.md").decode()
    with Image.open(io.BytesIO(archive.read(table(archive)[0]["file_name"]))) as image:
        assert image.info.get("Synthetic") == ("true" if kind == "synthetic" else None)


def test_certificate_goes_along(sealed: Path) -> None:
    assert exported(sealed).read("certificate.json") == (sealed / "certificate.json").read_bytes()
