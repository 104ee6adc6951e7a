"""What all steps share: a dataset, a month, the settings, and the reports about progress.

A step takes the settings of its parent process along to a child, so that a value given on the command line also applies
there, under fork, forkserver and spawn.
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
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import luigi
from luigi.rpc import RPCError

from pipeline.datasets import ZONES, dataset_named
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, as_pipeline_error, redact
from pipeline.lake import Store, local_folder
from pipeline.months import format_month, label
from pipeline.places import inventory_of, source_of, store_of
from pipeline.runs import events
from pipeline.settings import adopt, adopt_context, current_settings, run_context, suggested_command
from pipeline.source.retries import retry_message
from pipeline.source.site import Source
from pipeline.state.steps import BY_NAME, STEPS, step_before, steps_of
from pipeline.tasks import logs
from pipeline.tasks.messages import log as log
from pipeline.tasks.parameters import DatasetParameter, MonthParameter

_REPORT_EVERY_S = 0.5
#: An error's message is cut to this length in its event, which is a datagram; the scheduler gets more.
_MOST_CHARACTERS = 1_000
#: By name in lower case: the task of each step, and of each step of the zones.
_TASKS: dict[str, type[Step]] = {}


class WithSettings:
    """Takes settings, run context and log levels of its process along to the process in which it runs."""

    @classmethod
    @cache
    def get_params(cls) -> list[tuple[str, luigi.Parameter]]:
        """Luigi asks nine times for each step of a plan, and looks at all attributes of the class each time."""
        return list(super().get_params())  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        levels = {name: logging.getLogger(name).level for name in ("luigi-interface", log.name)}
        return {"task": self.__dict__, "process": (current_settings(), run_context(), levels)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings, context, levels = state["process"]
        adopt(settings)
        adopt_context(context)
        if not log.hasHandlers():  # A process that was not forked has no logging yet.
            logging.basicConfig(format="%(message)s")
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
        self.__dict__.update(state["task"])


class StepOutput(luigi.Target):
    """What a step leaves: its file in the lake that is written last, or its records in the warehouse."""

    def __init__(self, step: Step) -> None:
        self._step, self._key = step, next(iter(step.files(step.row).values()), "")

    def __str__(self) -> str:
        return self._key or f"{self._step.row} of {label(self._step.spec.name, self._step.month)} in the warehouse"

    def exists(self) -> bool:
        """Whether the step is done."""
        step = self._step
        if self._key:
            return step.store.exists(self._key)
        return inventory_of(current_settings()).done(step.row, step.spec, step.month)


class Step(WithSettings, luigi.Task):
    """A step of one month of one dataset, with the settings and what they name."""

    #: None where the dataset has no months.
    month: date | None = MonthParameter(description="which month, as YYYY-MM")  # first: RangeMonthly fills the first
    dataset: str = DatasetParameter(description="which of TLC's datasets")
    #: Its message until it reports progress.
    doing = "starting"
    #: Whether the month's load follows in this process's plan, so that conforming may also load the rows.
    load_follows = False
    #: Its row in the table of steps; a subclass with another name leaves the same.
    row = ""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        name = cls.__name__.lower()
        _TASKS.setdefault(name, cls)
        cls.row = name if name in STEPS else cls.row

    def requires(self) -> luigi.Task | list[luigi.Task]:
        """The step before it, of the same month."""
        before = step_before(self.row, steps_of(self.dataset))
        return task_of(before.name, self.dataset, self.month) if before else []

    def output(self) -> luigi.Target:
        """Its files in the lake, or its records in the warehouse."""
        return StepOutput(self)

    def files(self, step: str) -> dict[str, str]:
        """The keys of the files in the lake that a step of this month leaves, by type, such as raw or trips."""
        return inventory_of(current_settings(), STEPS[0]).files(step, self.spec, self.month)

    @property
    def spec(self) -> Dataset:
        """The dataset's declaration."""
        return dataset_named(self.dataset)

    @property
    def priority(self) -> int:
        """Newest months first, as users need them most; the zones before all, since every mart needs them."""
        if self.month is None:
            return date.max.toordinal()
        newest_first = int(self.month.toordinal())
        # Never below the priority of a task that requires the step, which is 0: Luigi would raise all to that.
        return date.max.toordinal() - newest_first if run_context().oldest_first else newest_first

    @property
    def store(self) -> Store:
        """The lake."""
        return store_of(current_settings())

    @property
    def source(self) -> Source:
        """Where raw files come from."""
        source = source_of(current_settings())
        return replace(source, policy=replace(source.policy, on_retry=self.retry))

    @property
    def subject(self) -> str:
        """The step with its month, such as `load green 2024-01`."""
        return f"{self.step_name} {label(self.spec.name, self.month)}"

    @property
    def step_name(self) -> str:
        """The step's name for the user: download, conform, load, mart."""
        return str(self.task_family).lower().removesuffix("zones")

    @property
    def log_path(self) -> Path:
        """The step's log file."""
        return logs.log_path(current_settings().logs, self.spec.name, self.month, self.step_name)

    def emit(self, event_type: type[events.StepEvent], **values: Any) -> None:
        """Send an event of this step to the process that watches the run, and its message to the scheduler."""
        month = format_month(self.month) if self.month else ""
        event = event_type(step=self.step_name, dataset=self.spec.name, month=month, **values)
        events.send(run_context().reports, event)
        message = f"{getattr(event, 'message', 'failed')} (log: {self.log_path})"
        fraction = 1 if isinstance(event, events.StepFinished) else getattr(event, "fraction", None)
        # Luigi gives a task these two only while it runs it; the visualiser puts the message into its page as HTML.
        with suppress(RPCError):  # A step continues while luigid does not answer.
            if callable(getattr(self, "set_status_message", None)):
                self.set_status_message(html.escape(message))
            if fraction is not None and callable(getattr(self, "set_progress_percentage", None)):
                self.set_progress_percentage(round(100 * min(fraction, 1)))

    def progress(self, fraction: float | None, message: str, *, rows: int = 0, moved: int = 0) -> None:
        """Report progress, at most twice a second: a share of 1 (None when unknown), a text, rows, bytes."""
        now = time.monotonic()
        if fraction == 1 or now - getattr(self, "_reported_at", 0.0) >= _REPORT_EVERY_S:
            self._reported_at = now
            self.emit(events.Progress, fraction=fraction, message=message, rows=rows, bytes=moved)

    def retry(self, attempt: int, attempts: int, wait_s: float, reason: str) -> None:
        """Report and log that a request failed and is made again."""
        self.emit(events.RetryScheduled, attempt=attempt, attempts=attempts, wait_s=round(wait_s, 1), reason=reason)
        log.info("%s: %s", self.subject, retry_message(attempt, attempts, wait_s, reason))

    def done(self, message: str, *, rows: int = 0, moved: int = 0, warnings: Sequence[str] = ()) -> None:
        """Report and log that the step is finished."""
        self.emit(events.StepFinished, message=message, rows=rows, bytes=moved, warnings=warnings)
        log.info("%s: %s", self.subject, message)

    def on_failure(self, exception: BaseException) -> str:
        """The error as JSON, as it is sent to the scheduler."""
        error = self._as_error(exception)
        if not logging.getLogger("luigi-interface").isEnabledFor(logging.ERROR):  # Otherwise Luigi has logged it.
            message = error.words
            with suppress(OSError):  # A standard stream may be closed.
                # The run's summary has the message, if it is printed to the same terminal or file.
                if isinstance(exception, PipelineError) and run_context().reports and os.path.sameopenfile(1, 2):
                    message = f"{self.subject} failed: {error.kind}"
            log.error(message)
        return json.dumps(error.to_dict(), ensure_ascii=False)

    def _as_error(self, exception: BaseException) -> PipelineError:
        words = ("logs", *self.subject.split()[1:], "--step", self.step_name, "--all")
        return as_pipeline_error(exception, suggested_command(*words))

    def warn_of_log(self, problem: str) -> None:
        """Report that the log cannot be written, to the process that watches the run, which prints it once."""
        message = f"logs cannot be written: {problem}"
        if problem and run_context().reports:
            self.emit(events.LogLost, message=message)
        elif problem:
            log.warning(message)


