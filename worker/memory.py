"""Whether the kernel killed a process because memory was short."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_SYSTEM = Path("/proc/vmstat")


def oom_kill_count() -> int | None:
    """Return how many processes the kernel has killed for memory; None if it does not say.

    Counted in our control group (version 2, which a container has of its own), else on the whole
    machine: `oom_kill` of memory.events and of /proc/vmstat.
    """
    for path in (*_own_groups(), _SYSTEM):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None


def _own_groups() -> list[Path]:
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return []
    own = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return [_CGROUPS / group / "memory.events" for group in own]
