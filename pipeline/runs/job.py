"""A run from its plan to its exit code, with history, events and notification, however it was started.

Promise: a run that began is in the history, however it ends, and its end is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import NotPublished, PipelineError, UnexpectedError, UsageError, redact
from pipeline.months import format_month, label, month_ranges
from pipeline.places import inventory_of, source_of, store_of
from pipeline.runs import events
from pipeline.runs.event_files import EventFile
from pipeline.runs.history import Failure, History, Run
from pipeline.runs.notification import notify
from pipeline.runs.runner import run
from pipeline.runs.stopping import Stopped
from pipeline.settings import adopt, adopt_context, current_settings, run_context
from pipeline.state.steps import STEPS
from pipeline.tasks import logs
from pipeline.tasks.base import log
from pipeline.tasks.runs import Backfill
from pipeline.tasks.warehouse import LoadZones, loaded_zones_at


@dataclass
class Plan:
    """The months to bring up to date, by dataset; `zones` maps to [None]. `errors` tell what could not be planned."""

    months: Mapping[str, Sequence[date | None]]
    errors: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """The options of a run. With `asks_source`, making its plan asks the source."""

    through: str = STEPS[-1]
    workers: int = 2
    scheduler: str | None = None
    oldest_first: bool = False
    fail_fast: bool = False
    asks_source: bool = False


def execute(asked: str, plan: Callable[[], Plan], options: Options, listeners: Sequence[events.Listener]) -> int:
    """Run the plan and return the exit code. `asked` is the command line, for the history.

    Raises:
        PipelineError: the run could not be planned.
        Stopped: SIGINT or SIGTERM arrived; every child has ended.
    """
    adopt_context(replace(run_context(), workers=options.workers, oldest_first=options.oldest_first))
    settings = current_settings()
    if problem := logs.problem(Path(settings.logs), make=True):
        log.warning(f"no logs and no history: {problem}")
    history = History(settings.logs, silent=bool(problem))
    record = history.begin(asked, lake=store_of(settings).location, warehouse=redact(settings.warehouse))
    recorder = _Recorder(record, [EventFile(history, record.id), *listeners], log_lost=bool(problem))
    code, outcomes = 2, list[events.Outcome]()
    try:
        with recorder.receiving():
            outcomes, errors = _run(record, plan, options, recorder)
        recorder.finish(outcomes)
        record.errors = list(errors)
        code = 1 if errors else exit_code(outcomes)
    except Stopped as stopped:
        code = 128 + stopped.number
        raise
    except PipelineError as error:
        code = 2 if isinstance(error, UsageError) else 5
        record.errors = [error.words]
        raise
    finally:
        history.end(record, code)
        recorder.hear(events.RunFinished(record=record, outcomes=outcomes))
        if code < 128 and code != 2:
            notify(record, settings.notify_url)
    return code


def exit_code(outcomes: Sequence[events.Outcome]) -> int:
    """The exit code for these outcomes; `pipeline/cli/__init__.py` lists all codes."""
    if failed := [outcome for outcome in outcomes if outcome.failed]:
        return 3 if all(isinstance(outcome.error, NotPublished) for outcome in failed) else 1
    return 4 if any(outcome.status != "DONE" for outcome in outcomes) else 0


def _run(
    record: Run, plan: Callable[[], Plan], options: Options, recorder: _Recorder
) -> tuple[list[events.Outcome], Sequence[str]]:
    """Plan, then run: first the zones, because the marts that they invalidate are then missing."""
    if options.asks_source:
        _look_up_host(recorder)
    planned = plan()
    scheduler, fail_fast = options.scheduler, options.fail_fast
    do = partial(run, workers=options.workers, scheduler_url=scheduler, on_tick=recorder.tick, fail_fast=fail_fast)
    months = {name: sorted({month for month in each if month}) for name, each in planned.months.items()}
    outcomes: list[events.Outcome] = []
    if has_zones := ZONES.name in planned.months:
        inventory = inventory_of(current_settings())
        built = {name: sorted(inventory.marts(dataset)) for name, dataset in DATASETS.items()}
        recorder.hear(events.RunStarted(run=record.id, asked=record.asked, wanted=0, bytes=0, months=[]))
        outcomes += do([LoadZones(before=loaded_zones_at())])
        inventory = inventory_of(current_settings())
        for name, before in built.items():
            months[name] = sorted({*months.get(name, ()), *inventory.missing(DATASETS[name], before)})
    months = {name: each for name, each in months.items() if each}
    if months or not has_zones:
        started = _started(record, months, options.through)
        recorder.hear(started)
        if not options.asks_source and any("download" in month.steps for month in started.months):
            _look_up_host(recorder)
        roots = [
            Backfill(datasets=(name,), first=span[0], last=span[-1], through=options.through)
            for name, each in months.items()
            for span in month_ranges(each)
        ]
        outcomes += do(roots) if roots else []
    return outcomes, planned.errors


def _started(record: Run, months: Mapping[str, Sequence[date]], through: str) -> events.RunStarted:
    """The event with everything that is missing of the months."""
    inventory = inventory_of(current_settings(), through)
    missing = {name: inventory.missing(DATASETS[name], each, through) for name, each in months.items()}
    missing = {name: each for name, each in missing.items() if each}
    plans = [
        events.MonthPlan(name, format_month(status.month), status.stage, list(status.missing_steps(through)))
        for name, statuses in inventory.statuses(missing, date.today()).items()
        for status in statuses
        if status.month
    ]
    total = round(sum(estimated_bytes(name, each) for name, each in missing.items()))
    wanted = sum(map(len, months.values()))
    return events.RunStarted(run=record.id, asked=record.asked, wanted=wanted, bytes=total, months=plans)


def _look_up_host(listener: events.Listener) -> None:
    """Look up the source's host name once with all retries; if it is unknown, let no step retry."""

    def retry(attempt: int, attempts: int, wait_s: float, reason: str) -> None:
        event = events.RetryScheduled(
            step="download", dataset="", month="", attempt=attempt, attempts=attempts, wait_s=wait_s, reason=reason
        )
        log.info(f"{event.subject}: {event.message}")
        listener.hear(event)
        listener.tick()

    settings = current_settings()
    source = source_of(settings)
    if not replace(source, policy=replace(source.policy, on_retry=retry)).name_is_known():
        adopt(replace(settings, retries=0))


