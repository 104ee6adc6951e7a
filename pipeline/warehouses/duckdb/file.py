"""The DuckDB file: made whole, opened late, closed at once, waited for while another process has it.

DuckDB's rule is one process for writing or any number for reading. So a connection lives inside one block of `opened`,
and a database appears at its name complete: DuckDB itself truncates a file that is just being made by another process.
Spill goes to a folder of ours, `<database>.spill-<pid>-<random>`; who has the database for writing is alone with it,
thus every other such folder is a dead process's and is swept.
Source: https://duckdb.org/docs/stable/connect/concurrency
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.disk import explained, has_no_locks, sync
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import Locked

if TYPE_CHECKING:
    import duckdb

#: Between two attempts to open a database that another process holds: from, to.
_PAUSE_S = (0.01, 0.25)
_SETTING = "[pipeline] warehouse"


@dataclass(frozen=True)
class DuckDBFile:
    """A database file and the bounds within which this process may work on it."""

    path: Path
    memory_limit: str
    threads: int
    lock_timeout_s: float

    @contextmanager
    def opened(
        self, subject: str, *, read_only: bool = False, timeout_s: float | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for the length of the block; `subject` begins every error's message.

        Raises:
            Locked: another process had the database all the time that was waited.
            WarehouseError: DuckDB refused to open it, or refused what was done in the block.
        """
        driver = import_duckdb()
        spill = self.path.with_name(f"{self.path.name}.spill-{os.getpid()}-{secrets.token_hex(4)}")
        bounds = {"memory_limit": self.memory_limit, "threads": self.threads, "temp_directory": str(spill)}
        connection = self._connect(subject, read_only, bounds, self.lock_timeout_s if timeout_s is None else timeout_s)
        try:
            with closing(connection):
                yield connection
        except driver.Error as error:
            raise WarehouseError(f"{subject}: {self.path}: {error}") from error
        except RuntimeError as error:
            # What DuckDB makes of the KeyboardInterrupt of a signal that came during a query.
            if str(error) == "Query interrupted":
                raise KeyboardInterrupt from error
            raise
        finally:
            shutil.rmtree(spill, ignore_errors=True)

    def _connect(
        self, subject: str, read_only: bool, config: dict[str, Any], timeout_s: float
    ) -> duckdb.DuckDBPyConnection:
        driver = import_duckdb()
        # Else DuckDB downloads an extension that reads the file of another database.
        config = {**config, "autoinstall_known_extensions": False, "autoload_known_extensions": False}
        deadline, pause_s = time.monotonic() + timeout_s, _PAUSE_S[0]
        while True:
            try:
                connection: duckdb.DuckDBPyConnection = driver.connect(self.path, read_only=read_only, config=config)
                return connection
            except driver.Error as error:
                holder = _holder(str(error))
                if holder is None:
                    self._validate_format(subject)
                    raise WarehouseError(f"{subject}: cannot open {self.path}: {_refusal(error)}") from error
                if time.monotonic() >= deadline:
                    raise Locked(
                        f"{subject}: {self.path} is held by {holder}, still after {timeout_s:g} s; "
                        "close that program or wait for it, then run again (the limit is lock_timeout_s)"
                    ) from error
            time.sleep(min(pause_s * random.uniform(0.5, 1), max(0.0, deadline - time.monotonic())))  # noqa: S311
            pause_s = min(2 * pause_s, _PAUSE_S[1])

    def _validate_format(self, subject: str) -> None:
        """Say of what kind a file is that is no DuckDB database, by its first bytes.

        Only once DuckDB has refused it: to close the file again drops a lock that this process may hold on it.
        """
        try:
            with self.path.open("rb") as file:
                start = file.read(16)
        except OSError:  # DuckDB says what is wrong, and a file that is absent may be made.
            return
        if start and start[8:12] != b"DUCK":
            kind = "is an SQLite database" if start.startswith(b"SQLite format 3\0") else "is no DuckDB database"
            raise WarehouseError(
                f"{subject}: cannot open {self.path}: it {kind}; set [pipeline] warehouse to a DuckDB file, or to a "
                "name that does not exist yet"
            )

    def make(self, subject: str, fill: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Make the database, filled, if it is not there; of several processes that try at once, one does."""
        if self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _folder_locked(self.path.parent):
                if not self.path.exists():
                    self._make_alone(subject, fill)
        except OSError as error:
            raise WarehouseError(f"{subject}: cannot make {self.path}: {explained(error, _SETTING)}") from error

    def _make_alone(self, subject: str, fill: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        draft = DuckDBFile(self.path.with_name(f"{self.path.name}.new"), self.memory_limit, self.threads, 0)
        # The first two are a killed maker's; the last is what remains of a deleted database: DuckDB would replay it.
        for left in (draft.path, wal_path(draft.path), wal_path(self.path)):
            left.unlink(missing_ok=True)
        try:
            with draft.opened(subject) as connection:
                fill(connection)
                connection.execute("CHECKPOINT")
            draft.path.replace(self.path)
        except BaseException:
            for left in (draft.path, wal_path(draft.path)):
                left.unlink(missing_ok=True)
            raise
        sync(self.path.parent)

    def sweep(self) -> None:
        """Remove what killed processes left beside the database; only for who has it open for writing."""
        prefix = re.escape(self.path.name)
        dead = re.compile(rf"{prefix}\.(spill-\d+-[0-9a-f]+|loads\.json\.\d+)")
        for entry in self.path.parent.iterdir():
            if dead.fullmatch(entry.name):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def import_duckdb() -> Any:
    """The driver, imported when it is needed and not before."""
    try:
        import duckdb
    except ImportError as error:
        raise WarehouseError("a duckdb:// warehouse needs DuckDB; install it: pip install duckdb") from error
    return duckdb


def wal_path(database: Path) -> Path:
    """Where DuckDB keeps what was committed since the last checkpoint."""
    return database.with_name(f"{database.name}.wal")


def _holder(message: str) -> str | None:
    """Who has the database, in DuckDB's words; None when the message is not about its lock."""
    if "Could not set lock" in message and not has_no_locks(message):
        found = re.search(r"Conflicting lock is held in (.+?\))(?: by user (\S+?))?\.?(?:\s|$)", message)
        return found[1] if found else "another process"
    # Said when this very process has it open with other settings; it must not be opened twice.
    if "same database file with a different configuration" in message:
        return f"this process itself (PID {os.getpid()})"
    return None


def _refusal(error: Exception) -> str:
    """The first line of what DuckDB says, with what helps where the file system refused."""
    message = str(error).partition("\n")[0]
    if has_no_locks(message):
        return explained(OSError(errno.ENOLCK, message), _SETTING)
    if os.strerror(errno.EACCES) in message:
        return explained(OSError(errno.EACCES, message), _SETTING)
    return message


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
