"""The tables of the BigQuery warehouse, as what BigQuery's API takes: schemas, partitions, labels.

Every column is NULLABLE: Parquet's columns are, and a load into a REQUIRED one is refused. What is required was checked
in the file before. Sources: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet and
https://cloud.google.com/bigquery/docs/partitioned-tables
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
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
#: A label of each table, by which one listing tells whether all of them are as declared.
DECLARATION_LABEL = "declaration"
_DESCRIPTION_CHARACTERS = 1024


@dataclass(frozen=True)
class Table:
    """A table as it is declared: name, meaning, columns as (name, type, description), and how it is laid out."""

    name: str
    doc: str
    columns: tuple[tuple[str, str, str], ...]
    partitioned: bool = False
    clustered: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Differs when the declaration does."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def fields(self) -> list[bigquery.SchemaField]:
        """The columns as BigQuery takes them."""
        from google.cloud import bigquery

        return [
            bigquery.SchemaField(name, kind, description=doc[:_DESCRIPTION_CHARACTERS])
            for name, kind, doc in self.columns
        ]

    def resource(self, dataset: bigquery.DatasetReference, labels: Mapping[str, str]) -> bigquery.Table:
        """The table as it is to be created."""
        from google.cloud import bigquery

        table = bigquery.Table(dataset.table(self.name), schema=self.fields())
        table.description, table.labels = self.doc, {**labels, DECLARATION_LABEL: self.label}
        if self.partitioned:
            table.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field=MONTH)
        if self.clustered:
            table.clustering_fields = list(self.clustered)
        return table


def table_of(dataset: Dataset) -> Table:
    """The table of a dataset: its columns in their order, then the month; the zones have none."""
    columns = [_column(column) for column in dataset.columns]
    if dataset.first_month is None:
        return Table(dataset.name, dataset.doc, tuple(columns))
    columns.append((MONTH, "DATE", MONTH_DOC))
    clustered = tuple(name for name in dataset.zone_columns[:1] if name in dataset.by_name)
    return Table(dataset.name, dataset.doc, tuple(columns), partitioned=True, clustered=clustered)


def ledger_tables() -> list[Table]:
    """The tables `loads` and `mart_loads`."""
    return [Table(name, doc, tuple(map(_column, columns))) for name, (doc, columns) in LEDGER.items()]


def load_config(table: Table, month: date | None, uri: str, *, empty: bool = False) -> bigquery.LoadJobConfig:
    """How a file of the lake comes in place of what its table, or its month's partition, holds; or into an empty one.

    The schema is given, since BigQuery would make TIMESTAMP of our DATETIME. It names the columns of the file: the
    month is the key in the path (https://cloud.google.com/bigquery/docs/hive-partitioned-loads-gcs).
    """
    from google.cloud import bigquery

    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        write_disposition=bigquery.WriteDisposition.WRITE_EMPTY if empty else bigquery.WriteDisposition.WRITE_TRUNCATE,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        schema=[column for column in table.fields() if month is None or column.name != MONTH],
    )
    if month is not None:
        options = bigquery.HivePartitioningOptions()
        options.mode = "CUSTOM"
        options.source_uri_prefix = f"{uri.partition(f'/{MONTH}=')[0]}/{{{MONTH}:DATE}}"
        config.hive_partitioning = options
    return config


def copy_config() -> bigquery.CopyJobConfig:
    """How a partition comes in place of another."""
    from google.cloud import bigquery

    return bigquery.CopyJobConfig(
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
    )


def evolved(there: bigquery.Table, wanted: Table) -> bigquery.Table:
    """The table that is there with the columns added that it lacks; nothing is dropped.

    Raises:
        WarehouseError: a column has another type, or the table is partitioned otherwise; all of it is named.
    """
    had = {field.name: field for field in there.schema}
    fields = wanted.fields()
    problems = [
        f"{field.name} is {had[field.name].field_type} there, now {field.field_type}"
        for field in fields
        if field.name in had and _plain(had[field.name].field_type) != _plain(field.field_type)
    ]
    partitioning = there.time_partitioning
    if wanted.partitioned and (partitioning is None or (partitioning.type_, partitioning.field) != ("MONTH", MONTH)):
        problems.append(f"it is not partitioned by MONTH of {MONTH}")
    if problems:
        raise WarehouseError(
            f"table {there.full_table_id or wanted.name}: {'; '.join(problems)}; load into another BigQuery dataset, "
            f"or load all of it anew here, after DROP TABLE {wanted.name}"
        )
    declared = {field.name for field in fields}
    kept = [field for field in there.schema if field.name not in declared]
    there.schema = [*(field for field in fields if field.name in had), *kept, *(f for f in fields if f.name not in had)]
    there.description = wanted.doc
    there.labels = {**there.labels, DECLARATION_LABEL: wanted.label}
    return there


def _column(column: Column) -> tuple[str, str, str]:
    return column.name, _TYPES[column.type], describe(column)


def _plain(kind: str) -> str:
    return {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}.get(kind, kind)
