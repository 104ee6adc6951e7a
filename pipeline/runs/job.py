"""A run from its plan to its exit code, with history, events and notification, however it was started.

Promise: a run that began is in the history, whatever ends it, and its end is notified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path

from pipeline.datasets import DATASETS
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import NotPublished, PipelineError, UnexpectedError, UsageError, redact
from pipeline.months import format_month, month_ranges
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.runs.events import (
    Event,
    Listener,
    LogLost,
    MonthPlan,
    Moved,
    Outcome,
    RetryScheduled,
    RunFinished,
    RunStarted,
    StepFinished,
)
from pipeline.runs.history import Failure, History, Run
from pipeline.runs.notification import notify
from pipeline.runs.runner import run
from pipeline.runs.stopping import Stopped
from pipeline.settings import adopt, adopt_context, current_settings, run_context
from pipeline.state.steps import STEPS
from pipeline.tasks import logs
from pipeline.tasks.base import log
from pipeline.tasks.reports import Inbox
from pipeline.tasks.runs import Backfill
from pipeline.tasks.warehouse import LoadZones, loaded_zones_at


@dataclass
class Plan:
    """What a run is to bring up to date; `errors` say what could not even be begun."""

    months: Mapping[str, Sequence[date]] = field(default_factory=dict)
    zones: bool = False
    errors: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """How a run goes about it. With `asks_source`, its plan asks the source."""

    through: str = STEPS[-1]
    workers: int = 2
    scheduler: str | None = None
    oldest_first: bool = False
    fail_fast: bool = False
    asks_source: bool = False


def execute(asked: str, plan: Callable[[], Plan], options: Options, listeners: Sequence[Listener]) -> int:
    """Do what the plan says; returns the exit code. `asked` is the command line, for the history.

    Raises:
        PipelineError: the run could not be planned.
        Stopped: SIGINT or SIGTERM arrived; every child has ended.
    """
    adopt_context(replace(run_context(), workers=options.workers, oldest_first=options.oldest_first))
    settings = current_settings()
    if problem := logs.problem(Path(settings.logs), make=True):
        log.warning(f"no logs and no history: {problem}")
    history = History(settings.logs, silent=bool(problem))
    # A URL may have a password in it.
    lake, warehouse = store_of(settings).location, redact(settings.warehouse)
    record = history.begin(asked, lake=lake, warehouse=warehouse)
    recorder = _Recorder(record)
    everyone = _Everyone([recorder, *listeners])
    code, outcomes = 2, list[Outcome]()
    try:
        with _reports(everyone):
            outcomes, errors = _run(record, plan, options, everyone)
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
        everyone.hear(RunFinished(record=record, outcomes=outcomes))
        if code < 128 and code != 2:
            notify(record, settings.notify_url)
    return code


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The code for what became of the steps; see the top of `pipeline/cli/__init__.py`."""
    failed = [outcome for outcome in outcomes if outcome.failed]
    if any(not isinstance(outcome.error, NotPublished) for outcome in failed):
        return 1
    if failed:
        return 3
    return 4 if any(outcome.status != "DONE" for outcome in outcomes) else 0


def _run(
    record: Run, plan: Callable[[], Plan], options: Options, everyone: _Everyone
) -> tuple[list[Outcome], Sequence[str]]:
    """Plan, then run: the zones first, since the marts that they invalidate are months to do."""
    if options.asks_source:
        _look_up_name(everyone)
    planned = plan()
    scheduler, fail_fast = options.scheduler, options.fail_fast
    do = partial(run, workers=options.workers, scheduler_url=scheduler, on_tick=everyone.tick, fail_fast=fail_fast)
    months, outcomes = dict(planned.months), list[Outcome]()
    if planned.zones:
        inventory = inventory_of(current_settings())
        built = {name: sorted(inventory.marts(spec)) for name, spec in DATASETS.items()}
        everyone.hear(RunStarted(run=record.id, asked=record.asked, wanted=0, bytes=0, months=[]))
        outcomes += do([LoadZones(before=loaded_zones_at(warehouse_of(current_settings())))])
        inventory = inventory_of(current_settings())
        for name, before in built.items():
            lost = inventory.missing(DATASETS[name], before)
            months[name] = sorted({*months.get(name, ()), *lost})
    months = {name: wanted for name, wanted in months.items() if wanted}
    if months or not planned.zones:
        started = _started(record, months, options.through)
        everyone.hear(started)
        if not options.asks_source and any("download" in month.steps for month in started.months):
            _look_up_name(everyone)
        roots = [
            Backfill(datasets=(name,), first=span[0], last=span[-1], through=options.through)
            for name, wanted in months.items()
            for span in month_ranges(wanted)
        ]
        outcomes += do(roots) if roots else []
    return outcomes, planned.errors


