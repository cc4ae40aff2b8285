"""Become a child that cannot outlive its parent: `python -I -S guard.py PARENT ACCOUNT PROGRAM...`.

The program replaces this script by `exec`, so it keeps the process id that the parent knows. Before
that, the kernel is told to send it SIGKILL when the parent is gone, and a child of root is made an
ordinary user (ACCOUNT is `uid:gid:capability`, or `-` to stay who we are).

It is a script, and needs only the standard library, because between `fork` and `exec` of a threaded
parent Python code is not safe to run (`preexec_fn`), and because `setpriv` is not on every machine
and forgets the signal's race: a parent that died before `prctl` would never be noticed.
"""

import ctypes
import os
import signal
import sys

# linux/prctl.h, linux/securebits.h and linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, argument: int, third: int = 0) -> None:
    longs = (ctypes.c_ulong(value) for value in (argument, third, 0, 0))
    _call("prctl", option, *longs)


def _keep_only(capability: int) -> None:
    # Two words each of effective, permitted, inheritable, low word first: capset(2), version 3.
    low, high = (1 << capability) & 0xFFFFFFFF, (1 << capability) >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    _call("capset", ctypes.byref(header), ctypes.byref(data))
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _become(uid: int, gid: int, capability: int) -> None:
    # Without this bit access(2) ignores the capability of a user who is not root, and PostgreSQL
    # asks access(2) whether its own program is there.
    _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _keep_only(capability)


def main(arguments: list[str]) -> None:
    """Drop privileges, tie this process to its parent and become the program."""
    parent, account, *program = arguments
    if account != "-":
        uid, gid, capability = map(int, account.split(":"))
        _become(uid, gid, capability)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # A change of user clears the death signal, so it comes last.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    try:
        os.execvp(program[0], program)  # noqa: S606 - no shell is wanted  # nosec B606
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
