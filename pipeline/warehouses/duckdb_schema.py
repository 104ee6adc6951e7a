"""The tables of the DuckDB warehouse, made and evolved to fit the declarations.

Columns are added and NOT NULL is relaxed in place; nothing is dropped. A changed type is a person's decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.datasets.base import Column, Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouses.tables import LEDGER, MOMENT, MONTH, MONTH_DOC, TRIPS_DOC, describe, trips_view

if TYPE_CHECKING:
    import duckdb

_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    MOMENT: "TIMESTAMP",
}


@dataclass(frozen=True)
class TableColumn:
    """A column as DuckDB has it."""

    type: str
    required: bool
    comment: str


@dataclass(frozen=True)
class Table:
    """A table as it is declared."""

    comment: str
    columns: Mapping[str, TableColumn]


def _column(column: Column) -> TableColumn:
    return TableColumn(_TYPES[column.type], column.required, describe(column))


LEDGER_TABLES = {
    name: Table(doc, {column.name: _column(column) for column in columns}) for name, (doc, columns) in LEDGER.items()
}


def evolve(connection: duckdb.DuckDBPyConnection, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
    """Make what is missing: tables, columns, comments, the view; changes nothing when all of it is there."""
    wanted = LEDGER_TABLES | {dataset.name: table_of(dataset) for dataset in (*datasets.values(), zones)}
    had = tables_in(connection)
    for name, table in wanted.items():
        for statement in changes_to(name, table, had.get(name)):
            connection.execute(statement)
        if name not in had:  # a person dropped it, and its records are of nothing any more
            connection.execute("DELETE FROM loads WHERE dataset = ?", [name])
    view = trips_view(datasets)
    if view is not None:
        # DuckDB keeps a view's text in a form of its own; the comment carries the mark of ours.
        comment = f"{TRIPS_DOC} (definition {hashlib.sha256(view.encode()).hexdigest()[:8]})"
        found = connection.execute("SELECT comment FROM duckdb_views() WHERE view_name = 'trips'").fetchone()
        if found != (comment,):
            connection.execute(f"CREATE OR REPLACE VIEW trips AS {view}")
            connection.execute(f"COMMENT ON VIEW trips IS {_literal(comment)}")


def refuse_changed_types(connection: duckdb.DuckDBPyConnection, name: str, table: Table, remedy: str) -> None:
    """Compare the table that is there with what is declared; added columns are no matter here.

    Raises:
        WarehouseError: a column has another type; all of them are named, then the remedy.
    """
    had = tables_in(connection)[name].columns
    changed = [
        f"{column} is {had[column].type} there, now {wanted.type}"
        for column, wanted in table.columns.items()
        if column in had and had[column].type != wanted.type
    ]
    if changed:
        raise WarehouseError(f"table {name}: {'; '.join(changed)}; {remedy}")


def table_of(dataset: Dataset) -> Table:
    """The table of a dataset: its columns in their order, then the month; the zones have none."""
    columns = {column.name: _column(column) for column in dataset.columns}
    if dataset.first_month is not None:
        columns[MONTH] = TableColumn("DATE", True, MONTH_DOC)
    return Table(dataset.doc, columns)


def tables_in(connection: duckdb.DuckDBPyConnection) -> dict[str, Table]:
    """The tables that are there, by name."""
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


def changes_to(name: str, wanted: Table, had: Table | None) -> list[str]:
    """The statements that make the table, or add to it what it lacks."""
    statements = []
    if had is None:
        definitions = ", ".join(
            f'"{column}" {of.type}{" NOT NULL" if of.required else ""}' for column, of in wanted.columns.items()
        )
        statements.append(f'CREATE TABLE "{name}" ({definitions})')
    if wanted.comment != (had.comment if had else ""):
        statements.append(f'COMMENT ON TABLE "{name}" IS {_literal(wanted.comment)}')
    for column, of in wanted.columns.items():
        there = had.columns.get(column) if had else None
        if had is not None and there is None:
            # Without NOT NULL even when required: the rows that are there never had it.
            statements.append(f'ALTER TABLE "{name}" ADD COLUMN "{column}" {of.type}')
        if there is not None and there.required and not of.required:
            statements.append(f'ALTER TABLE "{name}" ALTER COLUMN "{column}" DROP NOT NULL')
        if of.comment != (there.comment if there else ""):
            statements.append(f'COMMENT ON COLUMN "{name}"."{column}" IS {_literal(of.comment)}')
    return statements


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
