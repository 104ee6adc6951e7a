"""What the user sees of a run: the live display, or events as JSON, and a summary at the end.

The display is drawn in the thread that forks the steps, because another thread could hold a lock during a fork. Without
a terminal each step logs a line when it is done.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from itertools import groupby

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pipeline import lake
from pipeline.cli.grid import grid, legend
from pipeline.cli.output import console, numbers, print_line, print_section, whole
from pipeline.cli.streams import OutputLost
from pipeline.datasets import dataset_named
from pipeline.errors import CheckFailed, NotPublished, PipelineError, SchemaError, redact, visible
from pipeline.months import label, parse_month, spans
from pipeline.places import source_of, store_of
from pipeline.runs import events
from pipeline.runs.history import Failure, Run, by_dataset, causes, counted_months
from pipeline.settings import current_settings, suggested_command
from pipeline.state.steps import BY_NAME, steps_of
from pipeline.tasks.base import log
from pipeline.units import counted, size

_REDRAW_S = 0.2
_MOST_RUNNING, _MOST_LINES, _MOST_ERRORS = 8, 60, 10


class Display(events.Listener):
    """The display of a run in a terminal; elsewhere messages are logged."""

    def __init__(self, *, quiet: bool) -> None:
        out = console(stderr=True)
        self._out = out if out.is_terminal and not quiet else None
        self._live: Live | None = None
        self._handlers = list(log.handlers)
        self._log_lost = False
        self._stages: dict[tuple[str, str], str] = {}
        self._running: dict[tuple[str, str, str], events.StepEvent] = {}
        self._totals = events.Totals()
        self._began = self._drawn = time.monotonic()
        columns = (BarColumn(bar_width=24), TextColumn("{task.description}"), TimeRemainingColumn())
        # With this period, the time left is estimated from all steps so far.
        self._bar = Progress(*columns, console=out, auto_refresh=False, speed_estimate_period=86_400)
        self._task, self._weight = self._bar.add_task(""), 0

    def hear(self, event: events.Event) -> None:
        """Update the display with an event."""
        self._totals.add(event)
        if isinstance(event, events.RunStarted):
            self._start(event)
        elif isinstance(event, events.RunFinished) and self._live:
            self._live.update(self._picture(), refresh=True)
            self._live.stop()
            self._live, log.handlers = None, self._handlers
        elif isinstance(event, events.LogLost):
            if not self._log_lost:  # Every step may send it.
                self._print(event.message, "yellow") if self._live else log.warning(event.message)
            self._log_lost = True
        elif isinstance(event, (events.StepFinished, events.StepFailed)):
            self._running.pop(event.key, None)
            self._end(event)
        elif isinstance(event, events.StepEvent):
            self._running[event.key] = event

    def tick(self) -> None:
        """Draw, if it is time."""
        now = time.monotonic()
        if self._live and now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._live.update(self._picture(), refresh=True)

    def _start(self, event: events.RunStarted) -> None:
        self._stages |= {(plan.dataset, plan.month): plan.stage for plan in event.months}
        self._weight = sum(BY_NAME[step].time_share for plan in event.months for step in plan.steps)
        self._bar.reset(self._task, total=self._weight or 1)
        self._began = time.monotonic()
        if event.months:
            about = f"; at TLC's site these are about {size(event.bytes)}" if event.bytes else ""
            log.info(f"{counted(len(event.months), 'month')} to do{about}")
        if event.months and self._out and not self._live:
            self._live = Live(console=self._out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            # Log lines of steps would break the picture; the log files have them.
            log.handlers = [logging.NullHandler()]
            self._live.start()

    def _print(self, message: str, style: str) -> None:
        if self._live:
            self._live.console.print(Text(visible(message), style=style))

    def _end(self, event: events.StepFinished | events.StepFailed) -> None:
        month = (event.dataset, event.month)
        if isinstance(event, events.StepFailed):
            error = PipelineError.from_dict(event.error)
            self._stages[month] = "refused" if isinstance(error, CheckFailed) else "failed"
            self._print(f"{event.subject} failed: {error.meaning}", "red")
            return
        if event.warnings:
            self._print(f"{event.subject}: {event.message}", "yellow")
        is_last = event.step == steps_of(event.dataset)[-1]
        self._stages[month] = "complete" if is_last else BY_NAME[event.step].stage

    def _picture(self) -> RenderableType:
        running = {(event.dataset, event.month) for event in self._running.values()}
        cells: dict[str, dict[date, str]] = {}
        for month in self._totals.left:
            stage = "running" if month in running else self._stages[month]
            cells.setdefault(month[0], {})[parse_month(month[1])] = stage
        seconds, left = max(1.0, time.monotonic() - self._began), self._totals.left.values()
        words = [f"{sum(not steps for steps in left)}/{len(left)} months"]
        words += [f"{self._totals.rows / seconds:,.0f} rows/s"] if self._totals.rows else []
        words += [f"{size(self._totals.bytes / seconds)}/s"] if self._totals.bytes else []
        completed = self._weight - sum(BY_NAME[step].time_share for steps in left for step in steps)
        self._bar.update(self._task, completed=completed, description=" · ".join(words))
        stages = [stage for each in cells.values() for stage in each.values()]
        return Group(grid(cells), legend(stages), self._bar, *self._steps())

    def _steps(self) -> list[Text]:
        lines = []
        for (dataset, month, step), event in list(self._running.items())[:_MOST_RUNNING]:
            fraction, message = getattr(event, "fraction", None), getattr(event, "message", "")
            share = f"{fraction:4.0%}" if fraction is not None else "    "
            lines.append(Text(f"  {step:<8} {dataset:<6} {month:<7} {share}  {visible(message)}", no_wrap=True))
        return lines


class JsonLines(events.Listener):
    """Every event as a line of JSON on standard output."""

    def hear(self, event: events.Event) -> None:
        """Print it; a closed output does not end the run."""
        with suppress(OutputLost):
            click.echo(events.to_json(event))


class Summary(events.Listener):
    """Prints, at the end of a run, its months, its errors, and the names of lake and warehouse."""

    def __init__(self) -> None:
        self._wanted = 0

    def hear(self, event: events.Event) -> None:
        """Count the requested months, and print the summary at the end."""
        if isinstance(event, events.RunStarted):
            self._wanted += event.wanted
        # A run that was stopped or could not be planned has its own error message.
        if isinstance(event, events.RunFinished) and event.record.exit_code in (0, 1, 3, 4):
            with suppress(OutputLost):  # The run is done, also if its summary cannot be written.
                self._print(event.record, event.outcomes)

    def _print(self, record: Run, outcomes: Sequence[events.Outcome]) -> None:
        settings = current_settings()
        if outcomes:
            _print_months(outcomes)
        elif self._wanted:
            months = "the month is" if self._wanted == 1 else f"all {self._wanted} months are"
            print_line(f"Nothing to do: {months} up to date.")
        print_line(f"lake       {store_of(settings).location}")
        print_line(f"warehouse  {redact(settings.warehouse)}")
        _print_errors(record.failures)
        left = [outcome for outcome in outcomes if not outcome.failed and outcome.status != "DONE"]
        why = next((outcome.why for outcome in left if outcome.why), "")
        # Steps that were not run because of a failure need no explanation.
        if left and (why or not record.failures):
            if not why and all(outcome.status == "RUNNING" for outcome in left):
                why = "another worker runs them"
            steps = f"{counted(len(left), 'step')} not run{': ' if why else ''}{why}"
            print_line(f"{steps}. Finished steps are kept; run the same command again.")
        for error in record.errors:
            click.echo(visible(error), err=True)


def _print_errors(failures: Sequence[Failure]) -> None:
    """Print the errors, with months that are not published yet at the end."""
    failures = sorted(failures, key=lambda failure: (failure.waits, failure.dataset, failure.month))
    errors = causes(failures)
    for failure, others in errors[:_MOST_ERRORS]:
        print_line(f"{failure.kind}: {failure.error}{others}", "yellow" if failure.waits else "red")
    if len(errors) > _MOST_ERRORS:
        print_line(f"… and {len(errors) - _MOST_ERRORS} more: pipeline history --last 1 --json")
    failed = [failure for failure in failures if not failure.waits]
    if failed:
        count = counted_months((failure.dataset, failure.first_day) for failure in failed)
        print_line(f"{count} failed. The same command runs only the missing steps.")
    refused = [failure for failure in failed if failure.code in (SchemaError.code, CheckFailed.code)]
    if refused:  # The same command would conform the same raw files again.
        print_line("It conforms the raw files of the lake. If the source has newer files, first run:")
    for name, months in by_dataset((failure.dataset, failure.first_day) for failure in refused).items():
        for period in spans(filter(None, months)) or [""]:
            print_line(f"    {suggested_command('redo', *f'{name} {period}'.split(), '--from', 'download')}")
    if len(failed) < len(failures):
        print_line(f"{len(failures) - len(failed)} not published yet: not a failure, come back later.")


def _print_months(outcomes: Sequence[events.Outcome]) -> None:
    def key(outcome: events.Outcome) -> tuple[str, date]:
        return outcome.dataset, outcome.month or date.min

    months = [list(steps) for _, steps in groupby(sorted(outcomes, key=key), key)]
    counts = numbers("rows", "raw", "seconds")
    print_section("", (*whole("month"), *counts, "findings"), map(_row, months[:_MOST_LINES]))
    if len(months) > _MOST_LINES:
        print_line(f"… and {len(months) - _MOST_LINES} more months")


def _row(steps: Sequence[events.Outcome]) -> list[str]:
    name, month = steps[0].dataset, steps[0].month
    store, dataset = store_of(current_settings()), dataset_named(name)
    raw = lake.raw_key(dataset, source_of(current_settings()).file_name(dataset, month))
    key, checks = lake.checks_key(dataset, month), {}
    if store.exists(key):
        with store.entry(key).open() as file:
            checks = json.loads(file.read())
    failed = next((step for step in steps if step.failed), None)
    remark = ", ".join(finding["rule"].replace("_", " ") for finding in checks.get("findings", []))
    if failed and failed.error:
        waits = isinstance(failed.error, NotPublished)
        remark = failed.error.meaning if waits else f"{failed.step} failed: {failed.error.meaning}"
    elif undone := [step.step for step in steps if step.status != "DONE"]:
        remark = f"{undone[0]} not run"
    return [
        label(name, month),
        f"{checks['rows']:,}" if "rows" in checks and not failed else "",
        size(store.entry(raw).bytes) if store.exists(raw) else "",
        f"{sum(step.seconds for step in steps):,.1f}",
        remark,
    ]