class _Recorder(events.Listener):
    """Fills the record of a run from its events, and passes them on to the other listeners.

    The record of a stopped run has nothing else.
    """

    def __init__(self, record: Run, listeners: Sequence[events.Listener], *, log_lost: bool) -> None:
        self._record, self._listeners, self._log_lost = record, listeners, log_lost
        self._totals, self._inbox = events.Totals(), events.Inbox()

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Within the block, steps send their events to this listener."""
        with self._inbox:
            adopt_context(replace(run_context(), reports=self._inbox.path))
            try:
                yield
            finally:
                self.tick()
                adopt_context(replace(run_context(), reports=""))

    def tick(self) -> None:
        for event in self._inbox.read():
            self.hear(event)
        for listener in self._listeners:
            listener.tick()

    def hear(self, event: events.Event) -> None:
        record = self._record
        self._totals.add(event)
        record.rows, record.bytes = self._totals.rows, self._totals.bytes
        if isinstance(event, events.LogLost):
            if self._log_lost:  # Every step may send it.
                return
            self._log_lost = True
            record.warnings.append(event.message)
        elif isinstance(event, events.StepFinished):
            record.warnings += [f"{event.subject}: {event.message}"] if event.warnings else []
            record.months_done = [" ".join(month) for month, left in self._totals.left.items() if not left]
        for listener in self._listeners:
            listener.hear(event)

    def finish(self, outcomes: Sequence[events.Outcome]) -> None:
        """Record the outcomes of all steps."""
        record = self._record
        undone = {(outcome.dataset, outcome.month) for outcome in outcomes if outcome.status != "DONE"}
        months = dict.fromkeys((outcome.dataset, outcome.month) for outcome in outcomes if outcome.month)
        record.months_done = [label(*month) for month in months if month not in undone]
        for outcome in outcomes:
            record.seconds[outcome.step] = round(record.seconds.get(outcome.step, 0) + outcome.seconds, 3)
            if outcome.failed:
                month = format_month(outcome.month) if outcome.month else ""
                error = (outcome.error or UnexpectedError()).to_dict()
                record.failures.append(Failure.from_error(outcome.step, outcome.dataset, month, error))
