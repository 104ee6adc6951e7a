"""The warehouse as one dataset of BigQuery, loaded from a lake in Cloud Storage.

A load job replaces the month's partition (`green$202401`), all or nothing; one MERGE replaces a month of a mart. The
record is revoked before and written after, since it cannot be in one transaction with the job.

BigQuery limits the statements that change rows of one table (UPDATE, DELETE, MERGE: two run, 20 wait), but not INSERT.
So the ledger is append-only: the newest row of a key counts, and a row without a number of rows revokes the key.
Sources: https://cloud.google.com/bigquery/docs/managing-partitioned-table-data and
https://cloud.google.com/bigquery/docs/data-manipulation-language
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.datasets.base import Column, Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.google_cloud import translated
from pipeline.lake.planning import TtlCache
from pipeline.months import label
from pipeline.version import __version__
from pipeline.warehouses.base import Ledger, LoadRecord, Mart, MartRecord, StoredFile, Warehouse, query_error
from pipeline.warehouses.bigquery.schema import ledger_tables, literal, table_of
from pipeline.warehouses.bigquery.tables import Tables, foreign_views
from pipeline.warehouses.load_file import inspect, validate_marts
from pipeline.warehouses.tables import LEDGER, MOMENT

if TYPE_CHECKING:
    import pyarrow as pa

#: The key of a record; `loads` has no mart.
_KEY = ("mart", "dataset", "month")


class _Records(NamedTuple):
    """The newest records, the labels of the tables that exist, and the ledger of the records that count."""

    loads: Sequence[LoadRecord]
    marts: Sequence[MartRecord]
    listed: dict[str, str]
    ledger: Ledger


class BigQueryWarehouse(Warehouse):
    """See `pipeline.warehouses.base.Warehouse`."""

    def __init__(self, tables: Tables, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        self._tables = tables
        self._datasets = datasets
        self._zones = zones
        self._cached_ledger: TtlCache[Ledger] = TtlCache()

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """One load job replaces the partition or the zones; the record is revoked before and written after."""
        subject = label(dataset.name, month)
        if not file.uri.startswith("gs://"):
            raise WarehouseError(f"{subject}: BigQuery loads from a gs:// lake only, not from {file.uri}")
        with file.open() as opened:
            load_file = inspect(opened, dataset, month, where=file.uri)
        with self._translated(subject):
            records = self._records(writing=True)
            # The user may have dropped a table; it is created again without these rows.
            lost = [load for load in records.loads if load.dataset not in records.listed]
            self._insert(subject, "loads", lost, lost=True)
            self._tables.ensure(self._datasets, self._zones, records.listed)
            former = records.ledger.loads.get((dataset.name, month))
            if month is not None or former is None or former.fingerprint != file.fingerprint:
                self._forget_marts(subject, records, dataset.name, month)
            self._revoke_load(subject, records, dataset.name, month)
            job = self._tables.load(subject, table_of(dataset), month, file.uri)
            if job.output_rows != load_file.rows:
                raise WarehouseError(
                    f"{subject}: BigQuery loaded {job.output_rows} rows, but {file.uri} has {load_file.rows}; "
                    f"job {job.job_id}"
                )
            provenance = (load_file.rows, load_file.source_sha256, load_file.declaration, file.fingerprint)
            written = (datetime.now(timezone.utc), __version__)
            self._insert(subject, "loads", [LoadRecord(dataset.name, month, *provenance, *written)])
        return load_file.rows

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Delete the marts of the month, then the record of its load, then its rows."""
        subject = label(dataset.name, month)
        with self._translated(subject):
            records = self._records(writing=True)
            self._forget_marts(subject, records, dataset.name, month)
            self._revoke_load(subject, records, dataset.name, month)
            if (dataset.name, month) in records.ledger.loads:
                where = f"month = {literal(month)}" if month else "TRUE"
                self._tables.run("forget", subject, f"DELETE FROM {dataset.name} WHERE {where}")

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Delete the records of the month's marts, then their rows."""
        subject = label(dataset.name, month)
        with self._translated(subject):
            self._forget_marts(subject, self._records(writing=True), dataset.name, month)

    def _forget_marts(self, subject: str, records: _Records, name: str, month: date | None) -> None:
        """Revoke the records of the month's marts (for the zones, of all marts), then delete their rows."""
        marts = [mart for mart in records.marts if month is None or (mart.dataset, mart.month) == (name, month)]
        self._insert(subject, "mart_loads", marts, revoked=True)
        where = f"dataset = {literal(name)} AND month = {literal(month)}" if month else "TRUE"
        for mart in sorted({mart.mart for mart in marts} & records.listed.keys()):
            self._tables.run("forget", subject, f"DELETE FROM {mart} WHERE {where}")

    def _revoke_load(self, subject: str, records: _Records, name: str, month: date | None) -> None:
        loads = [load for load in records.loads if (load.dataset, load.month) == (name, month)]
        self._insert(subject, "loads", loads, revoked=True)

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """One checked statement replaces the month of each mart; records are revoked before the first."""
        subject = label(dataset.name, month)
        validate_marts(subject, dataset, marts)
        with self._translated(subject):
            records = self._records(writing=True)
            key = (dataset.name, month)
            load = records.ledger.loads.get(key)
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            lost = [mart for mart in records.marts if mart.mart not in records.listed]
            self._insert(subject, "mart_loads", lost, lost=True)
            # An older version of the package may have loaded the month: its views lack columns that the marts read.
            self._tables.ensure(self._datasets, self._zones, records.listed)
            where = f"dataset = {literal(dataset.name)} AND month = {literal(month)}"
            counts = {mart.name: f"(SELECT COUNT(*) FROM {mart.name} WHERE {where})" for mart in marts}
            merges = [self._tables.prepare_mart(mart, dataset.name, month, records.listed) for mart in marts]
            former = [mart for mart in records.marts if (mart.dataset, mart.month) == key and mart.mart in counts]
            self._insert(subject, "mart_loads", former, revoked=True)
            for merge in merges:
                self._tables.run("mart", subject, merge)
            origin = (load.fingerprint, datetime.now(timezone.utc), __version__)
            built = [MartRecord(mart.name, dataset.name, month, 0, *origin, mart.definition) for mart in marts]
            self._insert(subject, "mart_loads", built, counts=counts)
            recorded = self._records().ledger.marts
        return {mart.name: recorded[mart.name, dataset.name, month].rows for mart in marts}

    def compact(self) -> None:
        """Delete the rows of the ledger that newer ones replaced or revoked more than an hour ago."""
        with self._translated("ledger"):
            for table in sorted(LEDGER.keys() & self._tables.listed().keys()):
                self._tables.run("compact", "ledger", compaction(table))

    def ledger(self) -> Ledger:
        """A plan reads it once for all months."""
        with self._translated("loads"):
            return self._cached_ledger.get(lambda: self._records().ledger)

    def expose(self, lake: str) -> list[str]:
        """Create an external table over the lake's files of each dataset and of the zones; returns their names."""
        with self._translated("external tables"):
            return self._tables.ensure_external(lake, [*self._datasets.values(), self._zones])

    def exposed(self, lake: str) -> bool:
        """Whether the external tables over this lake exist as declared; one listing."""
        with self._translated("external tables"):
            return self._tables.has_external(lake, [*self._datasets.values(), self._zones])

    def validate_shared(self) -> list[str]:
        """By the labels of one listing."""
        with self._translated("warehouse"):
            return foreign_views(self._datasets, self._zones, self._tables.listed())

    def query(self, sql: str) -> pa.Table:
        """Run one statement that only reads."""
        validate_reading(sql)
        with self._translated("query"):
            return self._tables.run("read", "query", sql).to_arrow(create_bqstorage_client=False)

    def _records(self, *, writing: bool = False) -> _Records:
        """A listing and both tables of the ledger, one request each (more for further pages), free of charge."""
        listed = self._tables.listed()
        if writing:
            self._cached_ledger.forget()
            self._tables.ensure_tables([table for table in ledger_tables() if table.name in listed], listed)
        loads = [LoadRecord(**row) for row in newest(self._tables.rows("loads", listed), "loaded_at")]
        rows = self._tables.rows("mart_loads", listed) if loads else ()
        marts = [MartRecord(**row) for row in newest(rows, "built_at")]
        if not {load.dataset for load in loads} | {mart.mart for mart in marts} <= listed.keys():
            # Another worker may have created the table after the listing, and loaded a month.
            listed = self._tables.listed()
        return _Records(loads, marts, listed, Ledger.counted(loads, marts, listed))

    def _insert(self, subject: str, table: str, records: Sequence[LoadRecord | MartRecord], **options: Any) -> None:
        """Append records to the ledger, see `insertion`."""
        if records:
            self._tables.run("record", subject, insertion(table, records, **options))

    def _translated(self, subject: str) -> AbstractContextManager[None]:
        project, dataset = self._tables.project, self._tables.dataset
        roles = (
            f"roles/bigquery.jobUser on the project {project} and roles/bigquery.dataEditor on the dataset {dataset} "
            "(roles/bigquery.user on the project, to create the dataset) to the account"
        )
        return translated(WarehouseError, f"{subject} in BigQuery", roles)


