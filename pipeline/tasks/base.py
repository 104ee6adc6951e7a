"""What all steps share: a dataset, a month, the settings, and where things lie in the lake.

A step carries the settings that its parent process resolved when it is sent to a child, so that a value given on the
command line holds there, too, under fork, forkserver and spawn.
"""

from __future__ import annotations

import html
import logging
import os
import signal
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import luigi
from luigi.rpc import RPCError

from pipeline import lake
from pipeline.datasets import ZONES, dataset_named
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, redact
from pipeline.lake import Store
from pipeline.months import format_month
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.settings import Settings, adopt, adopt_context, current_settings, run_context
from pipeline.source.site import Source
from pipeline.state.inventory import files_of
from pipeline.state.steps import STEPS, step_before
from pipeline.tasks import logs
from pipeline.tasks.messages import MOST_CHARACTERS, Told, log_alike, log_levels, note, of_lost_process, words_of
from pipeline.tasks.messages import log as log
from pipeline.tasks.parameters import DatasetParameter, MonthParameter
from pipeline.tasks.reports import Report, send
from pipeline.tasks.targets import LakeFile, WarehouseRecord
from pipeline.warehouses.base import Warehouse

_REPORT_EVERY_S = 0.5
#: By name in lower case: the task of each step, and of each step of the zones.
_TASKS: dict[str, type[Step]] = {}


