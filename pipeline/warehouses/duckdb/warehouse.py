"""The warehouse in one DuckDB file.

A month's rows, its marts and the record in `loads` change in one transaction. While another process has the file open,
`loads` and `mart_months` answer from a copy of the ledger beside it (`copy_of_loads.py`) instead of waiting.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.datasets.base import BOOL, DATE, FLOAT64, INT32, INT64, TEXT, TIME, Dataset
from pipeline.errors import WarehouseError
from pipeline.months import label
from pipeline.warehouses import schema
from pipeline.warehouses.base import Ledger, Locked, Mart, StoredFile, Warehouse, query_error, split_explain
from pipeline.warehouses.duckdb.copy_of_loads import CopyOfLoads, Signature, read_copy, signature, unchanged
from pipeline.warehouses.duckdb.file import DuckDBFile
from pipeline.warehouses.load_file import inspect, validate_marts
from pipeline.warehouses.schema import Dialect, Table, TableColumn
from pipeline.warehouses.tables import MOMENT, MONTH

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

#: How long to wait for the ledger of a locked database without a valid copy.
_LEDGER_TIMEOUT_S = 10.0
#: Two changes closer than this may get the same times, on a file system with whole milliseconds or seconds, as FAT.
_COARSE_CLOCK_NS = 2_000_000_000
#: On others the times are those of the kernel's clock, which ticks every 10 ms or more often.
_FINE_CLOCK_NS = 50_000_000
#: The settings of a query. With replacements, an unknown table name finds a Python variable; the last locks all.
_QUERY_SETTINGS = ("python_enable_replacements = false", "enable_external_access = false", "lock_configuration = true")
#: The last ledger read from each database, valid while its files have that signature.
_KNOWN: dict[Path, tuple[Signature, Ledger]] = {}


class DuckDBDialect(Dialect):
    """See `pipeline.warehouses.schema.Dialect`."""

    types = {  # noqa: RUF012
        BOOL: "BOOLEAN",
        INT32: "INTEGER",
        INT64: "BIGINT",
        FLOAT64: "DOUBLE",
        TEXT: "VARCHAR",
        DATE: "DATE",
        TIME: "TIMESTAMP",
        MOMENT: "TIMESTAMP",
    }

    def tables(self, connection: Any) -> dict[str, Table]:
        """From `duckdb_tables()` and `duckdb_columns()`."""
        where = "WHERE NOT internal AND schema_name = 'main'"
        comments = connection.execute(f"SELECT table_name, comment FROM duckdb_tables() {where}").fetchall()
        columns: dict[str, dict[str, TableColumn]] = {}
        for table, column, type_, nullable, comment in connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns() "
            f"{where} ORDER BY table_name, column_index"
        ).fetchall():
            columns.setdefault(table, {})[column] = TableColumn(type_, not nullable, comment or "")
        return {name: Table(comment or "", columns[name]) for name, comment in comments}

    def comments(self, connection: Any, names: list[str]) -> dict[str, str]:
        """From `duckdb_views()` and `duckdb_tables()`; names differ in more than case."""
        rows = connection.execute(
            " UNION ALL ".join(
                f"SELECT {kind}_name, coalesce(comment, '') FROM duckdb_{kind}s() WHERE NOT internal "
                f"AND schema_name = 'main' AND list_contains($1, lower({kind}_name))"
                for kind in ("view", "table")
            ),
            [names],
        )
        return dict(rows.fetchall())

    def shape(self, connection: Any, select: str) -> dict[str, str]:
        """By DESCRIBE."""
        return {name: type_ for name, type_, *_ in connection.execute(f"DESCRIBE {select}").fetchall()}


_DIALECT = DuckDBDialect()


class DuckDBWarehouse(Warehouse):
    """See `pipeline.warehouses.base.Warehouse`; every call opens the file and closes it again."""

    def __init__(self, file: DuckDBFile, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        self._file = file
        self._datasets = datasets
        self._zones = zones

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Delete, insert and record in one transaction."""
        subject = label(dataset.name, month)
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))
            with self._writing(subject) as (connection, before):
                self._file.limit_insert(connection)
                remedy = f"load into a new warehouse, or run DROP TABLE {dataset.name} and load all its months again"
                existing = _DIALECT.tables(connection)[dataset.name]
                schema.validate_types(dataset.name, schema.table_of(_DIALECT, dataset), existing, remedy)
                previous = before.loads.get((dataset.name, month))
                # The same zones leave the marts as they are.
                if month or previous is None or previous.fingerprint != file.fingerprint:
                    schema.drop_marts(connection, _DIALECT, dataset.name, month)
                drop_rows(connection, dataset.name, month)
                schema.forget_load(connection, dataset.name, month)
                rows = insert_rows(connection, dataset.name, month, path)
                if rows != load_file.rows:
                    raise WarehouseError(f"{subject}: loaded {rows} rows, but {path} has {load_file.rows}")
                schema.record_load(connection, dataset.name, month, load_file, file.fingerprint)
        return rows

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Delete rows, marts and records in one transaction."""
        if self._file.path.exists():
            with self._writing(label(dataset.name, month)) as (connection, _):
                schema.drop_marts(connection, _DIALECT, dataset.name, month)
                drop_rows(connection, dataset.name, month)
                schema.forget_load(connection, dataset.name, month)

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Delete rows and records in one transaction."""
        if self._file.path.exists():
            with self._writing(label(dataset.name, month)) as (connection, _):
                schema.drop_marts(connection, _DIALECT, dataset.name, month)

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """Build all marts of the month and their records in one transaction."""
        subject = label(dataset.name, month)
        validate_marts(subject, dataset, marts)
        with self._writing(subject) as (connection, before):
            load = before.loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            columns = {mart.name: schema.evolve_mart(connection, _DIALECT, mart, load) for mart in marts}
            return {mart.name: schema.fill_mart(connection, _DIALECT, mart, load, columns[mart.name]) for mart in marts}

    def ledger(self) -> Ledger:
        """From memory if the files are unchanged, from the database, or from its copy."""
        path, deadline = self._file.path, time.monotonic() + min(self._file.lock_timeout_s, _LEDGER_TIMEOUT_S)
        while True:
            current = signature(path)
            if current[0] is None:
                return Ledger()
            if path in _KNOWN and _KNOWN[path][0] == current:
                return _KNOWN[path][1]
            try:
                with replace(self._file, lock_timeout_s=0).opened("loads", read_only=True) as connection:
                    ledger = _read_ledger(connection)
                    # No process can write while the file is open for reading.
                    files = signature(path)
            except Locked:
                copy = read_copy(path)
                if copy is not None:
                    return copy
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
            else:
                if _is_settled(files):
                    _KNOWN[path] = files, ledger
                return ledger

    def changed_rows(self, dataset: Dataset) -> dict[date | None, str]:
        """As for every engine; raises Locked at once while another process has the file."""
        impatient = DuckDBWarehouse(replace(self._file, lock_timeout_s=0), self._datasets, self._zones)
        return super(DuckDBWarehouse, impatient).changed_rows(dataset)

    def validate_shared(self) -> list[str]:
        """By the statements that a load would run."""
        with self._file.opened("warehouse", read_only=True) as connection:
            schema.missing(connection, _DIALECT, self._datasets.values(), self._zones)
            return schema.foreign_views(connection, _DIALECT, self._datasets.values(), self._zones)

    def query(self, sql: str) -> pa.Table:
        """Run it without access to other files or the network; waits while another process writes."""
        import pyarrow as pa

        if not self._file.path.exists():
            raise WarehouseError(f"there is no warehouse at {self._file.path} yet; load a month first")
        with self._file.opened("query", read_only=True) as connection:
            for setting in _QUERY_SETTINGS:
                connection.execute(f"SET {setting}")
            explain, statement = split_explain(sql)
            _validate_reading(connection, statement)
            relation = connection.sql(f"{explain} {statement}")
            # A statement without rows has no relation in DuckDB 1.
            return pa.table({}) if relation is None else relation.to_arrow_table()

    @contextmanager
    def _writing(self, subject: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Ledger]]:
        """A transaction that commits at the end of the block, and the ledger before it."""
        import duckdb

        def fill(connection: duckdb.DuckDBPyConnection) -> None:
            schema.evolve(connection, _DIALECT, self._datasets.values(), self._zones)

        self._file.make(subject, fill)
        with ExitStack() as stack:
            connection = stack.enter_context(self._file.opened(subject))
            self._file.sweep()
            connection.begin()
            fill(connection)
            connection.commit()
            before = _read_ledger(connection)
            copy = stack.enter_context(closing(CopyOfLoads(self._file.path)))
            copy.publish(before)
            connection.begin()
            yield connection, before
            after = _read_ledger(connection)
            remaining = unchanged(before, after)
            if remaining != before:
                copy.publish(remaining)
            connection.commit()
            # Errors from here on must not fail a committed load: the next open makes the checkpoint, and an older copy
            # only claims less. Closing without a checkpoint would change the file after its signature was taken.
            with suppress(duckdb.Error):
                connection.execute("CHECKPOINT")
            with suppress(OSError):
                copy.publish(after)


