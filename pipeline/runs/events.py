"""What happens in a run, as typed events. The display, `--json`, history and notification all read these.

Events of steps come from the processes that run them, as JSON (`pipeline.tasks.reports`). Months are texts such as
2024-01; the zones have an empty one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import PipelineError
from pipeline.source.retries import retry_message

if TYPE_CHECKING:
    from pipeline.runs.history import Run

_FAILED = ("FAILED", "DISABLED")


@dataclass(frozen=True)
class Outcome:
    """What became of one step: its status in Luigi's words, and the error of one that failed.

    DONE is what this run did, and what its target says at the end of the run, whichever process did it.
    """

    step: str
    dataset: str
    month: date | None
    status: str
    seconds: float
    error: PipelineError | None = None
    #: Why it was not run, where that is known.
    why: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ran and failed."""
        return self.status in _FAILED


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; `event` is its name in JSON."""

    event: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The event as plain values."""
        return {"event": self.event, **asdict(self)}


@dataclass(frozen=True)
class MonthPlan:
    """A month of which something is missing: how far it is, and the steps that the run will do."""

    dataset: str
    month: str
    stage: str
    steps: list[str]


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The run knows what is to be done."""

    event = "run_started"
    run: str
    asked: str
    #: How many months were asked for, and about how many bytes those of `months` have at TLC's site.
    wanted: int
    bytes: int
    months: list[MonthPlan]


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    """Something about one step of one month."""

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
    """A process has begun the step."""

    event = "step_started"
    message: str


@dataclass(frozen=True, kw_only=True)
class Progress(StepEvent):
    """How far the step is: a share of 1 (None when unknown), a short text, and what it has moved so far."""

    event = "progress"
    fraction: float | None = None
    message: str = ""
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class RetryScheduled(StepEvent):
    """A request failed in a way that may pass; the next attempt begins after the wait."""

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
    """The step is done; `warnings` are the rules about which a month that passed its checks has warnings."""

    event = "step_finished"
    message: str
    rows: int = 0
    bytes: int = 0
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class StepFailed(StepEvent):
    """The step has failed; `error` is that of `PipelineError.to_dict()`."""

    event = "step_failed"
    error: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LogLost(StepEvent):
    """The step's log cannot be written; the step itself goes on."""

    event = "log_lost"
    message: str


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run has ended: its record in the history, and what became of each step that was missing."""

    event = "run_finished"
    record: Run
    outcomes: Sequence[Outcome] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The record alone, in which failures have all that is known of them."""
        return {"event": self.event, **asdict(self.record), "outcome": self.record.outcome}


_OF_STEPS: Mapping[str, type[StepEvent]] = {kind.event: kind for kind in StepEvent.__subclasses__()}


def to_json(event: Event) -> str:
    """One line of ASCII, with the time (UTC)."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"at": now, **event.to_dict()})


def step_event(line: bytes) -> StepEvent:
    """The event of a step that `to_json` wrote.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    values = json.loads(line)
    kind = _OF_STEPS[values["event"]]
    return kind(**{each.name: values[each.name] for each in fields(kind)})


class Listener:
    """Reads the events of a run, in the thread that forks its steps."""

    def hear(self, event: Event) -> None:
        """Take in an event."""
        raise NotImplementedError

    def tick(self) -> None:
        """Called several times a second while steps run."""


class Moved:
    """Turns the totals of each step into what has come since its last event."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str, str], tuple[int, int]] = {}

    def since(self, event: Event) -> tuple[int, int]:
        """Rows conformed and bytes moved since the step's last event."""
        if not isinstance(event, (Progress, StepFinished)):
            return 0, 0
        rows, moved = self._before.get(event.key, (0, 0))
        self._before[event.key] = event.rows, event.bytes
        return max(0, event.rows - rows) if event.step == "conform" else 0, max(0, event.bytes - moved)
