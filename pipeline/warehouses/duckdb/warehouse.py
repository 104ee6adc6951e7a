"""The warehouse in one DuckDB file.

A month's rows, its marts and the record in `loads` change in one transaction. While another process has the file open,
`loads` and `mart_months` answer from a copy of the ledger beside it (`copy_of_loads.py`) instead of waiting; also while
the database is unchanged since the copy was written, without DuckDB.
"""

from __future__ import annotations

import glob
import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.datasets.base import BOOL, DATE, FLOAT64, INT32, INT64, TEXT, TIME, Dataset
from pipeline.errors import WarehouseError
from pipeline.months import label
from pipeline.warehouses import schema
from pipeline.warehouses.base import Ledger, LoadAhead, Locked, Mart, StoredFile, Warehouse, query_error, split_explain
from pipeline.warehouses.duckdb.ahead import ThreadedLoad
from pipeline.warehouses.duckdb.copy_of_loads import CopyOfLoads, Signature, read_copy, signature, unchanged
from pipeline.warehouses.duckdb.file import DuckDBFile
from pipeline.warehouses.load_file import LoadFile, inspect, validate_marts
from pipeline.warehouses.schema import Dialect, Table, TableColumn
from pipeline.warehouses.tables import MOMENT, MONTH

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

#: After this wait for the ledger, say who is in the way. The package itself has the file that long with a valid copy.
_NOTICE_S = 5.0
#: Two changes closer than this may get the same times, on a file system with whole milliseconds or seconds, as FAT.
_COARSE_CLOCK_NS = 2_000_000_000
#: On others the times are those of the kernel's clock, which ticks every 10 ms or more often.
_FINE_CLOCK_NS = 50_000_000
#: The settings of a query. With replacements, an unknown table name finds a Python variable; the last locks all.
_QUERY_SETTINGS = ("python_enable_replacements = false", "enable_external_access = false", "lock_configuration = true")
#: How many rows one statement inserts: 16 row groups of a trips file, which are skipped or read as a whole.
_ROWS_AT_ONCE = 16 * 122_880
#: The last ledger read from each database, valid while its files have that signature.
_KNOWN: dict[Path, tuple[Signature, Ledger]] = {}

_log = logging.getLogger("luigi-interface.pipeline.warehouses")


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
        return self._relations(connection, "table")

    def _relations(self, connection: Any, kind: str) -> dict[str, Table]:
        where = "WHERE NOT internal AND schema_name = 'main'"
        comments = connection.execute(f"SELECT {kind}_name, comment FROM duckdb_{kind}s() {where}").fetchall()
        columns: dict[str, dict[str, TableColumn]] = {}
        for table, column, type_, nullable, comment in connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns() "
            f"{where} ORDER BY table_name, column_index"
        ).fetchall():
            columns.setdefault(table, {})[column] = TableColumn(type_, not nullable, comment or "")
        return {name: Table(comment or "", columns[name]) for name, comment in comments}

    def dataset_changes(self, connection: Any, dataset: Dataset, existing: Table | None) -> list[str]:
        """As for every engine, unless this database has views instead of the tables."""
        if existing is None and self.comments(connection, [dataset.name]):
            raise WarehouseError(
                f"{dataset.name} is a view in this database; if it was made with ?tables=views, add that to "
                f"[pipeline] warehouse; otherwise rename the view, or {self.elsewhere(connection)}"
            )
        return super().dataset_changes(connection, dataset, existing)

    def comments(self, connection: Any, names: list[str]) -> dict[str, str]:
        """From `duckdb_views()` and `duckdb_tables()`; names differ in more than case."""
        rows = connection.execute(
            " UNION ALL ".join(
                f"SELECT {kind}_name, comment FROM duckdb_{kind}s() WHERE NOT internal AND schema_name = 'main'"
                for kind in ("view", "table")
            )
        )
        return {name: comment or "" for name, comment in rows.fetchall() if name.lower() in names}

    def shape(self, connection: Any, select: str) -> dict[str, str]:
        """From a temporary table with its rows: for a small month, the plan of a SELECT costs more than its rows."""
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {_built(select)} AS {select}")
        rows = connection.execute(f"DESCRIBE temp.{_built(select)}").fetchall()
        return {name: type_ for name, type_, *_ in rows}

    def source(self, connection: Any, select: str) -> str:
        """The table that `shape` has made, which the connection drops when it is closed."""
        return f"temp.{_built(select)}"

    def inserted(self, result: Any) -> int:
        """The only row of its result."""
        return int(result.fetchone()[0])


def _built(select: str) -> str:
    return f"built_{zlib.crc32(select.encode())}"


