"""Whether this process is still planning a run, or at work on its steps.

While a run is planned every month is asked about at once, so a store in the cloud may answer from one listing. A step
must ask afresh: another machine may have published what its own plan took for missing.
"""

from __future__ import annotations

import os

_at_work: int | None = None


def step_begins() -> None:
    """From here on this process works; a process that is forked from it plans until it begins a step itself."""
    global _at_work
    _at_work = os.getpid()


def planning() -> bool:
    """Whether no step has begun in this very process."""
    return _at_work != os.getpid()
