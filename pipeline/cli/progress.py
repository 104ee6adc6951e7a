"""A run while it goes on: a grid of its months, a bar, the steps that run now, and failures as they come.

Drawn by the process that runs the steps, in the thread that forks them, whenever it looks up: a thread that draws could
hold a lock while a step is forked. Where there is no terminal, each step says a line itself when it is done.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline import config
from pipeline.cli.cells import grid, legend
from pipeline.cli.options import console
from pipeline.errors import CheckFailed, PipelineError, visible
from pipeline.months import format_month
from pipeline.state.status import MonthStatus
from pipeline.tasks.base import log
from pipeline.tasks.reports import Inbox, Report
from pipeline.units import size

#: About how a month's time is shared between its steps; for the time that is left.
_WEIGHTS = {"download": 3, "conform": 4, "load": 2, "mart": 1}
_REDRAW_S = 0.2
#: Rates are of the last seconds.
_WINDOW_S = 10.0
_MOST_RUNNING = 8
#: By finished step: the stage in which it leaves a month.
_STAGES = {"download": "raw", "conform": "conformed", "load": "loaded", "mart": "complete"}


class Progress:
    """What is known of the run, and its picture; in use as a context around the run."""

    def __init__(self, statuses: Mapping[str, Sequence[MonthStatus]], through: str, *, quiet: bool) -> None:
        self.rows = self.bytes = 0
        self.warnings: list[str] = []
        self._unlogged = False
        self._months = [status for of in statuses.values() for status in of if status.month]
        self._stages = {(status.dataset, _text(status.month)): status.stage for status in self._months}
        self._left = {
            (status.dataset, _text(status.month)): list(status.missing_through(through)) for status in self._months
        }
        self._left = {key: steps for key, steps in self._left.items() if steps}
        self._total, self._weight = len(self._left), self._weight_left() or 1
        self._running: dict[tuple[str, str, str], Report] = {}
        self._moved: deque[tuple[float, int, int]] = deque()
        self._began = self._drawn = time.monotonic()
        out = console(stderr=True)
        self._live = (
            Live(console=out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            if out.is_terminal and not quiet and self._total
            else None
        )
        self._handlers = list(log.handlers)
        self._inbox = Inbox(self.look)

    def __enter__(self) -> Progress:
        self._inbox.__enter__()
        config.adopt(replace(config.settings(), reports=self._inbox.path))
        if self._live:
            # Lines of steps would run through the picture; their log files have them.
            log.handlers = [logging.NullHandler()]
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take()
        if self._live:
            self._live.update(self._picture(), refresh=True)
            self._live.stop()
            log.handlers = self._handlers
        config.adopt(replace(config.settings(), reports=""))
        self._inbox.__exit__(kind, error, trace)

    @property
    def months_done(self) -> list[str]:
        """The months, such as green 2024-01, of which no step is left."""
        return [f"{dataset} {month}" for (dataset, month), steps in self._left.items() if not steps]

    def look(self) -> None:
        """Take in what has been reported, and draw if it is time."""
        self._take()
        now = time.monotonic()
        if self._live and now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._live.update(self._picture(), refresh=True)

    def _take(self) -> None:
        now = time.monotonic()
        for report in self._inbox.read():
            if report.state == "unlogged":
                self._warn_once(report.message)
                continue
            key = (report.dataset, report.month, report.step)
            before = self._running.get(key)
            rows = max(0, report.rows - (before.rows if before else 0)) if report.step == "conform" else 0
            moved = max(0, report.bytes - (before.bytes if before else 0))
            self.rows, self.bytes = self.rows + rows, self.bytes + moved
            self._moved.append((now, rows, moved))
            if report.state in ("done", "failed"):
                self._running.pop(key, None)
                self._end(report)
            else:
                self._running[key] = report
        while self._moved and now - self._moved[0][0] > _WINDOW_S:
            self._moved.popleft()

    def _warn_once(self, message: str) -> None:
        """Pass on what every step may have to say, in the words of the first."""
        if self._unlogged:
            return
        self._unlogged = True
        self.warnings.append(message)
        if self._live:
            self._live.console.print(Text(visible(message), style="yellow"))
        else:
            log.warning(message)

    def _end(self, report: Report) -> None:
        month = (report.dataset, report.month)
        subject = " ".join(part for part in (report.step, *month) if part)
        if report.state == "failed":
            error = PipelineError.from_dict(report.error or {})
            self._stages[month] = "refused" if isinstance(error, CheckFailed) else "failed"
            if self._live:
                self._live.console.print(Text(visible(f"{subject} failed: {error.meaning}"), style="red"))
            return
        if report.warnings:
            self.warnings.append(f"{subject}: {report.message}")
            if self._live:
                self._live.console.print(Text(visible(f"{subject}: {report.message}"), style="yellow"))
        if month in self._stages:
            self._stages[month] = _STAGES[report.step]
        if report.step in self._left.get(month, ()):
            self._left[month].remove(report.step)

    def _weight_left(self) -> int:
        return sum(_WEIGHTS[step] for steps in self._left.values() for step in steps)

    def _picture(self) -> RenderableType:
        stages = dict(self._stages)
        for dataset, month, _ in self._running:
            if (dataset, month) in stages:
                stages[dataset, month] = "running"
        cells: dict[str, dict[date, str]] = {}
        for status in self._months:
            if status.month:
                cells.setdefault(status.dataset, {})[status.month] = stages[status.dataset, _text(status.month)]
        return Group(grid(cells), legend(stages.values()), self._bar(), *self._steps())

    def _bar(self) -> RenderableType:
        left, done = self._weight_left(), sum(not steps for steps in self._left.values())
        share = 1 - left / self._weight
        spent_s = time.monotonic() - self._began
        seconds = max(1.0, min(_WINDOW_S, spent_s))
        rates = [sum(move[place] for move in self._moved) / seconds for place in (1, 2)]
        words = [f"{done}/{self._total} months"]
        words += [f"{rates[0]:,.0f} rows/s"] if rates[0] else []
        words += [f"{size(rates[1])}/s"] if rates[1] else []
        words += [f"{_clock(spent_s * left / (self._weight - left))} left"] if 0 < left < self._weight else []
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=1.0, completed=share, width=24), Text(" · ".join(words)))
        return line

    def _steps(self) -> list[Text]:
        lines = []
        for (dataset, month, step), report in list(self._running.items())[:_MOST_RUNNING]:
            share = f"{report.fraction:4.0%}" if report.fraction is not None else "    "
            lines.append(Text(f"  {step:<8} {dataset:<6} {month:<7} {share}  {visible(report.message)}", no_wrap=True))
        return lines


def _text(month: date | None) -> str:
    return format_month(month) if month else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
