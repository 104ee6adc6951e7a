"""The tables of the BigQuery warehouse as its API takes them (schemas, partitions, labels), and its dialect of SQL.

Every column is NULLABLE, because the columns of a Parquet file are, and BigQuery refuses to load them into a REQUIRED
one. Nulls in required columns are found in the file before it is loaded.
Sources: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet,
https://cloud.google.com/bigquery/docs/hive-partitioned-loads-gcs and
https://cloud.google.com/bigquery/docs/partitioned-tables
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

from pipeline.datasets.base import BOOL, DATE, FLOAT64, INT32, INT64, TEXT, TIME, Column, Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouses.tables import LEDGER, MOMENT, MONTH, MONTH_DOC, describe
from pipeline.warehouses.views import View

if TYPE_CHECKING:
    from google.cloud import bigquery

_TYPES = {
    BOOL: "BOOLEAN",
    INT32: "INTEGER",
    INT64: "INTEGER",
    FLOAT64: "FLOAT",
    TEXT: "STRING",
    DATE: "DATE",
    # TLC's times have no zone: DATETIME, not TIMESTAMP.
    TIME: "DATETIME",
    MOMENT: "TIMESTAMP",
}
#: Each table has this label, so that one listing shows which tables differ from their declaration.
LABEL = "declaration"
_DESCRIPTION_CHARACTERS = 1024


def label_of(declaration: str) -> str:
    """The value of `LABEL` for a declaration."""
    return hashlib.sha256(declaration.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Table:
    """A declared table; columns are (name, type, description)."""

    name: str
    doc: str
    columns: tuple[tuple[str, str, str], ...]
    partitioned: bool = False
    clustered: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """See `LABEL`. Existing tables have labels of this `repr`."""
        return label_of(repr(self))

    def fields(self, *, of_files: bool = False) -> list[bigquery.SchemaField]:
        """The columns of the table, or of its files, which have the month in their path."""
        from google.cloud import bigquery

        return [
            bigquery.SchemaField(name, type_, description=doc[:_DESCRIPTION_CHARACTERS])
            for name, type_, doc in self.columns
            if not (of_files and name == MONTH)
        ]

    def resource(self, dataset: bigquery.DatasetReference, labels: Mapping[str, str]) -> bigquery.Table:
        """The table as `create_table` takes it."""
        from google.cloud import bigquery

        table = bigquery.Table(dataset.table(self.name), schema=self.fields())
        table.description, table.labels = self.doc, dict(labels)
        if self.partitioned:
            table.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field=MONTH)
        if self.clustered:
            table.clustering_fields = list(self.clustered)
        return table


def month_in_path(folder: str) -> bigquery.HivePartitioningOptions:
    """How BigQuery reads the month from the path of each file under the folder."""
    from google.cloud import bigquery

    return bigquery.HivePartitioningOptions.from_api_repr(
        {"mode": "CUSTOM", "sourceUriPrefix": f"{folder}/{{{MONTH}:DATE}}"}
    )


def table_of(dataset: Dataset) -> Table:
    """The table of a dataset: its columns in their order, then the month; the zones have no month."""
    columns = tuple(map(_column, dataset.columns))
    if dataset.first_month is None:
        return Table(dataset.name, dataset.doc, columns)
    clustered = tuple(name for name in dataset.zone_columns[:1] if name in dataset.by_name)
    return Table(dataset.name, dataset.doc, (*columns, (MONTH, "DATE", MONTH_DOC)), True, clustered)


def ledger_tables() -> list[Table]:
    """The tables `loads` and `mart_loads`."""
    return [Table(name, doc, tuple(map(_column, columns))) for name, (doc, columns) in LEDGER.items()]


def view_table(view: View) -> Table:
    """The columns of a view, as those of a table."""
    return Table(view.name, view.comment, tuple(map(_column, view.columns)))


def evolve(table: bigquery.Table, declared: Table, label: str) -> None:
    """Change the resource of an existing table to its declaration; columns are added, none is dropped.

    Raises:
        WarehouseError: a column has another type, or the partitioning differs; all differences are named.
    """
    existing = {field.name: field for field in table.schema}
    fields = {field.name: field for field in declared.fields()}
    types = {name: (_type(existing[name]), _type(field)) for name, field in fields.items() if name in existing}
    problems = [f"{name} is {now} in the table, declared {new}" for name, (now, new) in types.items() if now != new]
    partitioning = table.time_partitioning
    if declared.partitioned and (partitioning is None or (partitioning.type_, partitioning.field) != ("MONTH", MONTH)):
        problems.append(f"the table is not partitioned by MONTH of {MONTH}")
    if problems:
        raise WarehouseError(
            f"table {table.full_table_id or declared.name}: {'; '.join(problems)}; load into another BigQuery "
            f"dataset, or run DROP TABLE {declared.name} and load all of it again"
        )
    table.schema = list({**existing, **fields}.values())
    table.description = declared.doc
    table.labels = {**table.labels, LABEL: label}


def translate(sql: str, project: str, dataset: str) -> str:
    """Translate the SQL of a mart or view for BigQuery, with every table named in full.

    A cast to DECIMAL(18, 2) becomes a rounded NUMERIC, since BigQuery takes no precision in a cast, and the epoch of a
    difference of two times becomes a DATETIME_DIFF, since BigQuery has no epoch of an interval. ISODOW becomes
    DAYOFWEEK, counted from Monday.
    """
    import sqlglot
    from sqlglot import exp

    def seconds(node: Any) -> Any:
        if isinstance(node, exp.Extract) and node.name.upper() == "EPOCH":
            difference = node.expression.unnest()
            if isinstance(difference, exp.Sub):
                ends = {"this": difference.this, "expression": difference.expression}
                return exp.Div(
                    this=exp.DatetimeDiff(**ends, unit=exp.var("MICROSECOND")), expression=exp.Literal.number(1_000_000)
                )
        return node

    def change(node: Any) -> Any:
        if isinstance(node, exp.Cast) and node.to.is_type("decimal") and node.to.expressions:
            scale = node.to.expressions[-1].this
            return exp.Round(this=exp.cast(node.this, "decimal"), decimals=scale.copy())
        if isinstance(node, exp.Extract) and node.name.upper() == "ISODOW":
            return sqlglot.parse_one("MOD(EXTRACT(DAYOFWEEK FROM moment) + 5, 7) + 1", read="bigquery").transform(
                lambda part: node.expression.copy() if isinstance(part, exp.Column) else part
            )
        if isinstance(node, exp.CTE):
            node.set("materialized", None)  # Not BigQuery's.
        if isinstance(node, exp.Table) and not node.db and node.name not in named:
            node.set("db", exp.to_identifier(dataset, quoted=True))
            node.set("catalog", exp.to_identifier(project, quoted=True))
        return node

    tree = sqlglot.parse_one(sql, read="duckdb")
    named = {query.alias for query in tree.find_all(exp.CTE)}
    tree = tree.transform(seconds).transform(change)
    return str(tree.sql("bigquery", pretty=True, comments=False))


def replacement(mart: str, dataset: str, month: date, select: str) -> str:
    """A MERGE that replaces the rows of the dataset's month in the mart by those of the SELECT."""
    import sqlglot
    from sqlglot import exp

    query = sqlglot.parse_one(select, read="bigquery")
    names = query.named_selects if isinstance(query, exp.Query) else []
    columns = ["dataset", "month", *names]
    return (
        f"MERGE INTO {mart} AS kept\n"
        f"USING (\nSELECT {literal(dataset)} AS dataset, {literal(month)} AS month, {', '.join(names)}\n"
        f"FROM (\n{select}\n)\n) AS made\nON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND kept.dataset = {literal(dataset)} AND kept.month = {literal(month)} "
        "THEN DELETE\n"
        f"WHEN NOT MATCHED BY TARGET THEN INSERT ({', '.join(columns)}) "
        f"VALUES ({', '.join(f'made.{name}' for name in columns)})"
    )


def literal(value: object) -> str:
    """The value as BigQuery's SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S.%f}+00'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return str(value) if isinstance(value, int) else json.dumps(value)


def _type(field: bigquery.SchemaField) -> str:
    return {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}.get(field.field_type, field.field_type)


def _column(column: Column) -> tuple[str, str, str]:
    return column.name, _TYPES[column.type], describe(column)
