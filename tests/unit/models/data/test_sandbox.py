"""The filter is run here, instruction by instruction, as the kernel would."""

import errno
import os
import struct

import pytest

from models.data import sandbox

ARCHITECTURE, NUMBERS = sandbox._CALLS["x86_64"]
PROGRAM = [struct.unpack("HBBI", one) for one in sandbox._program(ARCHITECTURE, NUMBERS)]
DENIED, ABSENT, ALLOWED = errno.EPERM, errno.ENOSYS, 0
READ, MMAP, EXIT = 0, 9, 231


def judge(number: int, *arguments: int, architecture: int = ARCHITECTURE) -> int:
    """Return the error of a call, 0 if it is allowed: classic BPF over `struct seccomp_data`."""
    words = [argument & ((1 << 64) - 1) for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *words)
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = PROGRAM[at]
        at += 1
        if code == 0x20:  # load a word
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:  # return
            assert value in (0x7FFF0000, 0x00050000 | DENIED, 0x00050000 | ABSENT)
            return 0 if value == 0x7FFF0000 else value & 0xFFFF
        elif code == 0x15:  # jump if equal
            at += if_true if accumulator == value else if_false
        elif code == 0x35:  # jump if not less
            at += if_true if accumulator >= value else if_false
        else:
            assert code == 0x45  # jump if any bit
            at += if_true if accumulator & value else if_false


@pytest.mark.parametrize("number", [READ, MMAP, EXIT])
def test_what_decoders_need_is_allowed(number: int) -> None:
    assert judge(number) == ALLOWED


@pytest.mark.parametrize(
    "name",
    sorted(
        set(NUMBERS)
        - {"open", "openat", "openat2", "clone", "clone3", "kill", "tkill", "tgkill", "prlimit64"}
    ),
)
def test_named_calls_are_denied(name: str) -> None:
    assert judge(NUMBERS[name]) == DENIED


@pytest.mark.parametrize(
    "number",
    [
        *(41, 53, 57, 58, 59, 62, 82, 83, 84, 87, 101, 129, 165, 200, 234, 258, 259, 272, 297),
        *(298, 308, 310, 321, 322, 323, 424, 425, 434, 438),
    ],
)
def test_calls_that_reach_outside_are_denied_by_number(number: int) -> None:
    """From arch/x86/entry/syscalls/syscall_64.tbl, lest one is left out of the names."""
    assert judge(number, 1) == DENIED


def test_another_architecture_is_denied() -> None:
    assert judge(READ, architecture=0x40000003) == DENIED  # i386


def test_the_second_numbering_of_the_same_architecture_is_denied() -> None:
    """The x32 calls have bit 30 set: number 41 would be a socket there too."""
    assert judge(READ | 0x40000000) == DENIED
    assert judge(NUMBERS["socket"] | 0x40000000) == DENIED


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_WRONLY | os.O_APPEND]
)
def test_files_are_opened_for_reading_alone(flags: int) -> None:
    assert judge(NUMBERS["open"], 1, os.O_RDONLY | os.O_CLOEXEC) == ALLOWED
    assert judge(NUMBERS["openat"], 1, 1, os.O_RDONLY | os.O_CLOEXEC) == ALLOWED
    assert judge(NUMBERS["open"], 1, flags) == DENIED
    assert judge(NUMBERS["openat"], 1, 1, flags) == DENIED
    assert judge(NUMBERS["openat2"], 1, 1, 0) == ABSENT


def test_threads_may_start_and_processes_may_not() -> None:
    assert judge(NUMBERS["clone"], 0x10000 | 0x100) == ALLOWED
    assert judge(NUMBERS["clone"], 17) == DENIED  # SIGCHLD: fork
    assert judge(NUMBERS["clone3"], 0) == ABSENT


@pytest.mark.parametrize("name", ["kill", "tkill", "tgkill"])
def test_a_process_may_end_nobody_but_itself(name: str) -> None:
    assert judge(NUMBERS[name], os.getpid(), 6) == ALLOWED
    for other in (os.getppid(), 1, 0, -1, -os.getpid()):
        assert judge(NUMBERS[name], other, 9) == DENIED


def test_a_process_may_limit_nobody_but_itself() -> None:
    assert judge(NUMBERS["prlimit64"], 0) == ALLOWED
    assert judge(NUMBERS["prlimit64"], os.getppid()) == DENIED


def test_both_architectures_deny_the_same() -> None:
    """What AArch64 has no call for, it does by the newer one of x86-64."""
    old = {
        *("fork", "vfork", "rename", "mkdir", "rmdir", "creat", "link", "unlink", "symlink"),
        *("chmod", "chown", "lchown", "mknod", "open"),
    }
    assert set(NUMBERS) - old == set(sandbox._CALLS["aarch64"][1])
