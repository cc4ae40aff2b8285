"""What an encoder of the operator's may be, and everything that it may not."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models.config import EncoderConfig
from models.metrics.spaces import onnx_file, onnx_space
from models.metrics.spaces.encoder import EncoderError
from models.metrics.spaces.onnx_space import OnnxSpace
from models.metrics.spaces.space import features

SIDE = 16
Shape = Sequence[int | str]
INPUT: Shape = ("N", 1, SIDE, SIDE)
WEIGHTS = np.random.default_rng(0).normal(0, 1, (4, 1, 3, 3)).astype(np.float32)


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    made = helper.make_node(kind, inputs.split(), outputs.split())
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return made


USUAL = (node("Conv", "x w", "h"), node("GlobalAveragePool", "h", "m"), node("Flatten", "m", "y"))


def model(
    nodes: Sequence[onnx.NodeProto] = USUAL,
    shape: Shape = INPUT,
    kind: int = TensorProto.FLOAT,
    opsets: Sequence[tuple[str, int]] = (("", 17),),
    of_output: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "encoder",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", of_output, None)],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    imported = [helper.make_opsetid(domain, number) for domain, number in opsets]
    return helper.make_model(graph, opset_imports=imported, ir_version=8)


def configured(data: bytes, channels: int = 1) -> EncoderConfig:
    return EncoderConfig.model_validate(described(data, channels))


def described(data: bytes, channels: int = 1) -> dict[str, object]:
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "channels": channels,
        "input_px": SIDE,
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
    }


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., OnnxSpace]:
    """Write a model and open it as the one that was pinned."""

    def open_it(made: onnx.ModelProto | bytes, channels: int = 1, limit_s: float = 60) -> OnnxSpace:
        data = made if isinstance(made, bytes) else made.SerializeToString()
        path = tmp_path / "own.onnx"
        path.write_bytes(data)
        return OnnxSpace(path, "own", configured(data, channels), limit_s)

    return open_it


def test_it_computes_what_torch_does(opened: Callable[..., OnnxSpace]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, SIDE, SIDE), np.uint8)
    x = (torch.from_numpy(images)[:, None] / 255 - 0.5) / 0.25
    expected = torch.nn.functional.conv2d(x, torch.from_numpy(WEIGHTS)).mean((2, 3))
    np.testing.assert_allclose(features(opened(model()), images), expected, atol=1e-5)


def test_its_name_says_which_file_it_is(opened: Callable[..., OnnxSpace]) -> None:
    digest = hashlib.sha256(model().SerializeToString()).hexdigest()
    assert opened(model()).name == f"onnx:own@{digest[:12]}"


def test_images_are_resized_and_given_three_channels(opened: Callable[..., OnnxSpace]) -> None:
    pooled = [node("GlobalAveragePool", "x", "m"), node("Flatten", "m", "y")]
    space = opened(model(pooled, ("N", 3, "H", "W")), channels=3)
    found = features(space, np.full((2, 64, 64), 255, np.uint8))
    np.testing.assert_allclose(found, np.full((2, 3), 2), atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Identity", "x", "y")], r"gives \(4, 1, 16, 16\) for 4 images"),
        ([node("ReduceMean", "x", "y", axes=[0, 1], keepdims=0)], "for 4 images"),
        ([*USUAL[:2], node("Flatten", "m", "f"), node("Sqrt", "f", "y")], "not finite"),
        ([*USUAL[:2], node("Flatten", "m", "f"), node("Sub", "f f", "y")], "all images alike"),
        (
            [
                *USUAL[:2],
                node("Flatten", "m", "f"),
                node("ReduceMean", "f", "c", axes=[0]),
                node("Sub", "f c", "y"),
            ],
            "by the others of its batch",
        ),
        (
            [
                *USUAL[:2],
                node("Flatten", "m", "f"),
                node("RandomNormalLike", "f", "r"),
                node("Add", "f r", "y"),
            ],
            "in two ways",
        ),
        ([node("NoSuchOperator", "x", "y")], "cannot be opened"),
        ([node("Reshape", "x w", "y")], "cannot be opened"),
    ],
    ids=[
        "rank",
        "rows",
        "not finite",
        "constant",
        "of the batch",
        "random",
        "unknown",
        "broken",
    ],
)
def test_what_does_not_describe_images_is_refused(
    opened: Callable[..., OnnxSpace], nodes: list[onnx.NodeProto], reason: str
) -> None:
    with pytest.raises(EncoderError, match=reason):
        opened(model(nodes))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((1, 1, SIDE, SIDE), TensorProto.FLOAT),
        (("N", 3, SIDE, SIDE), TensorProto.FLOAT),
        (("N", 1, SIDE, 2 * SIDE), TensorProto.FLOAT),
        (("N", SIDE * SIDE), TensorProto.FLOAT),
    ],
    ids=["fixed batch", "channels", "size", "rank"],
)
def test_other_inputs_are_refused(
    opened: Callable[..., OnnxSpace], shape: Shape, kind: int
) -> None:
    with pytest.raises(EncoderError, match="the input"):
        opened(model([node("Flatten", "x", "y")], shape, kind))


def test_doubles_are_refused(opened: Callable[..., OnnxSpace]) -> None:
    doubles = TensorProto.DOUBLE
    with pytest.raises(EncoderError, match=r"the input is a tensor\(double\)"):
        opened(model([node("Flatten", "x", "y")], kind=doubles, of_output=doubles))


def test_what_fails_on_images_is_refused(opened: Callable[..., OnnxSpace]) -> None:
    beyond = numpy_helper.from_array(np.array([10**6], np.int64))
    last = [helper.make_node("Constant", [], ["i"], value=beyond), node("Gather", "f i", "y")]
    last[1].attribute.append(helper.make_attribute("axis", 1))
    with pytest.raises(EncoderError, match="failed"):
        opened(model([node("Flatten", "x", "f"), *last]))


def test_other_outputs_are_refused(opened: Callable[..., OnnxSpace]) -> None:
    nodes = [node("Flatten", "x", "f"), node("Cast", "f", "y", to=TensorProto.DOUBLE)]
    with pytest.raises(EncoderError, match="does not give float32"):
        opened(model(nodes, of_output=TensorProto.DOUBLE))


def test_a_changing_width_is_refused(opened: Callable[..., OnnxSpace]) -> None:
    """As many features as there are images in the batch."""
    nodes = [
        node("Flatten", "x", "f"),
        node("Transpose", "f", "t", perm=[1, 0]),
        node("MatMul", "f t", "y"),
    ]
    with pytest.raises(EncoderError, match="now 4, now 1 features"):
        opened(model(nodes))


def test_two_outputs_are_refused(opened: Callable[..., OnnxSpace]) -> None:
    made = model()
    made.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
    with pytest.raises(EncoderError, match="2 outputs"):
        opened(made)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(model().SerializeToString())
    with pytest.raises(EncoderError, match="SHA-256"):
        OnnxSpace(tmp_path / "own.onnx", "own", configured(b"another"))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be read"):
        OnnxSpace(tmp_path / "own.onnx", "own", configured(b""))


def test_large_file_is_refused(
    opened: Callable[..., OnnxSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_space, "LARGEST_BYTES", 100)
    with pytest.raises(EncoderError, match="larger than 100 bytes"):
        opened(model())


def test_without_the_runtime_the_extra_is_named(
    opened: Callable[..., OnnxSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_space, "find_spec", lambda _name: None)
    with pytest.raises(EncoderError, match="extra `onnx`"):
        opened(model())


def endless() -> onnx.ModelProto:
    """Add to the features for ever."""
    body = helper.make_graph(
        [node("Identity", "go", "again"), node("Identity", "sum", "more")],
        "body",
        [
            helper.make_tensor_value_info("at", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
    )
    most = numpy_helper.from_array(np.array(2**62, np.int64))
    is_on = numpy_helper.from_array(np.array(True))  # noqa: FBT003
    loop = [
        node("Constant", "", "most", value=most),
        node("Constant", "", "on", value=is_on),
        node("Loop", "most on f", "y", body=body),
    ]
    for constant in loop[:2]:
        del constant.input[:]
    return model([*USUAL[:2], node("Flatten", "m", "f"), *loop])


def test_what_takes_too_long_is_interrupted(opened: Callable[..., OnnxSpace]) -> None:
    with pytest.raises(EncoderError, match=r"more than 0\.2 s"):
        opened(endless(), limit_s=0.2)


def test_what_took_too_long_is_refused(
    opened: Callable[..., OnnxSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = opened(model())
    monkeypatch.setattr(space, "_limit_s", 0.0)
    monkeypatch.setattr(onnx_space, "_after", lambda _limit_s, _act: nullcontext())
    with pytest.raises(EncoderError, match="more than 0 s"):
        features(space, np.zeros((1, SIDE, SIDE), np.uint8))


def external(tensor: onnx.TensorProto) -> None:
    """Let a tensor's bytes lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "144")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def in_a_branch(inner: onnx.NodeProto) -> onnx.NodeProto:
    graph = helper.make_graph([inner], "inner", [], [])
    return node("If", "c", "y", then_branch=graph)


