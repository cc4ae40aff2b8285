"""Look through an ONNX file before anything that could act on it reads it.

A walk over the wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding)
with the field numbers of `onnx.proto` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
What is looked for is refused wherever it occurs, so a reader that takes the last of two fields and
one that merges them agree with it. The package `onnx` would do the same with 33 MB more.
"""

from collections.abc import Iterator

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

_MODEL = {"opset": 8, "graph": 7, "training": 20, "function": 25}
_GRAPH = {"node": 1, "tensor": 5, "sparse": 15}
_NODE = {"type": 4, "attribute": 5, "domain": 7}
_ATTRIBUTE = {"tensor": (5, 10), "graph": (6, 11), "sparse": (22, 23)}
_SPARSE = (1, 2)
_TENSOR = {"external": 13, "location": 14}
_OPSET_DOMAIN = 1
_DEEPEST = 16
"""Graphs within graphs."""
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10
_FIELDS = 1 << 29

Value = int | memoryview


class ForbiddenError(ValueError):
    """Raise when a file holds what no encoder needs, or is no ONNX file at all."""


def inspect(data: bytes) -> None:
    """Return when `data` is one whole model of standard operators.

    Raises:
        ForbiddenError: for data outside the file, operators of another domain, functions,
            training graphs, or bytes that are no ONNX model.
    """
    has_graph = False
    for field, value in _fields(memoryview(data)):
        if field == _MODEL["opset"]:
            for inner, domain in _fields(value):
                if inner == _OPSET_DOMAIN:
                    _check_domain(domain)
        elif field == _MODEL["graph"]:
            has_graph = True
            _check_graph(value, 0)
        elif field == _MODEL["training"]:
            raise ForbiddenError("the model has a training graph")
        elif field == _MODEL["function"]:
            raise ForbiddenError("the model has functions: export it with them inlined")
    if not has_graph:
        raise ForbiddenError("the file has no graph: it is not an ONNX model")


def _check_graph(graph: Value, depth: int) -> None:
    if depth > _DEEPEST:
        raise ForbiddenError(f"graphs lie more than {_DEEPEST} deep in each other")
    for field, value in _fields(graph):
        if field == _GRAPH["node"]:
            _check_node(value, depth)
        elif field == _GRAPH["tensor"]:
            _check_tensor(value)
        elif field == _GRAPH["sparse"]:
            _check_sparse(value)


def _check_node(node: Value, depth: int) -> None:
    for field, value in _fields(node):
        if field == _NODE["domain"]:
            _check_domain(value)
        elif field == _NODE["attribute"]:
            for inner, part in _fields(value):
                if inner in _ATTRIBUTE["tensor"]:
                    _check_tensor(part)
                elif inner in _ATTRIBUTE["sparse"]:
                    _check_sparse(part)
                elif inner in _ATTRIBUTE["graph"]:
                    _check_graph(part, depth + 1)


def _check_sparse(sparse: Value) -> None:
    for field, value in _fields(sparse):
        if field in _SPARSE:
            _check_tensor(value)


def _check_tensor(tensor: Value) -> None:
    for field, value in _fields(tensor):
        if field == _TENSOR["external"] or (field == _TENSOR["location"] and value != 0):
            raise ForbiddenError("the model keeps data outside its file")


def _check_domain(value: Value) -> None:
    name = "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")
    if isinstance(value, int) or name not in STANDARD_DOMAINS:
        raise ForbiddenError(f"operators of the domain {name[:60]!r} are not standard")


def _fields(message: Value) -> Iterator[tuple[int, Value]]:
    """Yield the number and the value of each field of a message, in the order of the bytes."""
    if isinstance(message, int):
        raise ForbiddenError("a number stands where a message belongs: not an ONNX model")
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if not 0 < field < _FIELDS:
            # Readers differ in what they make of it: some drop the bits that are too many.
            raise ForbiddenError(f"a field has the number {field}: not an ONNX model")
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield field, number
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ForbiddenError(f"wire type {kind}: not an ONNX model")
        if at + length > len(message):
            raise ForbiddenError("the file ends too early, or is not an ONNX model")
        yield field, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where the next field begins."""
    number = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follow
            return number, at + place + 1
    raise ForbiddenError("a number does not end: not an ONNX model")
