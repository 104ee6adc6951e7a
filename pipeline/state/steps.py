"""The one table of steps: what each leaves behind, how much room and time it takes, and how it is shown.

Whatever lists steps reads this table. A new step that leaves a file in the lake is one row here and one task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from pipeline import lake
from pipeline.datasets.base import Dataset
from pipeline.datasets.published import estimated_bytes


def _raw_files(dataset: Dataset, month: date | None, raw_name: str) -> dict[str, str]:
    raw = lake.raw_key(dataset, raw_name)
    return {"raw": raw, "sidecar": lake.sidecar_key(raw)}


def _trips_files(dataset: Dataset, month: date | None, raw_name: str) -> dict[str, str]:
    return {"trips": lake.trips_key(dataset, month), "checks": lake.checks_key(dataset, month)}


@dataclass(frozen=True)
class StepSpec:
    """One step of a month."""

    name: str
    #: The stage of a month that has got so far, and the key by which JSON says whether the step is done.
    stage: str
    #: What a month has once the step is done, for people.
    leaves: str
    #: Its files in the lake by kind, given the raw file's name; the first one is written last and says that the step
    #: is done. None: the step leaves a record in the warehouse.
    files: Callable[[Dataset, date | None, str], dict[str, str]] | None
    #: How many copies of the month it adds, each about as large as the raw bytes.
    copies: int
    #: About how a month's time is shared between its steps.
    time_share: int
    #: The stage in a terminal (character and style), in words, and on a page (letter and style).
    character: str
    style: str
    meaning: str
    letter: str
    css: str


#: All steps, first to last; a dataset without marts ends with load.
TABLE = (
    StepSpec(
        *("download", "raw", "raw bytes are here", _raw_files, 1, 3),
        *("░", "blue", "downloaded", "R", "background: #a9c0ef; color: #0a1f4d;"),
    ),
    StepSpec(
        *("conform", "conformed", "trips are here", _trips_files, 1, 4),
        *("▒", "cyan", "conformed, not loaded", "C", "background: #7cc9d6; color: #03323a;"),
    ),
    StepSpec(
        *("load", "loaded", "rows are loaded", None, 1, 2),
        *("▓", "green", "loaded, its marts are not built", "L", "background: #8fd0aa; color: #052e18;"),
    ),
    StepSpec(
        *("mart", "marts", "marts are built", None, 0, 1),
        *("█", "green", "complete", "✓", "background: #1f7a4a; color: #fff;"),
    ),
)
STEPS = tuple(step.name for step in TABLE)
BY_NAME: Mapping[str, StepSpec] = {step.name: step for step in TABLE}


def step_before(name: str) -> StepSpec | None:
    """The step whose result this one works on; None for the first."""
    index = STEPS.index(name)
    return TABLE[index - 1] if index else None


def steps_from(name: str) -> tuple[StepSpec, ...]:
    """This step and all after it."""
    return TABLE[STEPS.index(name) :]


def steps_left(is_done: Callable[[str], bool], through: str) -> tuple[str, ...]:
    """The steps that a run up to `through` does: back to the last one that is done, whatever is before that."""
    left: list[str] = []
    for name in reversed(STEPS[: STEPS.index(through) + 1]):
        if is_done(name):
            break
        left.insert(0, name)
    return tuple(left)


def bytes_to_keep(dataset: str, month: date, steps: Iterable[str]) -> int:
    """About how many bytes these steps of a month add to lake and warehouse."""
    return estimated_bytes(dataset, [month]) * sum(BY_NAME[step].copies for step in steps)
