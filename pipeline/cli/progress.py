"""The live display of a run: a grid of its months, a bar, the running steps, and failures when they happen.

It is drawn in the thread that forks the steps, because another thread could hold a lock during a fork. Without a
terminal each step logs a line when it is done.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import date

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pipeline.cli.cells import grid, legend
from pipeline.cli.options import console
from pipeline.cli.streams import OutputLost
from pipeline.errors import CheckFailed, PipelineError, visible
from pipeline.months import parse_month
from pipeline.runs import events
from pipeline.state.steps import BY_NAME, steps_of
from pipeline.tasks.base import log
from pipeline.units import counted, size

_REDRAW_S = 0.2
_MOST_RUNNING = 8
#: The time left is estimated from all steps so far.
_ESTIMATE_S = 86_400


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
        self._bar = Progress(*columns, console=out, auto_refresh=False, speed_estimate_period=_ESTIMATE_S)
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
