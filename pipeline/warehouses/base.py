"""What a warehouse promises, whichever engine it is; `tests/test_warehouse_contract.py` holds every one of them to it.

After `replace_month` returns, the warehouse holds exactly that file's rows for that month, however often it ran; if it
raises or is killed, the table is as it was. Nothing is ever reported as loaded that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.datasets.base import Dataset


class StoredFile(Protocol):
    """A whole file of the lake, as a warehouse sees it."""

    @property
    def uri(self) -> str:
        """Where it lies: a path, or gs://bucket/key."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the file's content does."""

    def open_local(self) -> AbstractContextManager[Path]:
        """A local path to read the file from, for the length of the block."""


@dataclass(frozen=True)
class LoadRecord:
    """A row of `loads`: one month that arrived, and from which trips file. `month` is None for the zones."""

    dataset: str
    month: date | None
    rows: int
    source_sha256: str
    declaration: str
    fingerprint: str
    loaded_at: datetime
    version: str


@dataclass(frozen=True)
class MartRecord:
    """One month of one mart that was built, and from which load (the fingerprint of its trips file)."""

    mart: str
    dataset: str
    month: date
    rows: int
    fingerprint: str
    built_at: datetime
    version: str


@dataclass(frozen=True)
class Mart:
    """A derived table: one SELECT over the month `:month` of the dataset `:dataset`, kept in `pipeline/marts/<name>.sql`."""

    name: str
    doc: str
    sql: str
    datasets: tuple[str, ...]


class Warehouse(Protocol):
    """Where months of trips arrive as tables. Clients and connections are made inside each call, never kept."""

    def replace_month(self, dataset: Dataset, month: date, trips: StoredFile) -> int:
        """Make the month's rows exactly those of the file, with its record in `loads`; returns their number."""

    def loaded_months(self, dataset: Dataset) -> dict[date, LoadRecord]:
        """The months that are there, by one question; may lack one that another process is just committing."""

    def replace_zones(self, zones: StoredFile) -> int:
        """Make the zones exactly those of the file; returns their number."""

    def loaded_zones(self) -> LoadRecord | None:
        """The record of the zones, None when they are not there."""

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """Build the month of each mart anew, all or none; returns rows by mart."""

    def mart_months(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """The months of marts that are there: by month, then by mart."""

    def forget_month(self, dataset: Dataset, month: date) -> None:
        """Take the month out: rows, marts and records; nothing happens when it is not there."""

    def query(self, sql: str) -> pa.Table:
        """Run one statement that reads, and return its rows."""
