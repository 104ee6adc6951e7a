"""The history of runs of the `pipeline` command: `<logs>/runs.jsonl`, a line when a run begins and one when it ends.

A run that was killed has no second line. Each line is written at once, so that runs side by side do not mix theirs.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.errors import NotPublished, code_of
from pipeline.months import parse_month, spans
from pipeline.units import counted
from pipeline.version import __version__


@dataclass(frozen=True)
class Failure:
    """A step that failed, and its error: class name, message, and what else an error knows about itself."""

    step: str
    dataset: str
    month: str
    kind: str
    error: str
    #: Empty in the record of an older version, for which the class name says it.
    code: str = ""
    retryable: bool = False
    remedy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", self.code or code_of(self.kind))

    @property
    def waits(self) -> bool:
        """Whether it is only that TLC has not published the month yet."""
        return self.code == NotPublished.code


@dataclass
class Run:
    """One run: when, what was asked, and what became of it; times are UTC in ISO form."""

    id: str
    began: str
    asked: str
    process: int
    version: str = __version__
    #: Where the months went; empty in the record of an older version.
    lake: str = ""
    warehouse: str = ""
    ended: str | None = None
    exit_code: int | None = None
    #: The months that are now as asked, such as green 2024-01.
    months_done: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    #: Why the run could not be planned, or what of the plan could not be begun.
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    #: By step: seconds of all months together.
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """Done, failed, stopped, not published yet; or running, or killed, when it has not said."""
        if self.exit_code is None:
            return "running" if _is_alive(self.process) else "killed"
        words = {0: "done", 1: "failed", 3: "not published", 4: "not all run"}
        return words.get(self.exit_code, "stopped" if self.exit_code > 128 else "failed")


class History:
    """The file of runs below the folder of logs."""

    def __init__(self, logs: str, *, silent: bool = False) -> None:
        self.path = Path(logs) / "runs.jsonl"
        self._silent = silent

    def begin(self, asked: str, *, lake: str = "", warehouse: str = "") -> Run:
        """Note that a run begins; neither of the texts may hold a secret."""
        now = _now()
        run = Run(f"{now[:19].replace(':', '')}-{secrets.token_hex(3)}", now, asked, os.getpid())
        run.lake, run.warehouse = lake, warehouse
        self._append(run)
        return run

    def end(self, run: Run, exit_code: int) -> None:
        """Note how it ended."""
        run.ended, run.exit_code = _now(), exit_code
        self._append(run)

    def runs(self) -> list[Run]:
        """All runs, oldest first; a line that was cut by a full disk is left out."""
        found: dict[str, Run] = {}
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        for line in lines:
            try:
                facts: dict[str, Any] = json.loads(line)
                run = Run(**{**facts, "failures": [Failure(**failure) for failure in facts["failures"]]})
            except (ValueError, TypeError, KeyError):
                continue
            found[run.id] = run
        return list(found.values())

    def _append(self, run: Run) -> None:
        try:
            self._write(json.dumps(asdict(run), ensure_ascii=False) + "\n")
        except OSError as error:  # No reason not to run.
            if not self._silent:
                logging.getLogger("luigi-interface.pipeline").warning(f"no history: {self.path}: {error.strerror}")
            self._silent = True

    def _write(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            # One that was cut takes no other along.
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            # A file name may hold bytes that are no text; JSON reads them back from an escape.
            left = (cut * "\n" + line).encode(errors="backslashreplace")
            while left:  # A disk that is nearly full takes a part, and the next write says why.
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)


def last_runs(runs: Sequence[Run], count: int) -> list[Run]:
    """The last so many, newest first."""
    return list(reversed(runs[-count:])) if count else []


def causes(failures: Sequence[Failure]) -> list[tuple[Failure, str]]:
    """The first failure of each cause, and for which others it is the same, such as ` (same for 2 others: …)`."""
    alike: dict[tuple[str, ...], list[Failure]] = {}
    for of in failures:
        # What differs between months of one cause: their names, and addresses of objects.
        cause = re.sub(rf"{of.dataset}|{of.month or of.dataset}|0x[0-9a-f]+", "", of.error)
        alike.setdefault((of.step, of.kind, cause), []).append(of)
    return [(first, _same(others)) for first, *others in alike.values()]


def _same(others: Sequence[Failure]) -> str:
    months: dict[str, list[date]] = defaultdict(list)
    for of in others:
        months[of.dataset] += [parse_month(of.month)] if of.month else []
    names = ", ".join(" ".join([name, ", ".join(spans(found))]).rstrip() for name, found in months.items())
    return f" (same for {counted(len(others), 'other')}: {names})" if others else ""


def counted_months(months: Iterable[tuple[str, object]]) -> str:
    """Such as 3 months and the zones."""
    distinct = set(months)
    count = sum(month is not None for _, month in distinct)
    zones = "the zones" if len(distinct) > count else ""
    return " and ".join(filter(None, [counted(count, "month") if count or not zones else "", zones]))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
