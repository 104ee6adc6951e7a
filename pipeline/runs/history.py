"""The history of runs of the `pipeline` command: `<logs>/runs.jsonl`, one line when a run begins and one when it ends.

A run that was killed has no second line.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.errors import NotPublished, UsageError
from pipeline.months import parse_month, spans
from pipeline.runs import processes
from pipeline.units import counted
from pipeline.version import __version__

_ID = re.compile(r"[\w-]{1,80}")


@dataclass(frozen=True)
class Failure:
    """A step that failed, and its error: class name, message, and the other attributes of an error."""

    step: str
    dataset: str
    month: str
    kind: str
    error: str
    #: Empty in records of older versions, which have only the class name.
    code: str = ""
    retryable: bool = False
    remedy: str = ""

    @classmethod
    def from_error(cls, step: str, dataset: str, month: str, values: Mapping[str, Any]) -> Failure:
        """The failure of a step with `PipelineError.to_dict()`."""
        others = {name: value for name, value in values.items() if name != "message"}
        return cls(step, dataset, month, error=values["message"], **others)

    @property
    def waits(self) -> bool:
        """Whether the only reason is that TLC has not published the month yet."""
        return self.code == NotPublished.code

    @property
    def first_day(self) -> date | None:
        """The month as a date; None for the zones."""
        return parse_month(self.month) if self.month else None

    @property
    def subject(self) -> str:
        """Such as `load green 2024-01`."""
        return f"{self.step} {self.dataset} {self.month}".rstrip()


@dataclass
class Run:
    """One run: its command, times and results. Times are UTC in ISO format."""

    id: str
    began: str
    asked: str
    process: int
    version: str = __version__
    #: Empty in records of older versions.
    lake: str = ""
    warehouse: str = ""
    ended: str | None = None
    exit_code: int | None = None
    #: The months that are complete now, such as green 2024-01.
    months_done: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    #: Why the run, or a part of it, could not be planned.
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    #: By step: seconds of all months together.
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """Done, failed, stopped, not published, not all run; without an exit code running or killed."""
        if self.exit_code is None:
            return "running" if processes.is_alive(self.process, self.began) else "killed"
        words = {0: "done", 1: "failed", 3: "not published", 4: "not all run"}
        return words.get(self.exit_code, "stopped" if self.exit_code > 128 else "failed")


class History:
    """The file of runs in the folder of logs."""

    def __init__(self, logs: str, *, silent: bool = False) -> None:
        self.path = Path(logs) / "runs.jsonl"
        self._silent = silent

    def begin(self, asked: str, *, lake: str = "", warehouse: str = "") -> Run:
        """Record the beginning of a run; the texts must not contain secrets."""
        now = _now()
        id = f"{now[:19].replace(':', '')}-{secrets.token_hex(3)}"
        run = Run(id, now, asked, os.getpid(), lake=lake, warehouse=warehouse)
        self._append(run)
        return run

    def end(self, run: Run, exit_code: int) -> None:
        """Record the end of a run."""
        run.ended, run.exit_code = _now(), exit_code
        self._append(run)

    def event_file(self, run_id: str) -> Path:
        """The file of the events of a run."""
        return self.path.parent / "runs" / f"{run_id}.jsonl"

    def run(self, run_id: str) -> Run:
        """The run with this id.

        Raises:
            UsageError: there is none.
        """
        runs = {run.id: run for run in self.runs()}
        if run_id not in runs:
            nearest = ", ".join(difflib.get_close_matches(run_id, runs, cutoff=0)) or "none"
            raise UsageError(f"{run_id}: no such run in {self.path}; the nearest ids are: {nearest}")
        return runs[run_id]

    def runs(self) -> list[Run]:
        """All runs, oldest first; incomplete lines, for instance after a full disk, are left out."""
        runs: dict[str, Run] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        for line in lines:
            try:
                values: dict[str, Any] = json.loads(line)
                run = Run(**{**values, "failures": [Failure(**failure) for failure in values["failures"]]})
                datetime.fromisoformat(run.began), datetime.fromisoformat(run.ended or run.began)
                if _ID.fullmatch(run.id):  # It becomes the name of a file.
                    runs[run.id] = run
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
        return list(runs.values())

    def append(self, path: Path, text: str) -> None:
        """Add a line to a file of the history; if that fails, there is one warning, and the run continues."""
        try:
            self._write(path, text)
        except OSError as error:
            if not self._silent:
                logging.getLogger("luigi-interface.pipeline").warning(f"no history: {path}: {error.strerror}")
            self._silent = True

    def _append(self, run: Run) -> None:
        self.append(self.path, json.dumps(asdict(run), ensure_ascii=False) + "\n")

    def _write(self, path: Path, line: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # If the last line is incomplete, this one must not continue it.
            is_cut = file.seek(0, os.SEEK_END) > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            # A file name may contain bytes that are not text; JSON reads them back from an escape.
            left = (is_cut * "\n" + line).encode(errors="backslashreplace")
            while left:  # A nearly full disk takes a part, and the next write raises.
                left = left[file.write(left) :]


def by_cause(failures: Iterable[Failure]) -> list[list[Failure]]:
    """The failures grouped by cause."""
    groups: dict[tuple[str, ...], list[Failure]] = {}
    for failure in failures:
        # Messages of the same cause differ in the names of months and the addresses of objects.
        names = rf"{re.escape(failure.dataset)}|{re.escape(failure.month or failure.dataset)}|0x[0-9a-f]+"
        groups.setdefault((failure.step, failure.kind, re.sub(names, "", failure.error)), []).append(failure)
    return [*groups.values()]


def causes(failures: Sequence[Failure]) -> list[tuple[Failure, str]]:
    """The first failure of each cause, and the others with the same cause as text: ` (same for 2 others: …)`."""
    result = []
    for first, *others in by_cause(failures):
        months = periods((failure.dataset, failure.first_day) for failure in others)
        result.append((first, f" (same for {counted(len(others), 'other')}: {months})" if others else ""))
    return result


def by_dataset(months: Iterable[tuple[str, date | None]]) -> dict[str, list[date | None]]:
    """The months grouped by dataset; the zones have None."""
    grouped: dict[str, list[date | None]] = {}
    for name, month in months:
        grouped.setdefault(name, []).append(month)
    return grouped


def periods(months: Iterable[tuple[str, date | None]]) -> str:
    """The months as few periods, such as `green 2024-01..2024-03, 2024-05, zones`."""
    names = by_dataset(months).items()
    return ", ".join(f"{name} {', '.join(spans(filter(None, each)))}".rstrip() for name, each in names)


def counted_months(months: Iterable[tuple[str, object]]) -> str:
    """Such as `3 months and the zones`."""
    distinct = set(months)
    count = sum(month is not None for _, month in distinct)
    if len(distinct) == count:
        return counted(count, "month")
    return f"{counted(count, 'month')} and the zones" if count else "the zones"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
