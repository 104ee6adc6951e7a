"""Tables, records and marts by SQL, for engines with a connection (DuckDB, Postgres); a `Dialect` has the differences.

Tables evolve in place: columns are added and NOT NULL is dropped, nothing else; a changed type is an error. Nothing
here begins or commits a transaction. Times are read and written as UTC without a time zone; an engine whose columns
have a time zone must take them for UTC.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from operator import attrgetter
from typing import Any, Protocol

from pipeline.datasets.base import DATE, TEXT, Column, Dataset
from pipeline.errors import WarehouseError
from pipeline.version import __version__
from pipeline.warehouses.base import Ledger, LoadRecord, Mart, MartRecord
from pipeline.warehouses.load_file import LoadFile
from pipeline.warehouses.tables import LEDGER, MONTH, MONTH_DOC, bind_mart, describe
from pipeline.warehouses.views import View, declared_views, is_ours, not_ours

#: A connection of either driver: `execute(sql, values)` with parameters $1, $2 returns a cursor.
Connection = Any

_log = logging.getLogger("luigi-interface.pipeline.warehouses")


@dataclass(frozen=True)
class TableColumn:
    """A column; its type as the engine's catalog spells it."""

    type: str
    required: bool
    comment: str


@dataclass(frozen=True)
class Table:
    """A table, declared or existing."""

    comment: str
    columns: Mapping[str, TableColumn]


class Dialect(Protocol):
    """What differs between the engines, with defaults."""

    @property
    def types(self) -> Mapping[str, str]:
        """The engine's type for each declared type."""

    #: The end of CREATE TABLE for a dataset with months, such as PARTITION BY.
    months: str = ""

    def indexes(self, dataset: Dataset) -> list[str]:
        """The statements that create the indexes of a new table."""
        return []

    def tables(self, connection: Connection) -> dict[str, Table]:
        """The existing tables, by name."""

    def dataset_changes(self, connection: Connection, dataset: Dataset, existing: Table | None) -> list[str]:
        """The statements that create the dataset's table, or add what an existing one lacks."""
        partitioning = self.months if dataset.first_month is not None else ""
        return changes_to(dataset.name, table_of(self, dataset), existing, partitioning)

    def comments(self, connection: Connection, names: list[str]) -> dict[str, str]:
        """Of these names, those that exist in the catalog, as a view or as anything else, with their comments."""

    def elsewhere(self, connection: Connection) -> str:
        """The end of a message: where else to load, if other tables have our names."""
        return "name another file in [pipeline] warehouse"

    def view(self, view: View) -> str:
        """The statement that creates or replaces a view of ours."""
        return f"CREATE OR REPLACE VIEW {view.name} AS {view.select}"

    def shape(self, connection: Connection, select: str) -> dict[str, str]:
        """The types of the columns that a SELECT returns, by name."""

    def source(self, connection: Connection, select: str) -> str:
        """What INSERT reads the rows of a SELECT from: the SELECT itself, unless there is a faster way.

        It is asked after `shape`, in a connection that was asked for the shape of the same SELECT.
        """
        return f"({select}\n)"

    def inserted(self, result: Any) -> int:
        """The number of rows that an INSERT has written."""


def evolve(connection: Connection, dialect: Dialect, datasets: Iterable[Dataset], zones: Dataset) -> dict[str, Table]:
    """Create what is missing and return all tables; changes nothing if all of it exists.

    Whenever it changes something, it warns about views that cannot exist because the user has such a name.
    """
    datasets, existing = list(datasets), dialect.tables(connection)
    statements = missing(connection, dialect, datasets, zones, existing)
    for statement in statements:
        connection.execute(statement)
    if statements and (names := foreign_views(connection, dialect, datasets, zones)):
        _log.warning(not_ours(names))
    return dialect.tables(connection) if statements else existing


def foreign_views(connection: Connection, dialect: Dialect, datasets: Iterable[Dataset], zones: Dataset) -> list[str]:
    """The names of declared views that belong to something else."""
    views = declared_views(datasets, zones)
    return [name for name, comment in _comments(connection, dialect, views).items() if not is_ours(comment)]


