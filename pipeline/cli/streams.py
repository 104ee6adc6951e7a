"""The standard streams, made fit for anything: closed, full, broken, or in an encoding that lacks our characters.

Promise: a message that cannot be written never changes what a command does. A result that cannot be written ends a
command that only shows something; a run goes on. Either way, the first failure is kept and can be reported.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

#: For characters that the encoding of a stream lacks: those of the grid stay apart from each other.
_STAND_INS = {"█": "#", "▓": "L", "▒": "C", "░": "R", "·": ".", "▸": ">", "…": "...", "━": "=", "–": "-", "—": "-"}  # noqa: RUF001


class OutputLost(Exception):
    """Standard output cannot be written; raised once, by the first write that fails."""


class _Raw(io.RawIOBase):
    """A descriptor whose writes are dropped from the first failed one on."""

    def __init__(self, descriptor: int, *, silent: bool) -> None:
        self._descriptor, self._silent = descriptor, silent
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        while self.error is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # Another process that shares the descriptor has made it so.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
                if not self._silent:
                    raise OutputLost(str(error.strerror)) from error
        return len(data)


_output = _Raw(1, silent=False)


def prepare_streams() -> None:
    """Replace the standard streams of this process by ones that keep the promise."""
    codecs.register_error("pipeline", _stand_in)
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:  # Closed: else the next file that is opened, say the warehouse, gets this number.
            os.dup2(os.open(os.devnull, mode), descriptor)
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _stream(_output, sys.stdout)
    sys.stderr = _stream(_Raw(2, silent=True), sys.stderr)


def output_error() -> OSError | None:
    """Why standard output could not be written; None when all of it was."""
    with suppress(OutputLost):
        sys.stdout.flush()
    return _output.error


def broken_pipe(error: OSError) -> bool:
    """Whether the reader left, as `| head` does."""
    return error.errno == errno.EPIPE


def _stream(raw: _Raw, before: TextIO | None) -> io.TextIOWrapper:
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=(before and before.encoding) or "utf-8",
        errors="pipeline",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
    )


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_shown(letter) for letter in error.object[error.start : error.end]), error.end


def _shown(letter: str) -> str:
    """Something in ASCII: a file name with bytes that are no text shows them as escapes."""
    return _STAND_INS.get(letter) or (ascii(letter)[1:-1] if "\ud800" <= letter <= "\udfff" else "?")
