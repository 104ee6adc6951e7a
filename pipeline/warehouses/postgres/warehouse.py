"""The warehouse in a Postgres database: a table per dataset, partitioned by month.

A month's rows, its marts and the record in `loads` change in one transaction. Different months load in parallel, the
same month one load after the other. Source: https://www.postgresql.org/docs/current/ddl-partitioning.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.planning import TtlCache
from pipeline.months import label
from pipeline.warehouses.base import Ledger, Mart, StoredFile, Warehouse
from pipeline.warehouses.load_file import inspect, validate_marts
from pipeline.warehouses.postgres.copy import encode
from pipeline.warehouses.postgres.locks import lock_session, lock_transaction, retry_locked, transaction
from pipeline.warehouses.postgres.rows import read_rows
from pipeline.warehouses.postgres.schema import (
    PostgresDialect,
    prepare_partition,
    rows_table,
    table_names,
    validate_ours,
)
from pipeline.warehouses.postgres.server import Server
from pipeline.warehouses.schema import (
    drop_marts,
    evolve,
    evolve_marts,
    fill_marts,
    foreign_views,
    forget_load,
    missing,
    read_ledger,
    record_load,
    table_of,
    validate_types,
)
from pipeline.warehouses.tables import LEDGER, MONTH
from pipeline.warehouses.views import declared_views

if TYPE_CHECKING:
    import psycopg

_DIALECT = PostgresDialect()
#: Small batches stay in the processor's cache: of 2,048 to 122,880 rows these were among the fastest.
_BATCH_ROWS = 8_192
_TYPE_REMEDY = "load into another database or schema, or load all months again here, after DROP TABLE {} CASCADE"
_T = TypeVar("_T")


class PostgresWarehouse(Warehouse):
    """See `pipeline.warehouses.base.Warehouse`; every call opens its own connection."""

    def __init__(
        self, server: Server, datasets: Mapping[str, Dataset], zones: Dataset, *, lock_timeout_s: float
    ) -> None:
        self._server = server
        self._datasets = datasets
        self._zones = zones
        self._limit_s = lock_timeout_s
        self._cached_ledger: TtlCache[Ledger] = TtlCache()

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Old rows are deleted and new ones copied in one transaction with the record.

        Marts of other rows or other zones are deleted. Readers never wait: they see the old rows until the commit.
        """
        subject = label(dataset.name, month)
        table = rows_table(dataset.name, month)
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))

            def change(connection: psycopg.Connection[Any]) -> None:
                former = _read(connection).loads.get((dataset.name, month))
                if month or former is None or former.fingerprint != file.fingerprint:
                    drop_marts(connection, _DIALECT, dataset.name, month)
                forget_load(connection, dataset.name, month)
                connection.execute(f'DELETE FROM "{table}"')
                rows = _copy_rows(connection, table, month, path)
                if rows != load_file.rows:
                    raise WarehouseError(f"{subject}: loaded {rows} rows, but {path} has {load_file.rows}")
                record_load(connection, dataset.name, month, load_file, file.fingerprint)

            def work(connection: psycopg.Connection[Any]) -> int:
                lock_session(connection, subject, self._limit_s)
                validate_ours(connection, subject, dataset, month)
                self._ensure(connection, subject)
                existing = _DIALECT.tables(connection)[dataset.name]
                validate_types(dataset.name, table_of(_DIALECT, dataset), existing, _TYPE_REMEDY.format(dataset.name))
                if month:
                    self._change(connection, dataset, month, lambda: prepare_partition(connection, dataset, month))
                self._change(connection, dataset, month, lambda: change(connection))
                return load_file.rows

            return self._run(subject, work)

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Rows, marts and records are deleted in one transaction."""

        def change(connection: psycopg.Connection[Any]) -> None:
            validate_ours(connection, label(dataset.name, month), dataset, month)
            drop_marts(connection, _DIALECT, dataset.name, month)
            forget_load(connection, dataset.name, month)
            table = rows_table(dataset.name, month)
            if table in table_names(connection):
                # Not DROP, which would wait for all readers and loads of the dataset.
                connection.execute(f'DELETE FROM "{table}"')

        self._forget(dataset, month, change)

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Rows and records are deleted in one transaction."""
        self._forget(dataset, month, lambda connection: drop_marts(connection, _DIALECT, dataset.name, month))

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """All marts of the month in one transaction with their records."""
        subject = label(dataset.name, month)
        validate_marts(subject, dataset, marts)

        def work(connection: psycopg.Connection[Any]) -> dict[str, int]:
            lock_session(connection, subject, self._limit_s)
            lock_session(connection, self._zones.name, self._limit_s, shared=True)
            load = _read(connection).loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            self._ensure(connection, subject)

            def change() -> dict[str, list[str]]:
                lock_transaction(connection, "tables")
                return evolve_marts(connection, _DIALECT, marts, load, _DIALECT.tables(connection))

            columns = retry_locked(connection, subject, [mart.name for mart in marts], self._limit_s, change)
            with transaction(connection, self._limit_s):
                # Autovacuum may come later, and without statistics the plan is for a few rows and takes ten times as
                # long. A mart selects by these two columns only; analyzing all columns would take as long as a mart.
                names = [name for name in (MONTH, dataset.pickup) if name == MONTH or name in dataset.by_name]
                connection.execute(f'ANALYZE "{rows_table(dataset.name, month)}" ({", ".join(names)})')
                return fill_marts(connection, _DIALECT, marts, load, columns)

        return self._run(subject, work)

    def validate_shared(self) -> list[str]:
        """By the statements that a load would run first."""
        datasets, zones = self._datasets.values(), self._zones

        def work(connection: psycopg.Connection[Any]) -> list[str]:
            missing(connection, _DIALECT, datasets, zones)
            return foreign_views(connection, _DIALECT, datasets, zones)

        return self._server.run("warehouse", work)

    def query(self, sql: str) -> pa.Table:
        """In a read-only transaction."""
        return self._server.run("query", lambda connection: read_rows(connection, sql))

    def _run(self, subject: str, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        self._cached_ledger.forget()
        return self._server.run(subject, work)

    def ledger(self) -> Ledger:
        """Cached, since a plan asks once for each dataset."""
        return self._cached_ledger.get(lambda: self._server.run("loads", _read))

    def _ensure(self, connection: psycopg.Connection[Any], subject: str) -> None:
        """Create the tables that are missing, and evolve those that exist."""
        datasets = self._datasets.values()

        def change() -> None:
            lock_transaction(connection, "tables")
            evolve(connection, _DIALECT, datasets, self._zones)

        if missing(connection, _DIALECT, datasets, self._zones):
            names = [*self._datasets, *(view.name for view in declared_views(datasets, self._zones))]
            retry_locked(connection, subject, names, self._limit_s, change)

    def _change(
        self, connection: psycopg.Connection[Any], dataset: Dataset, month: date | None, change: Callable[[], None]
    ) -> None:
        table = rows_table(dataset.name, month)
        tables = [dataset.name, table, f"{table}_incoming", "loads", "mart_loads"]
        retry_locked(connection, label(dataset.name, month), tables, self._limit_s, change)

    def _forget(self, dataset: Dataset, month: date | None, change: Callable[[psycopg.Connection[Any]], None]) -> None:
        def work(connection: psycopg.Connection[Any]) -> None:
            if table_names(connection) >= LEDGER.keys():
                lock_session(connection, label(dataset.name, month), self._limit_s)
                self._change(connection, dataset, month, lambda: change(connection))

        self._run(label(dataset.name, month), work)


def _read(connection: psycopg.Connection[Any]) -> Ledger:
    return read_ledger(connection, table_names(connection), lambda load: rows_table(load.dataset, load.month))


def _copy_rows(connection: psycopg.Connection[Any], table: str, month: date | None, path: Path) -> int:
    """Copy the file's rows, with their month, into the table; returns their number."""
    import pyarrow.parquet as pq

    # pre_buffer would hold whole row groups in memory, twice.
    with pq.ParquetFile(path, pre_buffer=False) as file, connection.cursor() as cursor:
        batches = file.iter_batches(_BATCH_ROWS)
        names = list(file.schema_arrow.names)
        if month:
            batches = (batch.append_column(MONTH, pa.repeat(month, batch.num_rows)) for batch in batches)
            names.append(MONTH)
        columns = ", ".join(f'"{name}"' for name in names)
        with cursor.copy(f'COPY "{table}" ({columns}) FROM STDIN (FORMAT binary)') as copy:
            for piece in encode(batches):
                copy.write(piece)
        return int(cursor.rowcount)