class WithSettings:
    """Takes settings and run context of its process, and how that logs, along to the process in which it is run."""

    def __getstate__(self) -> dict[str, Any]:
        return {"task": self.__dict__, "process": (current_settings(), run_context(), log_levels())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings, context, levels = state["process"]
        adopt(settings)
        adopt_context(context)
        log_alike(levels)
        self.__dict__.update(state["task"])


class Step(WithSettings, luigi.Task):
    """A step of one month of one dataset, with the settings and what they name."""

    #: None where the dataset has no months.
    month: date | None = MonthParameter(description="which month, as YYYY-MM")  # first: RangeMonthly fills the first
    dataset: str = DatasetParameter(description="which of TLC's datasets")
    #: What it is said to do until it reports more.
    doing = "starting"
    #: Its row in the table of steps; a subclass of another name leaves the same.
    row = ""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        name = cls.__name__.lower()
        _TASKS.setdefault(name, cls)
        cls.row = name if name in STEPS else cls.row

    def requires(self) -> luigi.Task | list[luigi.Task]:
        """The step before it, of the same month."""
        before = step_before(self.row)
        return task_of(before.name, self.dataset, self.month) if before else []

    def output(self) -> luigi.Target:
        """Its file in the lake, or its records in the warehouse."""
        if files := files_of(self.row, self.spec, self.month, self.source):
            return LakeFile(self.store, next(iter(files.values())))
        return WarehouseRecord(lambda: inventory_of(self.settings), self.row, self.spec, self.month)

    @property
    def spec(self) -> Dataset:
        """The dataset's declaration."""
        return dataset_named(self.dataset)

    @property
    def priority(self) -> int:
        """Newest months first: they are the ones people wait for; the zones before all, since every mart needs them."""
        if self.month is None:
            return date.max.toordinal()
        newest_first = int(self.month.toordinal())
        # Never below that of what needs the step, which is 0: Luigi would raise all to that.
        return date.max.toordinal() - newest_first if run_context().oldest_first else newest_first

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return current_settings()

    @property
    def store(self) -> Store:
        """The lake."""
        return store_of(self.settings)

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse; asking for it opens nothing yet."""
        return warehouse_of(self.settings)

    @property
    def source(self) -> Source:
        """Where raw files come from."""
        return source_of(self.settings)

    @property
    def threads(self) -> int:
        """Threads that this step may keep busy: the machine's, divided by the workers."""
        return max(1, (os.cpu_count() or 1) // run_context().workers)

    @property
    def subject(self) -> str:
        """Such as `load green 2024-01`."""
        month = f" {format_month(self.month)}" if self.month else ""
        return f"{self.step_name} {self.spec.name}{month}"

    @property
    def step_name(self) -> str:
        """What the step is called wherever people meet it: download, conform, load, mart."""
        return str(self.task_family).lower().removesuffix("zones")

    @property
    def raw(self) -> LakeFile:
        """TLC's bytes."""
        return LakeFile(self.store, lake.raw_key(self.spec, self.source.file_name(self.spec, self.month)))

    @property
    def trips(self) -> LakeFile:
        """The conformed rows."""
        return LakeFile(self.store, lake.trips_key(self.spec, self.month))

    @property
    def log_path(self) -> Path:
        """Where the step's log lies."""
        return logs.log_path(self.settings.logs, self.spec.name, self.month, self.step_name)

    def report(
        self, fraction: float | None, message: str, *, rows: int = 0, moved: int = 0, state: str = "goes"
    ) -> None:
        """Tell scheduler and watcher how far the step is: a share of 1 (None when unknown), a text, rows, bytes."""
        now = time.monotonic()
        if fraction != 1 and state == "goes" and now - getattr(self, "_reported_at", 0.0) < _REPORT_EVERY_S:
            return
        self._reported_at = now
        month = format_month(self.month) if self.month else ""
        send(
            run_context().reports, Report(self.step_name, self.spec.name, month, fraction, message, rows, moved, state)
        )
        message = f"{message} (log: {self.log_path})"
        # Luigi gives a task these two only while it runs it; the visualiser puts the message into its page as HTML.
        with suppress(RPCError):  # A step goes on while luigid is away.
            if callable(getattr(self, "set_status_message", None)):
                self.set_status_message(html.escape(message))
            if fraction is not None and callable(getattr(self, "set_progress_percentage", None)):
                self.set_progress_percentage(round(100 * min(fraction, 1)))

    def done(self, message: str, *, rows: int = 0, moved: int = 0) -> None:
        """Report the step as finished, in the log, too."""
        self.report(1, message, rows=rows, moved=moved, state="done")
        log.info("%s: %s", self.subject, message)

    def on_failure(self, exception: BaseException) -> str:
        """The error's kind and text, for the visualiser and the command; a traceback where nobody foresaw it."""
        foreseen = isinstance(exception, PipelineError)
        told = words_of(exception) if foreseen else str(super().on_failure(exception))
        if len(told) > 2 * MOST_CHARACTERS:
            told = words_of(exception)
        if not logging.getLogger("luigi-interface").isEnabledFor(logging.ERROR):  # Else Luigi has said it just now.
            # Where the summary of the run goes to the same place, that is where the words are.
            short = foreseen and run_context().reports and _same_stream()
            log.error(f"{self.subject} failed: {type(exception).__name__}" if short else told)
        return Told(told)


def _same_stream() -> bool:
    """Whether standard output and standard error are the same file, pipe or terminal."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:
        return False


def _note_lost_process(step: Step, what: str) -> None:
    """Note that a step's process was killed, which only its parent can tell."""
    note(f"{step.subject}: {of_lost_process(what)}")


def _stop_when_nobody_can_tell(step: Step) -> None:
    """Take no more work once it cannot be asked whether a step is done: Luigi would wait for it for ever.

    SIGUSR1 is Luigi's own way to ask for that; it is sent only where Luigi listens, since else it would kill.
    """
    if callable(signal.getsignal(signal.SIGUSR1)):
        os.kill(os.getpid(), signal.SIGUSR1)


def _begin_log(step: Step) -> None:
    settings = step.settings
    lake = settings.lake if "://" in settings.lake else Path(settings.lake).expanduser().absolute()
    warehouse = f", warehouse {redact(settings.warehouse)}" if step.step_name in ("load", "mart") else ""
    _warn_of_log(step, logs.begin(step.log_path, step.subject, f", lake {lake}{warehouse}"))
    step.report(None, step.doing, state="began")


def _warn_of_log(step: Step, problem: str) -> None:
    """Tell of a log that cannot be written: the process that watches the run, which says it once, else directly."""
    if problem:
        message = f"logs cannot be written: {problem}"
        if run_context().reports:
            step.report(None, message, state="unlogged")
        else:
            log.warning(message)


def _end_log(step: Step, error: BaseException | None = None) -> None:
    if error is not None:
        logs.write_failure(step.subject, error)
        step.report(None, type(error).__name__, state="failed")
    _warn_of_log(step, logs.end())


Step.event_handler(luigi.Event.START)(_begin_log)
for event in (luigi.Event.SUCCESS, luigi.Event.FAILURE):
    Step.event_handler(event)(_end_log)
for event in (luigi.Event.PROCESS_FAILURE, luigi.Event.TIMEOUT):
    Step.event_handler(event)(_note_lost_process)
# For tasks that can be run, as all of ours can, Luigi says so when `complete` raised, and only then.
Step.event_handler(luigi.Event.DEPENDENCY_MISSING)(_stop_when_nobody_can_tell)


class OfZones:
    """What makes a step one of the zones, which have no month."""

    month: date | None = None
    dataset: str = ZONES.name


def task_of(step: str, dataset: str, month: date | None) -> Step:
    """The task of a step of a month; of the zones when `month` is None."""
    if month is None:
        return _TASKS[f"{step}zones"]()
    return _TASKS[step](dataset=dataset, month=month)
