"""The warehouse in a Postgres database: a table per dataset, divided by month, each month a partition of its own.

A month's rows arrive in a table beside it; then partition, marts and the record in `loads` change in one transaction.
Months load side by side; of the same month one at a time.
Source: https://www.postgresql.org/docs/current/ddl-partitioning.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.planning import TtlCache
from pipeline.months import label
from pipeline.warehouses.base import Ledger, LoadRecord, Mart, MartRecord, StoredFile
from pipeline.warehouses.load_file import LoadFile, inspect, validate_marts
from pipeline.warehouses.postgres.month import (
    alone,
    attach_partition,
    copy_rows,
    drop_partition,
    hold,
    insisting,
    stage,
)
from pipeline.warehouses.postgres.rows import read_rows
from pipeline.warehouses.postgres.schema import (
    PostgresDialect,
    names_in,
    partition_of,
    table_of_load,
    validate_ours,
)
from pipeline.warehouses.postgres.server import Server, transaction
from pipeline.warehouses.schema import (
    drop_marts,
    evolve,
    evolve_mart,
    fill_mart,
    forget_load,
    missing,
    read_ledger,
    record_load,
    table_of,
    validate_types,
)
from pipeline.warehouses.tables import LEDGER, MONTH

if TYPE_CHECKING:
    import psycopg

_DIALECT = PostgresDialect()
_T = TypeVar("_T")


class PostgresWarehouse:
    """See `pipeline.warehouses.base.Warehouse`; every call makes a connection and closes it again."""

    def __init__(
        self, server: Server, datasets: Mapping[str, Dataset], zones: Dataset, *, lock_timeout_s: float
    ) -> None:
        self._server = server
        self._datasets = datasets
        self._zones = zones
        self._limit_s = lock_timeout_s
        self._cached_ledger: TtlCache[Ledger] = TtlCache()

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """A month is copied into a new table, which then becomes its partition; the zones are deleted and copied.

        The record is written in the same transaction. Marts of other rows or other zones are deleted.
        """
        subject = label(dataset.name, month)
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))

            def work(connection: psycopg.Connection[Any]) -> int:
                validate_ours(connection, subject, dataset, month)
                self._ensure(connection, subject)
                hold(connection, subject, self._limit_s)
                self._refuse(connection, subject, dataset)
                validate_ours(connection, subject, dataset, month)
                if month:
                    table = _DIALECT.tables(connection)[dataset.name]
                    rows = stage(connection, dataset, table, month, path, self._limit_s)
                    _compare(subject, rows, load_file, str(path))

                def swap() -> None:
                    former = _read(connection).loads.get((dataset.name, month))
                    if month or former is None or former.fingerprint != file.fingerprint:
                        drop_marts(connection, _DIALECT, dataset.name, month)
                    forget_load(connection, dataset.name, month)
                    record_load(connection, dataset.name, month, load_file, file.fingerprint)
                    if month:
                        attach_partition(connection, dataset, month)
                    else:
                        connection.execute(f'DELETE FROM "{dataset.name}"')
                        _compare(subject, copy_rows(connection, dataset.name, path), load_file, str(path))
                        _validate_zones(connection)

                insisting(connection, subject, _tables(dataset, month), self._limit_s, swap)
                return load_file.rows

            return self._run(subject, work)

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Rows, marts and records are deleted in one transaction."""
        subject = label(dataset.name, month)

        def work(connection: psycopg.Connection[Any]) -> None:
            if not names_in(connection) >= LEDGER.keys():
                return
            hold(connection, subject, self._limit_s)
            validate_ours(connection, subject, dataset, month)

            def change() -> None:
                drop_marts(connection, _DIALECT, dataset.name, month)
                forget_load(connection, dataset.name, month)
                if month:
                    drop_partition(connection, dataset, month)
                else:
                    connection.execute(f'DELETE FROM "{dataset.name}"')

            insisting(connection, subject, _tables(dataset, month), self._limit_s, change)

        self._run(subject, work)

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Rows and records go in one transaction."""
        subject = label(dataset.name, month)

        def work(connection: psycopg.Connection[Any]) -> None:
            if not names_in(connection) >= LEDGER.keys():
                return
            hold(connection, subject, self._limit_s)

            def change() -> None:
                drop_marts(connection, _DIALECT, dataset.name, month)

            insisting(connection, subject, ["mart_loads"], self._limit_s, change)

        self._run(subject, work)

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """All marts of the month in one transaction with their records."""
        subject = label(dataset.name, month)
        validate_marts(subject, dataset, marts)

        def work(connection: psycopg.Connection[Any]) -> dict[str, int]:
            hold(connection, subject, self._limit_s)
            hold(connection, self._zones.name, self._limit_s, shared=True)
            load = _read(connection).loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            self._ensure(connection, subject)

            def change() -> dict[str, list[str]]:
                alone(connection, "tables")
                return {mart.name: evolve_mart(connection, _DIALECT, mart, load) for mart in marts}

            columns = insisting(connection, subject, [mart.name for mart in marts], self._limit_s, change)
            with transaction(connection, self._limit_s):
                # Autovacuum may not have been here yet, and a plan for a handful of rows takes ten times as long. These
                # columns are what a mart chooses its rows by; all of them would take as long as a mart. The server
                # still counts the rows as not analyzed, so that autovacuum does the others.
                known = [name for name in (MONTH, dataset.pickup) if name == MONTH or name in dataset.by_name]
                connection.execute(f'ANALYZE "{partition_of(dataset.name, month)}" ({", ".join(known)})')
                return {mart.name: fill_mart(connection, _DIALECT, mart, load, columns[mart.name]) for mart in marts}

        return self._run(subject, work)

    def loads(self, dataset: Dataset) -> dict[date | None, LoadRecord]:
        """From `loads`; a month whose partition was dropped does not count."""
        return self._ledger().loads_of(dataset.name)

    def mart_months(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """From `mart_loads`."""
        return self._ledger().mart_months(dataset.name)

    def validate_shared(self) -> None:
        """By what a load would have to make."""
        self._server.run("warehouse", lambda found: missing(found, _DIALECT, self._datasets.values(), self._zones))

    def query(self, sql: str) -> pa.Table:
        """In a session that only reads."""
        return self._server.run("query", lambda connection: read_rows(connection, sql))

    def _run(self, subject: str, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        self._cached_ledger.forget()
        return self._server.run(subject, work)

    def _ledger(self) -> Ledger:
        """What is there; a plan reads it once, however many months it asks about."""
        return self._cached_ledger.get(lambda: self._server.run("loads", _read))

    def _ensure(self, connection: psycopg.Connection[Any], subject: str) -> None:
        """Make the tables that are missing, and evolve those that are there; mostly nothing is to be done."""
        datasets = self._datasets.values()

        def change() -> None:
            alone(connection, "tables")
            evolve(connection, _DIALECT, datasets, self._zones)

        if missing(connection, _DIALECT, datasets, self._zones):
            insisting(connection, subject, [*self._datasets, "trips"], self._limit_s, change)

    def _refuse(self, connection: psycopg.Connection[Any], subject: str, dataset: Dataset) -> None:
        remedy = (
            f"load into another database or schema, or all of it again here, after DROP TABLE {dataset.name} CASCADE"
        )
        had = _DIALECT.tables(connection)[dataset.name]
        validate_types(dataset.name, table_of(_DIALECT, dataset), had, remedy)


def _read(connection: psycopg.Connection[Any]) -> Ledger:
    return read_ledger(connection, names_in(connection), table_of_load)


def _tables(dataset: Dataset, month: date | None) -> list[str]:
    """The tables that a load changes."""
    return [dataset.name, *([partition_of(dataset.name, month)] if month else []), "loads", "mart_loads"]


def _compare(subject: str, rows: int, load_file: LoadFile, where: str) -> None:
    if rows != load_file.rows:
        raise WarehouseError(f"{subject}: {rows} rows arrived of the {load_file.rows} that {where} has")


def _validate_zones(connection: psycopg.Connection[Any]) -> None:
    doubled = connection.execute(
        "SELECT location_id FROM zones GROUP BY location_id HAVING COUNT(*) > 1 ORDER BY location_id"
    ).fetchall()
    if doubled:
        raise WarehouseError(f"zones: the numbers {[number for (number,) in doubled]} occur more than once")