class DuckDBWarehouse(Warehouse):
    """See `pipeline.warehouses.base.Warehouse`; every call opens the file and closes it again."""

    loads_ahead = True
    _dialect = DuckDBDialect()

    def __init__(self, file: DuckDBFile, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        self._file = file
        self._datasets = datasets
        self._zones = zones

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Delete, insert and record in one transaction."""
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))
            with self._writing(dataset, month) as (connection, tables, before):
                previous = before.loads.get((dataset.name, month))
                # The same zones leave the marts as they are.
                changed = month or previous is None or previous.fingerprint != file.fingerprint
                self._clear(connection, tables, dataset, month, marts=bool(changed))
                rows = insert_rows(connection, dataset.name, month, path, self._file)
                _record(connection, dataset, month, rows, load_file, file)
        return rows

    def load_ahead(self, dataset: Dataset, month: date) -> LoadAhead | None:
        """In a thread, which gives up at once if another process has the file open."""
        impatient = copy(self)
        # One thread and this memory are enough: decoding and encoding take the other cores.
        impatient._file = replace(self._file, lock_timeout_s=0, threads=1, memory_limit="200MB")
        return ThreadedLoad(partial(impatient._load_batches, dataset, month))

    def _load_batches(
        self, dataset: Dataset, month: date, batches: Iterator[pa.RecordBatch], published: Callable[[], StoredFile]
    ) -> None:
        import pyarrow as pa

        with self._writing(dataset, month) as (connection, tables, _):
            self._clear(connection, tables, dataset, month)
            connection.register("batches", pa.RecordBatchReader.from_batches(dataset.schema, batches))
            rows = _insert(connection, dataset.name, month, "batches")
            connection.unregister("batches")
            file = published()
            with file.open() as stream:
                load_file = inspect(stream, dataset, month, where=file.uri)
            _record(connection, dataset, month, rows, load_file, file)

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Delete rows, marts and records in one transaction."""
        if self._file.path.exists():
            with self._writing(dataset, month) as (connection, *_):
                schema.drop_marts(connection, self._dialect, dataset.name, month)
                drop_rows(connection, dataset.name, month)
                schema.forget_load(connection, dataset.name, month)

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Delete rows and records in one transaction."""
        if self._file.path.exists():
            with self._writing(dataset, month) as (connection, *_):
                schema.drop_marts(connection, self._dialect, dataset.name, month)

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """Build all marts of the month and their records in one transaction."""
        subject = label(dataset.name, month)
        validate_marts(subject, dataset, marts)
        with self._writing(dataset, month) as (connection, tables, before):
            load = before.loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            columns = schema.evolve_marts(connection, self._dialect, marts, load, tables)
            return schema.fill_marts(connection, self._dialect, marts, load, columns)

    def ledger(self) -> Ledger:
        """From memory, from a copy that is sure to be current, from the database; while it is locked, from its copy."""
        path, began, is_told = self._file.path, time.monotonic(), False
        while True:
            current = signature(path)
            if current[0] is None:
                return Ledger()
            if path in _KNOWN and _KNOWN[path][0] == current:
                return _KNOWN[path][1]
            if (current_copy := read_copy(path, at_rest=True)) is not None:  # A tenth of the time that DuckDB takes.
                _KNOWN[path] = current, current_copy
                return current_copy
            try:
                with replace(self._file, lock_timeout_s=0).opened("loads", read_only=True) as connection:
                    ledger = schema.read_ledger(connection, set(self._dialect.tables(connection)))
                    # No process can write while the file is open for reading.
                    files = signature(path)
            except Locked as locked:
                copied = read_copy(path)
                if copied is not None:
                    return copied
                waited_s = time.monotonic() - began
                if waited_s >= self._file.lock_timeout_s:
                    raise self._file.locked("loads", locked.holder) from locked
                if waited_s >= _NOTICE_S and not is_told:
                    is_told = True
                    limit = f"lock_timeout_s allows {self._file.lock_timeout_s:g} s"
                    _log.warning(f"waiting for {path}, which is held by {locked.holder}; {limit}")
                time.sleep(0.02 if waited_s < _NOTICE_S else 0.2)
            else:
                if _is_settled(files):
                    _KNOWN[path] = files, ledger
                return ledger

    def changed_rows(self, dataset: Dataset) -> dict[date | None, str]:
        """As for every engine; raises Locked at once while another process has the file."""
        impatient = copy(self)
        impatient._file = replace(self._file, lock_timeout_s=0)
        return super(DuckDBWarehouse, impatient).changed_rows(dataset)

    def validate_shared(self) -> list[str]:
        """By the statements that a load would run."""
        with self._file.opened("warehouse", read_only=True) as connection:
            schema.missing(connection, self._dialect, self._datasets.values(), self._zones)
            return schema.foreign_views(connection, self._dialect, self._datasets.values(), self._zones)

    def query(self, sql: str) -> pa.Table:
        """Run it without access to other files or the network; waits while another process writes."""
        import pyarrow as pa

        if not self._file.path.exists():
            raise WarehouseError(f"there is no warehouse at {self._file.path} yet; load a month first")
        with self._file.opened("query", read_only=True) as connection:
            self._allow_files(connection)
            for setting in _QUERY_SETTINGS:
                connection.execute(f"SET {setting}")
            explain, statement = split_explain(sql)
            _validate_reading(connection, statement)
            relation = connection.sql(f"{explain} {statement}")
            # A statement without rows has no relation in DuckDB 1.
            return pa.table({}) if relation is None else relation.to_arrow_table()

    @contextmanager
    def _writing(
        self, dataset: Dataset, month: date | None
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, Table], Ledger]]:
        """A transaction that changes a month and commits at the end of the block.

        It gets the tables, which the block keeps current, and the ledger before it. The catalog is read once, and of
        the ledger afterwards the month only, since either costs as much as the load of a small month.
        """
        import duckdb

        def fill(connection: duckdb.DuckDBPyConnection) -> dict[str, Table]:
            return schema.evolve(connection, self._dialect, self._datasets.values(), self._zones)

        subject = label(dataset.name, month)
        self._file.make(subject, fill)
        with ExitStack() as stack:
            connection = stack.enter_context(self._file.opened(subject))
            connection.begin()
            tables = fill(connection)
            connection.commit()
            before = schema.read_ledger(connection, set(tables))
            self._sweep(before)
            published = stack.enter_context(closing(CopyOfLoads(self._file.path)))
            published.publish(before)
            connection.begin()
            yield connection, tables, before
            after = _changed(before, connection, set(tables), dataset.name, month)
            remaining = unchanged(before, after)
            if remaining != before:
                published.publish(remaining)
            connection.commit()
            # Errors from here on must not fail a committed load: the next open makes the checkpoint, and an older copy
            # only claims less. Closing without a checkpoint would change the file after its signature was taken.
            with suppress(duckdb.Error):
                connection.execute("CHECKPOINT")
            with suppress(OSError):
                published.is_complete = True
                published.publish(after)
                self._sweep(after)

    def _clear(
        self,
        connection: Any,
        tables: Mapping[str, Table],
        dataset: Dataset,
        month: date | None,
        *,
        marts: bool = True,
    ) -> None:
        """Delete the month's rows, record and marts, after comparing the table's types with the declared ones."""
        remedy = f"load into a new warehouse, or run DROP TABLE {dataset.name} and load all its months again"
        schema.validate_types(dataset.name, schema.table_of(self._dialect, dataset), tables[dataset.name], remedy)
        if marts:
            schema.drop_marts(connection, self._dialect, dataset.name, month)
        drop_rows(connection, dataset.name, month)
        schema.forget_load(connection, dataset.name, month)

    def _allow_files(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let a query read the files that the datasets are in; here there are none."""

    def _sweep(self, ledger: Ledger) -> None:
        """Delete what killed processes left behind; called while this process alone has the database."""
        self._file.sweep()


def insert_rows(connection: Any, table: str, month: date | None, path: Path, database: DuckDBFile) -> int:
    """Insert the file's rows by column name, with nulls for missing columns; returns their number.

    A lower memory limit would bound the memory, too, but DuckDB then inserts with one thread to keep the rows' order.
    """
    # Otherwise DuckDB takes the month=… in the path for a column of the file.
    file = "read_parquet(?, hive_partitioning = false, file_row_number = true)"
    for first in count(0, _ROWS_AT_ONCE):
        part = f"file_row_number >= {first} AND file_row_number < {first + _ROWS_AT_ONCE}"
        source = f"(SELECT * EXCLUDE (file_row_number) FROM {file} WHERE {part})"
        rows = _insert(connection, table, month, source, [glob.escape(str(path))])
        if rows < _ROWS_AT_ONCE:
            break
        database.release_memory(connection)
    return first + rows


def _insert(connection: Any, table: str, month: date | None, source: str, values: Sequence[str] = ()) -> int:
    added = f", DATE '{month.isoformat()}' AS {MONTH}" if month else ""
    result = connection.execute(f'INSERT INTO "{table}" BY NAME SELECT *{added} FROM {source}', values)
    return int(result.fetchone()[0])


def _record(
    connection: Any, dataset: Dataset, month: date | None, rows: int, load_file: LoadFile, file: StoredFile
) -> None:
    if rows != load_file.rows:
        subject = label(dataset.name, month)
        raise WarehouseError(f"{subject}: loaded {rows} rows, but {file.uri} has {load_file.rows}")
    schema.record_load(connection, dataset.name, month, load_file, file.fingerprint)


def drop_rows(connection: Any, table: str, month: date | None) -> None:
    """Delete the month's rows; without a month (zones) all rows."""
    where = f"WHERE {MONTH} = DATE '{month.isoformat()}'" if month else ""
    connection.execute(f'DELETE FROM "{table}" {where}')


def _changed(before: Ledger, connection: Any, tables: set[str], dataset: str, month: date | None) -> Ledger:
    """The ledger after a change of this month; new zones may have changed all marts."""
    if month is None:
        return schema.read_ledger(connection, tables)
    now = schema.read_ledger(connection, tables, only=(dataset, month))
    loads = {key: load for key, load in before.loads.items() if key != (dataset, month)}
    marts = {key: mart for key, mart in before.marts.items() if key[1:] != (dataset, month)}
    return Ledger({**loads, **now.loads}, {**marts, **now.marts})


def _is_settled(files: Signature) -> bool:
    """Whether a further change of the files would give them other times."""
    newest = max(file[2] for file in files if file)
    return time.time_ns() - newest > (_FINE_CLOCK_NS if newest % 1_000_000 else _COARSE_CLOCK_NS)


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
