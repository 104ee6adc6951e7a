"""Whether this process is still planning a run, or at work on its steps.

While a run is planned every month is asked about at once, so a store in the cloud may answer from one listing. A step
must ask afresh: another machine may have published what its own plan took for missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

#: How long a plan believes what it read.
_BELIEVED_S = 10.0

_T = TypeVar("_T")
_at_work: int | None = None
_changed_at = float("-inf")


def step_begins() -> None:
    """From here on this process works; a process that is forked from it plans until it begins a step itself."""
    global _at_work
    _at_work = os.getpid()


def planning() -> bool:
    """Whether no step has begun in this very process."""
    return _at_work != os.getpid()


def work_was_done() -> None:
    """Forget what was read so far: steps of other processes have changed it."""
    global _changed_at
    _changed_at = time.monotonic()


def recent(read_at: float) -> bool:
    """Whether what was read at this moment is still good enough for a plan."""
    return read_at > _changed_at and time.monotonic() - read_at < _BELIEVED_S


class TtlCache(Generic[_T]):
    """What was read last; while a run is planned it is believed for a moment, else it is read anew."""

    def __init__(self) -> None:
        self._last: tuple[float, _T] | None = None

    def get(self, read: Callable[[], _T]) -> _T:
        """The last answer, or a new one."""
        if planning() and self._last and recent(self._last[0]):
            return self._last[1]
        now = time.monotonic()
        answer = read()
        self._last = now, answer
        return answer

    def forget(self) -> None:
        """Believe nothing: something was changed."""
        self._last = None
