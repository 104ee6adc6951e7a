"""Whether this process is planning a run or running a step.

A plan asks about all months, so a remote store or warehouse may answer it from one listing or query. A step must ask
again: another machine may have published what was missing when the run was planned.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_LIFETIME_S = 10.0

_T = TypeVar("_T")
_at_work: int | None = None
_changed_at = float("-inf")


def step_begins() -> None:
    """Mark this process as running a step; a process forked from it plans until it begins a step itself."""
    global _at_work
    _at_work = os.getpid()


def planning() -> bool:
    """Whether no step has begun in this process."""
    return _at_work != os.getpid()


def work_was_done() -> None:
    """Expire every cache: steps of other processes have changed lake or warehouse."""
    global _changed_at
    _changed_at = time.monotonic()


class TtlCache(Generic[_T]):
    """The last value, reused for some seconds while a run is planned."""

    def __init__(self) -> None:
        self._last: tuple[float, _T] | None = None

    def get(self, read: Callable[[], _T]) -> _T:
        """The cached value, or the one that `read` returns."""
        now = time.monotonic()
        if planning() and self._last and self._last[0] > _changed_at and now - self._last[0] < _LIFETIME_S:
            return self._last[1]
        value = read()
        self._last = now, value
        return value

    def forget(self) -> None:
        """Drop the cached value, after a change."""
        self._last = None