def insertion(
    table: str,
    records: Sequence[LoadRecord | MartRecord],
    *,
    revoked: bool = False,
    lost: bool = False,
    counts: Mapping[str, str] | None = None,
) -> str:
    """An INSERT that makes these records the newest of their keys; a revoked record has no number of rows.

    The time is the server's, since the clocks of several machines differ. A record whose table is `lost` is revoked
    as of its own time, so that a newer one of another worker counts. `counts` has SQL for the rows of each mart.
    """

    def value(record: Any, column: Column) -> str:
        recorded = getattr(record, column.name)
        if column.type == MOMENT:
            return literal(recorded + timedelta(microseconds=1)) if lost else "CURRENT_TIMESTAMP()"
        if column.name == "rows" and (revoked or lost):
            return "NULL"
        return counts[record.mart] if column.name == "rows" and counts else literal(recorded)

    columns = LEDGER[table][1]
    names = ", ".join(f"`{column.name}`" for column in columns)
    values = (f"({', '.join(value(record, column) for column in columns)})" for record in records)
    return f"INSERT INTO {table} ({names}) VALUES {', '.join(values)}"


def newest(rows: Iterable[Mapping[str, Any]], moment: str) -> list[Mapping[str, Any]]:
    """The newest row of each key, by the column `moment`, unless it revokes the key."""
    last = {tuple(map(row.get, _KEY)): row for row in sorted(rows, key=lambda row: row[moment])}
    return [row for row in last.values() if row["rows"] is not None]