def as_external_constant(*, in_list: bool = False) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(WEIGHTS)
    external(tensor)
    return node("Constant", "x", "y", **({"value": [tensor]} if in_list else {"value": tensor}))


def as_external_sparse() -> onnx.NodeProto:
    values = numpy_helper.from_array(WEIGHTS.ravel()[:2])
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 1])), [36])
    external(sparse.values)
    return node("Constant", "x", "y", sparse_value=sparse)


def foreign() -> onnx.NodeProto:
    return helper.make_node("Own", ["x"], ["y"], domain="com.example")


@pytest.mark.parametrize(
    "inner",
    [
        as_external_constant(),
        as_external_constant(in_list=True),
        as_external_sparse(),
        foreign(),
        in_a_branch(as_external_constant()),
        in_a_branch(in_a_branch(foreign())),
    ],
    ids=["constant", "list", "sparse", "domain", "constant in a branch", "domain two deep"],
)
def test_forbidden_nodes_are_found(inner: onnx.NodeProto) -> None:
    with pytest.raises(onnx_file.ForbiddenError, match=r"outside its file|not standard"):
        onnx_file.inspect(model([inner]).SerializeToString())


def test_external_weights_are_refused_although_they_are_there(
    opened: Callable[..., OnnxSpace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    made = model()
    external(made.graph.initializer[0])
    with pytest.raises(EncoderError, match="outside its file"):
        opened(made)


def test_sparse_weights_in_the_file_are_allowed() -> None:
    values = numpy_helper.from_array(WEIGHTS.ravel()[:2])
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 1])), [36])
    made = model()
    made.graph.sparse_initializer.append(sparse)
    onnx_file.inspect(made.SerializeToString())


