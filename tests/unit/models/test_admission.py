"""What we export is admitted as it is, and what a stranger changed in it is refused by name."""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from models import admission, checkpoint
from models.admission import admit
from models.config import DCGANConfig, HybridConfig
from models.data.slices import Slices
from models.exchange import CARD, DESCRIPTION, METADATA_KEY, WEIGHTS, Description
from models.progress import Silent, Stopped
from models.run_folder import ImportSpec, UserError
from models.training import begin

CPU = torch.device("cpu")
TINY = DCGANConfig(
    image_size=64, latent_size=4, generator_channels=16, discriminator_channels=8, batch_size=2
)
HYBRID = HybridConfig(
    image_size=64, latent_size=4, generator_channels=4, discriminator_channels=4, batch_size=2
)
MASKED = HYBRID.model_copy(update={"has_masks": True})
LABELS = ("glioma", "none")


def _weights(folder: Path, config: DCGANConfig | HybridConfig) -> bytes:
    images = torch.full((16, config.planes, 64, 64), 255, dtype=torch.uint8)
    labels = torch.arange(16) % 2
    data = Slices(images, labels, torch.arange(16), LABELS, "a" * 64)
    checkpoint.save(folder, begin(config, 3, data, data, CPU), b"png")
    return (folder / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def of_each_label(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _weights(tmp_path_factory.mktemp("dcgan") / "step", TINY)


@dataclass
class Archive:
    """An archive that is about to be changed."""

    weights: bytes
    config: DCGANConfig | HybridConfig = TINY
    changes: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load(self.weights)

    def with_tensors(self, changes: dict[str, Tensor | None], **header: object) -> "Archive":
        """Return it with tensors that are changed, added or, if None, left out."""
        tensors = {key: one for key, one in (self.tensors | changes).items() if one is not None}
        named = json.dumps(self.header() | header)
        return Archive(save(tensors, {METADATA_KEY: named}), self.config)

    def header(self) -> dict[str, object]:
        length = int.from_bytes(self.weights[:8], "little")
        found: dict[str, object] = json.loads(
            json.loads(self.weights[8 : 8 + length])["__metadata__"][METADATA_KEY]
        )
        return found

    def description(self) -> dict[str, object]:
        said: dict[str, object] = {
            "sha256": hashlib.sha256(self.weights).hexdigest(),
            "size_bytes": len(self.weights),
            "software": "Gliaforge 0.1.0",
            "value_count": 1,
        }
        try:
            said["value_count"] = sum(one.numel() for one in self.tensors.values())
            said |= self.header()
        except Exception:  # noqa: BLE001 - weights that are none have no header
            said |= {"config": self.config.model_dump(mode="json"), "format_version": 1}
        return said | self.changes

    def bytes(self) -> bytes:
        files = {
            WEIGHTS: self.weights,
            DESCRIPTION: json.dumps(self.description()).encode(),
            CARD: b"# A generator\n",
        } | self.files
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return out.getvalue()


@pytest.fixture
def archive(of_each_label: bytes) -> Archive:
    return Archive(of_each_label)


Judge = Callable[..., Description]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    def run(content: bytes, **limits: int) -> Description:
        (tmp_path / "content").write_bytes(content)
        return Description.model_validate(admit(tmp_path, ImportSpec(**limits), Silent()))

    return run


def _refusal(judge: Judge, content: bytes, **limits: int) -> UserError:
    with pytest.raises(UserError) as caught:
        judge(content, **limits)
    return caught.value


@pytest.mark.parametrize("config", [TINY, HYBRID, MASKED], ids=["dcgan", "hybrid", "masks"])
def test_what_was_saved_is_admitted_as_it_is(
    judge: Judge, tmp_path: Path, config: DCGANConfig | HybridConfig
) -> None:
    weights = _weights(tmp_path / "step", config)
    found = judge(Archive(weights, config).bytes())
    assert (found.labels, found.config, found.seed) == (LABELS, config, 3)
    assert (tmp_path / "outputs" / WEIGHTS).read_bytes() == weights
    with Image.open(tmp_path / "outputs" / checkpoint.SAMPLES) as mosaic:
        assert (mosaic.mode, mosaic.size) == ("L", (8 * 64, 2 * 64))


@pytest.mark.parametrize(("made", "said"), [(HYBRID, MASKED), (MASKED, HYBRID)])
def test_masks_that_the_weights_do_not_draw_are_refused(
    judge: Judge, tmp_path: Path, made: HybridConfig, said: HybridConfig
) -> None:
    archive = Archive(_weights(tmp_path / "step", made))
    archive.changes = {"config": said.model_dump(mode="json")}
    refused = _refusal(judge, archive.bytes())
    assert (refused.code, "0.paint" in refused.detail) == ("weights_unusable", True)


def test_archive_from_before_there_were_masks_is_admitted(judge: Judge, tmp_path: Path) -> None:
    archive = Archive(_weights(tmp_path / "step", HYBRID))
    header = archive.header()
    config = header["config"]
    assert isinstance(config, dict)
    del config["has_masks"]
    older = archive.with_tensors({}, config=config)
    assert "has_masks" not in json.dumps(older.description())
    assert judge(older.bytes()).config == HYBRID


def test_samples_are_those_that_the_generator_draws(
    judge: Judge, tmp_path: Path, archive: Archive
) -> None:
    from models.sampling import images  # noqa: PLC0415 - the witness

    judge(archive.bytes())
    weights = checkpoint.load_weights(tmp_path / "outputs" / WEIGHTS, CPU)
    with Image.open(tmp_path / "outputs" / checkpoint.SAMPLES) as mosaic:
        rows = np.asarray(mosaic).reshape(2, 64, 8, 64).transpose(0, 2, 1, 3)
    for row, label in zip(rows, LABELS, strict=True):
        assert np.array_equal(row, images(weights, label, range(8), seed=0))


def test_description_is_kept_with_counts_and_metrics(judge: Judge, archive: Archive) -> None:
    archive.changes = {
        "images": {"train": {"glioma": 8, "none": 8}},
        "metrics": {"all/kid": 0.25, "glioma/generator_loss": 1.5},
        "dataset_kind": "synthetic",
    }
    found = judge(archive.bytes())
    assert found.images == {"train": {"glioma": 8, "none": 8}}
    assert found.metrics["all/kid"] == 0.25
    assert found.dataset_kind == "synthetic"


BIAS = "0.project.bias"
MEAN = "0.layers.0.running_var"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({BIAS: torch.zeros(3)}, "expected F32"),
        ({BIAS: torch.zeros(1024, dtype=torch.float64)}, "F64"),
        ({BIAS: torch.zeros(1024, dtype=torch.float16)}, "F16"),
        ({BIAS: torch.zeros(1, 1024)}, "expected F32"),
        ({BIAS: None}, "1 tensors are missing"),
        ({"2.project.bias": torch.zeros(2)}, "1 are not of these networks"),
        ({BIAS: torch.full((1024,), float("nan"))}, "no numbers"),
        ({BIAS: torch.full((1024,), float("inf"))}, "no numbers"),
        ({MEAN: torch.full((16,), -1.0)}, "draw pixels that are no numbers"),
    ],
    ids=["shape", "float64", "float16", "rank", "missing", "extra", "nan", "inf", "variance"],
)
def test_tensors_of_other_networks_are_refused(
    judge: Judge, archive: Archive, changes: dict[str, Tensor | None], says: str
) -> None:
    error = _refusal(judge, archive.with_tensors(changes).bytes())
    assert error.code == "weights_unusable"
    assert says in error.detail


