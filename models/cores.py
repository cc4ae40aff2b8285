"""Count the CPU cores that this process may use; no torch.

Threads beyond them wait for each other: a training on two threads of which one is kept from running
is six times slower than on one. What other users of the machine take is not looked at: it is
another number in the next minute, and whoever shares a machine knows better.
"""

import os
from pathlib import Path

_ROOT, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable(root: Path = _ROOT, mine: Path = _MINE) -> int:
    """Return the cores of the scheduler's mask, or fewer by the quota of the cgroup; at least 1.

    A quota (`cpu.max` of cgroup v2, of this group and those around it) is rounded down.
    """
    cores = len(os.sched_getaffinity(0))
    return max(int(min([cores, *_quotas(root, mine)])), 1)


def _quotas(root: Path, mine: Path) -> list[float]:
    """Return the quotas in cores; none where there is no cgroup v2 or no limit."""
    lines = mine.read_text(encoding="utf-8").splitlines() if mine.exists() else []
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = root / group
    found = []
    for one in (folder, *folder.parents):
        file = one / "cpu.max"
        if one.is_relative_to(root) and file.exists():
            quota, period = file.read_text(encoding="ascii").split()
            if quota != "max":
                found.append(int(quota) / int(period))
    return found
