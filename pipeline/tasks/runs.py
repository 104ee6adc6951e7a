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

from pipeline import config
from pipeline.datasets import DATASETS
from pipeline.datasets.base import Dataset
from pipeline.errors import SourceError, UsageError
from pipeline.marts import marts_of
from pipeline.months import add_months, format_month, month_range
from pipeline.state.status import STEPS
from pipeline.tasks.base import WithSettings, source_of, store_of, warehouse_of
from pipeline.tasks.lake import Conform, ConformZones, Download, DownloadZones
from pipeline.tasks.messages import log
from pipeline.tasks.parameters import DatasetsParameter as DatasetsParameter
from pipeline.tasks.parameters import MonthParameter, OptionalMonthParameter
from pipeline.tasks.warehouse import Load, LoadZones, Mart
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
        return missing_steps(wanted, self.through)


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
        return missing_steps(self.published)

    @cached_property
    def published(self) -> dict[str, list[date]]:
        """By dataset: the months that are loaded, published, or overdue. One HEAD request for each missing month."""
        last = self.last or date.today().replace(day=1)
        first = add_months(last, 1 - self.months)
        found = {}
        for name in self.datasets:
            spec = DATASETS[name]
            newest = max(filter(None, warehouse_of(config.settings()).loads(spec)), default=first)
            months = existing_months(spec, min(first, newest), last)
            missing = set(missing_months(spec, months))
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


def missing_months(spec: Dataset, months: list[date], through: str = STEPS[-1]) -> list[date]:
    """Those of the months for which the step is not done; one question each for lake, loads and marts, as needed."""
    warehouse = warehouse_of(config.settings())
    if through in ("download", "conform"):
        step = {"download": Download, "conform": Conform}[through]
        store = store_of(config.settings())
        keys = {month: step(dataset=spec.name, month=month).output().key for month in months}
        there = store.keys(f"raw/{spec.name}/" if through == "download" else f"trips/{spec.name}/")
        return [month for month, key in keys.items() if key not in there]
    loaded = warehouse.loads(spec)
    marts = {mart.name for mart in marts_of(spec.name)} if through == "mart" else set()
    built = warehouse.mart_months(spec) if marts else {}
    return [month for month in months if month not in loaded or not marts <= set(built.get(month, ()))]


def missing_steps(wanted: dict[str, list[date]], through: str = STEPS[-1]) -> list[luigi.Task]:
    """The last step of each missing month, newest first, and the zones when they are missing."""
    settings = config.settings()
    _sweep_once(settings, os.getpid())
    steps: list[luigi.Task] = []
    zones = {"download": DownloadZones(), "conform": ConformZones()}.get(through, LoadZones())
    if not zones.complete():
        steps.append(zones)
    for name, months in wanted.items():
        last_step = {"download": Download, "conform": Conform, "load": Load}.get(through, Mart)
        if last_step is Mart and not marts_of(name):
            last_step = Load
        missing = missing_months(DATASETS[name], months, through)
        steps += [last_step(dataset=name, month=month) for month in reversed(missing)]
    if steps:
        _import_once(settings)
    return steps


def _import_once(settings: config.Settings) -> None:
    """Import here what nearly every step needs, as each is run in a process that is forked from this one.

    For small months that is most of their time: pyarrow looks for pandas (0.14 s), DuckDB takes 0.03 s, psycopg 0.06 s,
    and the clients of Google Cloud 0.7 s. Importing them makes no connection.
    """
    needed = ["pandas"]
    needed += ["google.cloud.storage"] if settings.lake.startswith("gs://") else []
    needed += engine_of(settings.warehouse).drivers
    for name in needed:
        with suppress(ImportError):
            import_module(name)
    # Where processes are forked from a server, it is the server that should have them.
    multiprocessing.set_forkserver_preload(["__main__", *needed, __name__])


def _is_due(spec: Dataset, month: date) -> bool:
    """Whether the month's download should be tried: it is there, or its absence would be an error."""
    source = source_of(config.settings())
    try:
        return source.has(spec, month) or not source.is_young(month, date.today())
    except SourceError:
        return True  # Its download says what is wrong, and the other months go on.


def start_of(spec: Dataset) -> date:
    """The first month that exists in the configured format."""
    parquet = source_of(config.settings()).format == "parquet"
    start = (spec.first_parquet_month if parquet else None) or spec.first_month
    assert start is not None
    return start


@lru_cache
def _say_once(message: str) -> None:
    log.info(message)


@lru_cache
def _sweep_once(settings: config.Settings, process: int) -> None:
    """Remove, once in each process that plans a run, what killed runs left behind."""
    store_of(settings).sweep()
