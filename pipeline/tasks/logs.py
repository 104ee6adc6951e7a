"""A log file for each step: `<logs>/green/2024-01/conform.log`, to which every attempt is added.

It has what the step said and did, warnings of libraries, and for a failure the whole traceback, which nobody is shown.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from contextlib import suppress
from datetime import date
from pathlib import Path

from pipeline.months import format_month

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
_LOGGERS = ("luigi-interface", "luigi-interface.pipeline", "py.warnings")
#: A file of this size is begun anew; the former one stays beside it.
_MOST_BYTES = 1_000_000

_open: dict[int, logging.Handler] = {}
_refused: set[Path] = set()


def log_path(logs: str, dataset: str, month: date | None, step: str) -> Path:
    """Where the step's log lies."""
    return Path(logs) / dataset / (format_month(month) if month else "") / f"{step}.log"


def usable(folder: Path) -> bool:
    """Whether logs can be written below the folder; where not, the steps of this process and its forks are silent."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    found = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    (_refused.discard if found else _refused.add)(folder)
    return found


def begin(path: Path, subject: str) -> None:
    """Let this process write its log to the file, until `end`; a file that cannot be written is done without."""
    end()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            path.replace(path.with_suffix(".log.1"))
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        if _refused.isdisjoint(path.parents):
            logging.getLogger(_LOGGERS[1]).warning(f"no log of {subject}: {path}: {error.strerror}")
        return
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    _open[os.getpid()] = handler
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
    write(f"{subject}: begins, process {os.getpid()}")


def write(message: str, level: int = logging.INFO) -> None:
    """Add a line to this process's log file alone."""
    handler = _open.get(os.getpid())
    if handler is not None:
        handler.handle(logging.LogRecord("step", level, "", 0, message, None, None))


def write_failure(subject: str, error: BaseException) -> None:
    """Add the whole traceback."""
    write(f"{subject}: failed\n{''.join(traceback.format_exception(error))}".rstrip(), logging.ERROR)


def end() -> None:
    """Let go of the file."""
    handler = _open.pop(os.getpid(), None)
    if handler is not None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
