"""The events of each run of the `pipeline` command, in `<logs>/runs/<run id>.jsonl`: the lines that `--json` prints.

Each event is written when it happens, so that other processes can follow a run. The newest 100 files are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path
from typing import Any

from pipeline.runs.events import Event, Listener, LogLost, RunFinished, StepFailed, StepFinished, StepStarted, to_json
from pipeline.runs.history import Failure, History, Run

_KEPT = 100
#: The names of these files, in the order of the beginnings of their runs.
_NAMES = "????-??-??T??????-??????.jsonl"
_POLL_S = 0.2
_PART_BYTES = 1 << 18
_EPOCH = datetime.fromtimestamp(0, timezone.utc)
_TEXTS = ("run", "asked", "step", "dataset", "month", "message", "reason")
_NUMBERS = ("fraction", "rows", "bytes", "attempt", "attempts", "wait_s", "wanted")


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


class Tail:
    """Reads an event file bit by bit; lines that are cut or are no events are left out.

    Raises:
        OSError: the run has no file, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._rest = path.open("rb"), b""
        #: Whether the last call has read all that was written until then.
        self.is_at_end = False

    def read(self) -> list[dict[str, Any]]:
        """Further events, oldest first; after much was written, only a part of them."""
        read = self._file.read(_PART_BYTES)
        self.is_at_end = len(read) < _PART_BYTES
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [event for event in map(_event, lines) if event]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path, is_running: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """The events in the file, oldest first; while the run is running, wait for more. Raises as `Tail`."""
    with closing(Tail(path)) as tail:
        waits = True
        while waits or not tail.is_at_end:
            waits = is_running()  # Before reading: a run that has ended writes no further line.
            for event in tail.read():
                yield event
                waits = waits and event["event"] != RunFinished.event
            if waits and tail.is_at_end:
                time.sleep(_POLL_S)


def _event(line: bytes | str) -> dict[str, Any] | None:
    """The event in the line, with values of the types that they have in `pipeline.runs.events`; else None."""
    try:
        event = json.loads(line)
        datetime.fromisoformat(event["at"]) - _EPOCH
        plans = event.get("months", [])
        plan_texts = [text for plan in plans for text in (plan["dataset"], plan["month"], *plan["steps"])]
        texts = [event["event"], *plan_texts, *(event[name] for name in _TEXTS if name in event)]
        numbers = [event[name] for name in _NUMBERS if event.get(name) is not None]
        steps = not event.get("dataset") or {"step", "month"} <= event.keys()
        if event["event"] == StepFailed.event:
            failure = Failure.from_error(event["step"], event["dataset"], event["month"], event["error"])
            texts += [failure.kind, failure.error, failure.code]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_valid = all(isinstance(text, str) for text in texts) and all(type(each) in (int, float) for each in numbers)
    return event if is_valid and steps and all(map(isfinite, numbers)) else None


@dataclass
class StepState:
    """How far a step of a run is: waiting, running, done, failed, stopped, killed, not run, or unknown."""

    state: str
    began: str = ""
    seconds: float = 0
    rows: int = 0
    bytes: int = 0
    #: How far it is from 0 to 1, if that is known; why it waits for another attempt; and whether it gave warnings.
    fraction: float | None = None
    wait: str = ""
    is_warned: bool = False

    def add(self, event: dict[str, Any]) -> None:
        """Apply an event of the step."""
        if event["event"] == StepStarted.event or not self.began:
            self.began = event["at"]
        self.state = {StepFinished.event: "done", StepFailed.event: "failed"}.get(event["event"], "running")
        self.seconds = (datetime.fromisoformat(event["at"]) - datetime.fromisoformat(self.began)).total_seconds()
        self.rows, self.bytes = event.get("rows", self.rows), event.get("bytes", self.bytes)
        if event.get("fraction") is not None:
            self.fraction = min(1.0, max(0.0, event["fraction"]))
        self.wait, self.is_warned = event.get("reason", ""), bool(event.get("warnings"))

    @property
    def note(self) -> str:
        """How far a running step is, or why it waits; empty if that is unknown."""
        return self.wait or ("" if self.fraction is None else f"{self.fraction:.0%}")


#: By dataset and month, by step.
StepStates = dict[tuple[str, str], dict[str, StepState]]


def add_event(months: StepStates, event: dict[str, Any]) -> None:
    """Apply an event to the states of the steps."""
    for plan in event.get("months", ()):
        steps = months.setdefault((plan["dataset"], plan["month"]), {})
        steps |= {step: StepState("waiting") for step in plan["steps"] if step not in steps}
    if event.get("dataset") and event["event"] != LogLost.event:
        steps = months.setdefault((event["dataset"], event["month"]), {})
        steps.setdefault(event["step"], StepState("running")).add(event)


def complete_states(months: StepStates, run: Run) -> None:
    """Apply the record of the run: events of steps can be lost."""
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


def step_states(run: Run, events: Iterable[dict[str, Any]]) -> StepStates:
    """By dataset and month: the steps that were planned or begun."""
    months: StepStates = {}
    for event in events:
        add_event(months, event)
    complete_states(months, run)
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
    # The board's process reads runs, too, and has no room for the libraries that this imports.
    from pipeline.state.steps import steps_of

    steps: dict[str, tuple[str, StepState]] = {}
    # Only these lines are parsed, since a run may have thousands of others.
    parts = (f'"dataset": "{dataset}"', f'"month": "{month}"')
    for run in reversed(history.runs()):
        if steps.keys() >= {*steps_of(dataset)}:
            break
        with suppress(OSError):
            lines = history.event_file(run.id).read_text(encoding="utf-8", errors="replace").split("\n")
            parsed = (_event(line) for line in lines if all(part in line for part in parts))
            events = [event for event in parsed if event]
            for step, state in step_states(run, events).get((dataset, month), {}).items():
                if state.began:
                    steps.setdefault(step, (run.id, state))
    return steps