def test_more_bytes_than_the_networks_have_are_refused_unread(
    judge: Judge, archive: Archive
) -> None:
    changed = archive.with_tensors({"x": torch.zeros(1 << 20)})
    error = _refusal(judge, changed.bytes())
    assert error.code == "weights_unusable"
    assert "and a header" in error.detail


@pytest.mark.parametrize(
    "config",
    [
        {"generator_channels": 1024, "latent_size": 1024},
        {"generator_channels": 1 << 20},
        {"image_size": 4096},
        {"image_size": 128},
        {"architecture": "stylegan"},
        {"generator_channels": 32},
    ],
)
def test_configuration_of_other_or_huge_networks_is_refused(
    judge: Judge, archive: Archive, config: dict[str, object]
) -> None:
    known = TINY.model_dump(mode="json") | config
    archive.changes = {"config": known}
    error = _refusal(judge, archive.bytes(), max_bytes=50 << 20)
    assert error.code in {"description_unusable", "weights_unusable"}


def test_networks_larger_than_the_limit_are_refused(judge: Judge, archive: Archive) -> None:
    huge = TINY.model_copy(update={"generator_channels": 1024, "latent_size": 1024})
    archive.changes = {"config": huge.model_dump(mode="json")}
    error = _refusal(judge, archive.bytes(), max_bytes=50 << 20)
    assert (error.code, "too many" in error.detail) == ("weights_unusable", True)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"labels": ["glioma", "../x"]}, "labels"),
        ({"labels": ["glioma", "=cmd()"]}, "labels"),
        ({"labels": ["glioma", "glioma"]}, "labels"),
        ({"labels": []}, "labels"),
        ({"labels": [f"l{n}" for n in range(101)]}, "labels"),
        ({"config": TINY.model_dump(mode="json") | {"networks": "per_dataset"}}, "labels"),
        ({"format_version": 2}, "format_version"),
        ({"image_size": 128}, "image_size"),
        ({"step": -1}, "step"),
        ({"images_seen": 1 << 70}, "images_seen"),
        ({"seed": 1.5}, "seed"),
        ({"dataset_digest": "a/b"}, "dataset_digest"),
        ({"value_count": 7}, "value_count"),
        ({"metrics": {"../x": 1.0}}, "metrics"),
        ({"metrics": {"all/kid": float("nan")}}, "metrics"),
        ({"images": {"train": {"a/b": 1}}}, "images"),
        ({"images": {"test": {}}}, "images"),
        ({"software": "<script>"}, "software"),
        ({"release": {"is_passed": False, "reasons": ["<script>"]}}, "release"),
        ({"release": {"is_passed": "yes, the script says so"}}, "release"),
        ({"<script>": 1}, "not the JSON object"),
    ],
)
def test_description_out_of_bounds_is_refused_by_field(
    judge: Judge, archive: Archive, changes: dict[str, Any], field: str
) -> None:
    archive.changes = changes
    error = _refusal(judge, archive.bytes())
    assert error.code == "description_unusable"
    assert field in error.detail
    assert "script" not in error.detail


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'"' + b"a" * 9])
def test_description_that_is_no_object_is_refused(
    judge: Judge, archive: Archive, text: bytes
) -> None:
    archive.files = {DESCRIPTION: text}
    assert _refusal(judge, archive.bytes()).code == "description_unusable"


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size_bytes": 5}])
def test_other_weights_than_described_are_refused(
    judge: Judge, archive: Archive, changes: dict[str, object]
) -> None:
    archive.changes = changes
    assert _refusal(judge, archive.bytes()).code == "checksum_mismatch"


