"""Children that do what a hostile decoder might; what the parent says, and that the next goes on.

Each child runs in the real fence; only the decoding is replaced, by what the file's words say.
"""

import ctypes
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data import decoders, sandbox
from models.data.decoders import DEADLY, ENDLESS, TOO_LARGE, UNFORESEEN, Decoders
from models.data.decoding import decode
from models.data.outcomes import (
    DecodeConfig,
    Decoded,
    FileTask,
    Opened,
    Outcome,
    Role,
    Task,
    size_bytes,
)

CONFIG = DecodeConfig(1, 1, (64,))
fenced = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"),
    reason="the kernel filters no calls here",
)


def _loop() -> None:
    sandbox.allow_cpu(0)
    while True:
        pass


def _sleep() -> None:
    time.sleep(600)


def _allocate() -> None:
    bytearray(decoders.CHILD_MEMORY_BYTES)


def _recurse() -> None:
    _recurse()


def _crash() -> None:
    ctypes.string_at(0)


def _fork() -> None:
    os.fork()


def _write(path: str) -> None:
    with Path(path).open("wb") as file:
        file.write(bytes(1 << 20))


def _look_at_own_threads() -> None:
    states = [one.read_text() for one in Path("/proc/self/task").glob("*/status")]
    assert len(states) > 1, "one of them waits for the end of the parent"
    assert all("Seccomp:\t2" in state for state in states)


DEEDS: dict[str, Callable[[], object]] = {
    "looks at its threads": _look_at_own_threads,
    "loops": _loop,
    "sleeps": _sleep,
    "allocates": _allocate,
    "recurses": _recurse,
    "crashes": _crash,
    "aborts": os.abort,
    "exits": lambda: os._exit(0),
    "forks": _fork,
    "connects": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "runs a program": lambda: subprocess.run(["/bin/true"], check=False),
    "removes": lambda: Path(__file__).unlink(),
    "renames": lambda: Path(__file__).rename("/tmp/moved"),  # noqa: S108 - it cannot
    "makes a folder": lambda: Path("/tmp/made").mkdir(),  # noqa: S108 - it cannot
    "kills its parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kills everyone": lambda: os.kill(-1, signal.SIGKILL),
}


def do(task: Task) -> Outcome:
    """Do what the file says."""
    assert isinstance(task, FileTask)
    deed, _, argument = task.data.decode().partition(": ")
    try:
        if deed == "writes":
            _write(argument)
        elif deed != "fine":
            DEEDS[deed]()
    except PermissionError:
        return "forbidden"
    except MemoryError:
        return "too large to decode"
    return deed


def do_batch(
    tasks: list[Task], config: DecodeConfig, room_bytes: int | None = None
) -> list[Outcome | None]:
    if any(task.data == b"cannot be sent" for task in tasks if isinstance(task, FileTask)):
        raise MemoryError
    return [do(task) for task in tasks]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Outcome | None]]:
    """Decode files that say what they do, two to a batch."""
    monkeypatch.setattr(decoders, "_decode_batch", do_batch)
    monkeypatch.setattr(decoders, "BATCH_FILES", 2)

    def run(*deeds: str, workers: int = 1) -> list[Outcome | None]:
        tasks: list[tuple[int, Task | None]] = [
            (at, FileTask(deed.encode())) for at, deed in enumerate(deeds)
        ]
        with Decoders[int](CONFIG, workers) as pool:
            found = list(pool.run(tasks))
        assert [ticket for ticket, _ in found] == list(range(len(deeds)))
        return [outcome for _, outcome in found]

    return run


@pytest.mark.parametrize("deed", ["crashes", "aborts", "exits"])
def test_a_child_that_dies_costs_one_file(
    hostile: Callable[..., list[Outcome | None]], deed: str
) -> None:
    assert hostile("fine", deed, "fine", "fine") == ["fine", DEADLY, "fine", "fine"]


def test_a_child_that_uses_up_its_share_of_a_core_is_ended(
    hostile: Callable[..., list[Outcome | None]],
) -> None:
    assert hostile("fine", "loops", "fine", "fine") == ["fine", DEADLY, "fine", "fine"]