def _begin(step: Step) -> None:
    settings = current_settings()
    lake = local_folder(settings.lake) or settings.lake
    warehouse = "" if BY_NAME[step.row].files else f", warehouse {redact(settings.warehouse)}"
    step.warn_of_log(logs.begin(step.log_path, step.subject, f", lake {lake}{warehouse}"))
    step.emit(events.StepStarted, message=step.doing)


def _end(step: Step, error: BaseException | None = None) -> None:
    if error is not None:
        settings = current_settings()
        logs.write_failure(step.subject, error, [settings.source, settings.warehouse, settings.notify_url])
        step.emit(events.StepFailed, error=step._as_error(error).to_dict(_MOST_CHARACTERS))
    step.warn_of_log(logs.end())


def _stop_after_failed_question(step: Step) -> None:
    """Take no more work: Luigi would wait forever for a step whose `complete` raised, which is what this event means.

    SIGUSR1 is Luigi's own way to ask for that; without Luigi's handler it would kill the process.
    """
    if callable(signal.getsignal(signal.SIGUSR1)):
        os.kill(os.getpid(), signal.SIGUSR1)


Step.event_handler(luigi.Event.START)(_begin)
Step.event_handler(luigi.Event.SUCCESS)(_end)
Step.event_handler(luigi.Event.FAILURE)(_end)
Step.event_handler(luigi.Event.DEPENDENCY_MISSING)(_stop_after_failed_question)


class OfZones:
    """Makes a step one of the zones, which have no month."""

    month: date | None = None
    dataset: str = ZONES.name


def task_of(step: str, dataset: str, month: date | None) -> Step:
    """The task of a step of a month; of the zones when `month` is None."""
    import_module("pipeline.tasks.public")  # A process that unpickled a task may have imported only its module.
    if month is None:
        return _TASKS[f"{step}zones"]()
    return _TASKS[step](dataset=dataset, month=month)
