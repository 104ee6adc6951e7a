"""The events of each run of the `pipeline` command, in `<logs>/runs/<run id>.jsonl`: the lines that `--json` prints.

Each event is written when it happens, so that other processes can follow a run. The newest 100 files are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.runs.events import Event, Listener, LogLost, RunFinished, StepFailed, StepFinished, StepStarted, to_json
from pipeline.runs.history import Failure, History, Run
from pipeline.state.steps import steps_of

_KEPT = 100
#: The names of these files, in the order of the beginnings of their runs.
_NAMES = "????-??-??T??????-??????.jsonl"
_POLL_S = 0.2


class EventFile(Listener):
    """Writes the events of a run to its file; if that fails, the history warns and the run continues."""

    def __init__(self, history: History, run_id: str) -> None:
        self._history, self._path = history, history.event_file(run_id)
        history.append(self._path, "")
        with suppress(OSError):  # Another run deletes them too, or they belong to another user.
            for path in sorted(self._path.parent.glob(_NAMES))[:-_KEPT]:
                path.unlink(missing_ok=True)

    def hear(self, event: Event) -> None:
        """Write the event."""
        self._history.append(self._path, to_json(event) + "\n")


def read(path: Path, is_running: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """The events in the file, oldest first, without lines that are cut; while the run is running, wait for more.

    Raises:
        OSError: the run has no file, or it cannot be read.
    """
    rest, waits = "", True
    with path.open(encoding="utf-8", errors="replace") as file:
        while waits:
            waits = is_running()  # Before reading: a run that has ended writes no further line.
            *lines, rest = (rest + file.read()).split("\n")
            for event in _parsed(lines):
                yield event
                waits = waits and event["event"] != RunFinished.event
            if waits:
                time.sleep(_POLL_S)


@dataclass
class StepState:
    """How far a step of a run is: waiting, running, done, failed, stopped, killed, not run, or unknown."""

    state: str
    began: str = ""
    seconds: float = 0
    rows: int = 0
    bytes: int = 0

    def add(self, event: dict[str, Any]) -> None:
        """Apply an event of the step."""
        if event["event"] == StepStarted.event or not self.began:
            self.began = event["at"]
        self.state = {StepFinished.event: "done", StepFailed.event: "failed"}.get(event["event"], "running")
        self.seconds = (datetime.fromisoformat(event["at"]) - datetime.fromisoformat(self.began)).total_seconds()
        self.rows, self.bytes = event.get("rows", self.rows), event.get("bytes", self.bytes)


def step_states(run: Run, events: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, StepState]]:
    """By dataset and month: the steps that were planned or begun.

    Events of steps can be lost, so the record of the run completes them.
    """
    months: dict[tuple[str, str], dict[str, StepState]] = {}
    for event in events:
        for plan in event.get("months", ()):
            steps = months.setdefault((plan["dataset"], plan["month"]), {})
            steps |= {step: StepState("waiting") for step in plan["steps"] if step not in steps}
        if event.get("dataset") and event["event"] != LogLost.event:
            steps = months.setdefault((event["dataset"], event["month"]), {})
            steps.setdefault(event["step"], StepState("running")).add(event)
    for failure in run.failures:
        steps = months.setdefault((failure.dataset, failure.month), {})
        steps.setdefault(failure.step, StepState("failed")).state = "failed"
    if run.outcome != "running":
        unfinished = run.outcome if run.outcome in ("stopped", "killed") else "unknown"
        for month, steps in months.items():
            left = {"waiting": "not run", "running": unfinished}
            if " ".join(month) in run.months_done:
                left = dict.fromkeys(left, "done")
            for each in steps.values():
                each.state = left.get(each.state, each.state)
    return months


def failures(run: Run, events: Iterable[dict[str, Any]]) -> list[Failure]:
    """The failures of a run; those in its events until its record has them."""
    failed = [event for event in events if event["event"] == StepFailed.event and not run.ended]
    return run.failures or [
        Failure.from_error(event["step"], event["dataset"], event["month"], event["error"]) for event in failed
    ]


def last_steps(history: History, dataset: str, month: str) -> dict[str, tuple[str, StepState]]:
    """By step: the id of the newest run that began it for this month, and how far it was there.

    The zones have the month "". Reads the files of events, newest first, until all steps were found.
    """
    steps: dict[str, tuple[str, StepState]] = {}
    # Only these lines are parsed, since a run may have thousands of others.
    parts = (f'"dataset": "{dataset}"', f'"month": "{month}"')
    for run in reversed(history.runs()):
        if steps.keys() >= {*steps_of(dataset)}:
            break
        with suppress(OSError):
            lines = history.event_file(run.id).read_text(encoding="utf-8", errors="replace").split("\n")
            events = _parsed(line for line in lines if all(part in line for part in parts))
            for step, state in step_states(run, events).get((dataset, month), {}).items():
                if state.began:
                    steps.setdefault(step, (run.id, state))
    return steps


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)
