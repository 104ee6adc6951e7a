"""Notices that another process has committed while DuckDB was opening the file.

DuckDB 2.0.1 reads the headers, which say where everything is, before it takes the lock (1.3 to 1.5 read them after it;
seen with strace). After a commit in between, a connection would read an older state, and its own commit would undo the
other one without an error. So the headers must be the same before DuckDB looks at them and when it has the lock. Why:
docs/decisions/duckdb-lock.md
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: One header of the file and two of the database, of which every checkpoint writes the older one.
_BYTES = 3 * 4096


class Headers:
    """The headers of a database file before it is opened; to be closed after the connection."""

    def __init__(self, path: Path) -> None:
        self._descriptor, self._before = -1, b""
        # Closing any descriptor of a file releases all locks that this process has on it (POSIX), and so the lock of
        # another connection in this process. DuckDB does not open such a file again.
        if not _is_open_here(path):
            with suppress(OSError):  # It does not exist yet, or DuckDB will say why it cannot be read.
                self._descriptor = os.open(path, os.O_RDONLY)
                self._before = self._read()

    def _read(self) -> bytes:
        return os.pread(self._descriptor, _BYTES, 0)

    def have_changed(self) -> bool:
        """Whether they are others now; not if there were none."""
        return bool(self._before) and self._read() != self._before

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _is_open_here(path: Path) -> bool:
    """Whether this process has the file open."""
    with suppress(OSError):
        wanted = path.stat()
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, of which some are closed already.
            with suppress(OSError):
                if os.path.samestat(os.fstat(int(name)), wanted):
                    return True
    return False