def insert_rows(connection: Any, table: str, month: date | None, path: Path) -> int:
    """Insert the file's rows by column name, with nulls for missing columns; returns their number."""
    added = f", DATE '{month.isoformat()}' AS {MONTH}" if month else ""
    # Otherwise DuckDB takes the month=… in the path for a column of the file.
    source = f"SELECT *{added} FROM read_parquet(?, hive_partitioning = false)"
    result = connection.execute(f'INSERT INTO "{table}" BY NAME {source}', [glob.escape(str(path))])
    return int(result.fetchone()[0])


def drop_rows(connection: Any, table: str, month: date | None) -> None:
    """Delete the month's rows; without a month (zones) all rows."""
    where = f"WHERE {MONTH} = DATE '{month.isoformat()}'" if month else ""
    connection.execute(f'DELETE FROM "{table}" {where}')


def _is_settled(files: Signature) -> bool:
    """Whether a further change of the files would give them other times."""
    newest = max(file[2] for file in files if file)
    return time.time_ns() - newest > (_FINE_CLOCK_NS if newest % 1_000_000 else _COARSE_CLOCK_NS)


def _read_ledger(connection: duckdb.DuckDBPyConnection) -> Ledger:
    return schema.read_ledger(connection, set(_DIALECT.tables(connection)))


def _validate_reading(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """COPY writes files even if the database is read-only: as a statement, in EXPLAIN ANALYZE, or in a WITH."""
    import duckdb

    types = [parsed.type.name for parsed in connection.extract_statements(statement)]
    if types != ["SELECT"]:
        raise query_error(", ".join(types) or "nothing")
    text = statement.encode()
    keywords = [offset for offset, token in duckdb.tokenize(statement) if token == duckdb.token_type.keyword]
    if any(text[offset : offset + 4].upper() == b"COPY" for offset in keywords):
        raise query_error("COPY", '; write a column of this name as "copy"')