def test_external_sparse_weights_are_refused() -> None:
    made = model()
    made.graph.sparse_initializer.append(as_external_sparse().attribute[0].sparse_tensor)
    with pytest.raises(onnx_file.ForbiddenError, match="outside its file"):
        onnx_file.inspect(made.SerializeToString())


def test_other_operator_sets_are_refused(opened: Callable[..., OnnxSpace]) -> None:
    with pytest.raises(EncoderError, match=r"'com\.microsoft' are not standard"):
        opened(model(opsets=[("", 17), ("com.microsoft", 1)]))


def test_functions_are_refused(opened: Callable[..., OnnxSpace]) -> None:
    made = model()
    made.functions.add().name = "f"
    with pytest.raises(EncoderError, match="functions"):
        opened(made)


def test_training_graphs_are_refused(opened: Callable[..., OnnxSpace]) -> None:
    made = model()
    made.training_info.add()
    with pytest.raises(EncoderError, match="training graph"):
        opened(made)


def test_graphs_without_end_are_refused() -> None:
    inner = foreign()
    for _ in range(20):
        inner = in_a_branch(inner)
    with pytest.raises(onnx_file.ForbiddenError, match="deep"):
        onnx_file.inspect(model([inner]).SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x05\x95junk",  # a pickle
        b"\x18\x00\x00\x00ORTM",  # the runtime's own format
        b"\x38\x01",  # a number for a graph
        b"\x3b",  # a group
        b"\x3a\x7f",  # longer than the file
        b"\xff" * 11,  # a number without end
        b"\x02\x00",  # field 0
        b"\xea\x80\x80\x80\x40\x00",  # field 13 with a bit more than there are
        b"\x42\x02\x08\x01\x3a\x00",  # a number for a domain
    ],
)
def test_other_bytes_are_no_model(data: bytes) -> None:
    with pytest.raises(onnx_file.ForbiddenError):
        onnx_file.inspect(data)


def test_fixed_width_fields_are_passed_over() -> None:
    onnx_file.inspect(b"\x3a\x00" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4))


def test_it_is_loaded_with_the_description_beside_it(tmp_path: Path) -> None:
    data = model().SerializeToString()
    (tmp_path / "own.onnx").write_bytes(data)
    with pytest.raises(EncoderError, match=r"own\.json cannot be read"):
        OnnxSpace.load(tmp_path / "own.onnx")
    (tmp_path / "own.json").write_text('{"channels": 2}')
    with pytest.raises(EncoderError, match=r"own\.json is no description: sha256: Field required"):
        OnnxSpace.load(tmp_path / "own.onnx")
    (tmp_path / "own.json").write_text(configured(data).model_dump_json())
    assert OnnxSpace.load(tmp_path / "own.onnx").name.startswith("onnx:own@")


@pytest.mark.parametrize("name", ["-own", "Own", "o" * 41, "two words"])
def test_names_are_short_and_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(EncoderError, match="no name"):
        OnnxSpace.load(tmp_path / f"{name}.onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "ABC"},
        {"channels": 2, "mean": [0, 0], "std": [1, 1]},
        {"mean": [0, 0, 0]},
        {"std": [0]},
        {"mean": [float("nan")]},
        {"input_px": 4096},
        {"more": 1},
    ],
)
def test_wrong_descriptions_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        EncoderConfig.model_validate(described(b"") | changes)
