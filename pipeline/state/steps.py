"""The one table of steps: what each leaves behind, how much space and time it takes, and how it is shown.

Everything that lists steps reads this table. A new step that leaves a file in the lake is one row here and one task in
`pipeline.tasks`; if the zones have the step as well, its task for them is a class of two lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pipeline import lake
from pipeline.datasets import dataset_named
from pipeline.datasets.base import Dataset
from pipeline.datasets.published import estimated_bytes
from pipeline.marts import marts_of


def _raw_files(dataset: Dataset, month: date | None, raw_name: str) -> dict[str, str]:
    raw = lake.raw_key(dataset, raw_name)
    return {"raw": raw, "sidecar": lake.sidecar_key(raw)}


def _trips_files(dataset: Dataset, month: date | None, raw_name: str) -> dict[str, str]:
    return {"trips": lake.trips_key(dataset, month), "checks": lake.checks_key(dataset, month)}


@dataclass(frozen=True)
class StepSpec:
    """One step of a month."""

    name: str
    #: The stage of a month whose last finished step this is, and the key by which JSON says whether the step is done.
    stage: str
    #: What a month has once the step is done, as shown to the user.
    leaves: str
    #: Its files in the lake, given the raw file's name: key by type of file, where no two steps have the same type. The
    #: first one is written last and says that the step is done. None: the step leaves a record in the warehouse.
    files: Callable[[Dataset, date | None, str], dict[str, str]] | None
    #: How many copies of the month it adds, each about as large as the raw file.
    copies: int
    #: Its share of the time that a month takes.
    time_share: int
    #: The stage in a terminal (character and style), in words, and on a page (letter).
    character: str
    style: str
    meaning: str
    letter: str
    #: Whether a dataset has the step; the zones are a dataset without `first_month`.
    applies: Callable[[Dataset], bool] = lambda dataset: True


#: All steps, first to last.
TABLE = (
    StepSpec(
        *("download", "raw", "raw file exists", _raw_files, 1, 3),
        *("░", "blue", "downloaded", "R"),
    ),
    StepSpec(
        *("conform", "conformed", "trips file exists", _trips_files, 1, 4),
        *("▒", "cyan", "conformed, not loaded", "C"),
    ),
    StepSpec(
        *("load", "loaded", "rows are loaded", None, 1, 2),
        *("▓", "green", "loaded, its marts are not built", "L"),
    ),
    StepSpec(
        *("mart", "marts", "marts are built", None, 0, 1),
        *("█", "green", "complete", "✓"),
        applies=lambda dataset: bool(marts_of(dataset.name)),
    ),
)
STEPS = tuple(step.name for step in TABLE)
BY_NAME: Mapping[str, StepSpec] = {step.name: step for step in TABLE}


def steps_of(dataset: str, through: str = STEPS[-1]) -> tuple[str, ...]:
    """The steps that the dataset has, up to this one."""
    spec = dataset_named(dataset)
    return tuple(step.name for step in TABLE[: STEPS.index(through) + 1] if step.applies(spec))


def step_before(name: str, steps: Sequence[str] = STEPS) -> StepSpec | None:
    """The step before this one in the list; None for the first."""
    index = steps.index(name)
    return BY_NAME[steps[index - 1]] if index else None


def steps_left(is_done: Callable[[str], bool], steps: Sequence[str]) -> tuple[str, ...]:
    """Those of the steps that a run does: all after the last one that is done, even if an earlier one is not."""
    last_done = next((index for index in reversed(range(len(steps))) if is_done(steps[index])), -1)
    return tuple(steps[last_done + 1 :])


def bytes_to_keep(dataset: str, month: date, steps: Iterable[str]) -> int:
    """About how many bytes these steps of a month add to lake and warehouse."""
    return estimated_bytes(dataset, [month]) * sum(BY_NAME[step].copies for step in steps)
