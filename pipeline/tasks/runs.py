"""The tasks to start: a range of months brought up to date, or the latest ones.

Both require only what is missing, from one question per dataset, not one per month.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from functools import cache, cached_property
from importlib import import_module

import luigi
import luigi.tools.range

from pipeline.datasets import DATASETS, ZONES, need_zones
from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.lake import store_drivers
from pipeline.months import add_months, format_month, month_range
from pipeline.places import inventory_of, source_of, store_of
from pipeline.settings import Settings, current_settings
from pipeline.state.drift import ask_source
from pipeline.state.steps import STEPS, steps_of
from pipeline.tasks.base import WithSettings, log, task_of
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
        months = {name: existing_months(DATASETS[name], self.first, self.last) for name in self.datasets}
        if not any(months.values()):
            starts = ", ".join(f"{name} in {format_month(start_of(DATASETS[name]))}" for name in self.datasets)
            raise UsageError(
                f"no month from {format_month(self.first)} to {format_month(self.last)} exists: {starts} starts"
            )
        return missing_tasks(months, self.through)


class Latest(WithSettings, luigi.WrapperTask):
    """The latest published months, for schedules: a month that is not published yet is no failure.

    If the newest loaded month of a dataset is older, as after a long pause, all months from that one.
    """

    datasets: tuple[str, ...] = DatasetsParameter(default=tuple(DATASETS), description="datasets, or all")
    months: int = luigi.IntParameter(
        default=12, description="how many months to look back, and further if the newest loaded month is older"
    )
    last: date | None = OptionalMonthParameter(default=None, description="the last of them, as YYYY-MM; default now")

    def requires(self) -> list[luigi.Task]:
        """The last step of every missing month that the source has, or should have, and the zones."""
        if self.months < 1:
            raise UsageError(f"--months {self.months}: allowed is a whole number from 1 upwards")
        return missing_tasks(self.published)

    @cached_property
    def published(self) -> dict[str, list[date]]:
        """By dataset: the months that are loaded, published, or overdue; young missing ones take a HEAD request each.

        A month about which the source did not answer counts, so that its download reports why.
        """
        last = self.last or date.today().replace(day=1)
        first = add_months(last, 1 - self.months)
        published, inventory = {}, inventory_of(current_settings())
        for name in self.datasets:
            spec = DATASETS[name]
            newest = max(filter(None, inventory.loads(spec)), default=first)
            months = existing_months(spec, min(first, newest), last)
            missing = inventory.missing(spec, months)
            young = [(name, month) for month in missing if inventory.source.is_young(month, date.today())]
            absent = {month for (_, month), answer in ask_source(inventory.source, young) if answer is None}
            published[name] = [month for month in months if month not in absent]
        return published


class RangeMonthly(WithSettings, luigi.tools.range.RangeMonthly):
    """Luigi's own range of months of one step, which asks month by month; `stop` is not included."""

    start: date | None = OptionalMonthParameter(default=None, description="first month, as YYYY-MM")
    stop: date | None = OptionalMonthParameter(default=None, description="the month after the last, as YYYY-MM")


def existing_months(spec: Dataset, first: date, last: date) -> list[date]:
    """The months of the range that TLC has in the configured format, apart from the newest ones."""
    start = start_of(spec)
    if first < start <= last:
        _log_once(f"{spec.name} starts in {format_month(start)}; months before it do not exist")
    return month_range(max(first, start), last)


def missing_tasks(months: Mapping[str, list[date]], through: str = STEPS[-1]) -> list[luigi.Task]:
    """The last step of each missing month, newest first, and of the zones when they are missing."""
    settings = current_settings()
    _sweep_once(settings, os.getpid())
    inventory = inventory_of(settings, through)
    missing: list[tuple[str, date | None]] = []
    if need_zones(months) and inventory.left(ZONES, None, through):
        missing.append((ZONES.name, None))
    for name, wanted in months.items():
        missing += [(name, month) for month in reversed(inventory.missing(DATASETS[name], wanted, through))]
    if missing:
        _import_once(settings)
    return [task_of(steps_of(name, through)[-1], name, month) for name, month in missing]


def _import_once(settings: Settings) -> None:
    """Import what nearly every step needs, since each is run in a process that is forked from this one.

    For small months that is most of their time: DuckDB takes 0.03 s, psycopg 0.06 s, and the clients of Google Cloud
    0.7 s. With a CSV, pyarrow imports pandas if it is installed (0.14 s). Importing them makes no connection.
    """
    csv = ["pandas"] if source_of(settings).format == "csv" else []
    drivers = [*store_drivers(settings.lake), *engine_of(settings.warehouse).drivers]
    modules = [*csv, "pipeline.conform.month", *drivers]
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    # With a forkserver, processes are forked from the server.
    multiprocessing.set_forkserver_preload(["__main__", *modules, "pipeline.tasks.public"])


def start_of(spec: Dataset) -> date:
    """The first month that exists in the configured format."""
    parquet = source_of(current_settings()).format == "parquet"
    start = (spec.first_parquet_month if parquet else None) or spec.first_month
    assert start is not None
    return start


@cache
def _log_once(message: str) -> None:
    log.info(message)


@cache
def _sweep_once(settings: Settings, process: int) -> None:
    """Remove what killed runs left behind, once in each process that plans a run."""
    store_of(settings).sweep()
