"""The contract of a warehouse: months of trips are loaded into tables, and marts are built from the loaded months.

docs/extending.md says how to add an engine. `tests/warehouse_contract.py` tests these promises of every engine:

- `replace` is all or nothing and repeatable. After it returns, the warehouse has exactly the file's rows for that
  month. If it raises or is killed, the table is unchanged.
- The ledger (tables `loads` and `mart_loads`) never claims rows that do not exist. A record commits with its rows, or
  is deleted before the rows change and written afterwards.
- A mart matches its load. When a load is replaced or deleted, or the zones change, the marts of it are deleted, too.
- Reading a warehouse that does not exist returns nothing and creates nothing.
- Every method raises `WarehouseError` when the engine reports an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Protocol

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError, WarehouseError

if TYPE_CHECKING:
    import pyarrow as pa

_COMMENTS = r"(?:\s|--[^\r\n]*|/\*.*?\*/)*"
_EXPLAIN = r"EXPLAIN\b(?:\s+(?:ANALYZE|VERBOSE)\b)*(?:\s*\((?!\s*(?:SELECT|FROM|WITH|VALUES|TABLE)\b)[\w\s,]*\))?"
_START = re.compile(rf"{_COMMENTS}({_EXPLAIN})?{_COMMENTS}", re.IGNORECASE | re.DOTALL)


class Locked(WarehouseError):
    """Another process has locked the warehouse: the message names it, and `holder` is that name."""

    def __init__(self, message: object = "", *, holder: str = "", kind: str = "", remedy: str = "") -> None:
        super().__init__(message, kind=kind, remedy=remedy)
        self.holder = holder


class StoredFile(Protocol):
    """A complete file of the lake, as a warehouse reads it."""

    @property
    def uri(self) -> str:
        """A path, or gs://bucket/key."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the file's content does."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file for random access; a remote file is not downloaded as a whole."""

    def open_local(self) -> AbstractContextManager[Path]:
        """A local path with the whole file, valid inside the block."""


class LoadAhead(Protocol):
    """A load that gets the month's rows while they are conformed, as an optimisation.

    Whatever fails in it is left to the load step; no method raises an error of the warehouse.
    """

    def add(self, batch: pa.RecordBatch) -> None:
        """Insert the rows of one batch, which has the dataset's schema."""

    def finish(self, file: StoredFile) -> None:
        """Commit, now that the file with all these rows is published: the same rows and record as after `replace`."""

    def close(self) -> None:
        """Release the warehouse; without `finish`, it is unchanged."""


@dataclass(frozen=True)
class LoadRecord:
    """A row of `loads`: a loaded month and the trips file it came from. Its fields are the columns of the table."""

    dataset: str = field(metadata={"comment": "Table with the rows."})
    month: date | None = field(metadata={"comment": "Month of the rows; null for the zones."})
    rows: int = field(metadata={"comment": "Number of rows."})
    source_sha256: str = field(metadata={"comment": "SHA-256 of the file that TLC published."})
    declaration: str = field(metadata={"comment": "Hash of the declaration it was conformed with."})
    fingerprint: str = field(metadata={"comment": "Fingerprint of the loaded trips file."})
    loaded_at: datetime = field(metadata={"comment": "Time of the load, in UTC."})
    version: str = field(metadata={"comment": "Package version that wrote this record."})


@dataclass(frozen=True)
class MartRecord:
    """A row of `mart_loads`: a month of a mart; `fingerprint` is that of the load it was built from."""

    mart: str = field(metadata={"comment": "Table with the rows."})
    dataset: str = field(metadata={"comment": "Dataset of the rows."})
    month: date = field(metadata={"comment": "Month of the rows."})
    rows: int = field(metadata={"comment": "Number of rows."})
    fingerprint: str = field(metadata={"comment": "Fingerprint of the loaded trips file."})
    built_at: datetime = field(metadata={"comment": "Time of the build, in UTC."})
    version: str = field(metadata={"comment": "Package version that wrote this record."})
    #: `Mart.definition` at that time.
    definition: str | None = field(
        default=None, metadata={"comment": "Hash of the SQL; null if built by an older package version."}
    )