def test_flipped_byte_is_refused(judge: Judge, archive: Archive) -> None:
    archive.files = {WEIGHTS: archive.weights[:-1] + bytes([archive.weights[-1] ^ 1])}
    assert _refusal(judge, archive.bytes()).code == "checksum_mismatch"


@pytest.mark.parametrize("header", [{"seed": 4}, {"labels": ["none", "glioma"]}, {"step": 9}])
def test_metadata_that_says_otherwise_is_refused(
    judge: Judge, archive: Archive, header: dict[str, object]
) -> None:
    changed = archive.with_tensors({}, **header)
    changed.changes = archive.header()
    error = _refusal(judge, changed.bytes())
    assert (error.code, "different things" in error.detail) == ("weights_unusable", True)


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {METADATA_KEY: "{"}])
def test_weights_without_our_metadata_are_refused(
    judge: Judge, archive: Archive, metadata: dict[str, str] | None
) -> None:
    changed = Archive(save(archive.tensors, metadata), changes=archive.header())
    error = _refusal(judge, changed.bytes())
    assert (error.code, "metadata" in error.detail) == ("weights_unusable", True)


class _Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (exec, ("raise SystemExit('it was run')",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "truncated", "long header", "text"])
def test_weights_that_are_no_safetensors_are_refused_and_not_run(
    judge: Judge, archive: Archive, kind: str
) -> None:
    buffer = io.BytesIO()
    torch.save({BIAS: torch.zeros(3)}, buffer)
    size = len(archive.weights)
    content = {
        "pickle": pickle.dumps(_Bomb()).ljust(size, b"\0"),
        "torch": buffer.getvalue().ljust(size, b"\0"),
        "truncated": archive.weights[:-4],
        "long header": (2**63).to_bytes(8, "little") + archive.weights[8:],
        "text": b"a" * size,
    }[kind]
    changed = Archive(content, changes=archive.header())
    changed.changes["value_count"] = sum(one.numel() for one in archive.tensors.values())
    assert _refusal(judge, changed.bytes()).code == "weights_unusable"


