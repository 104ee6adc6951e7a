"""The tables of the BigQuery warehouse as its API takes them: schemas, partitions, labels.

Every column is NULLABLE, because the columns of a Parquet file are, and BigQuery refuses to load them into a REQUIRED
one. Nulls in required columns are found in the file before it is loaded.
Sources: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet,
https://cloud.google.com/bigquery/docs/hive-partitioned-loads-gcs and
https://cloud.google.com/bigquery/docs/partitioned-tables
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.datasets.base import Column, Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouses.tables import LEDGER, MOMENT, MONTH, MONTH_DOC, describe

if TYPE_CHECKING:
    from google.cloud import bigquery

_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "INTEGER",
    pa.float64(): "FLOAT",
    pa.string(): "STRING",
    pa.date32(): "DATE",
    # TLC's times have no zone: DATETIME, not TIMESTAMP.
    pa.timestamp("us"): "DATETIME",
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
        """See `label_of`. Existing tables have labels of this `repr`."""
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


def _type(field: bigquery.SchemaField) -> str:
    return {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}.get(field.field_type, field.field_type)


def _column(column: Column) -> tuple[str, str, str]:
    return column.name, _TYPES[column.type], describe(column)
