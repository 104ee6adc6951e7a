"""What DuckDB has of its own in tables: its types, its catalog, and how rows get in and out."""

from __future__ import annotations

import glob
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.warehouses.schema import Table, TableColumn
from pipeline.warehouses.tables import MOMENT, MONTH


class DuckDBDialect:
    """See `pipeline.warehouses.schema.Dialect`."""

    types = {  # noqa: RUF012
        pa.bool_(): "BOOLEAN",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.float64(): "DOUBLE",
        pa.string(): "VARCHAR",
        pa.date32(): "DATE",
        pa.timestamp("us"): "TIMESTAMP",
        MOMENT: "TIMESTAMP",
    }
    months = ""

    def indexes(self, dataset: Dataset) -> list[str]:
        """None: DuckDB keeps the lowest and highest value of each row group by itself."""
        return []

    def tables(self, connection: Any) -> dict[str, Table]:
        """From `duckdb_columns()` and `duckdb_tables()`."""
        columns: dict[str, dict[str, TableColumn]] = {}
        for table, column, kind, nullable, comment in connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, comment FROM duckdb_columns() "
            "WHERE NOT internal AND schema_name = 'main' ORDER BY table_name, column_index"
        ).fetchall():
            columns.setdefault(table, {})[column] = TableColumn(kind, not nullable, comment or "")
        comments = connection.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main'"
        ).fetchall()
        return {name: Table(comment or "", columns[name]) for name, comment in comments}

    def view_comment(self, connection: Any) -> str | None:
        """From `duckdb_views()`."""
        found = connection.execute("SELECT comment FROM duckdb_views() WHERE view_name = 'trips'").fetchone()
        return found[0] if found else None

    def elsewhere(self, connection: Any) -> str:
        """Another file."""
        return "name another file in [pipeline] warehouse"

    def view(self, select: str) -> str:
        """DuckDB replaces any view by any other."""
        return f"CREATE OR REPLACE VIEW trips AS {select}"

    def shape(self, connection: Any, select: str) -> dict[str, str]:
        """By DESCRIBE."""
        return {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {select}").fetchall()}


def insert_rows(connection: Any, table: str, month: date | None, path: Path) -> int:
    """Insert the file's rows by their columns' names; a column that the file lacks is null. Returns their number."""
    added = f", DATE '{month.isoformat()}' AS {MONTH}" if month else ""
    # The path says month=…, too, which DuckDB would take for a column of the file.
    source = f"SELECT *{added} FROM read_parquet(?, hive_partitioning = false)"
    inserted = connection.execute(f'INSERT INTO "{table}" BY NAME {source}', [glob.escape(str(path))]).fetchone()
    return int(inserted[0]) if inserted else 0


def drop_rows(connection: Any, table: str, month: date | None) -> None:
    """Take out the month's rows; without a month all rows, as of the zones."""
    where = f"WHERE {MONTH} = DATE '{month.isoformat()}'" if month else ""
    connection.execute(f'DELETE FROM "{table}" {where}')
