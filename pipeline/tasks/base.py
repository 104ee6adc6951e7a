"""What all steps share: a dataset, a month, the settings, and where things lie in the lake.

A step carries the settings that its parent process resolved when it is sent to a child, so that a value given on the
command line holds there, too, under fork, forkserver and spawn.
"""

from __future__ import annotations

import html
import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import luigi
from luigi.rpc import RPCError

from pipeline import lake
from pipeline.datasets import ZONES, dataset_named
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, as_pipeline_error, redact
from pipeline.lake import Store, local_folder
from pipeline.months import format_month
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.runs.events import (
    LogLost,
    Progress,
    RetryScheduled,
    StepEvent,
    StepFailed,
    StepFinished,
    StepStarted,
)
from pipeline.settings import Settings, adopt, adopt_context, current_settings, run_context, suggested_command
from pipeline.source.retries import retry_message
from pipeline.source.site import Source
from pipeline.state.inventory import files_of
from pipeline.state.steps import STEPS, step_before
from pipeline.tasks import logs
from pipeline.tasks.messages import log as log
from pipeline.tasks.messages import log_alike, log_levels
from pipeline.tasks.parameters import DatasetParameter, MonthParameter
from pipeline.tasks.reports import send
from pipeline.tasks.targets import LakeFile, WarehouseRecord
from pipeline.warehouses.base import Warehouse

_REPORT_EVERY_S = 0.5
#: So much of an error's message is in its event, which is a datagram; the scheduler has more.
_MOST_CHARACTERS = 1_000
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
        source = source_of(self.settings)
        return replace(source, policy=replace(source.policy, on_retry=self.retry))

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

    def emit(self, kind: type[StepEvent], **values: Any) -> None:
        """Send an event of this step to the process that watches the run, and its message to the scheduler."""
        month = format_month(self.month) if self.month else ""
        event = kind(step=self.step_name, dataset=self.spec.name, month=month, **values)
        send(run_context().reports, event)
        message = f"{getattr(event, 'message', 'failed')} (log: {self.log_path})"
        fraction = 1 if isinstance(event, StepFinished) else getattr(event, "fraction", None)
        # Luigi gives a task these two only while it runs it; the visualiser puts the message into its page as HTML.
        with suppress(RPCError):  # A step goes on while luigid is away.
            if callable(getattr(self, "set_status_message", None)):
                self.set_status_message(html.escape(message))
            if fraction is not None and callable(getattr(self, "set_progress_percentage", None)):
                self.set_progress_percentage(round(100 * min(fraction, 1)))

    def progress(self, fraction: float | None, message: str, *, rows: int = 0, moved: int = 0) -> None:
        """Report how far the step is, not too often: a share of 1 (None when unknown), a text, rows, bytes."""
        now = time.monotonic()
        if fraction == 1 or now - getattr(self, "_reported_at", 0.0) >= _REPORT_EVERY_S:
            self._reported_at = now
            self.emit(Progress, fraction=fraction, message=message, rows=rows, bytes=moved)

    def retry(self, attempt: int, attempts: int, wait_s: float, reason: str) -> None:
        """Report that a request failed and is made again, in the log, too."""
        self.emit(RetryScheduled, attempt=attempt, attempts=attempts, wait_s=round(wait_s, 1), reason=reason)
        log.info("%s: %s", self.subject, retry_message(attempt, attempts, wait_s, reason))

    def done(self, message: str, *, rows: int = 0, moved: int = 0, warnings: Sequence[str] = ()) -> None:
        """Report the step as finished, in the log, too."""
        self.emit(StepFinished, message=message, rows=rows, bytes=moved, warnings=warnings)
        log.info("%s: %s", self.subject, message)

    def on_failure(self, exception: BaseException) -> str:
        """The error as JSON, as it is sent to the scheduler."""
        error = self._as_error(exception)
        if not logging.getLogger("luigi-interface").isEnabledFor(logging.ERROR):  # Else Luigi has logged it just now.
            # Where the summary of the run goes to the same place, it has the message.
            short = isinstance(exception, PipelineError) and run_context().reports and _same_stream()
            log.error(f"{self.subject} failed: {error.kind}" if short else error.words)
        return json.dumps(error.to_dict(), ensure_ascii=False)

    def _as_error(self, exception: BaseException) -> PipelineError:
        if isinstance(exception, PipelineError):
            return exception
        words = ("logs", *self.subject.split()[1:], "--step", self.step_name, "--all")
        return as_pipeline_error(exception, suggested_command(*words))


def _same_stream() -> bool:
    """Whether standard output and standard error are the same file, pipe or terminal."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:
        return False


def _stop_when_nobody_can_tell(step: Step) -> None:
    """Take no more work once it cannot be asked whether a step is done: Luigi would wait for it for ever.

    SIGUSR1 is Luigi's own way to ask for that; it is sent only where Luigi listens, since else it would kill.
    """
    if callable(signal.getsignal(signal.SIGUSR1)):
        os.kill(os.getpid(), signal.SIGUSR1)


def _begin_log(step: Step) -> None:
    settings = step.settings
    place = local_folder(settings.lake) or settings.lake
    warehouse = f", warehouse {redact(settings.warehouse)}" if step.step_name in ("load", "mart") else ""
    _warn_of_log(step, logs.begin(step.log_path, step.subject, f", lake {place}{warehouse}"))
    step.emit(StepStarted, message=step.doing)


def _warn_of_log(step: Step, problem: str) -> None:
    """Tell of a log that cannot be written: the process that watches the run, which says it once, else directly."""
    if problem:
        message = f"logs cannot be written: {problem}"
        if run_context().reports:
            step.emit(LogLost, message=message)
        else:
            log.warning(message)


def _end_log(step: Step, error: BaseException | None = None) -> None:
    if error is not None:
        logs.write_failure(step.subject, error)
        step.emit(StepFailed, error=step._as_error(error).to_dict(_MOST_CHARACTERS))
    _warn_of_log(step, logs.end())


Step.event_handler(luigi.Event.START)(_begin_log)
for event in (luigi.Event.SUCCESS, luigi.Event.FAILURE):
    Step.event_handler(event)(_end_log)
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
