"""Standard streams that may be closed, full, broken, or in an encoding that lacks our characters.

Promise: a message that cannot be written never changes what a command does. Lost output ends a command that only shows
something, but not a run. In both cases the first error is kept and can be reported.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

#: Replacements for characters that an encoding lacks; those of the grid stay different from each other.
_REPLACEMENTS = {"█": "#", "▓": "L", "▒": "C", "░": "R", "·": ".", "▸": ">", "…": "...", "━": "=", "–": "-", "—": "-"}  # noqa: RUF001


class OutputLost(Exception):
    """Standard output cannot be written; raised once, by the first write that fails."""


class _Raw(io.FileIO):
    """A stream that drops everything after the first error."""

    def __init__(self, descriptor: int, *, silent: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._silent = silent
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            while self.error is None:
                if (written := super().write(data)) is not None:
                    return written
                select.select([], [self], [])  # Another process has made the shared descriptor non-blocking.
        except OSError as error:
            self.error = error
            if not self._silent:
                raise OutputLost(str(error.strerror)) from error
        return len(data)


_output: _Raw | None = None


def prepare_streams() -> None:
    """Replace the standard streams of this process by ones that keep the promise."""
    global _output
    codecs.register_error("pipeline", _replace)
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:  # Closed: the next file that is opened, such as the warehouse, would get this number.
            os.dup2(os.open(os.devnull, mode), descriptor)
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    _output = _Raw(1, silent=False)
    sys.stdout = _stream(_output, sys.stdout)
    sys.stderr = _stream(_Raw(2, silent=True), sys.stderr)


def output_error() -> OSError | None:
    """Why standard output could not be written; None when all of it was."""
    with suppress(OutputLost):
        sys.stdout.flush()
    return _output.error if _output else None


def _stream(raw: _Raw, before: TextIO | None) -> io.TextIOWrapper:
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=(before and before.encoding) or "utf-8",
        errors="pipeline",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
    )


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_replacement, error.object[error.start : error.end])), error.end


def _replacement(letter: str) -> str:
    """In ASCII; a byte of a file name that is not text becomes an escape."""
    return _REPLACEMENTS.get(letter) or (ascii(letter)[1:-1] if "\ud800" <= letter <= "\udfff" else "?")
