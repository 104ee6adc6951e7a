"""The warehouse as one dataset of BigQuery, loaded from a lake in Cloud Storage.

A month is loaded by one load job into its partition (`green$202401`, WRITE_TRUNCATE): all of it or nothing, free of
charge, and many months at once. Its record cannot share a transaction with that, so it is revoked before and written
after: a month that is reported as loaded is there. A month of a mart is replaced by one MERGE statement, between its
records likewise.

Many months change at once, and BigQuery cancels or queues statements that change rows of the same table (UPDATE,
DELETE, MERGE: two at a time, 20 in the queue). So the ledger is append-only: of all rows of a key the newest counts,
and one without a number of rows revokes those before it. INSERT statements conflict with nothing.
Sources: https://cloud.google.com/bigquery/docs/managing-partitioned-table-data and
https://cloud.google.com/bigquery/docs/data-manipulation-language
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.google_cloud import bigquery_client, translated
from pipeline.lake.planning import TtlCache
from pipeline.version import __version__
from pipeline.warehouses.base import Ledger, LoadRecord, Mart, MartRecord, StoredFile
from pipeline.warehouses.bigquery.jobs import new_job_id, patient, run_job
from pipeline.warehouses.bigquery.place import Place
from pipeline.warehouses.bigquery.schema import Table, copy_config, load_config, table_of
from pipeline.warehouses.bigquery.sql import (
    compaction,
    insertion,
    match,
    newest,
    replacement,
    translate,
    validate_reading,
)
from pipeline.warehouses.bigquery.tables import Tables
from pipeline.warehouses.load_file import LoadFile, inspect, load_name, validate_marts
from pipeline.warehouses.tables import LEDGER, bind_mart

if TYPE_CHECKING:
    from google.cloud import bigquery


@dataclass(frozen=True)
class _Records:
    """The newest records of the ledger, and the tables that exist."""

    loads: Sequence[LoadRecord]
    marts: Sequence[MartRecord]
    tables: Set[str]

    def counted(self) -> Ledger:
        """The ledger as far as it counts."""
        return Ledger.counted(self.loads, self.marts, self.tables)


#: Tables by way of which months are loaded with `load=staged` begin so.
_STAGING = "staging"


class BigQueryWarehouse:
    """See `pipeline.warehouses.base.Warehouse`."""

    def __init__(self, place: Place, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        self._place = place
        self._datasets = datasets
        self._zones = zones
        self._cached_ledger: TtlCache[Ledger] = TtlCache()

    @property
    def _client(self) -> bigquery.Client:
        return bigquery_client(self._place.project, self._place.location)

    @property
    def _tables(self) -> Tables:
        return Tables(self._client, self._place.dataset, self._place.expiration_days, self._place.labels)

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """One load job replaces the partition, or the zones; between revocation and record the load does not count."""
        subject = load_name(dataset, month)
        if month is None:
            with file.open_local() as path:
                _validate_zones(path)
        if not file.uri.startswith("gs://"):
            raise WarehouseError(f"{subject}: BigQuery loads from a gs:// lake only, not from {file.uri}")
        with file.open() as opened:
            load_file = inspect(opened, dataset, month, where=file.uri)
        with self._faults(subject):
            records = self._records(writing=True)
            self._revoke_lost(subject, "loads", [load for load in records.loads if load.dataset not in records.tables])
            self._tables.ensure(self._datasets.values(), self._zones)
            former = records.counted().loads.get((dataset.name, month))
            # The same zones again leave the marts as they are.
            keeps_marts = month is None and former is not None and former.fingerprint == file.fingerprint
            self._forget(subject, records, dataset.name, month, marts=not keeps_marts)
            job = self._load(subject, table_of(dataset), month, file.uri)
            if job.output_rows != load_file.rows:
                raise WarehouseError(
                    f"{subject}: {job.output_rows} rows arrived of the {load_file.rows} that {file.uri} has; "
                    f"job {job.job_id}"
                )
            self._record(subject, dataset.name, month, load_file, file.fingerprint)
        return int(load_file.rows)

    def _load(self, subject: str, table: Table, month: date | None, uri: str) -> Any:
        """Load the file in place of what the table, or the month's partition, holds; returns the load job."""
        if month is None:
            return self._load_into(table.name, subject, table, month, uri)
        partition = f"{table.name}${month:%Y%m}"
        if not self._place.staged:
            return self._load_into(partition, subject, table, month, uri)
        staging = f"{new_job_id(_STAGING, table.name)}_{month:%Y%m}"
        try:
            self._tables.make_staging(table, staging)
            job = self._load_into(staging, subject, table, month, uri)
            run_job(
                self._client,
                subject,
                new_job_id("copy", *subject.split()),
                lambda name, retry: self._client.copy_table(
                    self._tables.reference.table(f"{staging}${month:%Y%m}"),
                    self._tables.reference.table(partition),
                    job_id=name,
                    job_config=copy_config(),
                    retry=retry,
                ),
            )
        finally:
            self._client.delete_table(self._tables.reference.table(staging), not_found_ok=True, retry=patient())
        return job

    def _load_into(self, name: str, subject: str, table: Table, month: date | None, uri: str) -> Any:
        return run_job(
            self._client,
            subject,
            new_job_id("load", *subject.split()),
            lambda job_id, retry: self._client.load_table_from_uri(
                uri,
                self._tables.reference.table(name),
                job_id=job_id,
                job_config=load_config(table, month, uri, empty=name.startswith(_STAGING)),
                retry=retry,
            ),
        )

    def _record(self, subject: str, name: str, month: date | None, load_file: LoadFile, fingerprint: str) -> None:
        record = LoadRecord(
            name,
            month,
            load_file.rows,
            load_file.source_sha256,
            load_file.declaration,
            fingerprint,
            _now(),
            __version__,
        )
        self._run(subject, "record", insertion("loads", [record]))

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Records go first, then marts, then rows."""
        subject = load_name(dataset, month)
        with self._faults(subject):
            records = self._records(writing=True)
            self._forget(subject, records, dataset.name, month)
            if (dataset.name, month) in records.counted().loads:
                self._run(
                    subject, "forget", f"DELETE FROM {dataset.name} WHERE {match(month=month) if month else 'TRUE'}"
                )

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Records go first, then rows."""
        subject = load_name(dataset, month)
        with self._faults(subject):
            self._forget(subject, replace(self._records(writing=True), loads=[]), dataset.name, month)

    def _forget(self, subject: str, records: _Records, name: str, month: date | None, *, marts: bool = True) -> None:
        """Revoke the month's records (for the zones, those of all marts), then delete the rows of those marts."""
        stale = [of for of in records.marts if marts and (month is None or (of.dataset, of.month) == (name, month))]
        loads = [load for load in records.loads if (load.dataset, load.month) == (name, month)]
        if stale:
            self._run(subject, "forget", insertion("mart_loads", stale, revoked=True))
        if loads:
            self._run(subject, "forget", insertion("loads", loads, revoked=True))
        where = "TRUE" if month is None else match(dataset=name, month=month)
        for mart in sorted({record.mart for record in stale} & records.tables):
            self._run(subject, "forget", f"DELETE FROM {mart} WHERE {where}")

    def _revoke_lost(self, subject: str, table: str, lost: Sequence[LoadRecord | MartRecord]) -> None:
        """Revoke records whose table was dropped, before it is made again."""
        if lost:
            self._run(subject, "forget", insertion(table, lost, lost=True))

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """The month of each mart by one statement; records are revoked before the first, written after the last.

        BigQuery checks all statements, free of charge, before anything is changed.
        """
        subject = load_name(dataset, month)
        validate_marts(subject, dataset, marts)
        with self._faults(subject):
            records = self._records(writing=True)
            load = records.counted().loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            lost = [record for record in records.marts if record.mart not in records.tables]
            self._revoke_lost(subject, "mart_loads", lost)
            where = match(dataset=dataset.name, month=month)
            merges, built, counts = [], [], {}
            for mart in marts:
                select = translate(bind_mart(mart.sql, dataset.name, month), self._place.project, self._place.dataset)
                names = self._tables.ensure_mart(mart, select)
                merges.append(replacement(mart.name, dataset.name, month, select, names))
                built.append(
                    MartRecord(
                        mart.name, dataset.name, month, 0, load.fingerprint, _now(), __version__, mart.definition
                    )
                )
                counts[mart.name] = f"(SELECT COUNT(*) FROM {mart.name} WHERE {where})"
            for merge in merges:
                self._check(subject, merge)
            former = [
                of for of in records.marts if of.mart in counts and (of.dataset, of.month) == (dataset.name, month)
            ]
            if former:
                self._run(subject, "forget", insertion("mart_loads", former, revoked=True))
            for merge in merges:
                self._run(subject, "mart", merge)
            self._run(subject, "record", insertion("mart_loads", built, rows=lambda record: counts[record.mart]))
            now = self._read().marts
        return {mart.name: now[mart.name, dataset.name, month].rows for mart in marts}

    def compact(self) -> None:
        """Delete the rows of the ledger that newer ones replaced or revoked more than an hour ago."""
        with self._faults("ledger"):
            for table in sorted(LEDGER.keys() & self._tables.labels_there().keys()):
                self._run("ledger", "compact", compaction(table))

    def loads(self, dataset: Dataset) -> dict[date | None, LoadRecord]:
        """The months that `loads` names and whose table exists."""
        return self._ledger().loads_of(dataset.name)

    def mart_months(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """The months that `mart_loads` names."""
        return self._ledger().mart_months(dataset.name)

    def expose(self, lake: str) -> list[str]:
        """Make an external table over the lake's files of each dataset, and of the zones; returns their names."""
        with self._faults("external tables"):
            return self._tables.ensure_external(lake, self._datasets.values(), self._zones)

    def exposed(self, lake: str) -> bool:
        """Whether the external tables over this lake are there, as declared; one listing."""
        with self._faults("external tables"):
            return self._tables.has_external(lake, self._datasets.values(), self._zones)

    def query(self, sql: str) -> pa.Table:
        """Run one statement that only reads."""
        validate_reading(sql)
        with self._faults("query"):
            job = self._run("query", "", sql)
            return job.to_arrow(create_bqstorage_client=False)

    def _ledger(self) -> Ledger:
        """What is there; a plan reads it once, however many months it asks about."""
        with self._faults("loads"):
            return self._cached_ledger.get(self._read)

    def _read(self) -> Ledger:
        return self._records().counted()

    def _records(self, *, writing: bool = False) -> _Records:
        """A listing and both tables, one request each (and a further one for each further page); free of charge."""
        there = self._tables.labels_there()
        if writing:
            self._tables.evolve_ledger(there)
        loads = [LoadRecord(**row) for row in newest(self._tables.rows("loads", there), "loaded_at")]
        rows = self._tables.rows("mart_loads", there) if loads else ()
        marts = [MartRecord(**row) for row in newest(rows, "built_at")]
        if not {load.dataset for load in loads} | {mart.mart for mart in marts} <= there.keys():
            # Another worker may have made the table after the listing, and loaded a month.
            there = self._tables.labels_there()
        return _Records(loads, marts, there.keys())

    def _run(self, subject: str, what: str, sql: str) -> Any:
        """Run one statement; `what` it does is part of the job's id, and empty where it only reads."""
        if what:
            self._cached_ledger.forget()
        config = self._config()
        return run_job(
            self._client,
            subject,
            new_job_id(*filter(None, (what, *subject.split()))),
            lambda name, retry: self._client.query(sql, job_id=name, job_config=config, retry=retry, job_retry=None),
        )

    def _check(self, subject: str, sql: str) -> None:
        """Have BigQuery check a statement without running it; the error names the subject."""
        from google.api_core.exceptions import BadRequest

        try:
            self._client.query(sql, job_config=self._config(dry_run=True), retry=patient(), job_retry=None)
        except BadRequest as error:
            raise WarehouseError(f"{subject}: {error.message}") from error

    def _config(self, **options: Any) -> bigquery.QueryJobConfig:
        from google.cloud import bigquery

        return bigquery.QueryJobConfig(default_dataset=self._tables.reference, **options)

    def _faults(self, subject: str) -> AbstractContextManager[None]:
        return translated(WarehouseError, f"{subject} in BigQuery", self._place.roles)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _validate_zones(path: Any) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        numbers = pq.read_table(path, columns=["location_id"])["location_id"]
    except (pa.ArrowException, OSError):
        return  # What it is instead is said in full by whoever inspects it.
    counted = pc.value_counts(numbers.combine_chunks()).to_pylist()
    doubled = sorted(entry["values"] for entry in counted if entry["counts"] > 1)
    if doubled:
        raise WarehouseError(f"zones: the numbers {doubled} occur more than once")
