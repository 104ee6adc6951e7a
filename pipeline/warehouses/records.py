"""The records of loads and marts, and the marts themselves, where a connection changes them (DuckDB, Postgres).

Nothing here begins or commits a transaction. Times are kept and read as UTC without a zone, which an engine whose
columns have one must take for UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timezone
from typing import Any

import pyarrow as pa

from pipeline.version import __version__
from pipeline.warehouses.base import LoadRecord, Mart, MartRecord
from pipeline.warehouses.ledger import Ledger
from pipeline.warehouses.load_file import LoadFile
from pipeline.warehouses.schema import Connection, Dialect, Table, TableColumn, changes_to, validate_types
from pipeline.warehouses.tables import LEDGER, MONTH, MONTH_DOC, bind_mart


def record_load(connection: Connection, table: str, month: date | None, load_file: LoadFile, fingerprint: str) -> None:
    """Write the row of `loads` for rows that have just arrived."""
    what = (load_file.source_sha256, load_file.declaration, fingerprint)
    _insert(connection, "loads", LoadRecord(table, month, load_file.rows, *what, _now(), __version__))


def forget_load(connection: Connection, table: str, month: date | None) -> None:
    """Remove the row of `loads`."""
    connection.execute("DELETE FROM loads WHERE dataset = $1 AND month IS NOT DISTINCT FROM $2", [table, month])


def drop_marts(connection: Connection, dialect: Dialect, dataset: str, month: date | None) -> None:
    """Delete the month from every mart, with its records; for the zones (no month) all months of all marts."""
    where, values = ("WHERE dataset = $1 AND month = $2", [dataset, month]) if month else ("", [])
    # Of every record, even one that does not count, since its rows may exist.
    rows = connection.execute(f"SELECT DISTINCT mart FROM mart_loads {where}", values).fetchall()
    stale = {mart for (mart,) in rows}
    # The user may have dropped a mart's table; then only its records are left.
    for mart in sorted(stale & dialect.tables(connection).keys()) if stale else ():
        connection.execute(f'DELETE FROM "{mart}" {where}', values)
    connection.execute(f"DELETE FROM mart_loads {where}", values)


def evolve_mart(connection: Connection, dialect: Dialect, mart: Mart, load: LoadRecord) -> list[str]:
    """Make or evolve the mart's table by what its SELECT gives, whatever month that is of; returns its columns.

    Raises:
        WarehouseError: a column has another type than before.
    """
    columns = {
        "dataset": TableColumn(dialect.types[pa.string()], True, "Dataset of the trips."),
        MONTH: TableColumn(dialect.types[pa.date32()], True, MONTH_DOC),
    }
    shape = dialect.shape(connection, _select(mart, load))
    columns |= {name: TableColumn(kind, False, "") for name, kind in shape.items()}
    table, had = Table(mart.doc, columns), dialect.tables(connection).get(mart.name)
    if had is None:
        connection.execute("DELETE FROM mart_loads WHERE mart = $1", [mart.name])
    else:
        validate_types(mart.name, table, had, f"build all of it anew, after DROP TABLE {mart.name}")
    for statement in changes_to(mart.name, table, had):
        connection.execute(statement)
    return list(columns)


def fill_mart(connection: Connection, dialect: Dialect, mart: Mart, load: LoadRecord, columns: list[str]) -> int:
    """Put the rows of the mart's SELECT in place of the load's month, with their record; returns their number."""
    select, key = _select(mart, load), [load.dataset, load.month]
    connection.execute(f'DELETE FROM "{mart.name}" WHERE dataset = $1 AND month = $2', key)
    connection.execute("DELETE FROM mart_loads WHERE mart = $1 AND dataset = $2 AND month = $3", [mart.name, *key])
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(
        f'INSERT INTO "{mart.name}" ({names}) SELECT CAST($1 AS {dialect.types[pa.string()]}), CAST($2 AS DATE), '
        f"built.* FROM ({select}\n) AS built",
        key,
    )
    count = f'SELECT COUNT(*) FROM "{mart.name}" WHERE dataset = $1 AND month = $2'
    rows = int(connection.execute(count, key).fetchone()[0])
    assert load.month is not None
    built = MartRecord(
        mart.name, load.dataset, load.month, rows, load.fingerprint, _now(), __version__, mart.definition
    )
    _insert(connection, "mart_loads", built)
    return rows


def read_ledger(connection: Connection, names: set[str], table_of: Callable[[LoadRecord], str]) -> Ledger:
    """The ledger as far as it counts (see `Ledger.counted`); empty where nothing was ever loaded."""
    if not names >= LEDGER.keys():
        return Ledger()
    loads = [LoadRecord(**record) for record in _records(connection, "loads", "loaded_at")]
    marts = [MartRecord(**record) for record in _records(connection, "mart_loads", "built_at")]
    return Ledger.counted(loads, marts, names, table_of)


def _select(mart: Mart, load: LoadRecord) -> str:
    if load.month is None:
        raise ValueError("a mart is of a month")
    return bind_mart(mart.sql, load.dataset, load.month)


def _records(connection: Connection, table: str, moment: str) -> list[dict[str, Any]]:
    # All columns, since a table that an older version made may lack one.
    answer = connection.execute(f"SELECT * FROM {table}")
    names, declared = [column[0] for column in answer.description], {column.name for column in LEDGER[table][1]}
    records = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
    return [
        {name: value for name, value in record.items() if name in declared}
        | {moment: record[moment].replace(tzinfo=timezone.utc)}
        for record in records
    ]


def _insert(connection: Connection, table: str, record: LoadRecord | MartRecord) -> None:
    names = [column.name for column in LEDGER[table][1]]
    columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join(f"${n}" for n in range(1, len(names) + 1))
    values = [getattr(record, name) for name in names]
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", values)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)
