"""A copy of the ledger, `<database>.loads.json`, to read while another process has the database open, or to save time.

It may claim less than is loaded, never more: a writer publishes what remains before a commit that deletes something,
and everything after it. The copy is valid if the database's files have not changed since it was published, or if its
writer still has the database open, which a lock (flock) on the copy shows. Nothing here opens the database file:
closing it would release this process's lock (POSIX locks are per process). Why: docs/decisions/copy-of-loads.md
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import WarehouseError
from pipeline.warehouses.base import Ledger, LoadRecord, MartRecord

#: Inode, size, mtime and ctime of the database file and of its WAL; None for a file that does not exist.
Signature = list[list[int] | None]
#: Before the hash of everything before it, which shows whether a copy was edited.
_HASHED = ', "hash": "'

_ENCODER = json.JSONEncoder(default=lambda time: time.isoformat())


def signature(database: Path) -> Signature:
    """The state of the database's files; every commit changes it."""
    stats: Signature = []
    for path in (database, wal_path(database)):
        try:
            stat = path.stat()
            stats.append([stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
        except (FileNotFoundError, NotADirectoryError):
            stats.append(None)
        except OSError as error:
            raise WarehouseError(f"{path}: cannot be read: {error.strerror}; correct its permissions") from error
    return stats


def wal_path(database: Path) -> Path:
    """The file with the commits since the last checkpoint."""
    return database.with_name(f"{database.name}.wal")


class CopyOfLoads:
    """Writes the copy, for the one process that has the database open for writing; closing it releases the lock."""

    def __init__(self, database: Path) -> None:
        self._database, self._opened = database, signature(database)
        #: Records with their JSON, by id: a change leaves most of them as they are.
        self._texts: dict[int, tuple[LoadRecord | MartRecord, str]] = {}
        #: Whether what is published next has all records, and the database does not change any more.
        self.is_complete = False
        path = _copy_path(database)
        # A new file, since this user may be unable to write to another user's.
        path.unlink(missing_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def publish(self, ledger: Ledger) -> None:
        """Write the copy; a reader that meets it half written finds invalid JSON and reads it again.

        Raises:
            WarehouseError: the database file was replaced while it was open.
        """
        current = signature(self._database)
        if not _same_file(current, self._opened):
            raise WarehouseError(f"{self._database} was moved, deleted or replaced while it was open; run again")
        loads, marts = (", ".join(map(self._text, records.values())) for records in (ledger.loads, ledger.marts))
        head = json.dumps({"database": current, "is_complete": self.is_complete})
        text = f'{head[:-1]}, "loads": [{loads}], "marts": [{marts}]}}'
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f'{text[:-1]}{_HASHED}{_hash(text)}"}}'.encode(), 0)

    def _text(self, record: LoadRecord | MartRecord) -> str:
        if id(record) not in self._texts:
            # vars, since dataclasses.asdict copies deeply, which took longer than everything else for 570 months.
            self._texts[id(record)] = record, _ENCODER.encode(vars(record))
        return self._texts[id(record)][1]

    def close(self) -> None:
        """Release the lock."""
        # Explicitly: a child process that was forked meanwhile shares the lock and would keep it.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def read_copy(database: Path, *, at_rest: bool = False) -> Ledger | None:
    """The ledger in the copy; None if there is no valid copy.

    With `at_rest`, the copy must be complete, the database unchanged, and a later change sure to have another time: the
    copy was written after the database by the clock of their file system.
    """
    try:
        with _copy_path(database).open() as file:
            locked = False
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                locked = isinstance(error, BlockingIOError)  # otherwise a file system without locks
            records, _, digest = file.read().rpartition(_HASHED)
            text, written = records + "}", os.fstat(file.fileno()).st_mtime_ns
        copy, current = json.loads(text), signature(database)
        if at_rest:
            is_later = all(written > each[2] for each in current if each)
            is_valid = copy["is_complete"] and copy["database"] == current and is_later
        else:
            is_valid = copy["database"] == current or (locked and _same_file(copy["database"], current))
        if is_valid and digest == f'{_hash(text)}"}}':
            loads = [LoadRecord(**_values(record, "loaded_at")) for record in copy["loads"]]
            return Ledger.from_records(loads, [MartRecord(**_values(record, "built_at")) for record in copy["marts"]])
    except (OSError, ValueError, LookupError, TypeError):  # missing, unreadable, half written or corrupt
        pass
    return None


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def unchanged(before: Ledger, after: Ledger) -> Ledger:
    """The records of `before` whose rows are the same in `after`, even if they were loaded again from the same file."""
    loads, marts = after.loads, after.marts
    return Ledger(
        {key: load for key, load in before.loads.items() if key in loads and _same_rows(load, loads[key])},
        {key: mart for key, mart in before.marts.items() if key in marts and _same_rows(mart, marts[key])},
    )


def _same_rows(one: LoadRecord | MartRecord, other: LoadRecord | MartRecord) -> bool:
    return one is other or _undated(one) == _undated(other)


def _undated(record: LoadRecord | MartRecord) -> dict[str, Any]:
    return {**vars(record), "loaded_at": None, "built_at": None, "version": None}


def _same_file(one: Signature, other: Signature) -> bool:
    """Whether both are of the same database file, which may have changed."""
    return bool(one[0] and other[0] and one[0][0] == other[0][0])


def _copy_path(database: Path) -> Path:
    return database.with_name(f"{database.name}.loads.json")


def _values(record: dict[str, Any], time: str) -> dict[str, Any]:
    month = record["month"] and date.fromisoformat(record["month"])
    return {**record, "month": month, time: datetime.fromisoformat(record[time])}
