"""Fence in a process that decodes what a stranger sent: Linux resource limits and seccomp.

The limits hold everywhere. The filter (seccomp(2), BPF) holds on x86-64 and AArch64 where the
kernel allows it: no sockets, no other programs or processes, no file opened for writing, nothing
made, renamed or removed, no signal to others, no debugging of them. What was asked for and is
forbidden fails with EPERM, which to a decoder is a damaged file.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_JUMP_NOT_LESS = 0x35
_X32 = 0x40000000
"""Set in the numbers of a second set of calls of x86-64, which would pass by the list."""
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD = 0x10000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_OF_ITSELF = ("kill", "tkill", "tgkill")
OPEN_FILES = 64

# audit architecture, {call: number}: from the kernel's asm/unistd.h.
_CALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49,
            "listen": 50, "socketpair": 53, "fork": 57, "vfork": 58, "execve": 59, "ptrace": 101,
            "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87,
            "symlink": 88, "chmod": 90, "chown": 92, "truncate": 76, "mknod": 133, "chroot": 161,
            "mount": 165, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
            "fchmodat": 268, "accept4": 288, "process_vm_readv": 310, "process_vm_writev": 311,
            "renameat2": 316, "bpf": 321, "execveat": 322, "io_uring_setup": 425,
            "pidfd_open": 434, "open": 2, "openat": 257, "clone": 56, "clone3": 435,
            "openat2": 437, "kill": 62, "tkill": 200, "tgkill": 234, "prlimit64": 302,
            "lchown": 94, "rt_sigqueueinfo": 129, "setxattr": 188, "lsetxattr": 189,
            "add_key": 248, "request_key": 249, "keyctl": 250, "mkdirat": 258, "mknodat": 259,
            "fchownat": 260, "unshare": 272, "utimensat": 280, "rt_tgsigqueueinfo": 297,
            "perf_event_open": 298, "sendmmsg": 307, "setns": 308, "userfaultfd": 323,
            "pidfd_send_signal": 424, "pidfd_getfd": 438, "fchmodat2": 452,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "accept": 202,
            "connect": 203, "sendto": 206, "sendmsg": 211, "accept4": 242, "execve": 221,
            "execveat": 281, "ptrace": 117, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36,
            "linkat": 37, "renameat": 38, "renameat2": 276, "truncate": 45, "fchmodat": 53,
            "mknodat": 33, "chroot": 51, "mount": 40, "process_vm_readv": 270,
            "process_vm_writev": 271, "bpf": 280, "io_uring_setup": 425, "pidfd_open": 434,
            "openat": 56, "clone": 220, "clone3": 435, "openat2": 437, "kill": 129, "tkill": 130,
            "tgkill": 131, "prlimit64": 261, "rt_sigqueueinfo": 138, "setxattr": 5, "lsetxattr": 6,
            "add_key": 217, "request_key": 218, "keyctl": 219, "fchownat": 54, "unshare": 97,
            "utimensat": 88, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "sendmmsg": 269,
            "setns": 268, "userfaultfd": 282, "pidfd_send_signal": 424, "pidfd_getfd": 438,
            "fchmodat2": 452,
        },
    ),
}  # fmt: skip


def enter(memory_bytes: int) -> bool:
    """Limit this process for good; return whether the kernel filters its calls too.

    `memory_bytes` bounds the address space, unless whoever started it has set a tighter limit.
    """
    _soft, allowed = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY:
        memory_bytes = min(memory_bytes, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    return _filter_calls()


def allow_cpu(seconds: float) -> None:
    """Let the process use `seconds` of a core from now on; past them the kernel ends it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = usage.ru_utime + usage.ru_stime
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used_s + seconds) + 1, hard))


def _filter_calls() -> bool:
    calls = _CALLS.get(platform.machine())
    if sys.platform != "linux" or calls is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    program = _program(*calls)
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    )
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def _program(architecture: int, numbers: dict[str, int]) -> list[bytes]:
    """Return the BPF instructions, each `struct sock_filter`."""
    special = {"open", "openat", "openat2", "clone", "clone3", *_OF_ITSELF, "prlimit64"}
    deny = _ERRNO | errno.EPERM
    program = [
        _step(_LOAD_WORD, _ARCH_AT),
        _step(_JUMP_EQUAL, architecture, 1, 0),
        _step(_RETURN, deny),
        _step(_LOAD_WORD, _NUMBER_AT),
        _step(_JUMP_NOT_LESS, _X32, 0, 1),
        _step(_RETURN, deny),
    ]
    for name, number in numbers.items():
        if name not in special:
            program += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, deny)]
    # Threads are made by clone with flags that can be seen; libc goes back to it without clone3.
    for name in ("clone3", "openat2"):
        program += [
            _step(_JUMP_EQUAL, numbers[name], 0, 1),
            _step(_RETURN, _ERRNO | errno.ENOSYS),
        ]
    for name, argument in (("open", 1), ("openat", 2)):
        if name in numbers:
            program += [
                _step(_JUMP_EQUAL, numbers[name], 0, 4),
                _step(_LOAD_WORD, _FIRST_ARGUMENT_AT + 8 * argument),
                _step(_JUMP_ANY_BIT, _WRITES, 0, 1),
                _step(_RETURN, deny),
                _step(_RETURN, _ALLOW),
            ]
    program += [
        _step(_JUMP_EQUAL, numbers["clone"], 0, 4),
        _step(_LOAD_WORD, _FIRST_ARGUMENT_AT),
        _step(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0),
        _step(_RETURN, deny),
        _step(_RETURN, _ALLOW),
    ]
    # A process may end itself (abort) and limit itself (whom it calls 0), and nobody else.
    own = [(name, os.getpid()) for name in _OF_ITSELF]
    for name, process in [*own, ("prlimit64", 0)]:
        program += [
            _step(_JUMP_EQUAL, numbers[name], 0, 4),
            _step(_LOAD_WORD, _FIRST_ARGUMENT_AT),
            _step(_JUMP_EQUAL, process, 1, 0),
            _step(_RETURN, deny),
            _step(_RETURN, _ALLOW),
        ]
    return [*program, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