def missing(
    connection: Connection,
    dialect: Dialect,
    datasets: Iterable[Dataset],
    zones: Dataset,
    existing: Mapping[str, Table] | None = None,
) -> list[str]:
    """The statements that create missing tables, columns, comments and views; empty if all exist.

    `existing` are the tables, if they have just been read.

    Raises:
        WarehouseError: tables with our names exist that this package did not create.
    """
    datasets = list(datasets)
    expected = [*datasets, zones]
    existing = dialect.tables(connection) if existing is None else existing
    ours = sorted({dataset.name for dataset in expected} & existing.keys())
    views = declared_views(datasets, zones)
    comments = _comments(connection, dialect, views)
    taken = [view.name for view in views if view.is_required and not is_ours(comments.get(view.name, view.comment))]
    foreign = ""
    if "loads" in existing and not {"dataset", "month", "source_sha256"} <= existing["loads"].columns.keys():
        foreign = "table loads already exists and is not of this package"
    elif ours and "loads" not in existing:
        foreign = f"tables {ours} already exist and are not of this package (there is no table loads)"
    elif taken:
        foreign = f"{taken[0]} already exists and is not of this package"
    if foreign:
        raise WarehouseError(f"{foreign}; rename what is not of this package, or {dialect.elsewhere(connection)}")
    marts: list[str] = []
    if "mart_loads" in existing and len(ours) < len(expected):
        rows = connection.execute("SELECT DISTINCT mart FROM mart_loads").fetchall()
        marts = sorted(mart for (mart,) in rows if mart in existing)
    statements = []
    for name, (doc, columns) in LEDGER.items():
        statements += changes_to(name, Table(doc, _columns(dialect, columns)), existing.get(name))
    for dataset in expected:
        monthly = dataset.first_month is not None
        statements += dialect.dataset_changes(connection, dataset, existing.get(dataset.name))
        if dataset.name not in existing:
            # If the user dropped the table, its records and the marts built from its rows are deleted, too.
            of_dataset = f" WHERE dataset = {literal(dataset.name)}"
            statements.append(f"DELETE FROM loads{of_dataset}")
            statements += [f'DELETE FROM "{mart}"{of_dataset if monthly else ""}' for mart in (*marts, "mart_loads")]
            statements += dialect.indexes(dataset)
    outdated = {
        dataset.name
        for dataset in expected
        if dataset.name in existing and changed_types(table_of(dialect, dataset), existing[dataset.name])
    }
    for view in views:
        if outdated & {*view.tables}:
            continue  # The types may not fit. A load into the table reports them, and the others go on.
        comment = comments.get(view.name)
        if comment is None or (is_ours(comment) and comment != view.comment):
            statements += view_statements(dialect, view)
    return statements


def view_statements(dialect: Dialect, view: View) -> list[str]:
    """The statements that create or replace a view of ours, with comments."""
    comments = (
        f"COMMENT ON COLUMN {view.name}.{column.name} IS {literal(describe(column))}" for column in view.columns
    )
    return [dialect.view(view), f"COMMENT ON VIEW {view.name} IS {literal(view.comment)}", *comments]


def _comments(connection: Connection, dialect: Dialect, views: Iterable[View]) -> dict[str, str]:
    """What exists under the names of the views, by these names, with comments; catalogs may have lower-case names."""
    names = {view.name.lower(): view.name for view in views}
    return {names[name.lower()]: comment for name, comment in dialect.comments(connection, list(names)).items()}


def validate_types(name: str, declared: Table, existing: Table, remedy: str) -> None:
    """Raise a WarehouseError that lists all columns whose type differs between the tables, then the remedy."""
    if changed := changed_types(declared, existing):
        raise WarehouseError(f"table {name}: {'; '.join(changed)}; {remedy}")