def test_batches_behind_an_endless_file_are_not_lost(
    hostile: Callable[..., list[Outcome | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are more than the pool has begun with: what it had not is cancelled."""
    monkeypatch.setattr(decoders, "BATCH_FILES", 1)
    monkeypatch.setattr(decoders, "FILE_TIMEOUT_S", 6.0)
    assert hostile("fine", "sleeps", *["fine"] * 8) == ["fine", ENDLESS, *["fine"] * 8]


def test_too_much_memory_is_refused(hostile: Callable[..., list[Outcome | None]]) -> None:
    assert hostile("allocates", "fine") == ["too large to decode", "fine"]


def test_an_answer_for_which_there_is_no_memory_costs_one_file(
    hostile: Callable[..., list[Outcome | None]],
) -> None:
    assert hostile("fine", "cannot be sent", "fine") == ["fine", TOO_LARGE, "fine"]


@fenced
def test_what_no_decoder_needs_is_forbidden(
    hostile: Callable[..., list[Outcome | None]], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    deeds = [
        "connects",
        "forks",
        "runs a program",
        "removes",
        "renames",
        "makes a folder",
        "kills its parent",
        "kills everyone",
        f"writes: {target}",
    ]
    found = hostile(*deeds, "fine")
    assert dict(zip(deeds, found[:-1], strict=True)) == dict.fromkeys(deeds, "forbidden")
    assert found[-1] == "fine"
    assert not target.exists()
    assert Path(__file__).exists()


@fenced
def test_every_thread_of_a_child_is_fenced(hostile: Callable[..., list[Outcome | None]]) -> None:
    assert hostile("looks at its threads") == ["looks at its threads"]


def test_an_error_that_nobody_thought_of_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real batch, with files on which the decoder itself cannot work."""
    monkeypatch.setattr(decoders, "BATCH_FILES", 3)
    bad = FileTask("not bytes")  # type: ignore[arg-type]
    with Decoders[int](CONFIG, 1) as pool:
        found = dict(pool.run([(0, FileTask(b"")), (1, bad), (2, FileTask(b"")), (3, None)]))
    assert found == {
        0: "the file is empty",
        1: f"{UNFORESEEN} (TypeError)",
        2: "the file is empty",
        3: None,
    }


def test_what_is_too_large_to_wait_is_decoded_in_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A volume of 50 kB may inflate to 256 MiB: a batch of them would fill the memory."""
    monkeypatch.setattr(decoders, "BATCH_FILES", 4)
    monkeypatch.setattr(decoders, "ROOM_BYTES", 80_000)
    alone: list[Task] = []
    decode_alone = Decoders._decode_alone

    def noted(pool: Decoders[int], task: Task) -> Outcome:
        alone.append(task)
        return decode_alone(pool, task)

    monkeypatch.setattr(Decoders, "_decode_alone", noted)
    small, large = FileTask(_npz(2)), FileTask(_npz(9))
    tasks = [small, large, small, small, large, FileTask(b""), large, small]
    with Decoders[int](DecodeConfig(1 << 20, 32, (64,)), 1) as pool:
        found = [outcome for _, outcome in pool.run(enumerate(tasks))]
    assert alone == [large, small, large, large]
    slices = [len(one.slices) if isinstance(one, Opened) else one for one in found]
    assert slices == [2, 9, 2, 2, 9, "the file is empty", 9, 2]


def _npz(slices: int) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, np.arange(slices * 64 * 64, dtype=np.float32).reshape(-1, 64, 64))
    return buffer.getvalue()


UNPREPARED = """
import io
from multiprocessing.context import BaseContext
BaseContext.set_forkserver_preload = lambda *_: None
from PIL import Image
from models.data.decoders import Decoders
from models.data.outcomes import DecodeConfig, FileTask
png = io.BytesIO()
Image.linear_gradient("L").save(png, "PNG")
with Decoders(DecodeConfig(1 << 20, 1, (64,)), workers=1) as decoders:
    for _, outcome in decoders.run([(0, FileTask(png.getvalue()))]):
        print(type(outcome).__name__, outcome.width)
"""


def test_children_load_what_their_server_could_not() -> None:
    """The server of forks says nothing of an import that failed."""
    command = [sys.executable, "-c", UNPREPARED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Decoded", "256"]


def test_each_kind_of_outcome_has_a_size() -> None:
    """An outcome whose size is not known could fill the memory unseen."""
    config = DecodeConfig(1 << 20, 32, (64,))
    png = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(png, "PNG")
    picture = decode(FileTask(png.getvalue()), config)
    mask = decode(FileTask(_npz(3), Role.MASK), config)
    stack = decode(FileTask(_npz(3)), config)
    assert isinstance(picture, Decoded)
    assert picture.deep
    assert size_bytes(picture) == len(picture.deep) + 64 * 64
    assert 3 * 64 * 64 // 8 < size_bytes(mask) < 3 * 64 * 64
    assert 3 * 64 * 64 * 4 < size_bytes(stack) < 4 * 64 * 64 * 4
    assert size_bytes("a reason") == 0
