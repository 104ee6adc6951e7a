"""A log file for each step: `<logs>/green/2024-01/conform.log`, to which every attempt is added.

It has what the step said and did, warnings of libraries, and for a failure the whole traceback, which nobody is shown.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from datetime import date
from itertools import pairwise
from pathlib import Path

from pipeline.months import format_month

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
_LOGGERS = ("luigi-interface", "luigi-interface.pipeline", "py.warnings")
#: A file of this size is begun anew; the former one stays beside it.
_MOST_BYTES = 1_000_000

_TIME = r"^\d{4}-\d\d-\d\dT[\d:.]+Z "
_BEGINS = re.compile(rf"{_TIME}INFO [^\n]*: begins, process \d+", re.MULTILINE)
_TRACEBACKS = re.compile(rf"\nTraceback \(most recent call last\):\n.*?(?=\n{_TIME}|\Z)", re.MULTILINE | re.DOTALL)

_open: dict[int, _LogFile] = {}
_refused: set[Path] = set()


def log_path(logs: str, dataset: str, month: date | None, step: str) -> Path:
    """Where the step's log lies."""
    return Path(logs) / dataset / (format_month(month) if month else "") / f"{step}.log"


def problem(folder: Path, *, make: bool = False) -> str:
    """Why logs cannot be written below the folder, empty where they can; with `make` it is made where it is missing.

    Where they cannot, the steps of this process and its forks are silent.
    """
    _refused.discard(folder)
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=above) as file:
            file.write(b"x")  # A full disk makes empty files.
    except OSError as error:
        _refused.add(folder)
        none = isinstance(error, (FileExistsError, NotADirectoryError))
        return f"{folder} {'is no folder' if none else f'cannot be written: {error.strerror}'}"
    return ""


class _LogFile(logging.FileHandler):
    """A log file that ends with the first line that cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem = path, ""
        # A file name may hold bytes that are no text.
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        if not self.problem:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        self.problem = f"{error.strerror if isinstance(error, OSError) else error}"


def begin(path: Path, subject: str, where: str = "") -> str:
    """Let this process write its log to the file, until `end`; returns why it cannot, which is no error.

    `where` is what tells one attempt from those of other lakes.
    """
    end()
    if not _refused.isdisjoint(path.parents):
        return ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            path.replace(path.with_suffix(".log.1"))
        handler = _LogFile(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    _open[os.getpid()] = handler
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
    write(f"{subject}: begins, process {os.getpid()}{where}")
    return ""


def write(message: str, level: int = logging.INFO) -> None:
    """Add a line to this process's log file alone."""
    handler = _open.get(os.getpid())
    if handler is not None:
        handler.handle(logging.LogRecord("step", level, "", 0, message, None, None))


def write_failure(subject: str, error: BaseException) -> None:
    """Add why, and the whole traceback."""
    why = f"{subject}: failed: {type(error).__name__}: {error}"
    write(f"{why}\n{''.join(traceback.format_exception(error))}".rstrip(), logging.ERROR)


def end() -> str:
    """Let go of the file; returns why it is not whole, empty when it is."""
    handler = _open.pop(os.getpid(), None)
    if handler is None:
        return ""
    for name in _LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    with suppress(OSError):  # It tries once more to write what it could not.
        handler.close()
    return handler.problem and f"{handler.path}: {handler.problem}"


def attempts(text: str) -> list[str]:
    """The attempts that a log file has, newest first."""
    starts = [*(match.start() for match in _BEGINS.finditer(text)), len(text)]
    parts = [text[: starts[0]], *(text[first:last] for first, last in pairwise(starts))]
    return [part.rstrip("\n") for part in reversed(parts) if part.strip()]


def without_tracebacks(attempt: str) -> str:
    """The attempt with a failure as its message alone."""
    return _TRACEBACKS.sub("", attempt)