def changed_types(declared: Table, existing: Table) -> list[str]:
    """The columns whose type differs between the tables, each in words."""
    return [
        f"{column} is {existing.columns[column].type} in the table, now declared {spec.type}"
        for column, spec in declared.columns.items()
        if column in existing.columns and existing.columns[column].type != spec.type
    ]


def table_of(dialect: Dialect, dataset: Dataset) -> Table:
    """The declared table of a dataset: its columns in order, then the month, which the zones do not have."""
    columns = _columns(dialect, dataset.columns)
    if dataset.first_month is not None:
        columns[MONTH] = TableColumn(dialect.types[DATE], True, MONTH_DOC)
    return Table(dataset.doc, columns)


def changes_to(name: str, declared: Table, existing: Table | None, partitioning: str = "") -> list[str]:
    """The statements that create the table, or add what an existing one lacks."""
    statements = []
    if existing is None:
        definitions = ", ".join(
            f'"{column}" {spec.type}{" NOT NULL" if spec.required else ""}' for column, spec in declared.columns.items()
        )
        statements.append(f'CREATE TABLE "{name}" ({definitions}) {partitioning}'.rstrip())
    if declared.comment != (existing.comment if existing else ""):
        statements.append(f'COMMENT ON TABLE "{name}" IS {literal(declared.comment)}')
    for column, spec in declared.columns.items():
        had = existing.columns.get(column) if existing else None
        if existing and had is None:
            # Without NOT NULL, even if required: the existing rows have no value for it.
            statements.append(f'ALTER TABLE "{name}" ADD COLUMN "{column}" {spec.type}')
        if had and had.required and not spec.required:
            statements.append(f'ALTER TABLE "{name}" ALTER COLUMN "{column}" DROP NOT NULL')
        if spec.comment != (had.comment if had else ""):
            statements.append(f'COMMENT ON COLUMN "{name}"."{column}" IS {literal(spec.comment)}')
    return statements


def record_load(connection: Connection, table: str, month: date | None, load_file: LoadFile, fingerprint: str) -> None:
    """Write the row of `loads` for rows that were just loaded."""
    hashes = (load_file.source_sha256, load_file.declaration, fingerprint)
    _insert(connection, "loads", LoadRecord(table, month, load_file.rows, *hashes, _now(), __version__))


def forget_load(connection: Connection, table: str, month: date | None) -> None:
    """Delete the row of `loads`."""
    connection.execute("DELETE FROM loads WHERE dataset = $1 AND month IS NOT DISTINCT FROM $2", [table, month])


def drop_marts(connection: Connection, dialect: Dialect, dataset: str, month: date | None) -> None:
    """Delete the month from all marts, with its records; for the zones (no month) all months of all marts."""
    where, values = ("WHERE dataset = $1 AND month = $2", [dataset, month]) if month else ("", [])
    # Also by records that do not count, since their rows may exist; but a mart's table may have been dropped.
    marts = {mart for (mart,) in connection.execute(f"SELECT DISTINCT mart FROM mart_loads {where}", values).fetchall()}
    for mart in sorted(marts & dialect.tables(connection).keys()) if marts else ():
        connection.execute(f'DELETE FROM "{mart}" {where}', values)
    connection.execute(f"DELETE FROM mart_loads {where}", values)


def evolve_marts(
    connection: Connection, dialect: Dialect, marts: Iterable[Mart], load: LoadRecord, existing: dict[str, Table]
) -> dict[str, list[str]]:
    """Create the marts' tables, or add the columns of their SELECTs that a table lacks; returns all columns by mart.

    `existing` are the tables, to which those of the marts are added.
    """
    return {mart.name: _evolve_mart(connection, dialect, mart, load, existing) for mart in marts}


