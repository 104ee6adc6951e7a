"""The warehouse as one DuckDB file.

A month's rows, the marts that go with them and the record in `loads` change in one transaction. What is loaded is
read from `loads` itself, without waiting: while another process has the file, from the copy beside it (`ledger.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.disk import explained
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import LoadRecord, Locked, Mart, MartRecord, StoredFile
from pipeline.warehouses.duckdb.file import DuckDBFile, import_duckdb
from pipeline.warehouses.duckdb.schema import DuckDBDialect, drop_rows, insert_rows
from pipeline.warehouses.ledger import Ledger, LedgerCopy, Signature, believed_copy, signature
from pipeline.warehouses.load_file import inspect, load_name, validate_marts
from pipeline.warehouses.queries import refuse, split_explain
from pipeline.warehouses.records import drop_marts, evolve_mart, fill_mart, forget_load, read_ledger, record_load
from pipeline.warehouses.schema import evolve, missing, table_of, validate_types

if TYPE_CHECKING:
    import duckdb

_DIALECT = DuckDBDialect()
#: How long a question waits for a locked database of which no copy can be believed.
_ASKING_PATIENCE_S = 10.0
#: Two changes closer than this may leave the same times on a coarse file system.
_COARSEST_CLOCK_NS = 2_000_000_000
#: The settings of a query; the last one locks them. Without the first, names of no table find Python's variables.
_BOUNDS = (
    "python_enable_replacements = false",
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "enable_external_access = false",
    "lock_configuration = true",
)
#: What each database held when its files had that signature; plain values, so that a forked child may use them.
_KNOWN: dict[Path, tuple[Signature, Ledger]] = {}


class DuckDBWarehouse:
    """See `pipeline.warehouses.base.Warehouse`; every call opens the file and closes it again."""

    def __init__(self, file: DuckDBFile, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        self._file = file
        self._datasets = datasets
        self._zones = zones

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Delete and insert in one transaction with the record; marts of other rows or other zones are deleted."""
        subject = load_name(dataset, month)
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))
            with self._writing(subject) as (connection, before):
                remedy = f"load into a new warehouse, or load anew all of it here, after DROP TABLE {dataset.name}"
                had = _DIALECT.tables(connection)[dataset.name]
                validate_types(dataset.name, table_of(_DIALECT, dataset), had, remedy)
                former = before.loads.get((dataset.name, month))
                if month or former is None or former.fingerprint != file.fingerprint:
                    drop_marts(connection, _DIALECT, dataset.name, month)
                drop_rows(connection, dataset.name, month)
                forget_load(connection, dataset.name, month)
                rows = insert_rows(connection, dataset.name, month, path)
                if rows != load_file.rows:
                    raise WarehouseError(f"{subject}: {rows} rows arrived of the {load_file.rows} that {path} has")
                if month is None:
                    _validate_zones(connection)
                record_load(connection, dataset.name, month, load_file, file.fingerprint)
        return rows

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Rows, marts and records are deleted in one transaction."""
        if self._file.path.exists():
            with self._writing(load_name(dataset, month)) as (connection, _):
                drop_marts(connection, _DIALECT, dataset.name, month)
                drop_rows(connection, dataset.name, month)
                forget_load(connection, dataset.name, month)

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Rows and records go in one transaction."""
        if self._file.path.exists():
            with self._writing(load_name(dataset, month)) as (connection, _):
                drop_marts(connection, _DIALECT, dataset.name, month)

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """All marts of the month in one transaction with their records."""
        subject = load_name(dataset, month)
        validate_marts(subject, dataset, marts)
        with self._writing(subject) as (connection, before):
            load = before.loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            columns = {mart.name: evolve_mart(connection, _DIALECT, mart, load) for mart in marts}
            return {mart.name: fill_mart(connection, _DIALECT, mart, load, columns[mart.name]) for mart in marts}

    def loads(self, dataset: Dataset) -> dict[date | None, LoadRecord]:
        """From `loads`, or its copy."""
        return self._ledger().loads_of(dataset.name)

    def mart_months(self, dataset: Dataset) -> dict[date, dict[str, MartRecord]]:
        """From `mart_loads`, or its copy."""
        return self._ledger().mart_months(dataset.name)

    def validate_shared(self) -> None:
        """By what a load would have to make."""
        with self._file.opened("warehouse", read_only=True) as connection:
            missing(connection, _DIALECT, self._datasets.values(), self._zones)

    def query(self, sql: str) -> pa.Table:
        """Open for reading, with access to no other file and no network; waits for a process that writes."""
        if not self._file.path.exists():
            raise WarehouseError(f"there is no warehouse at {self._file.path} yet; load a month first")
        with self._file.opened("query", read_only=True) as connection:
            for setting in _BOUNDS:
                connection.execute(f"SET {setting}")
            explain, statement = split_explain(sql)
            _validate_reading(connection, statement)
            relation = connection.sql(f"{explain} {statement}")
            # A statement without rows has no relation in DuckDB 1.
            return pa.table({}) if relation is None else relation.to_arrow_table()

    @contextmanager
    def _writing(self, subject: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Ledger]]:
        """A transaction and the ledger as it was; a clean exit commits, around which the copy tells no lie."""

        def fill(connection: duckdb.DuckDBPyConnection) -> None:
            evolve(connection, _DIALECT, self._datasets.values(), self._zones)

        self._file.make(subject, fill)
        with self._file.opened(subject) as connection, _translated(subject), LedgerCopy(self._file.path) as copy:
            self._file.sweep()
            connection.begin()
            fill(connection)
            connection.commit()
            before = _read_ledger(connection)
            copy.publish(before)
            connection.begin()
            yield connection, before
            after = _read_ledger(connection)
            kept = before.kept_in(after)
            if kept != before:
                copy.publish(kept)
            connection.commit()
            # What follows cannot undo the commit: a checkpoint that failed comes with the next open, and an older copy
            # only claims less. Checkpointed first, since closing would else change the file under the copy's signature.
            with suppress(import_duckdb().Error):
                connection.execute("CHECKPOINT")
            with suppress(OSError):
                copy.publish(after)

    def _ledger(self) -> Ledger:
        """What is there now: known from before, or read, or from a copy while another process has the file."""
        path, deadline = self._file.path, time.monotonic() + min(self._file.lock_timeout_s, _ASKING_PATIENCE_S)
        while True:
            now = signature(path)
            if now[0] is None:
                return Ledger()
            known = _KNOWN.get(path)
            if known and known[0] == now:
                return known[1]
            try:
                return self._read()
            except Locked:
                copied = believed_copy(path)
                if copied is not None:
                    return copied
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
            except WarehouseError:
                if path.exists():  # else it was deleted just now, and the next turn says so
                    raise

    def _read(self) -> Ledger:
        path = self._file.path
        with self._file.opened("loads", read_only=True, timeout_s=0) as connection:
            ledger = _read_ledger(connection)
            # Taken while nobody can write: the ledger is of exactly these files.
            seen = signature(path)
        newest = max(part[2] for part in seen if part is not None)
        if time.time_ns() - newest > _COARSEST_CLOCK_NS:
            _KNOWN[path] = seen, ledger
        return ledger


