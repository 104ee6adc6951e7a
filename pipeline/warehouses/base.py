"""What a warehouse promises, whichever engine it is; `tests/warehouses/test_warehouse_contract.py` holds all to it.

After `replace` returns, the warehouse holds exactly that file's rows for that month, however often it ran; if it
raises or is killed, the table is as it was. Nothing is ever reported as loaded that is not there.

A mart is derived from loads: when the month's load goes or is replaced, or the zones become others, the mart's months
that were built from it go in the same step, so that a mart that is there is of the rows that are there.

Every method raises `WarehouseError` when the engine refuses; asking about a warehouse that does not exist answers
"nothing" and creates nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError


class Locked(WarehouseError):
    """Another process has the warehouse; the text says which."""


class StoredFile(Protocol):
    """A whole file of the lake, as a warehouse sees it."""

    @property
    def uri(self) -> str:
        """Where it lies: a path, or gs://bucket/key."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the file's content does."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file, of which only what is asked for is read, wherever it lies."""

    def open_local(self) -> AbstractContextManager[Path]:
        """A local path to read the whole file from, for the length of the block."""


@dataclass(frozen=True)
class LoadRecord:
    """A row of `loads`: one month that arrived, and from which trips file. `month` is None for the zones."""

    dataset: str
    month: date | None
    rows: int
    source_sha256: str
    declaration: str
    fingerprint: str
    #: With its zone, which is UTC.
    loaded_at: datetime
    version: str


@dataclass(frozen=True)
class MartRecord:
    """A row of `mart_loads`: one month of one mart, and from which load (the fingerprint of its trips file)."""

    mart: str
    dataset: str
    month: date
    rows: int
    fingerprint: str
    #: With its zone, which is UTC.
    built_at: datetime
    version: str
    #: `Mart.definition` at that time; None where a version of the package built it that did not record this.
    definition: str | None = None


@dataclass(frozen=True)
class Mart:
    """A derived table: one SELECT over the month `:month` of the dataset `:dataset`, in `pipeline/marts/<name>.sql`.

    `:next_month` is the first day after it. The mart's table has the columns `dataset` and `month`, then the SELECT's.
    """

    name: str
    doc: str
    sql: str
    datasets: tuple[str, ...]

    @property
    def definition(self) -> str:
        """A hash that differs when the SQL does; comments and line breaks are ignored."""
        lines = [line.strip() for line in self.sql.splitlines() if not line.lstrip().startswith("--")]
        return hashlib.sha256(" ".join(filter(None, lines)).encode()).hexdigest()[:16]


@runtime_checkable
class Exposing(Protocol):
    """A warehouse that can also show the lake's files as tables, without loading them."""

    def expose(self, lake: str) -> list[str]:
        """Make an external table over the files of each dataset, and of the zones; returns their names."""

    def exposed(self, lake: str) -> bool:
        """Whether the external tables over this lake are there, as declared."""


@runtime_checkable
class Compacting(Protocol):
    """A warehouse whose ledger keeps records that no longer count."""

    def compact(self) -> None:
        """Delete those of them that are older than an hour."""


@runtime_checkable
class Shared(Protocol):
    """A warehouse in a database where others may have tables of our names."""

    def validate_shared(self) -> None:
        """Let pass when there are none; changes nothing.

        Raises:
            WarehouseError: there are; names them, and what to do.
        """


class Warehouse(Protocol):
    """Where months of trips arrive as tables. Clients and connections are made inside each call, never kept."""

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Make the month's rows exactly those of the file, with its record in `loads`; returns their number.

        The zones have no month. Other zones than before remove every month from every mart.

        Raises:
            WarehouseError: the file is of another dataset or month, does not fit the table, has a zone's number twice
                (the view `trips` would double its trips), or the engine refused.
        """

    def loads(self, dataset: Dataset) -> Mapping[date | None, LoadRecord]:
        """The loaded months, by one question; may lack one that another process is just committing.

        A load counts only while its table exists.
        """

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """Build the month of each mart anew, all or none; returns rows by mart.

        Raises:
            WarehouseError: the month is not loaded, a mart is not for this dataset, or the engine refused.
        """

    def mart_months(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """The months of marts that are there: by month, then by mart."""

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Delete rows, marts and records of the month (of the zones: all marts); nothing happens when none exist."""

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Take the month out of every mart, its load stays; nothing happens when it is in none."""

    def query(self, sql: str) -> pa.Table:
        """Run one statement that only reads, and return its rows.

        Raises:
            UsageError: the statement is not allowed, since it does more than read.
        """