@pytest.mark.parametrize(
    "files",
    [
        {"model.pt": b"x"},
        {"../config.json": b"{}"},
        {"/etc/passwd": b"x"},
        {"sub/config.json": b"{}"},
        {"__MACOSX/x": b""},
    ],
)
def test_any_other_file_is_refused_and_not_named(
    judge: Judge, archive: Archive, files: dict[str, bytes], tmp_path: Path
) -> None:
    archive.files = files
    error = _refusal(judge, archive.bytes())
    assert error.code == "unsupported_archive"
    assert not any(name in error.detail for name in files if name != "sub/config.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["content"]


def test_file_that_is_there_twice_is_refused(judge: Judge, archive: Archive) -> None:
    out = io.BytesIO(archive.bytes())
    with zipfile.ZipFile(out, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(CARD, b"")
    assert _refusal(judge, out.getvalue()).code == "unsupported_archive"


def test_missing_file_is_refused(judge: Judge, archive: Archive) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(DESCRIPTION, b"{}")
    assert _refusal(judge, out.getvalue()).code == "unsupported_archive"


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"PK\x05\x06" + bytes(18), b"GIF89a"])
def test_what_is_no_zip_is_refused(judge: Judge, content: bytes) -> None:
    assert _refusal(judge, content).code == "unsupported_archive"


def test_truncated_archive_is_refused(judge: Judge, archive: Archive) -> None:
    whole = archive.bytes()
    for share in (0.1, 0.5, 0.99):
        error = _refusal(judge, whole[: int(len(whole) * share)])
        assert error.code == "unsupported_archive"


def test_bomb_is_refused(judge: Judge, archive: Archive) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(WEIGHTS, bytes(64 << 20))
        file.writestr(DESCRIPTION, json.dumps(archive.description()))
    error = _refusal(judge, out.getvalue())
    assert (error.code, "bomb" in error.detail) == ("unsupported_archive", True)


def test_many_files_are_refused_at_once(judge: Judge) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for number in range(5000):
            file.writestr(f"{number}", b"")
    assert _refusal(judge, out.getvalue()).code == "too_many_entries"


def test_long_text_is_refused(judge: Judge, archive: Archive) -> None:
    archive.files = {CARD: b"a" * (admission.MAX_TEXT_BYTES + 1)}
    assert _refusal(judge, archive.bytes()).code == "archive_too_large"


def test_asked_to_stop_it_stops(tmp_path: Path, archive: Archive, recorder: Any) -> None:
    (tmp_path / "content").write_bytes(archive.bytes())
    with pytest.raises(Stopped):
        admit(tmp_path, ImportSpec(), recorder(stop_at=1))