def _read_ledger(connection: duckdb.DuckDBPyConnection) -> Ledger:
    tables = "SELECT table_name FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main'"
    names = {name for (name,) in connection.execute(tables).fetchall()}
    return read_ledger(connection, names, lambda record: record.dataset)


def _validate_reading(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """COPY may write files even if the database is read-only: by itself, in EXPLAIN ANALYZE, or in a WITH."""
    kinds = [found.type.name for found in connection.extract_statements(statement)]
    if kinds != ["SELECT"]:
        raise refuse(", ".join(kinds) or "nothing")
    text, driver = statement.encode(), import_duckdb()
    keywords = [offset for offset, kind in driver.tokenize(statement) if kind == driver.token_type.keyword]
    if any(text[offset : offset + 4].upper() == b"COPY" for offset in keywords):
        raise refuse("COPY", '; write a column of this name as "copy"')


@contextmanager
def _translated(subject: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WarehouseError(f"{subject}: {explained(error, '[pipeline] warehouse')}") from error


def _validate_zones(connection: duckdb.DuckDBPyConnection) -> None:
    doubled = connection.execute(
        "SELECT location_id FROM zones GROUP BY location_id HAVING COUNT(*) > 1 ORDER BY location_id"
    ).fetchall()
    if doubled:
        raise WarehouseError(f"zones: the numbers {[number for (number,) in doubled]} occur more than once")
