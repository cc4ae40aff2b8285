import io
import zipfile

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data import arrays
from models.data.rejection import Rejection

STACK = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)


def npz(**named: NDArray[np.generic]) -> bytes:
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=True, **named)
    return data.getvalue()


def read(data: bytes) -> NDArray[np.generic]:
    return arrays.read(data, 10_000, 1 << 20)


def reason(data: bytes) -> str:
    with pytest.raises(Rejection) as caught:
        read(data)
    return str(caught.value)


@pytest.mark.parametrize("name", [*arrays.NAMES, "anything"])
def test_the_only_array_is_taken(name: str) -> None:
    assert arrays.is_npz(npz(**{name: STACK}))
    assert (read(npz(**{name: STACK})) == STACK).all()


def test_the_best_name_is_taken_of_several() -> None:
    assert (read(npz(mask=STACK + 1, images=STACK, note=STACK + 2)) == STACK).all()
    assert reason(npz(a=STACK, b=STACK)) == "holds several arrays; name the slices `images`"


@pytest.mark.parametrize(
    "shaped", [STACK[0], STACK[:, None], STACK[..., None]], ids=["2-D", "N1HW", "NHW1"]
)
def test_one_channel_is_no_dimension(shaped: NDArray[np.uint16]) -> None:
    found = read(npz(images=shaped))
    assert (found == STACK[: len(found)]).all()


def test_bits_become_bytes() -> None:
    found = read(npz(mask=STACK > 99))
    assert found.dtype == np.uint8
    assert (found == (STACK > 99)).all()


@pytest.mark.parametrize("dtype", [">u2", ">i2", "<f8", "i8", "u4", "f2"])
def test_other_numbers_keep_their_values(dtype: str) -> None:
    found = read(npz(images=STACK.astype(dtype)))
    assert found.dtype.itemsize <= 4
    assert (found.astype(np.int64) == STACK).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_cannot_be_shown_are_refused(bad: float) -> None:
    values = STACK.astype(np.float64)
    values[1, 2, 3] = bad
    assert reason(npz(images=values)).startswith("has values that are NaN, infinite or beyond")


@pytest.mark.parametrize(
    "odd",
    [STACK + 1j, STACK.astype("S4"), np.zeros(9), np.zeros((2, 2, 2, 3)), np.zeros((1,) * 5)],
    ids=["complex", "text", "1-D", "colour", "5-D"],
)
def test_what_is_no_stack_is_refused(odd: NDArray[np.generic]) -> None:
    assert reason(npz(images=odd)).startswith("the array ")


def test_empty_and_too_large_are_refused() -> None:
    assert reason(npz(images=STACK[:0])).startswith("empty, or larger than")
    assert reason(npz(images=np.zeros((10, 40, 40), np.uint8))).startswith("empty, or larger")
    assert reason(npz(images=np.zeros((99, 999, 99), np.uint8))) == "inflates to over 1 MiB"


def test_nothing_is_unpickled() -> None:
    objects = np.empty(2, object)
    objects[:] = [print, print]
    assert reason(npz(images=objects)) == "damaged npz file (ValueError)"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u2', 'fortran_order': False, 'shape': (10**9, 10**9), }",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4), }",
        "{'descr': '<u2', 'fortran_order': False, }",
        "{'descr': '<q99', 'fortran_order': False, 'shape': (2, 2), }",
        "(" * 200,
        "__import__('os')",
    ],
)
def test_a_forged_header_is_refused(header: str) -> None:
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("images.npy", npy)
    assert reason(data.getvalue()).startswith(("damaged npz file", "the array ", "too large"))


def test_a_zip_of_something_else_is_no_npz() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", b"text")
    assert not arrays.is_npz(data.getvalue())
    assert not arrays.is_npz(npz(images=STACK)[:200])
    assert not arrays.is_npz(b"\x93NUMPY")