def compaction(table: str) -> str:
    """A DELETE of the rows that revoke or no longer count, and are older than an hour.

    Rows of the last hour stay, so that nothing is deleted that a current run has just written.
    """
    types = {column.name: column.type for column in LEDGER[table][1]}
    moment = next(name for name, type_ in types.items() if type_ == MOMENT)
    key = "CONCAT(" + ", '|', ".join(f"COALESCE(CAST({name} AS STRING), '')" for name in _KEY if name in types) + ")"
    last = f"SELECT CONCAT({key}, CAST(MAX({moment}) AS STRING)) FROM {table} GROUP BY {key}"
    return (
        f"DELETE FROM {table} WHERE {moment} < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR) "
        f"AND (`rows` IS NULL OR CONCAT({key}, CAST({moment} AS STRING)) NOT IN ({last}))"
    )


def validate_reading(sql: str) -> None:
    """Raise UsageError for a statement that does more than read, WarehouseError for text that is not SQL."""
    import sqlglot
    from sqlglot import exp

    try:
        first, *others = statements = sqlglot.parse(sql, read="bigquery")
    except sqlglot.ParseError as error:
        reason = error.errors[0]["description"] if error.errors else error
        raise WarehouseError(f"query: BigQuery's SQL does not allow this: {reason}") from error
    if others or not isinstance(first, exp.Query) or first.find(exp.DML, exp.Into):
        raise query_error(", ".join(statement.key.upper() for statement in statements if statement) or "nothing")
