"""A log file for each step: `<logs>/green/2024-01/conform.log`, to which every attempt is added.

It has the step's messages, warnings of libraries, and for a failure the whole traceback, which is shown nowhere else.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

from pipeline.errors import hide_queries
from pipeline.months import format_month

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
_LOGGERS = ("luigi-interface", "luigi-interface.pipeline", "py.warnings")
#: A larger file is renamed to .log.1 before a new attempt.
_MOST_BYTES = 1_000_000

_TIME = r"^\d{4}-\d\d-\d\dT[\d:.]+Z "
_BEGINS = re.compile(rf"(?={_TIME}INFO [^\n]*: begins, process \d+)", re.MULTILINE)
_TRACEBACKS = re.compile(rf"\nTraceback \(most recent call last\):\n.*?(?=\n{_TIME}|\Z)", re.MULTILINE | re.DOTALL)

#: The open log of this process's step. A process that forks steps runs none itself.
_open: _LogFile | None = None


def log_path(logs: str, dataset: str, month: date | None, step: str) -> Path:
    """The step's log file."""
    return Path(logs) / dataset / (format_month(month) if month else "") / f"{step}.log"


def problem(folder: Path, *, make: bool = False) -> str:
    """Why logs cannot be written in the folder, empty if they can; with `make` the folder is created."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(b"x")  # On a full disk empty files can be created.
    except OSError as error:
        is_file = isinstance(error, (FileExistsError, NotADirectoryError))
        return f"{folder} {'is no folder' if is_file else f'cannot be written: {error.strerror}'}"
    return ""


class _LogFile(logging.FileHandler):
    """A log file that keeps the reason why a line cannot be written, for instance because the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem = path, ""
        # Names of files may hold bytes that are not valid in any encoding.
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        self.problem = f"{error.strerror if isinstance(error, OSError) else error}"


def begin(path: Path, subject: str, places: str = "") -> str:
    """Write this process's log to the file until `end`; returns why that is impossible, which does not stop the step.

    `places` (lake and warehouse) distinguishes the attempts for different lakes.
    """
    global _open
    end()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            path.replace(path.with_suffix(".log.1"))
        _open = _LogFile(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_open)
    _write(f"{subject}: begins, process {os.getpid()}{places}", logging.INFO)
    return ""


def write_failure(subject: str, error: BaseException, urls: Sequence[str] = ()) -> None:
    """Add an error and its whole traceback to the log file alone, without what is in the queries of these URLs.

    A traceback has the words of libraries, which show the address of a failed request.
    """
    message = f"{subject}: failed: {type(error).__name__}: {error}"
    text = f"{message}\n{''.join(traceback.format_exception(error))}".rstrip()
    _write(hide_queries(text, *urls), logging.ERROR)


def _write(message: str, level: int) -> None:
    if _open:
        _open.handle(logging.LogRecord("step", level, "", 0, message, None, None))


def end() -> str:
    """Close the file; returns why it is not complete, empty when it is."""
    global _open
    handler, _open = _open, None
    if handler is None:
        return ""
    for name in _LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    with suppress(OSError):  # Closing tries to write the rest again.
        handler.close()
    return handler.problem and f"{handler.path}: {handler.problem}"


def attempts(text: str) -> list[str]:
    """The attempts in the text of a log file, newest first."""
    return [part.rstrip("\n") for part in reversed(_BEGINS.split(text)) if part.strip()]


def without_tracebacks(attempt: str) -> str:
    """The attempt with the message of a failure, without its traceback."""
    return _TRACEBACKS.sub("", attempt)


def tracebacks(attempt: str) -> list[str]:
    """The tracebacks that `without_tracebacks` leaves out."""
    return [text.strip("\n") for text in _TRACEBACKS.findall(attempt)]
