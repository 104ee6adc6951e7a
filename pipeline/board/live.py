"""What changes while pages are open: the status of months, and the events of running runs.

Nothing is watched while no page is open. A page is sent what has changed at most five times a second, however many
events there were, so nothing piles up for a slow browser.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.log import app_log

from pipeline.board.grid import key_of
from pipeline.board.questions import Questions
from pipeline.errors import PipelineError
from pipeline.places import warehouse_file
from pipeline.runs.event_files import StepStates, Tail, add_event, complete_states
from pipeline.runs.events import Progress, StepFailed
from pipeline.runs.history import History, Run
from pipeline.settings import current_settings

POLL_S = 0.2
#: When a page is opened, an older status is asked again if something has changed, and a very old one in any case.
_FRESH_S, _OLD_S = 2.0, 60.0
#: A running run changes the months all the time.
_BETWEEN_S = 10.0
#: How often it is checked whether a run was killed, and what luigid does.
_CHECK_S = 1.0
_MOST_STREAMS, _MOST_EVENTS = 64, 200
_STATES = {"waiting": "queued", "done": "done", "running": "running", "failed": "failed"}

Month = tuple[str, str]
#: By month, such as `green 2024-01`: its mark (absent if the one of the status is right), the states of steps, a note.
Overlay = dict[str, dict[str, Any]]


class Followed:
    """A run and its events so far."""

    def __init__(self, run: Run, history: History) -> None:
        self.run, self.is_over = run, False
        self.states: StepStates = {}
        #: The last ones with their numbers, without those of progress.
        self.events: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_MOST_EVENTS)
        self.failed: list[dict[str, Any]] = []
        #: How many events were read.
        self.count = 0
        self._path = history.event_file(run.id)
        self._tail: Tail | None = None

    def read(self, *, to_end: bool = False) -> set[Month]:
        """Read a part of what was added, or all; returns the months that it is about."""
        touched: set[Month] = set()
        with suppress(OSError):  # The file was deleted, or the run could not write it.
            self._tail, is_read = self._tail or Tail(self._path), False
            while not is_read:
                for event in self._tail.read():
                    touched |= self._add(event)
                is_read = self._tail.is_at_end or not to_end
        return touched

    def end(self, run: Run) -> None:
        """Read the rest; the record of the run completes its events."""
        self.read(to_end=True)
        if self._tail:
            self._tail.close()
        self.run, self.is_over = run, True
        complete_states(self.states, run)

    def _add(self, event: dict[str, Any]) -> set[Month]:
        add_event(self.states, event)
        self.count += 1
        if event["event"] != Progress.event:
            self.events.append((self.count, event))
        if event["event"] == StepFailed.event:
            self.failed.append(event)
        subjects = [event] if event.get("dataset") else event.get("months", ())
        return {(each["dataset"], each["month"]) for each in subjects}


class Stream:
    """What an open page has not been sent yet; `run_id` is the run that it shows."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self.is_closed = run_id, False
        #: How many events of the run were sent.
        self.count = 0
        self._names: set[str] = set()
        self._cells: Overlay = {}
        self._wake = asyncio.Event()

    def add(self, name: str, cells: Overlay | None = None) -> None:
        """Note an event: cells, grid, run or runs."""
        self._names.add(name)
        self._cells |= cells or {}
        self._wake.set()

    def close(self) -> None:
        """The page has gone, or the board ends."""
        self.is_closed = True
        self._wake.set()

    async def take(self, timeout_s: float) -> tuple[set[str], Overlay]:
        """The names of new events, and the cells that have changed; none after the timeout."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        self._wake.clear()
        names, cells, self._names, self._cells = self._names, self._cells, set(), {}
        return names, cells


class Live:
    """Keeps the last answer to `status` and the events of running runs, and sends changes to the open pages."""

    def __init__(self, logs: str, questions: Questions) -> None:
        self.history, self._questions = History(logs, silent=True), questions
        self.luigid: Any = None
        #: All runs, oldest first; running ones, and those that ended since the last status, by id.
        self.runs: list[Run] = []
        self.followed: dict[str, Followed] = {}
        #: The last answer to `status`; None before the first.
        self.last: dict[str, Any] | None = None
        self._error = PipelineError("the status is not known")
        self._asking: asyncio.Task[None] | None = None
        #: When the status was asked, and the files then.
        self._asked, self._files = 0.0, dict[Path, tuple[int, int]]()
        self._history_file = (-1, -1)
        self._checked = 0.0
        self._scheduled: Overlay = {}
        #: Of the open pages.
        self.streams: set[Stream] = set()
        self._watching: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """End the streams."""
        for stream in self.streams:
            stream.close()

    async def status(self) -> dict[str, Any]:
        """The last answer to `status`; waits only for the first.

        Raises:
            PipelineError: lake or warehouse do not answer.
        """
        self.poll()
        self._ask_if_changed()
        if time.monotonic() - self._asked > _OLD_S:
            self.ask()
        if self.last is None:
            await asyncio.wait([self.ask()])
        if self.last is None:
            raise self._error
        return self.last

    def overlay(self) -> Overlay:
        """What running runs, and luigid, know of months, and the status does not show yet."""
        cells = dict(self._scheduled)
        for each in self.followed.values():
            cells |= self._cells(each, each.states)
        return cells

    def subscribe(self, run_id: str, as_of: str) -> Stream | None:
        """A stream for a page that shows the status of this time; None if there are too many."""
        if len(self.streams) >= _MOST_STREAMS:
            return None
        stream = Stream(run_id)
        self.streams.add(stream)
        self.poll()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        stream.add("cells", self.overlay())
        if run_id:
            stream.add("run")
        if as_of and self.last and as_of != self.last["document"]["as_of"]:
            stream.add("grid")
        return stream

    async def find(self, run_id: str) -> Followed:
        """A run with its events.

        Raises:
            UsageError: there is no such run.
        """
        self.poll()
        if run_id in self.followed:
            return self.followed[run_id]
        followed = Followed(self.history.run(run_id), self.history)
        await asyncio.to_thread(followed.end, followed.run)
        return followed

    def poll(self) -> None:
        """Read what runs have written since the last time."""
        is_due = time.monotonic() - self._checked > _CHECK_S
        if (file := _stamp(self.history.path)) != self._history_file:
            self._history_file, self.runs, is_due = file, self.history.runs(), True
            self._send("runs")
        if is_due:
            self._checked = time.monotonic()
            self._follow_runs()
            self._read_luigid()
        for each in self.running:
            if months := each.read():
                self._send("cells", self._cells(each, months))
                self._send("run", run_id=each.run.id)
        if is_due and self.streams:
            self._ask_if_changed()

    @property
    def running(self) -> list[Followed]:
        """The runs that have not ended, oldest first."""
        return [each for each in self.followed.values() if not each.is_over]

    def _follow_runs(self) -> None:
        """Begin to follow runs that run, and end with those that do not; killed ones have left no record."""
        for run in self.runs:
            followed, is_running = self.followed.get(run.id), run.outcome == "running"
            if is_running and not followed:
                self.followed[run.id] = Followed(run, self.history)
            elif followed and not is_running and not followed.is_over:
                followed.end(run)
                self._send("cells", self._cells(followed, followed.states))
                self._send("run", run_id=run.id)
                self._send("runs")

    def _read_luigid(self) -> None:
        """Ask the luigid of this process, if there is one."""
        cells: Overlay = {}
        for (dataset, month, step), (state, note) in (self.luigid.overlay() if self.luigid else {}).items():
            cell = cells.setdefault(key_of(dataset, month), {"steps": {}, "note": ""})
            cell["steps"][step] = state
            if state != "queued":
                cell |= {"mark": state, "note": f"{step} {note}".rstrip()}
        if self._scheduled.keys() - cells.keys():
            self._send("grid")
        self._send("cells", {key: cell for key, cell in cells.items() if cell != self._scheduled.get(key)})
        self._scheduled = cells

    def _cells(self, followed: Followed, months: Collection[Month]) -> Overlay:
        """What the run knows of these months."""
        stages = {each["name"]: each["stage"] for each in (self.last or {}).get("steps", ())}
        lasts = (self.last or {}).get("last_steps", {})
        cells: Overlay = {}
        for dataset, month in months:
            states = followed.states.get((dataset, month), {})
            steps = {name: _STATES.get(each.state, "missing") for name, each in states.items()}
            cell = cells[key_of(dataset, month)] = {"steps": steps, "note": ""}
            # Of each state the last step.
            last = {state: name for name, state in steps.items()}
            if at_work := last.get("running"):
                cell |= {"mark": "running", "note": f"{at_work} {states[at_work].note}".rstrip()}
            elif "failed" in last:
                cell["mark"] = "failed"
            elif (done := last.get("done")) and done == lasts.get(dataset, "mart"):
                cell["mark"] = "warned" if any(each.is_warned for each in states.values()) else "complete"
            elif done:
                cell["mark"] = stages.get(done, "running")
        return cells

    def _ask_if_changed(self) -> None:
        """Ask for the status if a run has ended, or if it is not fresh and the files have changed since."""
        is_old = time.monotonic() - self._asked > (_BETWEEN_S if self.running else _FRESH_S)
        if len(self.running) < len(self.followed) or (is_old and self._files != _files()):
            self.ask()

    def ask(self) -> asyncio.Task[None]:
        """Ask for the status, unless it is being asked."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_status())
        return self._asking

    async def _ask_status(self) -> None:
        self._asked, self._files = time.monotonic(), _files()
        over, before = [id for id, each in self.followed.items() if each.is_over], self.last
        try:
            self.last = await self._questions.ask("status")
        except PipelineError as error:  # The next page shows it.
            self.last, self._error = None, error
        for id in over:
            del self.followed[id]
        if over or _months(before) != _months(self.last):
            self._send("grid")

    async def _watch(self) -> None:
        while self.streams:
            try:
                self.poll()
            except Exception:
                app_log.exception("the runs cannot be watched")
            await asyncio.sleep(POLL_S)

    def _send(self, name: str, cells: Overlay | None = None, *, run_id: str = "") -> None:
        for stream in self.streams:
            if (cells is None or cells) and run_id in ("", stream.run_id):
                stream.add(name, cells)


def _months(answer: dict[str, Any] | None) -> Any:
    return {**answer["document"], "as_of": ""} if answer else None


def _files() -> dict[Path, tuple[int, int]]:
    """What changes when a month changes: the times of the lake's folders and of DuckDB's file, if they are local."""
    settings = current_settings()
    paths = [Path(settings.logs) / "runs.jsonl"]
    if file := warehouse_file(settings):
        paths += [file, Path(f"{file}.wal")]
    if "://" not in settings.lake:
        for folder in (Path(settings.lake) / name for name in ("raw", "trips", "checks", "zones")):
            paths.append(folder)
            with suppress(OSError):
                paths += folder.iterdir()
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int]:
    """What differs after a change; zeros if there is no such file."""
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return 0, 0
