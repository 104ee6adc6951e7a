"""What people start: a range of months brought up to date, or the latest ones.

Both require only what is missing, found by one question per dataset, however many months there are.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from datetime import date
from functools import cached_property, lru_cache
from importlib import import_module

import luigi
import luigi.tools.range

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import SourceError, UsageError
from pipeline.lake import store_drivers
from pipeline.months import add_months, format_month, month_range
from pipeline.places import inventory_of, source_of, store_of
from pipeline.settings import Settings, current_settings
from pipeline.state.inventory import last_step_of
from pipeline.state.steps import STEPS
from pipeline.tasks.base import WithSettings, task_of
from pipeline.tasks.messages import log
from pipeline.tasks.parameters import DatasetsParameter as DatasetsParameter
from pipeline.tasks.parameters import MonthParameter, OptionalMonthParameter
from pipeline.warehouses.registry import engine_of


class Backfill(WithSettings, luigi.WrapperTask):
    """A range of months of one dataset, several, or all, from TLC's site to the marts; both ends included."""

    datasets: tuple[str, ...] = DatasetsParameter(description="datasets with commas between them, or all")
    first: date = MonthParameter(description="first month, as YYYY-MM")
    last: date = MonthParameter(description="last month, included, as YYYY-MM")
    through: str = luigi.ChoiceParameter(choices=list(STEPS), default=STEPS[-1], description="the last step to do")

    def requires(self) -> list[luigi.Task]:
        """The last step of every missing month, and the zones."""
        if self.last < self.first:
            raise UsageError(f"first {format_month(self.first)} is after last {format_month(self.last)}; swap them")
        wanted = {name: existing_months(DATASETS[name], self.first, self.last) for name in self.datasets}
        if not any(wanted.values()):
            starts = ", ".join(f"{name} in {format_month(start_of(DATASETS[name]))}" for name in self.datasets)
            raise UsageError(
                f"no month from {format_month(self.first)} to {format_month(self.last)} exists: {starts} starts"
            )
        return missing_tasks(wanted, self.through)


class Latest(WithSettings, luigi.WrapperTask):
    """The last months that are published by now, for schedules: one that is not published yet is no failure.

    Where the newest loaded month of a dataset is older than those, as after a long pause, all months from it on.
    """

    datasets: tuple[str, ...] = DatasetsParameter(default=tuple(DATASETS), description="datasets, or all")
    months: int = luigi.IntParameter(
        default=12, description="how many months to look back, and further where the newest loaded month is older"
    )
    last: date | None = OptionalMonthParameter(
        default=None, description="the last of them, as YYYY-MM; now when not given"
    )

    def requires(self) -> list[luigi.Task]:
        """The last step of every missing month that the source has, or should have, and the zones."""
        if self.months < 1:
            raise UsageError(f"--months {self.months}: allowed is a whole number from 1 upwards")
        return missing_tasks(self.published)

    @cached_property
    def published(self) -> dict[str, list[date]]:
        """By dataset: the months that are loaded, published, or overdue. One HEAD request for each missing month."""
        last = self.last or date.today().replace(day=1)
        first = add_months(last, 1 - self.months)
        found, inventory = {}, inventory_of(current_settings())
        for name in self.datasets:
            spec = DATASETS[name]
            newest = max(filter(None, inventory.loads(spec)), default=first)
            months = existing_months(spec, min(first, newest), last)
            missing = set(inventory.missing(spec, months))
            found[name] = [month for month in months if month not in missing or _is_due(spec, month)]
        return found


class RangeMonthly(WithSettings, luigi.tools.range.RangeMonthly):
    """Luigi's own range of months of one step, which asks month by month; `stop` is the first month left out."""

    start: date | None = OptionalMonthParameter(default=None, description="first month, as YYYY-MM")
    stop: date | None = OptionalMonthParameter(default=None, description="the month after the last, as YYYY-MM")


def existing_months(spec: Dataset, first: date, last: date) -> list[date]:
    """The months of the range from the one on in which TLC began to publish the dataset in the configured format."""
    start = start_of(spec)
    if first < start <= last:
        _say_once(f"{spec.name} starts in {format_month(start)}; months before it do not exist")
    return month_range(max(first, start), last)


def missing_tasks(wanted: dict[str, list[date]], through: str = STEPS[-1]) -> list[luigi.Task]:
    """The last step of each missing month, newest first, and the zones when they are missing."""
    settings = current_settings()
    _sweep_once(settings, os.getpid())
    inventory = inventory_of(settings, through)
    tasks: list[luigi.Task] = []
    if inventory.left(ZONES, None, through):
        tasks.append(task_of(last_step_of(ZONES.name, through), ZONES.name, None))
    for name, months in wanted.items():
        missing = inventory.missing(DATASETS[name], months, through)
        tasks += [task_of(last_step_of(name, through), name, month) for month in reversed(missing)]
    if tasks:
        _import_once(settings)
    return tasks


def _import_once(settings: Settings) -> None:
    """Import here what nearly every step needs, as each is run in a process that is forked from this one.

    For small months that is most of their time: pyarrow looks for pandas (0.14 s), DuckDB takes 0.03 s, psycopg 0.06 s,
    and the clients of Google Cloud 0.7 s. Importing them makes no connection.
    """
    needed = ["pandas", *store_drivers(settings.lake), *engine_of(settings.warehouse).drivers]
    for name in needed:
        with suppress(ImportError):
            import_module(name)
    # Where processes are forked from a server, it is the server that should have them.
    multiprocessing.set_forkserver_preload(["__main__", *needed, __name__])


def _is_due(spec: Dataset, month: date) -> bool:
    """Whether the month's download should be tried: it is there, or its absence would be an error."""
    source = source_of(current_settings())
    try:
        return source.has(spec, month) or not source.is_young(month, date.today())
    except SourceError:
        return True  # Its download says what is wrong, and the other months go on.


def start_of(spec: Dataset) -> date:
    """The first month that exists in the configured format."""
    parquet = source_of(current_settings()).format == "parquet"
    start = (spec.first_parquet_month if parquet else None) or spec.first_month
    assert start is not None
    return start


@lru_cache
def _say_once(message: str) -> None:
    log.info(message)


@lru_cache
def _sweep_once(settings: Settings, process: int) -> None:
    """Remove, once in each process that plans a run, what killed runs left behind."""
    store_of(settings).sweep()
