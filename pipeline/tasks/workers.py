"""How many processes a run gets when its user names no number.

In a container, the limits of its control group (version 2) count: the host's CPUs and memory are not its own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup")
#: A step takes up to 700 MB; written files count, too, until they are on the disk.
_WORKER_BYTES = 1_000_000_000
#: As many downloads and conforms may run at once, by [resources].
_MOST = 4


def default_workers() -> int:
    """One for each usable CPU and each GB of memory, but at most four."""
    return max(1, min(usable_cpus(), _memory_bytes() // _WORKER_BYTES, _MOST))


def usable_cpus() -> int:
    """The CPUs that this process may use."""
    # macOS has no affinity.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # Without a limit, the quota is "max".
        quota, period = (_CONTROL_GROUP / "cpu.max").read_text().split()
        cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def _memory_bytes() -> int:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        memory = min(memory, int((_CONTROL_GROUP / "memory.max").read_text()))
    return memory