def _started(record: Run, months: Mapping[str, Sequence[date]], through: str) -> RunStarted:
    """What is missing of the months, before anything is done."""
    inventory = inventory_of(current_settings(), through)
    missing = {name: inventory.missing(DATASETS[name], wanted, through) for name, wanted in months.items()}
    missing = {name: wanted for name, wanted in missing.items() if wanted}
    plans = [
        MonthPlan(name, format_month(each.month), each.stage, list(each.missing_through(through)))
        for name, wanted in inventory.statuses(missing, date.today()).items()
        for each in wanted
        if each.month
    ]
    total = sum(estimated_bytes(name, wanted) for name, wanted in missing.items())
    count = sum(map(len, months.values()))
    return RunStarted(run=record.id, asked=record.asked, wanted=count, bytes=round(total), months=plans)


def _look_up_name(listener: Listener) -> None:
    """Find out once, not once for each file, that the source's name is unknown: then no step waits for it again."""

    def retry(attempt: int, attempts: int, wait_s: float, reason: str) -> None:
        event = RetryScheduled(
            step="download", dataset="", month="", attempt=attempt, attempts=attempts, wait_s=wait_s, reason=reason
        )
        log.info(f"{event.subject}: {event.message}")
        listener.hear(event)
        listener.tick()

    settings = current_settings()
    source = source_of(settings)
    if not replace(source, policy=replace(source.policy, on_retry=retry)).name_is_known():
        adopt(replace(settings, retries=0))


class _Everyone(Listener):
    """All listeners as one; it also reads what steps have sent."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self.inbox: Inbox | None = None

    def hear(self, event: Event) -> None:
        for listener in self._listeners:
            listener.hear(event)

    def tick(self) -> None:
        for event in self.inbox.read() if self.inbox else ():
            self.hear(event)
        for listener in self._listeners:
            listener.tick()


def _reports(everyone: _Everyone) -> ExitStack:
    """Within the block, steps send their events here."""
    stack = ExitStack()
    inbox = everyone.inbox = stack.enter_context(Inbox(everyone.tick))
    stack.callback(lambda: adopt_context(replace(run_context(), reports="")))
    stack.callback(everyone.tick)
    adopt_context(replace(run_context(), reports=inbox.path))
    return stack


class _Recorder(Listener):
    """Fills the record of a run from its events; of a run that is stopped this is all that is known."""

    def __init__(self, record: Run) -> None:
        self._record = record
        self._left: dict[tuple[str, str], list[str]] = {}
        self._moved = Moved()
        self._log_lost = False

    def hear(self, event: Event) -> None:
        record = self._record
        rows, moved = self._moved.since(event)
        record.rows, record.bytes = record.rows + rows, record.bytes + moved
        if isinstance(event, RunStarted):
            self._left |= {(month.dataset, month.month): list(month.steps) for month in event.months}
        elif isinstance(event, LogLost) and not self._log_lost:
            self._log_lost = True
            record.warnings.append(event.message)
        elif isinstance(event, StepFinished):
            if event.warnings:
                record.warnings.append(f"{event.subject}: {event.message}")
            left = self._left.get((event.dataset, event.month), [])
            if event.step in left:
                left.remove(event.step)
                record.months_done += [] if left else [f"{event.dataset} {event.month}"]

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write down what became of each step, as lake, warehouse and scheduler have it."""
        record = self._record
        undone = {(outcome.dataset, outcome.month) for outcome in outcomes if outcome.status != "DONE"}
        done = [outcome for outcome in outcomes if outcome.month and (outcome.dataset, outcome.month) not in undone]
        names = dict.fromkeys(f"{outcome.dataset} {format_month(outcome.month)}" for outcome in done if outcome.month)
        record.months_done = list(names)
        for outcome in outcomes:
            record.seconds[outcome.step] = round(record.seconds.get(outcome.step, 0) + outcome.seconds, 3)
            if outcome.failed:
                month = format_month(outcome.month) if outcome.month else ""
                error = (outcome.error or UnexpectedError()).to_dict()
                message = error.pop("message")
                record.failures.append(Failure(outcome.step, outcome.dataset, month, error=message, **error))