@dataclass(frozen=True)
class Mart:
    """A derived table, declared in `pipeline/marts/<name>.sql` as one SELECT over a month of a dataset.

    The SELECT uses `:dataset`, `:month` and `:next_month` (first days of months). The table has the columns `dataset`
    and `month`, then those of the SELECT.
    """

    name: str
    doc: str
    sql: str
    datasets: tuple[str, ...]
    #: The meaning of each column of the SELECT.
    columns: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def definition(self) -> str:
        """A hash of the SQL without comments, indentation and line breaks."""
        lines = [line.strip() for line in self.sql.splitlines() if not line.lstrip().startswith("--")]
        return hashlib.sha256(" ".join(filter(None, lines)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Ledger:
    """What is loaded and which marts are built."""

    loads: Mapping[tuple[str, date | None], LoadRecord] = field(default_factory=dict)
    marts: Mapping[tuple[str, str, date], MartRecord] = field(default_factory=dict)
    #: Loads that are recorded, but whose table was dropped.
    lost: frozenset[tuple[str, date | None]] = frozenset()

    @staticmethod
    def from_records(loads: Iterable[LoadRecord], marts: Iterable[MartRecord]) -> Ledger:
        """A ledger of all these records."""
        return Ledger(
            {(load.dataset, load.month): load for load in loads},
            {(mart.mart, mart.dataset, mart.month): mart for mart in marts},
        )

    @staticmethod
    def counted(
        loads: Collection[LoadRecord],
        marts: Iterable[MartRecord],
        tables: Container[str],
        table_of: Callable[[LoadRecord], str] = attrgetter("dataset"),
    ) -> Ledger:
        """The records that count, given the tables that exist; `table_of` names the table with a load's rows.

        A load counts while its table exists. A mart counts while its table exists and its load counts, unless the
        zones were loaded and their table was dropped.
        """
        ledger = Ledger.from_records((load for load in loads if table_of(load) in tables), marts)
        zones_dropped = any(load.month is None and table_of(load) not in tables for load in loads)
        counted = {
            key: mart
            for key, mart in ledger.marts.items()
            if mart.mart in tables and (mart.dataset, mart.month) in ledger.loads and not zones_dropped
        }
        lost = frozenset((load.dataset, load.month) for load in loads if table_of(load) not in tables)
        return Ledger(ledger.loads, counted, lost)


class Warehouse(Protocol):
    """What every engine implements. Connections are opened inside a call and never kept between calls."""

    #: Whether `load_ahead` may return a load.
    loads_ahead: ClassVar[bool] = False

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Replace the month's rows by those of the file and write its record; returns the number of rows.

        The zones are a dataset whose only month is None. Zones that differ from the loaded ones empty all marts.

        Raises:
            WarehouseError: the file is of another dataset or month, does not fit the table, or has a zone number
                twice (which would duplicate trips in the view `trips`).
        """

    def load_ahead(self, dataset: Dataset, month: date) -> LoadAhead | None:
        """Begin a load of rows that are being conformed; None if the engine does not support it."""
        return None

    def ledger(self) -> Ledger:
        """The records that count, read with one query; a month that is being committed now may be missing."""

    def loads(self, dataset: Dataset) -> Mapping[date | None, LoadRecord]:
        """The loaded months."""
        return {month: record for (name, month), record in self.ledger().loads.items() if name == dataset.name}

    def mart_months(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """The built months of marts: by month, then by mart."""
        months: dict[date, dict[str, MartRecord]] = {}
        for (mart, name, month), record in self.ledger().marts.items():
            if name == dataset.name:
                months.setdefault(month, {})[mart] = record
        return months

    def changed_rows(self, dataset: Dataset) -> dict[date | None, str]:
        """By month: what happened to loaded rows outside of this package. It counts the rows of each loaded month."""
        ledger, loads = self.ledger(), self.loads(dataset)
        dropped = f"the table of its rows in {dataset.name} was dropped"
        changed = {month: dropped for name, month in ledger.lost if name == dataset.name}
        month = "month, " if dataset.first_month else ""
        grouped = "GROUP BY month" if dataset.first_month else ""
        sql = f"SELECT {month}COUNT(*) AS n FROM {dataset.name} {grouped}"
        rows = self.query(sql).to_pylist() if loads else []
        counts = {row.get("month"): row["n"] for row in rows}
        for loaded, record in loads.items():
            if (count := counts.get(loaded, 0)) != record.rows:
                changed[loaded] = f"the table has {count:,} rows of it, {record.rows:,} were loaded"
        return changed

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """Rebuild the month of all these marts, or of none; returns the number of rows by mart.

        Raises:
            WarehouseError: the month is not loaded, or a mart is not for this dataset.
        """

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Delete the month's rows, its marts (for the zones: all marts) and records; without them, do nothing."""

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Delete the month from all marts and keep its load; if no mart has it, do nothing."""

    def query(self, sql: str) -> pa.Table:
        """Run one read-only statement and return its rows.

        Raises:
            UsageError: the statement would do more than read.
        """

    def expose(self, lake: str) -> list[str]:
        """Create an external table over the lake's files of each dataset and of the zones; returns their names."""
        raise UsageError(
            "Expose: only BigQuery has external tables; load into other warehouses (DuckDB also reads the lake's files "
            "directly). Allowed is [pipeline] warehouse = bigquery://project/dataset"
        )

    def exposed(self, lake: str) -> bool:
        """Whether these external tables exist as declared."""
        return False

    def validate_shared(self) -> list[str]:
        """The names of our views that others' tables or views have, and that are therefore not created.

        Raises:
            WarehouseError: others have tables with the names of our tables, so a load would fail.
        """
        return []

    def compact(self) -> None:
        """Delete records that have not counted for an hour, if the ledger is append-only and keeps such records."""
        return


def split_explain(sql: str) -> tuple[str, str]:
    """EXPLAIN with its options (or an empty text), and the statement after it; comments before them are removed.

    Run these two parts, never the original text: an engine could read its comments or EXPLAIN differently, and then
    run something that was not checked.
    """
    match = _START.match(sql)
    assert match is not None
    return match[1] or "", sql[match.end() :]


def query_error(statement: str, remedy: str = "") -> UsageError:
    """The error for a query that would do more than read."""
    return UsageError(
        f"query: {statement}: allowed is one statement that only reads, such as SELECT … FROM trips{remedy}"
    )
