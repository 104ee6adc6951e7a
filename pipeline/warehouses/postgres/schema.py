"""Tables in Postgres: types, catalog, indexes and partitions, in the first schema on the search path."""

from __future__ import annotations

from datetime import date
from typing import Any

from pipeline.datasets.base import BOOL, DATE, FLOAT64, INT32, INT64, TEXT, TIME, Dataset
from pipeline.errors import WarehouseError
from pipeline.months import add_months
from pipeline.warehouses.postgres.server import elsewhere
from pipeline.warehouses.schema import Dialect, Table, TableColumn
from pipeline.warehouses.tables import MOMENT, MONTH
from pipeline.warehouses.views import View

_IN_SCHEMA = "relnamespace = quote_ident(current_schema())::regnamespace"


class PostgresDialect(Dialect):
    """See `pipeline.warehouses.schema.Dialect`; types are spelled as by `format_type`."""

    types = {  # noqa: RUF012
        BOOL: "boolean",
        INT32: "integer",
        INT64: "bigint",
        FLOAT64: "double precision",
        TEXT: "text",
        DATE: "date",
        TIME: "timestamp without time zone",
        MOMENT: "timestamp with time zone",
    }
    months = f"PARTITION BY RANGE ({MONTH})"

    def indexes(self, dataset: Dataset) -> list[str]:
        """One, on the pickup time; docs/decisions/postgres.md has the measurements."""
        if dataset.first_month is None or dataset.pickup not in dataset.by_name:
            return []
        return [f'CREATE INDEX ON "{dataset.name}" USING brin ("{dataset.pickup}")']

    def tables(self, connection: Any) -> dict[str, Table]:
        """From `pg_class` and `pg_attribute`; partitions are left out."""
        columns: dict[str, dict[str, TableColumn]] = {}
        comments: dict[str, str] = {}
        for table, doc, column, type_name, required, comment in connection.execute(
            "SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname, "
            "format_type(a.atttypid, a.atttypmod), a.attnotnull, col_description(c.oid, a.attnum) "
            "FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            f"WHERE c.{_IN_SCHEMA} AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname, a.attnum"
        ).fetchall():
            comments[table] = doc or ""
            columns.setdefault(table, {})[column] = TableColumn(type_name, required, comment or "")
        return {name: Table(comments[name], definitions) for name, definitions in columns.items()}

    def comments(self, connection: Any, names: list[str]) -> dict[str, str]:
        """From `pg_description`; a type of that name would be in a view's way, too."""
        rows = connection.execute(
            "SELECT relname::text, coalesce(obj_description(oid, 'pg_class'), '') FROM pg_class "
            f"WHERE {_IN_SCHEMA} AND relname = ANY($1) UNION ALL SELECT typname::text, '' FROM pg_type "
            "WHERE typnamespace = quote_ident(current_schema())::regnamespace AND typrelid = 0 AND typname = ANY($1)",
            [names],
        )
        return dict(rows.fetchall())

    def elsewhere(self, connection: Any) -> str:
        """With the URL of another schema."""
        return elsewhere(connection)

    def view(self, view: View) -> str:
        """Replaced in place, which keeps grants; Postgres allows that only if the same columns come first.

        Otherwise it is dropped and created again, which fails if something depends on it.
        """
        name, select = view.name, view.select
        return (
            f"DO $do$ BEGIN CREATE OR REPLACE VIEW {name} AS {select}; EXCEPTION WHEN invalid_table_definition "
            f"THEN DROP VIEW {name}; CREATE VIEW {name} AS {select}; END $do$"
        )

    def shape(self, connection: Any, select: str) -> dict[str, str]:
        """From a result without rows."""
        cursor = connection.execute(f"SELECT * FROM ({select}\n) AS built LIMIT 0")
        result, numbers = cursor.pgresult, range(len(cursor.description))
        types = connection.execute(
            "SELECT format_type(type, modifier) FROM unnest($1::oid[], $2::int[]) AS _ (type, modifier)",
            [[result.ftype(number) for number in numbers], [result.fmod(number) for number in numbers]],
        ).fetchall()
        return {column.name: name for column, (name,) in zip(cursor.description, types, strict=True)}

    def source(self, connection: Any, select: str) -> str:
        """A temporary table: CREATE TABLE AS runs the SELECT on several cores, INSERT on one."""
        allowed = connection.execute("SELECT has_database_privilege(current_database(), 'TEMP')").fetchone()[0]
        if not allowed:
            return f"({select}\n)"
        connection.execute("DROP TABLE IF EXISTS pg_temp.built_rows")
        connection.execute(f"CREATE TEMP TABLE built_rows ON COMMIT DROP AS {select}")
        return "pg_temp.built_rows"

    def inserted(self, result: Any) -> int:
        """As Postgres reports it."""
        return int(result.rowcount)


def rows_table(dataset: str, month: date | None) -> str:
    """The name of the table with the month's rows: a partition, or the zones themselves."""
    return f"{dataset}_{month:%Y_%m}" if month else dataset


def table_names(connection: Any) -> set[str]:
    """The names of tables and of the partitions of our datasets; a detached month does not count."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid "
        "LEFT JOIN pg_class AS p ON p.oid = i.inhparent "
        f"WHERE c.{_IN_SCHEMA} AND c.relkind IN ('r', 'p') "
        r"AND (c.relname !~ '_\d{4}_\d\d$' OR p.relname = regexp_replace(c.relname, '_\d{4}_\d\d$', ''))"
    ).fetchall()
    return {name for (name,) in rows}


def prepare_partition(connection: Any, dataset: Dataset, month: date) -> None:
    """Create the month's partition, empty, if it does not exist; in a transaction.

    CREATE TABLE … PARTITION OF would wait for every reader of the dataset; ATTACH does not.
    """
    partition = rows_table(dataset.name, month)
    # A crash of an earlier version of this package left this table.
    connection.execute(f'DROP TABLE IF EXISTS "{partition}_incoming"')
    if partition not in table_names(connection):
        connection.execute(f'CREATE TABLE "{partition}" (LIKE "{dataset.name}" INCLUDING COMMENTS)')
        connection.execute(f"COMMENT ON TABLE \"{partition}\" IS '{dataset.name} of {month:%Y-%m}.'")
        connection.execute(
            f'ALTER TABLE "{dataset.name}" ATTACH PARTITION "{partition}" '
            f"FOR VALUES FROM ('{month}') TO ('{add_months(month, 1)}')"
        )


def validate_ours(connection: Any, subject: str, dataset: Dataset, month: date | None) -> None:
    """Check that the dataset and the month's partition, where they exist, are from this package.

    Raises:
        WarehouseError: a table has one of these names but is not from this package.
    """
    if month is None:
        return
    parent, partition = dataset.name, rows_table(dataset.name, month)
    rows = connection.execute(
        "SELECT c.relname, CASE c.relname WHEN $1 THEN c.relkind::text ELSE p.relname END "
        "FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition "
        f"LEFT JOIN pg_class AS p ON p.oid = i.inhparent WHERE c.{_IN_SCHEMA} AND c.relname IN ($1, $2)",
        [parent, partition],
    ).fetchall()
    relations = dict(rows)
    problems = []
    if relations.get(parent, "p") != "p":
        problems.append(f"table {parent} exists, but is not partitioned by {MONTH}")
    if relations.get(partition, parent) != parent:
        problems.append(f"table {partition} exists, but is not a partition of {parent}")
    if problems:
        raise WarehouseError(
            f"{subject}: {'; '.join(problems)}; rename what is not from this package, or {elsewhere(connection)}"
        )
