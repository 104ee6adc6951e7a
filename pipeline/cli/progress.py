"""A run while it goes on: a grid of its months, a bar, the steps that run now, and failures as they come.

Drawn by the process that runs the steps, in the thread that forks them, whenever it looks up: a thread that draws could
hold a lock while a step is forked. Where there is no terminal, each step says a line itself when it is done.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import date

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.cli.cells import grid, legend
from pipeline.cli.options import console
from pipeline.cli.streams import OutputLost
from pipeline.errors import CheckFailed, PipelineError, visible
from pipeline.months import parse_month
from pipeline.runs.events import (
    Event,
    Listener,
    LogLost,
    MonthPlan,
    Moved,
    RunFinished,
    RunStarted,
    StepEvent,
    StepFailed,
    StepFinished,
    to_json,
)
from pipeline.state.steps import BY_NAME, steps_of
from pipeline.tasks.base import log
from pipeline.units import counted, size

_REDRAW_S = 0.2
#: Rates are of the last seconds.
_WINDOW_S = 10.0
_MOST_RUNNING = 8


class Display(Listener):
    """The picture of a run, in a terminal; elsewhere what is to be said as lines."""

    def __init__(self, *, quiet: bool) -> None:
        out = console(stderr=True)
        self._out = out if out.is_terminal and not quiet else None
        self._live: Live | None = None
        self._handlers = list(log.handlers)
        self._log_lost = False
        self._plans: list[MonthPlan] = []
        self._stages: dict[tuple[str, str], str] = {}
        self._left: dict[tuple[str, str], list[str]] = {}
        self._weight = 1
        self._running: dict[tuple[str, str, str], StepEvent] = {}
        self._moved, self._movements = Moved(), deque[tuple[float, int, int]]()
        self._began = self._drawn = time.monotonic()

    def hear(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, RunFinished):
            self._stop()
        elif isinstance(event, LogLost):
            if not self._log_lost:  # Every step may have to say it.
                self._say(event.message, "yellow", log.warning)
            self._log_lost = True
        elif isinstance(event, (StepFinished, StepFailed)):
            self._running.pop(event.key, None)
            self._end(event)
        elif isinstance(event, StepEvent):
            self._running[event.key] = event
        now, moved = time.monotonic(), self._moved.since(event)
        self._movements.append((now, *moved))
        while now - self._movements[0][0] > _WINDOW_S:
            self._movements.popleft()

    def tick(self) -> None:
        """Draw, if it is time."""
        now = time.monotonic()
        if self._live and now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._live.update(self._picture(), refresh=True)

    def _start(self, event: RunStarted) -> None:
        count = len(event.months)
        if count:
            about = f"; at TLC's site these are about {size(event.bytes)}" if event.bytes else ""
            log.info(f"{counted(count, 'month')} to do{about}")
        self._plans = event.months
        self._stages = {(each.dataset, each.month): each.stage for each in event.months}
        self._left = {(each.dataset, each.month): list(each.steps) for each in event.months}
        self._weight = self._weight_left() or 1
        self._began = time.monotonic()
        if count and self._out and not self._live:
            self._live = Live(console=self._out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            # Lines of steps would run through the picture; their log files have them.
            log.handlers = [logging.NullHandler()]
            self._live.start()

    def _stop(self) -> None:
        if self._live:
            self._live.update(self._picture(), refresh=True)
            self._live.stop()
            self._live, log.handlers = None, self._handlers

    def _say(self, message: str, style: str, elsewhere: Callable[[str], object] = lambda message: None) -> None:
        if self._live:
            self._live.console.print(Text(visible(message), style=style))
        else:
            elsewhere(message)

    def _end(self, event: StepFinished | StepFailed) -> None:
        month = (event.dataset, event.month)
        if isinstance(event, StepFailed):
            error = PipelineError.from_dict(event.error)
            self._stages[month] = "refused" if isinstance(error, CheckFailed) else "failed"
            self._say(f"{event.subject} failed: {error.meaning}", "red")
            return
        if event.warnings:
            self._say(f"{event.subject}: {event.message}", "yellow")
        if month in self._stages:
            is_last = event.step == steps_of(event.dataset)[-1]
            self._stages[month] = "complete" if is_last else BY_NAME[event.step].stage
        if event.step in self._left.get(month, ()):
            self._left[month].remove(event.step)

    def _weight_left(self) -> int:
        return sum(BY_NAME[step].time_share for steps in self._left.values() for step in steps)

    def _picture(self) -> RenderableType:
        stages = dict(self._stages)
        for dataset, month, _ in self._running:
            if (dataset, month) in stages:
                stages[dataset, month] = "running"
        cells: dict[str, dict[date, str]] = {}
        for plan in self._plans:
            cells.setdefault(plan.dataset, {})[parse_month(plan.month)] = stages[plan.dataset, plan.month]
        return Group(grid(cells), legend(stages.values()), self._bar(), *self._steps())

    def _bar(self) -> RenderableType:
        left, done = self._weight_left(), sum(not steps for steps in self._left.values())
        share = 1 - left / self._weight
        spent_s = time.monotonic() - self._began
        seconds = max(1.0, min(_WINDOW_S, spent_s))
        rates = [sum(move[index] for move in self._movements) / seconds for index in (1, 2)]
        words = [f"{done}/{len(self._left)} months"]
        words += [f"{rates[0]:,.0f} rows/s"] if rates[0] else []
        words += [f"{size(rates[1])}/s"] if rates[1] else []
        words += [f"{_clock(spent_s * left / (self._weight - left))} left"] if 0 < left < self._weight else []
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=1.0, completed=share, width=24), Text(" · ".join(words)))
        return line

    def _steps(self) -> list[Text]:
        lines = []
        for (dataset, month, step), event in list(self._running.items())[:_MOST_RUNNING]:
            fraction, message = getattr(event, "fraction", None), getattr(event, "message", "")
            share = f"{fraction:4.0%}" if fraction is not None else "    "
            lines.append(Text(f"  {step:<8} {dataset:<6} {month:<7} {share}  {visible(message)}", no_wrap=True))
        return lines


class JsonLines(Listener):
    """Every event as a line of JSON on standard output."""

    def hear(self, event: Event) -> None:
        """Print it; a reader that has left does not end the run."""
        with suppress(OutputLost):
            click.echo(to_json(event))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