def _evolve_mart(
    connection: Connection, dialect: Dialect, mart: Mart, load: LoadRecord, existing: dict[str, Table]
) -> list[str]:
    columns = {
        "dataset": TableColumn(dialect.types[TEXT], True, "Dataset of the trips."),
        MONTH: TableColumn(dialect.types[DATE], True, MONTH_DOC),
    }
    assert load.month is not None
    shape = dialect.shape(connection, bind_mart(mart.sql, load.dataset, load.month))
    columns |= {name: TableColumn(type_, False, mart.columns.get(name, "")) for name, type_ in shape.items()}
    table, former = Table(mart.doc, columns), existing.get(mart.name)
    if former is None:
        connection.execute("DELETE FROM mart_loads WHERE mart = $1", [mart.name])
    else:
        validate_types(mart.name, table, former, f"run DROP TABLE {mart.name}, then build all its months again")
    for statement in changes_to(mart.name, table, former):
        connection.execute(statement)
    existing[mart.name] = table
    return list(columns)


def fill_marts(
    connection: Connection, dialect: Dialect, marts: Iterable[Mart], load: LoadRecord, columns: Mapping[str, list[str]]
) -> dict[str, int]:
    """Replace the load's month in the marts by the rows of their SELECTs, with records; returns the rows by mart."""
    assert load.month is not None
    key, records = [load.dataset, load.month], []
    for mart in marts:
        select = bind_mart(mart.sql, load.dataset, load.month)
        connection.execute(f'DELETE FROM "{mart.name}" WHERE dataset = $1 AND month = $2', key)
        names = ", ".join(f'"{name}"' for name in columns[mart.name])
        result = connection.execute(
            f'INSERT INTO "{mart.name}" ({names}) SELECT CAST($1 AS {dialect.types[TEXT]}), CAST($2 AS DATE), '
            f"built.* FROM {dialect.source(connection, select)} AS built",
            key,
        )
        rows, provenance = dialect.inserted(result), (load.fingerprint, _now(), __version__, mart.definition)
        records.append(MartRecord(mart.name, load.dataset, load.month, rows, *provenance))
    if records:
        names = ", ".join(literal(record.mart) for record in records)
        connection.execute(f"DELETE FROM mart_loads WHERE dataset = $1 AND month = $2 AND mart IN ({names})", key)
        _insert(connection, "mart_loads", *records)
    return {record.mart: record.rows for record in records}


def read_ledger(
    connection: Connection,
    names: set[str],
    table_of: Callable[[LoadRecord], str] = attrgetter("dataset"),
    only: tuple[str, date] | None = None,
) -> Ledger:
    """The records that count (see `Ledger.counted`), given the names of the existing tables; `only` of one month."""
    if not names >= LEDGER.keys():
        return Ledger()
    loads = [LoadRecord(**row) for row in _rows(connection, "loads", "loaded_at", only)]
    marts = [MartRecord(**row) for row in _rows(connection, "mart_loads", "built_at", only)]
    return Ledger.counted(loads, marts, names, table_of)


def _rows(connection: Connection, table: str, time: str, only: tuple[str, date] | None) -> Iterator[dict[str, Any]]:
    # SELECT *, since a table from an older version may lack a column, and one from a newer version may have more.
    where, values = (" WHERE dataset = $1 AND month = $2", [*only]) if only else ("", [])
    result = connection.execute(f"SELECT * FROM {table}{where}", values)
    names, known = [column[0] for column in result.description], {column.name for column in LEDGER[table][1]}
    unknown = [name for name in names if name not in known]
    for values in result.fetchall():
        row = dict(zip(names, values, strict=True))
        for name in unknown:
            del row[name]
        row[time] = row[time].replace(tzinfo=timezone.utc)
        yield row


def _insert(connection: Connection, table: str, *records: LoadRecord | MartRecord) -> None:
    names = [column.name for column in LEDGER[table][1]]
    columns, numbers = ", ".join(f'"{name}"' for name in names), iter(range(1, len(names) * len(records) + 1))
    rows = ", ".join(f"({', '.join(f'${next(numbers)}' for _ in names)})" for _ in records)
    values = [getattr(record, name) for record in records for name in names]
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES {rows}", values)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)


def literal(text: str) -> str:
    """The text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _columns(dialect: Dialect, columns: Iterable[Column]) -> dict[str, TableColumn]:
    return {
        column.name: TableColumn(dialect.types[column.type], column.required, describe(column)) for column in columns
    }
