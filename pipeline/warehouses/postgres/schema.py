"""What Postgres has of its own in tables: its types, its catalog, partitions and indexes.

All of it is about the first schema on the search path, in which the tables are made.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import LoadRecord
from pipeline.warehouses.postgres.server import elsewhere
from pipeline.warehouses.schema import Table, TableColumn
from pipeline.warehouses.tables import MOMENT, MONTH

_HERE = "relnamespace = quote_ident(current_schema())::regnamespace"


class PostgresDialect:
    """See `pipeline.warehouses.schema.Dialect`; types are spelled as `format_type` does."""

    types = {  # noqa: RUF012
        pa.bool_(): "boolean",
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.float64(): "double precision",
        pa.string(): "text",
        pa.date32(): "date",
        pa.timestamp("us"): "timestamp without time zone",
        MOMENT: "timestamp with time zone",
    }
    months = f"PARTITION BY RANGE ({MONTH})"

    def indexes(self, dataset: Dataset) -> list[str]:
        """The one that pays, on the pickups' times; docs/decisions/postgres.md has what was measured."""
        if dataset.first_month is None or dataset.pickup not in dataset.by_name:
            return []
        return [f'CREATE INDEX ON "{dataset.name}" USING brin ("{dataset.pickup}")']

    def tables(self, connection: Any) -> dict[str, Table]:
        """From `pg_class` and `pg_attribute`; partitions are left out."""
        columns: dict[str, dict[str, TableColumn]] = {}
        comments: dict[str, str] = {}
        for table, doc, column, kind, required, comment in connection.execute(
            "SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname, "
            "format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(c.oid, a.attnum) "
            "FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            f"WHERE c.{_HERE} AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname, a.attnum"
        ).fetchall():
            comments[table] = doc or ""
            columns.setdefault(table, {})[column] = TableColumn(kind, required, comment or "")
        return {name: Table(comments[name], of) for name, of in columns.items()}

    def view_comment(self, connection: Any) -> str | None:
        """From `pg_description`."""
        found = connection.execute(
            f"SELECT coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class WHERE {_HERE} AND relname = 'trips'"
        ).fetchone()
        return found[0] if found else None

    def elsewhere(self, connection: Any) -> str:
        """With the URL of a schema."""
        return elsewhere(connection)

    def view(self, select: str) -> str:
        """Postgres replaces a view in place (grants stay) only by one that begins with the same columns."""
        return (
            f"DO $do$ BEGIN CREATE OR REPLACE VIEW trips AS {select}; "
            f"EXCEPTION WHEN invalid_table_definition THEN DROP VIEW trips; CREATE VIEW trips AS {select}; END $do$"
        )

    def shape(self, connection: Any, select: str) -> dict[str, str]:
        """By what the server says of a result without rows."""
        found = connection.execute(f"SELECT * FROM ({select}\n) AS built LIMIT 0")
        result, places = found.pgresult, range(len(found.description))
        kinds = connection.execute(
            "SELECT format_type(kind, modifier) FROM unnest($1::oid[], $2::int[]) AS _ (kind, modifier)",
            [[result.ftype(place) for place in places], [result.fmod(place) for place in places]],
        ).fetchall()
        return {column.name: kind for column, (kind,) in zip(found.description, kinds, strict=True)}


def partition_of(name: str, month: date) -> str:
    """The table with the month's rows."""
    return f"{name}_{month:%Y_%m}"


def table_of_load(record: LoadRecord) -> str:
    """The table with the rows of a load."""
    return partition_of(record.dataset, record.month) if record.month else record.dataset


def names_in(connection: Any) -> set[str]:
    """The tables that are there, and the partitions whose parent is the table that their name begins with."""
    found = connection.execute(
        "SELECT c.relname FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid "
        "LEFT JOIN pg_class AS p ON p.oid = i.inhparent "
        f"WHERE c.{_HERE} AND c.relkind IN ('r', 'p') "
        r"AND (c.relname !~ '_\d{4}_\d\d$' OR p.relname = regexp_replace(c.relname, '_\d{4}_\d\d$', ''))"
    ).fetchall()
    return {name for (name,) in found}


def validate_ours(connection: Any, subject: str, dataset: Dataset, month: date | None) -> None:
    """Let pass when the month's partition is ours, or does not exist; the zones have none.

    Raises:
        WarehouseError: a table of somebody else's has its name, or that of the dataset.
    """
    if month is None:
        return
    parent, partition = dataset.name, partition_of(dataset.name, month)
    found = dict(
        connection.execute(
            "SELECT c.relname, CASE c.relname WHEN $1 THEN c.relkind::text ELSE p.relname END "
            "FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition "
            f"LEFT JOIN pg_class AS p ON p.oid = i.inhparent WHERE c.{_HERE} AND c.relname IN ($1, $2)",
            [parent, partition],
        ).fetchall()
    )
    problems = [f"table {parent} is there, but not divided by {MONTH}"] if found.get(parent, "p") != "p" else []
    if partition in found and found[partition] != parent:
        problems.append(f"table {partition} is there, but no partition of {parent}")
    if problems:
        raise WarehouseError(
            f"{subject}: {'; '.join(problems)}; rename what is not of this package, or {elsewhere(connection)}"
        )
