"""The ledger (the rows of `loads` and `mart_loads`) and the copy of it that lies beside a DuckDB database.

A DuckDB file is locked by one process at a time, even against readers; the copy answers what is loaded while another
process holds the file. It may claim less than there is, never more. It is believed in two cases only:

- the database's files are untouched since the copy was published (inode, size and times of the file and its WAL), or
- the process that published it still holds the database, which it shows by a lock (flock) on the copy itself. It
  publishes what stays before a commit that takes something away, and everything after the commit.

So a deleted, swapped, restored or foreignly edited database is never described by an old copy. Nothing here opens the
database file: closing it again would drop the lock that this process may hold on it (POSIX locks are per process).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import WarehouseError
from pipeline.warehouses.base import LoadRecord, MartRecord

#: (inode, size, mtime, ctime) of the database file and of its WAL; None where a file is not there.
Signature = tuple[tuple[int, int, int, int] | None, tuple[int, int, int, int] | None]


@dataclass(frozen=True)
class Ledger:
    """What is loaded and which marts are built."""

    loads: Mapping[tuple[str, date | None], LoadRecord] = field(default_factory=dict)
    marts: Mapping[tuple[str, str, date], MartRecord] = field(default_factory=dict)

    @staticmethod
    def counted(
        loads: Collection[LoadRecord],
        marts: Iterable[MartRecord],
        tables: Container[str],
        table_of: Callable[[LoadRecord], str] = lambda load: load.dataset,
    ) -> Ledger:
        """The records that count, given the tables that exist; `table_of` names the one with the rows of a load.

        A load counts while its table exists. A mart counts while its table exists and its load counts, and unless the
        zones were loaded and their table was dropped since.
        """
        counted = {(load.dataset, load.month): load for load in loads if table_of(load) in tables}
        zones_dropped = any(load.month is None and table_of(load) not in tables for load in loads)
        built = {(mart.mart, mart.dataset, mart.month): mart for mart in marts if mart.mart in tables}
        return Ledger(counted, {key: mart for key, mart in built.items() if key[1:] in counted and not zones_dropped})

    def kept_in(self, other: Ledger) -> Ledger:
        """The records that the other ledger holds, too: of the same rows, whenever and by whom they were written.

        Otherwise a month that is loaded once more would look as if it went, for a moment, to who needs it just then.
        """
        return Ledger(
            {key: record for key, record in self.loads.items() if _alike(other.loads.get(key), record)},
            {key: record for key, record in self.marts.items() if _alike(other.marts.get(key), record)},
        )

    def loads_of(self, dataset: str) -> dict[date | None, LoadRecord]:
        """The records of the dataset, by month."""
        return {month: record for (name, month), record in self.loads.items() if name == dataset}

    def mart_months(self, dataset: str) -> dict[date, dict[str, MartRecord]]:
        """The records of the dataset's marts, by month, then by mart."""
        months: dict[date, dict[str, MartRecord]] = {}
        for (mart, name, month), record in self.marts.items():
            if name == dataset:
                months.setdefault(month, {})[mart] = record
        return months


def _alike(one: LoadRecord | MartRecord | None, other: LoadRecord | MartRecord) -> bool:
    written = ("loaded_at", "built_at", "version")
    facts = [{key: value for key, value in vars(of).items() if key not in written} for of in (one, other) if of]
    return len(facts) == 2 and facts[0] == facts[1]


def signature(database: Path) -> Signature:
    """What changes whenever somebody commits to the database."""
    return _stat(database), _stat(database.with_name(database.name + ".wal"))


def _stat(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WarehouseError(f"{path}: cannot be looked at: {error.strerror}; mend its permissions") from error
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class LedgerCopy:
    """The copy, in the hands of the one process that has the database open for writing; closing it lets go of it."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = copy_path(database)
        self._inode = _inode(signature(database))
        self._descriptor: int | None = None

    def __enter__(self) -> LedgerCopy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def publish(self, ledger: Ledger) -> None:
        """Put the ledger in place of the former copy, by a rename, locked from its first moment on.

        Raises:
            WarehouseError: the database file was swapped for another while it was open.
            OSError: the copy cannot be written.
        """
        now = signature(self._database)
        if now[0] is None or _inode(now) != self._inode:
            raise WarehouseError(f"{self._database} was moved, deleted or swapped while it was open; run again")
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with os.fdopen(descriptor, "w", closefd=False) as file:
                file.write(json.dumps(_facts(ledger, now)))
            draft.replace(self._path)
        except BaseException:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        self._let_go()
        self._descriptor = descriptor

    def _let_go(self) -> None:
        if self._descriptor is not None:
            # Explicitly: a child forked meanwhile shares the lock, and closing alone would leave it with the child.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def believed_copy(database: Path) -> Ledger | None:
    """What the copy says, None when there is none or it cannot be believed."""
    try:
        with copy_path(database).open() as file:
            held = _held(file.fileno())
            facts = json.load(file)
        recorded, now = _signature_of(facts["database"]), signature(database)
        if recorded == now or (held and _inode(recorded) == _inode(now)):
            return _ledger_of(facts)
    except (OSError, ValueError, KeyError, TypeError):  # absent, unreadable or corrupt: as good as none
        pass
    return None


def copy_path(database: Path) -> Path:
    """Where the copy lies."""
    return database.with_name(f"{database.name}.loads.json")


def _held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # A file system without locks: nothing says that it is held.
        return False
    return False


def _inode(of: Signature) -> int | None:
    return of[0][0] if of[0] else None


def _facts(ledger: Ledger, now: Signature) -> dict[str, Any]:
    return {
        "database": now,
        "loads": [_plain(record) for record in ledger.loads.values()],
        "marts": [_plain(record) for record in ledger.marts.values()],
    }


def _plain(record: LoadRecord | MartRecord) -> dict[str, Any]:
    # vars, not dataclasses.asdict: that copies deeply, which took longer than all else for 570 months.
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in vars(record).items()}


def _signature_of(facts: Any) -> Signature:
    file, wal = (tuple(part) if part is not None else None for part in facts)
    return file, wal


def _ledger_of(facts: dict[str, Any]) -> Ledger:
    loads = (LoadRecord(**{**row, **_times(row, "loaded_at")}) for row in facts["loads"])
    marts = (MartRecord(**{**row, **_times(row, "built_at")}) for row in facts["marts"])
    return Ledger(
        {(record.dataset, record.month): record for record in loads},
        {(record.mart, record.dataset, record.month): record for record in marts},
    )


def _times(row: dict[str, Any], moment: str) -> dict[str, Any]:
    month = row["month"]
    return {
        "month": date.fromisoformat(month) if month is not None else None,
        moment: datetime.fromisoformat(row[moment]),
    }
