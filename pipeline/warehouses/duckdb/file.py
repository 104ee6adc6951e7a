"""The DuckDB file: created complete, opened only while it is used, waited for while another process has it.

DuckDB allows one process that writes or any number that read, and truncates a file that another process is creating.
So a new database gets its name only once it is complete, and a connection lives inside one `opened` block. The
connection spills to `<database>.spill-<pid>-<random>`; a writer is alone, so it may delete all other such folders.
Source: https://duckdb.org/docs/stable/connect/concurrency; docs/decisions/duckdb-lock.md
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import random
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.disk import explained, has_no_locks, sync
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import Locked
from pipeline.warehouses.duckdb.copy_of_loads import wal_path
from pipeline.warehouses.duckdb.headers import Headers

if TYPE_CHECKING:
    import duckdb

#: The shortest and longest pause between two attempts to open a locked database.
_PAUSE_S = (0.01, 0.1)
#: What DuckDB may keep in memory between two inserts of a load.
_KEPT_MEMORY = "150MB"
_SETTING = "[pipeline] warehouse"
#: The threads of a process take turns, since DuckDB does not open a file twice in one process with different settings.
_IN_TURN = threading.RLock()


@dataclass(frozen=True)
class DuckDBFile:
    """A database file, and the limits for this process."""

    path: Path
    memory_limit: str
    threads: int
    lock_timeout_s: float

    @contextmanager
    def opened(self, subject: str, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for the block; `subject` is the start of error messages.

        Raises:
            Locked: another process had the database for `lock_timeout_s`.
            WarehouseError: DuckDB cannot open it, or the block raised an error of DuckDB or of the file system.
        """
        import duckdb

        spill = self.path.with_name(f"{self.path.name}.spill-{os.getpid()}-{secrets.token_hex(4)}")
        config = {
            "memory_limit": self.memory_limit,
            "threads": self.threads,
            "temp_directory": str(spill),
            # Otherwise DuckDB downloads an extension to read another database's file.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            with _IN_TURN, self._connected(subject, read_only, config) as connection:
                # On by default where Python runs no file, as in a notebook.
                connection.execute("SET enable_progress_bar = false")
                yield connection
        except duckdb.Error as error:
            raise WarehouseError(f"{subject}: {self.path}: {error}") from error
        except OSError as error:
            raise WarehouseError(f"{subject}: {explained(error, _SETTING)}") from error
        except RuntimeError as error:
            # DuckDB converts the KeyboardInterrupt of a signal during a query.
            if str(error) == "Query interrupted":
                raise KeyboardInterrupt from error
            raise
        finally:
            shutil.rmtree(spill, ignore_errors=True)

    @contextmanager
    def _connected(self, subject: str, read_only: bool, config: dict[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        deadline = time.monotonic() + self.lock_timeout_s
        while True:
            with closing(Headers(self.path)) as headers:
                try:
                    connection = duckdb.connect(self.path, read_only=read_only, config=config)
                except duckdb.Error as error:
                    if headers.have_changed():
                        continue
                    holder = _holder(str(error))
                    if holder is None:
                        raise WarehouseError(f"{subject}: cannot open {self.path}: {self._reason(error)}") from error
                    if time.monotonic() >= deadline:
                        raise self.locked(subject, holder) from error
                else:
                    with closing(connection):
                        if not headers.have_changed():
                            yield connection
                            return
                        with suppress(duckdb.Error):
                            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
                    continue
            time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311

    def locked(self, subject: str, holder: str) -> Locked:
        """The error after `lock_timeout_s` of waiting for this program."""
        return Locked(
            f"{subject}: {self.path} is held by {holder}, still after {self.lock_timeout_s:g} s; "
            "close that program or wait for it, then run again (the limit is lock_timeout_s)",
            holder=holder,
        )

    def _reason(self, error: Exception) -> str:
        """Why DuckDB cannot open the file: the first line of its message, with a remedy where one is known."""
        message = str(error).partition("\n")[0]
        if has_no_locks(message) or os.strerror(errno.EACCES) in message:
            return explained(OSError(errno.ENOLCK if has_no_locks(message) else errno.EACCES, message), _SETTING)
        # Only now: closing the file again releases a lock that this process may have on it.
        start = self.path.read_bytes()[:16] if self.path.is_file() else b""
        if start[8:12] == b"DUCK":
            return f"{message}; if it is damaged, move it away and run the backfill again, which loads from the lake"
        if self.path.is_dir():
            description = "is a folder"
        elif start:
            description = "is an SQLite database" if start.startswith(b"SQLite format 3\0") else "is no DuckDB database"
        else:
            return message
        return f"it {description}; set {_SETTING} to a DuckDB file, or to a name that does not exist yet"

    def make(self, subject: str, fill: Callable[[duckdb.DuckDBPyConnection], object]) -> None:
        """Create the database, filled, if it does not exist; if several processes try this at once, one does it."""
        if self.path.exists():
            return
        draft = replace(self, path=self.path.with_name(f"{self.path.name}.new"), lock_timeout_s=0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _folder_locked(self.path.parent):
                if self.path.exists():
                    return
                # From a killed process; and from a deleted database, whose WAL DuckDB would replay.
                for file in (draft.path, wal_path(draft.path), wal_path(self.path)):
                    file.unlink(missing_ok=True)
                try:
                    with draft.opened(subject) as connection:
                        connection.begin()  # Else each of the statements is written to the disk for itself.
                        fill(connection)
                        connection.commit()
                        connection.execute("CHECKPOINT")
                    draft.path.replace(self.path)
                finally:
                    draft.path.unlink(missing_ok=True)
                    wal_path(draft.path).unlink(missing_ok=True)
                sync(self.path.parent)
        except OSError as error:
            raise WarehouseError(f"{subject}: cannot create {self.path}: {explained(error, _SETTING)}") from error

    def release_memory(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let DuckDB drop the blocks that it has written; by itself it keeps them, up to its limit."""
        for limit in (_KEPT_MEMORY, self.memory_limit):
            connection.execute(f"SET memory_limit = '{limit}'")

    def sweep(self) -> None:
        """Delete the spill of killed processes; only for a process that has the database open for writing."""
        for spill in self.path.parent.glob(f"{glob.escape(self.path.name)}.spill-*-*"):
            shutil.rmtree(spill, ignore_errors=True)


def _holder(message: str) -> str | None:
    """Who has locked the database, as DuckDB reports it; None if the message is not about a lock."""
    if "Could not set lock" in message and not has_no_locks(message):
        match = re.search(r"Conflicting lock is held in (.+?\))", message)
        return match[1] if match else "another process"
    # This process has it open with other settings, and DuckDB does not open it twice.
    if "same database file with a different configuration" in message:
        return f"this process itself (PID {os.getpid()})"
    return None


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
