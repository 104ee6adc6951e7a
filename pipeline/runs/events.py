"""The events of a run, as typed values. Display, `--json`, history and notification all read these.

Luigi's local scheduler gets nothing from a step that runs in a process of its own. So each step sends its events as
small datagrams of JSON to a socket of the process that watches the run; the run context has its path. Nothing waits for
them, and the run works without them. Months are texts such as 2024-01, empty for the zones.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import PipelineError
from pipeline.source.retries import retry_message
from pipeline.version import __version__

if TYPE_CHECKING:
    from pipeline.runs.history import Run

_MOST_BYTES = 8_192
_PREFIX, _NAME = "taxi-", "reports"
#: How long a step waits with its last event while the socket is full; some systems hold only ten datagrams.
_LAST_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """The result of one step at the end of a run: its status in Luigi's words, and its error if it failed.

    A step is DONE if its target is complete, no matter which process completed it.
    """

    step: str
    dataset: str
    month: date | None
    status: str
    seconds: float
    error: PipelineError | None = None
    #: Why it was not run, if that is known.
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether it was run and failed."""
        return self.status in ("FAILED", "DISABLED")


@dataclass(frozen=True, kw_only=True)
class Event:
    """The base of all events; `event` is the name in JSON."""

    event: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The event as plain values."""
        return {"event": self.event, **asdict(self)}


@dataclass(frozen=True)
class MonthPlan:
    """An incomplete month: its stage, and the steps that the run will do."""

    dataset: str
    month: str
    stage: str
    steps: list[str]


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The run is planned."""

    event = "run_started"
    run: str
    asked: str
    #: How many months were requested, and about how many bytes the files of `months` have at TLC's site.
    wanted: int
    bytes: int
    months: list[MonthPlan]
    #: Of the package; files of older versions lack it.
    version: str = __version__


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    """An event of one step of one month."""

    step: str
    dataset: str
    month: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Which step it is."""
        return self.dataset, self.month, self.step

    @property
    def subject(self) -> str:
        """Such as `load green 2024-01`."""
        return f"{self.step} {self.dataset} {self.month}".rstrip()


@dataclass(frozen=True, kw_only=True)
class StepStarted(StepEvent):
    """A process has started the step."""

    event = "step_started"
    message: str


@dataclass(frozen=True, kw_only=True)
class Progress(StepEvent):
    """The progress of the step: a fraction of 1 (None if unknown), a short text, and rows and bytes so far."""

    event = "progress"
    fraction: float | None = None
    message: str = ""
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class RetryScheduled(StepEvent):
    """A request failed, and is repeated after the wait."""

    event = "retry_scheduled"
    attempt: int
    attempts: int
    wait_s: float
    reason: str

    @property
    def message(self) -> str:
        """When the next attempt is, and why."""
        return retry_message(self.attempt, self.attempts, self.wait_s, self.reason)


@dataclass(frozen=True, kw_only=True)
class StepFinished(StepEvent):
    """The step is done; `warnings` are the names of rules that gave warnings."""

    event = "step_finished"
    message: str
    rows: int = 0
    bytes: int = 0
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class StepFailed(StepEvent):
    """The step has failed; `error` is a `PipelineError.to_dict()`."""

    event = "step_failed"
    error: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LogLost(StepEvent):
    """The log of the step cannot be written; the step itself continues."""

    event = "log_lost"
    message: str


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run has ended: its record in the history, and the outcomes of all steps that were missing."""

    event = "run_finished"
    record: Run
    outcomes: Sequence[Outcome] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Only the record, which has all details of the failures."""
        return {"event": self.event, **asdict(self.record), "outcome": self.record.outcome}


_STEP_EVENTS: Mapping[str, type[StepEvent]] = {each.event: each for each in StepEvent.__subclasses__()}


def to_json(event: Event) -> str:
    """One line of ASCII, with the current time (UTC)."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"at": now, **event.to_dict()})


def step_event(line: bytes) -> StepEvent:
    """Read the event of a step from the result of `to_json`.

    Raises:
        ValueError, TypeError, KeyError: the line is not such an event.
    """
    values = json.loads(line)
    event_class = _STEP_EVENTS[values["event"]]
    return event_class(**{each.name: values[each.name] for each in fields(event_class)})


class Listener:
    """Receives the events of a run, in the thread that forks its steps."""

    def hear(self, event: Event) -> None:
        """Process an event."""

    def tick(self) -> None:
        """Called several times a second while steps run."""


class Totals:
    """The rows and bytes of a run so far, and the steps that are left of each month."""

    def __init__(self) -> None:
        self.rows = self.bytes = 0
        self.left: dict[tuple[str, str], list[str]] = {}
        self._before: dict[tuple[str, str, str], tuple[int, int]] = {}

    def add(self, event: Event) -> None:
        """Count an event; those of steps have the totals of their step."""
        if isinstance(event, RunStarted):
            self.left |= {(month.dataset, month.month): list(month.steps) for month in event.months}
        elif isinstance(event, (Progress, StepFinished)):
            rows, moved = self._before.get(event.key, (0, 0))
            self._before[event.key] = event.rows, event.bytes
            self.rows += max(0, event.rows - rows) if event.step == "conform" else 0
            self.bytes += max(0, event.bytes - moved)
            left = self.left.get((event.dataset, event.month), [])
            if isinstance(event, StepFinished) and event.step in left:
                left.remove(event.step)


class Inbox:
    """Receives the events of a run's steps; in use as a context."""

    def __enter__(self) -> Inbox:
        # A socket's path may have 108 characters at most, and TMPDIR may be longer.
        folder = tempfile.gettempdir()
        folder = folder if len(folder) < 60 else "/tmp"  # noqa: S108
        _sweep(Path(folder))
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder)
        self.path = str(Path(self._folder.name) / _NAME)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._folder.cleanup()

    def read(self) -> list[StepEvent]:
        """The events since the last call."""
        events: list[StepEvent] = []
        while True:
            try:
                events.append(step_event(self._socket.recv(_MOST_BYTES)))
            except BlockingIOError:
                return events
            except (ValueError, TypeError, KeyError):  # Cut, or of another version.
                continue


def _sweep(folder: Path) -> None:
    """Remove the inboxes of killed runs: those whose socket has no listener."""
    for path in folder.glob(f"{_PREFIX}*/{_NAME}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, suppress(OSError):  # Another user's.
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                shutil.rmtree(path.parent, ignore_errors=True)


def send(path: str, event: StepEvent) -> None:
    """Send an event to the process whose inbox has this path; an empty path means none."""
    if path:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_LAST_S if isinstance(event, (StepFinished, StepFailed)) else 0.0)
            sender.sendto(to_json(event).encode()[:_MOST_BYTES], path)
