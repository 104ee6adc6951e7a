"""The processes of recorded runs, which have only their numbers. Numbers are used again, so age and command count, too.

On Linux their details are in /proc; elsewhere the program `ps` prints them.
"""

from __future__ import annotations

import math
import os
import subprocess
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

#: A process that is younger than its run by more than this (a clock is set, too) is another one.
_TOLERANCE_S = 10.0


def is_alive(process: int, began: str) -> bool:
    """Whether the process exists, and existed at that time (ISO format)."""
    if not isinstance(process, int) or process <= 0:  # For signals, these are groups of processes.
        return False
    with suppress(PermissionError):  # It exists, and belongs to another user.
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    try:
        since_s = (datetime.now(timezone.utc) - datetime.fromisoformat(began)).total_seconds()
    except (ValueError, TypeError):
        return False
    return age_s(process) > since_s - _TOLERANCE_S


def age_s(process: int) -> float:
    """How long the process has existed; infinite if that is unknown."""
    with suppress(OSError):
        # The name of the program, in parentheses, may have spaces.
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        return float(Path("/proc/uptime").read_text().split()[0]) - int(ticks) / os.sysconf("SC_CLK_TCK")
    # Such as 02:11, 01:02:11 or 3-01:02:11.
    days, _, clock = _ps("etime=", process).rpartition("-")
    with suppress(ValueError):
        seconds = 0
        for part in clock.split(":"):
            seconds = seconds * 60 + int(part)
        return int(days or 0) * 86_400 + seconds
    return math.inf


def command(process: int) -> str:
    """The command line of the process; empty if it is unknown."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return _ps("command=", process)


def _ps(field: str, process: int) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        words = ["ps", "-o", field, "-p", str(process)]
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=True).stdout.strip()  # noqa: S603
    return ""
