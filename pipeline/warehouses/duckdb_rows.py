"""What changes in the DuckDB warehouse inside a transaction: rows, marts and the records of both.

Nothing here begins or commits one.
"""

from __future__ import annotations

import glob
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.version import __version__
from pipeline.warehouses.arrival import Arrival
from pipeline.warehouses.base import LoadRecord, Mart, MartRecord
from pipeline.warehouses.duckdb_schema import (
    LEDGER_TABLES,
    Table,
    TableColumn,
    changes_to,
    refuse_changed_types,
    tables_in,
)
from pipeline.warehouses.ledger import Ledger
from pipeline.warehouses.tables import MONTH, MONTH_DOC, bind_mart

if TYPE_CHECKING:
    import duckdb


def insert_rows(connection: duckdb.DuckDBPyConnection, table: str, month: date | None, path: Path) -> int:
    """Insert the file's rows by their columns' names; a column that the file lacks is null. Returns their number."""
    added = f", DATE '{month.isoformat()}' AS {MONTH}" if month else ""
    # The path says month=…, too, which DuckDB would take for a column of the file.
    source = f"SELECT *{added} FROM read_parquet(?, hive_partitioning = false)"
    inserted = connection.execute(f'INSERT INTO "{table}" BY NAME {source}', [glob.escape(str(path))]).fetchone()
    return int(inserted[0]) if inserted else 0


def drop_rows(connection: duckdb.DuckDBPyConnection, table: str, month: date | None) -> None:
    """Take out the month's rows and its record; without a month all rows, as of the zones."""
    where = f"WHERE {MONTH} = DATE '{month.isoformat()}'" if month else ""
    connection.execute(f'DELETE FROM "{table}" {where}')
    connection.execute("DELETE FROM loads WHERE dataset = ? AND month IS NOT DISTINCT FROM ?", [table, month])


def record_load(
    connection: duckdb.DuckDBPyConnection, table: str, month: date | None, arrival: Arrival, fingerprint: str
) -> None:
    """Write the row of `loads` for rows that were just inserted."""
    what = (arrival.source_sha256, arrival.declaration, fingerprint)
    _insert_record(connection, "loads", (table, month, arrival.rows, *what, _now(), __version__))


def drop_marts(
    connection: duckdb.DuckDBPyConnection, ledger: Ledger, dataset: str | None = None, month: date | None = None
) -> None:
    """Take out a month of every mart that has it, or all months of all marts, with their records."""
    tables = tables_in(connection)
    where, values = ("WHERE dataset = ? AND month = ?", [dataset, month]) if dataset else ("", [])
    # A person may have dropped a mart's table; then only its records are left.
    for mart in sorted({mart for mart, *_ in ledger.marts} & tables.keys()):
        connection.execute(f'DELETE FROM "{mart}" {where}', values)
    connection.execute(f"DELETE FROM mart_loads {where}", values)


def build_mart(connection: duckdb.DuckDBPyConnection, mart: Mart, load: LoadRecord) -> int:
    """Put the rows of the mart's SELECT in place of the load's month, with their record; returns their number.

    The table is made and evolved by what the SELECT gives.
    """
    if load.month is None:
        raise ValueError("a mart is of a month")
    select = bind_mart(mart.sql, load.dataset, load.month)
    columns = {
        "dataset": TableColumn("VARCHAR", True, "Dataset of the trips."),
        MONTH: TableColumn("DATE", True, MONTH_DOC),
    }
    for name, kind, *_ in connection.execute(f"DESCRIBE {select}").fetchall():
        columns[name] = TableColumn(kind, False, "")
    table = Table(mart.doc, columns)
    had = tables_in(connection).get(mart.name)
    if had is None:
        connection.execute("DELETE FROM mart_loads WHERE mart = ?", [mart.name])
    for statement in changes_to(mart.name, table, had):
        connection.execute(statement)
    remedy = f"build all of it anew, after DROP TABLE {mart.name}"
    refuse_changed_types(connection, mart.name, table, remedy)
    key = [load.dataset, load.month]
    connection.execute(f'DELETE FROM "{mart.name}" WHERE dataset = ? AND month = ?', key)
    connection.execute("DELETE FROM mart_loads WHERE mart = ? AND dataset = ? AND month = ?", [mart.name, *key])
    inserted = connection.execute(
        f'INSERT INTO "{mart.name}" BY NAME SELECT CAST(? AS VARCHAR) AS dataset, CAST(? AS DATE) AS month, built.* '
        f"FROM ({select}\n) AS built",
        key,
    ).fetchone()
    rows = int(inserted[0]) if inserted else 0
    _insert_record(
        connection,
        "mart_loads",
        (mart.name, load.dataset, load.month, rows, load.fingerprint, _now(), __version__),
    )
    return rows


def read_ledger(connection: duckdb.DuckDBPyConnection) -> Ledger:
    """The ledger; empty when somebody else made the database and nothing was ever loaded.

    A table that a person dropped has no months, whatever its records say.
    """
    names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not names >= LEDGER_TABLES.keys():
        return Ledger()
    loads = [LoadRecord(**record) for record in _records(connection, "loads", "loaded_at")]
    marts = [MartRecord(**record) for record in _records(connection, "mart_loads", "built_at")]
    return Ledger(
        {(record.dataset, record.month): record for record in loads if record.dataset in names},
        {(record.mart, record.dataset, record.month): record for record in marts if record.mart in names},
    )


def _records(connection: duckdb.DuckDBPyConnection, table: str, moment: str) -> list[dict[str, Any]]:
    names = list(LEDGER_TABLES[table].columns)
    rows = connection.execute(f"SELECT {_columns(table)} FROM {table}").fetchall()
    records = [dict(zip(names, row, strict=True)) for row in rows]
    return [{**record, moment: record[moment].replace(tzinfo=timezone.utc)} for record in records]


def _insert_record(connection: duckdb.DuckDBPyConnection, table: str, values: tuple[Any, ...]) -> None:
    marks = ", ".join("?" for _ in values)
    connection.execute(f"INSERT INTO {table} ({_columns(table)}) VALUES ({marks})", list(values))


def _columns(table: str) -> str:
    return ", ".join(f'"{column}"' for column in LEDGER_TABLES[table].columns)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)
