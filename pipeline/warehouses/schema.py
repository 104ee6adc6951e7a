"""Tables as the engines have them that are reached through a connection (DuckDB, Postgres), made and evolved.

Columns are added and NOT NULL is relaxed in place; nothing is dropped. A changed type is a person's decision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.datasets.base import Column, Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouses.tables import LEDGER, MONTH, MONTH_DOC, TRIPS_DOC, describe, trips_view, trips_view_docs


class Connection(Protocol):
    """What both drivers can do alike."""

    def execute(self, query: Any, parameters: Sequence[Any] = ..., /) -> Any:
        """Run one statement with its parameters ($1, $2); the answer has `fetchone` and `fetchall`."""


@dataclass(frozen=True)
class TableColumn:
    """A column; its type in the words in which the engine's catalog has it."""

    type: str
    required: bool
    comment: str


@dataclass(frozen=True)
class Table:
    """A table, as it is declared or as it is there."""

    comment: str
    columns: Mapping[str, TableColumn]


class Dialect(Protocol):
    """What an engine has of its own."""

    @property
    def types(self) -> Mapping[pa.DataType, str]:
        """The engine's types, by the declared ones."""

    #: The end of the CREATE TABLE of a dataset with months: how it is divided.
    months: str

    def indexes(self, dataset: Dataset) -> list[str]:
        """The statements that give a new table of a dataset its indexes."""

    def tables(self, connection: Connection) -> dict[str, Table]:
        """The tables that are there, by name."""

    def view_comment(self, connection: Connection) -> str | None:
        """The comment on the view `trips`."""

    def elsewhere(self, connection: Connection) -> str:
        """What to do, besides renaming them, where others have tables of our names."""

    def view(self, select: str) -> str:
        """The statement that puts the view `trips` in place of the one that may be there."""

    def shape(self, connection: Connection, select: str) -> dict[str, str]:
        """The columns that a SELECT gives, with their types."""


def evolve(connection: Connection, dialect: Dialect, datasets: Iterable[Dataset], zones: Dataset) -> None:
    """Make what is missing; changes nothing when all of it is there."""
    for statement in missing(connection, dialect, datasets, zones):
        connection.execute(statement)


def missing(connection: Connection, dialect: Dialect, datasets: Iterable[Dataset], zones: Dataset) -> list[str]:
    """The statements that make tables, columns, comments and the view that are missing; none when all is there.

    Raises:
        WarehouseError: there are tables of these names, but not ours.
    """
    datasets, had = list(datasets), dialect.tables(connection)
    foreign = sorted({dataset.name for dataset in (*datasets, zones)} & had.keys())
    if "loads" in had and not {"dataset", "month", "source_sha256"} <= had["loads"].columns.keys():
        raise WarehouseError(f"table loads is there, but not of this package; {_rename(connection, dialect)}")
    if foreign and "loads" not in had:
        raise WarehouseError(
            f"tables {foreign} are there, but not of this package, as there is no table loads; "
            f"{_rename(connection, dialect)}"
        )
    marts: set[str] = set()
    if "mart_loads" in had and not {dataset.name for dataset in (*datasets, zones)} <= had.keys():
        marts = {mart for (mart,) in connection.execute("SELECT DISTINCT mart FROM mart_loads").fetchall()}
    statements = []
    for name, (doc, columns) in LEDGER.items():
        statements += changes_to(name, Table(doc, _columns(dialect, columns)), had.get(name))
    for dataset in (*datasets, zones):
        divided = dialect.months if dataset.first_month is not None else ""
        statements += changes_to(dataset.name, table_of(dialect, dataset), had.get(dataset.name), divided)
        if dataset.name not in had:
            # Where the user dropped it, its records and the marts built from its rows go.
            statements.append(f"DELETE FROM loads WHERE dataset = {literal(dataset.name)}")
            where = f" WHERE dataset = {literal(dataset.name)}" if dataset.first_month is not None else ""
            statements += [f'DELETE FROM "{table}"{where}' for table in (*sorted(marts & had.keys()), "mart_loads")]
            statements += dialect.indexes(dataset)
    return statements + _view_changes(connection, dialect, {dataset.name: dataset for dataset in datasets})


def _rename(connection: Connection, dialect: Dialect) -> str:
    return f"rename what is not of this package, or {dialect.elsewhere(connection)}"


def _view_changes(connection: Connection, dialect: Dialect, datasets: Mapping[str, Dataset]) -> list[str]:
    view = trips_view(datasets)
    if view is None:
        return []
    docs = trips_view_docs(datasets)
    # An engine keeps a view's text in a form of its own; the comment carries the mark of ours.
    mark = hashlib.sha256(f"{view} {docs}".encode()).hexdigest()[:8]
    comment = f"{TRIPS_DOC} (definition {mark})"
    there = dialect.view_comment(connection)
    if there is not None and "(definition " not in there:
        raise WarehouseError(f"trips is there, but not of this package; {_rename(connection, dialect)}")
    if there == comment:
        return []
    statements = [dialect.view(view), f"COMMENT ON VIEW trips IS {literal(comment)}"]
    return statements + [f'COMMENT ON COLUMN trips."{name}" IS {literal(doc)}' for name, doc in docs.items()]


def validate_types(name: str, wanted: Table, had: Table, remedy: str) -> None:
    """Compare a table that is there with what is declared; added columns are no matter here.

    Raises:
        WarehouseError: a column has another type; all of them are named, then the remedy.
    """
    changed = [
        f"{column} is {had.columns[column].type} there, now {of.type}"
        for column, of in wanted.columns.items()
        if column in had.columns and had.columns[column].type != of.type
    ]
    if changed:
        raise WarehouseError(f"table {name}: {'; '.join(changed)}; {remedy}")


def table_of(dialect: Dialect, dataset: Dataset) -> Table:
    """The table of a dataset: its columns in their order, then the month; the zones have none."""
    columns = _columns(dialect, dataset.columns)
    if dataset.first_month is not None:
        columns[MONTH] = TableColumn(dialect.types[pa.date32()], True, MONTH_DOC)
    return Table(dataset.doc, columns)


def changes_to(name: str, wanted: Table, had: Table | None, divided: str = "") -> list[str]:
    """The statements that make the table, or add to it what it lacks."""
    statements = []
    if had is None:
        definitions = ", ".join(
            f'"{column}" {of.type}{" NOT NULL" if of.required else ""}' for column, of in wanted.columns.items()
        )
        statements.append(f'CREATE TABLE "{name}" ({definitions}) {divided}'.rstrip())
    if wanted.comment != (had.comment if had else ""):
        statements.append(f'COMMENT ON TABLE "{name}" IS {literal(wanted.comment)}')
    for column, of in wanted.columns.items():
        there = had.columns.get(column) if had else None
        if had is not None and there is None:
            # Without NOT NULL even when required: the rows that are there never had it.
            statements.append(f'ALTER TABLE "{name}" ADD COLUMN "{column}" {of.type}')
        if there is not None and there.required and not of.required:
            statements.append(f'ALTER TABLE "{name}" ALTER COLUMN "{column}" DROP NOT NULL')
        if of.comment != (there.comment if there else ""):
            statements.append(f'COMMENT ON COLUMN "{name}"."{column}" IS {literal(of.comment)}')
    return statements


def literal(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _columns(dialect: Dialect, columns: Iterable[Column]) -> dict[str, TableColumn]:
    return {
        column.name: TableColumn(dialect.types[column.type], column.required, describe(column)) for column in columns
    }
