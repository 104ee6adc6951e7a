"""The warehouse as one dataset of BigQuery, loaded from a lake in Cloud Storage.

A month is loaded by one load job into its partition (`green$202401`, WRITE_TRUNCATE): all of it or nothing, free of
charge, and many months at once. Its record cannot share a transaction with that, so it is removed before and written
after: a month that is reported as loaded is there. Marts and their records change in one transaction.
Source: https://cloud.google.com/bigquery/docs/managing-partitioned-table-data
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.google_cloud import bigquery_client, translated
from pipeline.lake.planning import Believed
from pipeline.version import __version__
from pipeline.warehouses.base import LoadRecord, Mart, MartRecord, StoredFile
from pipeline.warehouses.bigquery.jobs import new_job_id, run_job
from pipeline.warehouses.bigquery.place import Place
from pipeline.warehouses.bigquery.schema import Table, load_config, table_of
from pipeline.warehouses.bigquery.sql import insertion, match, refuse_unless_reading, translate
from pipeline.warehouses.bigquery.tables import Tables
from pipeline.warehouses.ledger import Ledger
from pipeline.warehouses.load_file import Arrival, inspect, load_name, refuse_marts_of_others
from pipeline.warehouses.tables import bind_mart

if TYPE_CHECKING:
    from google.cloud import bigquery


class BigQueryWarehouse:
    """See `pipeline.warehouses.base.Warehouse`."""

    def __init__(self, place: Place, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        self._place = place
        self._datasets = datasets
        self._zones = zones
        self._believed: Believed[Ledger] = Believed()

    @property
    def _client(self) -> bigquery.Client:
        return bigquery_client(self._place.project, self._place.location)

    @property
    def _tables(self) -> Tables:
        return Tables(self._client, self._place.dataset, self._place.expiration_days, self._place.labels)

    def replace_month(self, dataset: Dataset, month: date, trips: StoredFile) -> int:
        """One load job in place of the partition; between record and record nobody is told that the month is there."""
        return self._replace(dataset, month, trips)

    def replace_zones(self, zones: StoredFile) -> int:
        """One load job in place of the table; when the zones are others than before, every mart goes."""
        with zones.open_local() as path:
            _refuse_doubled_zones(path)
        return self._replace(self._zones, None, zones)

    def _replace(self, dataset: Dataset, month: date | None, stored: StoredFile) -> int:
        subject = load_name(dataset, month)
        if not stored.uri.startswith("gs://"):
            raise WarehouseError(f"{subject}: BigQuery loads from a gs:// lake only, not from {stored.uri}")
        with stored.open() as file:
            arrival = inspect(file, dataset, month, where=stored.uri)
        with self._faults(subject):
            self._tables.ensure(self._datasets.values(), self._zones)
            ledger = self._read()
            former = ledger.loads.get((dataset.name, month))
            # The same zones anew leave the marts as they are.
            keeps_marts = month is None and former is not None and former.fingerprint == stored.fingerprint
            self._forget(subject, ledger, dataset.name, month, marts=not keeps_marts)
            job = self._load(subject, table_of(dataset), month, stored.uri)
            if job.output_rows != arrival.rows:
                raise WarehouseError(
                    f"{subject}: {job.output_rows} rows arrived of the {arrival.rows} that {stored.uri} has; "
                    f"job {job.job_id}"
                )
            self._record(subject, dataset.name, month, arrival, stored.fingerprint)
        return int(arrival.rows)

    def _load(self, subject: str, table: Table, month: date | None, uri: str) -> Any:
        destination = self._tables.reference.table(f"{table.name}${month:%Y%m}" if month else table.name)
        return run_job(
            self._client,
            subject,
            new_job_id("load", *subject.split()),
            lambda job_id, retry: self._client.load_table_from_uri(
                uri, destination, job_id=job_id, job_config=load_config(table, month, uri), retry=retry
            ),
        )

    def _record(self, subject: str, name: str, month: date | None, arrival: Arrival, fingerprint: str) -> None:
        record = LoadRecord(
            name, month, arrival.rows, arrival.source_sha256, arrival.declaration, fingerprint, _now(), __version__
        )
        where = match(dataset=name, month=month)
        self._transact(subject, "record", [f"DELETE FROM loads WHERE {where}", insertion("loads", record)])

    def forget_month(self, dataset: Dataset, month: date) -> None:
        """Rows, marts and records go in one transaction."""
        subject = load_name(dataset, month)
        with self._faults(subject):
            ledger = self._read()
            if (dataset.name, month) in ledger.loads:
                self._forget(subject, ledger, dataset.name, month, marts=True, rows=True)

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        """Rows and records go in one transaction."""
        subject = load_name(dataset, month)
        with self._faults(subject):
            self._forget(subject, Ledger(marts=self._read().marts), dataset.name, month, marts=True)

    def _forget(
        self, subject: str, ledger: Ledger, name: str, month: date | None, *, marts: bool, rows: bool = False
    ) -> None:
        """Take out what the ledger has of the month (of everything, for the zones' marts): records, marts, rows."""
        statements = []
        if marts:
            stale = [key for key in ledger.marts if month is None or key[1:] == (name, month)]
            where = "TRUE" if month is None else match(dataset=name, month=month)
            there = self._tables.names() if stale else set()
            statements += [f"DELETE FROM {mart} WHERE {where}" for mart in sorted({key[0] for key in stale} & there)]
            statements += [f"DELETE FROM mart_loads WHERE {where}"] if stale else []
        if (name, month) in ledger.loads:
            statements.append(f"DELETE FROM loads WHERE {match(dataset=name, month=month)}")
        if rows:
            statements.append(f"DELETE FROM {name} WHERE {match(month=month)}")
        if statements:
            self._transact(subject, "forget", statements)

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        """All marts of the month in one transaction with their records."""
        subject = load_name(dataset, month)
        refuse_marts_of_others(subject, dataset, marts)
        with self._faults(subject):
            load = self._read().loads.get((dataset.name, month))
            if load is None:
                raise WarehouseError(f"{subject}: is not loaded, so its marts cannot be built; run Load first")
            statements = []
            for mart in marts:
                select = translate(bind_mart(mart.sql, dataset.name, month), self._place.project, self._place.dataset)
                names = self._tables.ensure_mart(mart, select)
                where = match(dataset=dataset.name, month=month)
                key = f"{json.dumps(dataset.name)} AS dataset, DATE '{month}' AS month"
                record = MartRecord(mart.name, dataset.name, month, 0, load.fingerprint, _now(), __version__)
                statements += [
                    f"DELETE FROM {mart.name} WHERE {where}",
                    f"INSERT INTO {mart.name} (dataset, month, {', '.join(names)})\n"
                    f"SELECT {key}, {', '.join(names)} FROM (\n{select}\n)",
                    f"DELETE FROM mart_loads WHERE mart = {json.dumps(mart.name)} AND {where}",
                    insertion("mart_loads", record, rows=f"(SELECT COUNT(*) FROM {mart.name} WHERE {where})"),
                ]
            self._transact(subject, "mart", statements)
            built = self._read().marts
        return {mart.name: built[mart.name, dataset.name, month].rows for mart in marts}

    def loaded_months(self, dataset: Dataset) -> dict[date, LoadRecord]:
        """The months that `loads` names."""
        return self._ledger().loaded_months(dataset.name)

    def loaded_zones(self) -> LoadRecord | None:
        """The zones' row of `loads`."""
        return self._ledger().loads.get((self._zones.name, None))

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
        from google.cloud import bigquery

        refuse_unless_reading(sql)
        config = bigquery.QueryJobConfig(default_dataset=self._tables.reference)
        with self._faults("query"):
            job = self._run("query", new_job_id("query"), sql, config)
            return job.to_arrow(create_bqstorage_client=False)

    def _ledger(self) -> Ledger:
        """What is there; a plan reads it once, however many months it asks about."""
        with self._faults("loads"):
            return self._believed.get(self._read)

    def _read(self) -> Ledger:
        """Both tables, one request each (and a further one for each further page); free of charge."""
        loads = [LoadRecord(**row) for row in self._tables.rows("loads")]
        marts = [MartRecord(**row) for row in self._tables.rows("mart_loads")] if loads else []
        return Ledger(
            {(record.dataset, record.month): record for record in loads},
            {(record.mart, record.dataset, record.month): record for record in marts},
        )

    def _transact(self, subject: str, what: str, statements: Iterable[str]) -> None:
        from google.cloud import bigquery

        self._believed.forget()
        config = bigquery.QueryJobConfig(default_dataset=self._tables.reference)
        script = ";\n".join(["BEGIN TRANSACTION", *statements, "COMMIT TRANSACTION"]) + ";"
        self._run(subject, new_job_id(what, *subject.split()), script, config)

    def _run(self, subject: str, job_id: str, sql: str, config: bigquery.QueryJobConfig) -> Any:
        return run_job(
            self._client,
            subject,
            job_id,
            lambda name, retry: self._client.query(sql, job_id=name, job_config=config, retry=retry, job_retry=None),
        )

    def _faults(self, subject: str) -> AbstractContextManager[None]:
        return translated(WarehouseError, f"{subject} in BigQuery", self._place.roles)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _refuse_doubled_zones(path: Any) -> None:
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
