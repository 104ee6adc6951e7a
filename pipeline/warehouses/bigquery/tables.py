"""The dataset of BigQuery and its tables: created, evolved, loaded and read.

One listing shows by the tables' labels what differs from its declaration; mostly nothing does. Columns are added in
place, and nothing is dropped.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.google_cloud import bigquery_client
from pipeline.warehouses.base import Mart
from pipeline.warehouses.bigquery.jobs import retry_policy, run_job
from pipeline.warehouses.bigquery.schema import (
    DECLARATION_LABEL,
    Table,
    evolve,
    label_of,
    ledger_tables,
    month_in_path,
    table_of,
)
from pipeline.warehouses.bigquery.sql import literal, replacement, translate
from pipeline.warehouses.tables import MONTH, TRIPS_DOC, bind_mart, trips_view

if TYPE_CHECKING:
    from google.cloud import bigquery

_DATASET_DOC = "Months of New York taxi trips as TLC publishes them, loaded from a lake in Cloud Storage."
_LABELS = {"made_by": "taxi-pipeline"}
_DAY_MS = 86_400_000
_URL = re.compile(r"bigquery://(?P<project>[a-z][a-z0-9.:-]+)/(?P<dataset>\w{1,1024})(?:\?(?P<options>.*))?")
#: For labels see https://cloud.google.com/bigquery/docs/labels-intro#requirements
_OPTION = re.compile(
    r"location=[A-Za-z][\w-]*|expiration_days=[1-9]\d{0,4}|load=(direct|staged)"
    r"|label\.[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}"
)


@dataclass(frozen=True)
class Target:
    """A dataset of BigQuery, and the options with which it is created."""

    project: str
    dataset: str
    location: str = "US"
    #: Tables expire after so many days; None for never.
    expiration_days: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Whether a month is loaded into a table of its own and copied from there, not directly into its partition.
    staged: bool = False

    @property
    def roles(self) -> str:
        """The roles that an account needs."""
        return (
            f"roles/bigquery.jobUser on the project {self.project} and roles/bigquery.dataEditor on the dataset "
            f"{self.dataset} (roles/bigquery.user on the project, to make the dataset) to the account"
        )


def parse_url(url: str) -> Target | None:
    """The target of bigquery://project/dataset?location=EU&expiration_days=30&label.team=data; None if invalid."""
    match = _URL.fullmatch(url)
    pairs = parse_qsl(match["options"] or "", keep_blank_values=True) if match else []
    options = dict(pairs)
    if match is None or len(options) < len(pairs) or not all(_OPTION.fullmatch("=".join(pair)) for pair in pairs):
        return None
    days = int(options["expiration_days"]) if "expiration_days" in options else None
    labels = {name.removeprefix("label."): text for name, text in pairs if name.startswith("label.")}
    location, staged = options.get("location", "US"), options.get("load") == "staged"
    return Target(match["project"], match["dataset"], location, days, labels, staged)


@dataclass(frozen=True)
class Tables:
    """The tables of one dataset of BigQuery."""

    target: Target

    @property
    def client(self) -> bigquery.Client:
        """This process's client."""
        return bigquery_client(self.target.project, self.target.location)

    @property
    def reference(self) -> bigquery.DatasetReference:
        """The dataset."""
        from google.cloud import bigquery

        return bigquery.DatasetReference(self.target.project, self.target.dataset)

    def run(self, action: str, subject: str, sql: str) -> Any:
        """Run one statement on the tables of the dataset; returns its job, see `run_job`."""
        begin = partial(self.client.query, sql, job_config=self._query_config(), job_retry=None)
        return run_job(self.client, action, subject, begin)

    def load(self, subject: str, table: Table, month: date | None, uri: str) -> Any:
        """Replace the table, or its month's partition, by the rows of the file; returns the load job."""
        from google.cloud import bigquery

        partition = f"${month:%Y%m}" if month else ""
        if month is None or not self.target.staged:
            return self._load(subject, table, f"{table.name}{partition}", uri)
        staging = f"staging_{table.name}_{secrets.token_hex(4)}_{month:%Y%m}"
        try:
            resource = replace(table, name=staging).resource(self.reference, self._labels(table.label))
            # In case this process is killed before it deletes the table.
            resource.expires = datetime.now(timezone.utc) + timedelta(days=1)
            self.client.create_table(resource, retry=retry_policy())
            job = self._load(subject, table, staging, uri, "WRITE_EMPTY")
            config = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE", create_disposition="CREATE_NEVER")
            source, destination = (self.reference.table(f"{name}{partition}") for name in (staging, table.name))
            begin = partial(self.client.copy_table, source, destination, job_config=config)
            run_job(self.client, "copy", subject, begin)
        finally:
            self._delete(staging)
        return job

    def _load(self, subject: str, table: Table, name: str, uri: str, write: str = "WRITE_TRUNCATE") -> Any:
        from google.cloud import bigquery

        # With a schema, because BigQuery would make TIMESTAMP of our DATETIME.
        config = bigquery.LoadJobConfig(source_format="PARQUET", schema=table.fields(of_files=True))
        config.write_disposition, config.create_disposition = write, "CREATE_NEVER"
        if table.partitioned:
            config.hive_partitioning = month_in_path(uri.partition(f"/{MONTH}=")[0])
        begin = partial(self.client.load_table_from_uri, uri, self.reference.table(name), job_config=config)
        return run_job(self.client, "load", subject, begin)

    def listed(self) -> dict[str, str]:
        """The tables that exist, with their declaration labels, by one request; none if there is no dataset."""
        from google.api_core.exceptions import NotFound

        try:
            tables = list(self.client.list_tables(self.reference, retry=retry_policy()))
        except NotFound:
            return {}
        return {table.table_id: table.labels.get(DECLARATION_LABEL, "") for table in tables}

    def rows(self, name: str, listed: Mapping[str, str]) -> list[dict[str, Any]]:
        """The rows of a ledger table; none if it is not listed."""
        if name not in listed:
            return []
        table = next(table for table in ledger_tables() if table.name == name)
        fields = table.fields()
        if listed[name] != table.label:  # Another version of the package made it: it may lack a column.
            declared = {field.name for field in fields}
            fields = [field for field in self._get(name).schema if field.name in declared]
        rows = self.client.list_rows(self.reference.table(name), selected_fields=fields, retry=retry_policy())
        return [dict(zip([field.name for field in fields], row.values(), strict=True)) for row in rows]

    def ensure(self, datasets: Mapping[str, Dataset], zones: Dataset, listed: dict[str, str]) -> None:
        """Create what is not listed and evolve what differs: the dataset, its tables, the view `trips`."""
        self._ensure_dataset(listed)
        for table in (*ledger_tables(), *map(table_of, (*datasets.values(), zones))):
            self._ensure(table, listed)
        self._ensure_view(datasets, listed)

    def evolve_ledger(self, listed: dict[str, str]) -> None:
        """Add the columns that an older version of the package did not have."""
        for table in ledger_tables():
            if table.name in listed:
                self._ensure(table, listed)

    def prepare_mart(self, mart: Mart, dataset: str, month: date, listed: Mapping[str, str]) -> str:
        """Create the mart's table or add the columns that it lacks; returns the checked statement that fills a month.

        Raises:
            WarehouseError: a column has another type than before.
        """
        select = self._translate(bind_mart(mart.sql, dataset, month))
        # Of the SQL with its placeholders: the columns are the same for every month.
        label = label_of(f"{mart.doc} {mart.sql}")
        if mart.name not in listed:
            self._create_as(mart.name, mart.doc, label, select)
        elif listed[mart.name] != label:
            draft = f"draft_{mart.name}_{secrets.token_hex(4)}"
            self._create_as(draft, mart.doc, label, select)
            try:
                columns = [(field.name, field.field_type, field.description or "") for field in self._get(draft).schema]
                declared = Table(mart.name, mart.doc, tuple(columns), partitioned=True)
                self._evolve(self._get(mart.name), declared, label)
            finally:
                self._delete(draft)
        merge = replacement(mart.name, dataset, month, select)
        # A dry run checks the statement, free of charge.
        config = self._query_config(dry_run=True)
        self.client.query(merge, job_config=config, retry=retry_policy(), job_retry=None)
        return merge

    def ensure_external(self, lake: str, datasets: Iterable[Dataset]) -> list[str]:
        """Create the external tables, or replace those that differ from their declaration; returns their names."""
        tables = self._external(lake, datasets)
        listed = self.listed()
        self._ensure_dataset(listed)
        for table in tables:
            if listed.get(table.table_id) != table.labels[DECLARATION_LABEL]:
                # The table holds no rows.
                self._delete(table.table_id)
                self.client.create_table(table, retry=retry_policy())
        return [table.table_id for table in tables]

    def has_external(self, lake: str, datasets: Iterable[Dataset]) -> bool:
        """Whether all external tables exist as declared."""
        tables, listed = self._external(lake, datasets), self.listed()
        return all(listed.get(table.table_id) == table.labels[DECLARATION_LABEL] for table in tables)

    def _external(self, lake: str, datasets: Iterable[Dataset]) -> list[bigquery.Table]:
        """The declared external tables `<name>_lake` over the files of each dataset."""
        from google.cloud import bigquery

        if not lake.startswith("gs://"):
            raise WarehouseError(f"external tables: BigQuery reads a gs:// lake only, not {lake}; see [pipeline] lake")
        tables = []
        for dataset in datasets:
            declared, external = table_of(dataset), bigquery.ExternalConfig(bigquery.ExternalSourceFormat.PARQUET)
            if declared.partitioned:
                external.hive_partitioning = month_in_path(f"{lake}/trips/{dataset.name}")
            pattern = f"trips/{dataset.name}/*" if declared.partitioned else f"{dataset.name}/*.parquet"
            external.source_uris = [f"{lake}/{pattern}"]
            external.schema = declared.fields(of_files=True)
            table = bigquery.Table(self.reference.table(f"{dataset.name}_lake"))
            table.external_data_configuration = external
            table.description = f"{dataset.doc} Read from the lake's files; nothing is loaded."
            table.labels = self._labels(label_of(repr((external.to_api_repr(), dataset.doc))))
            tables.append(table)
        return tables

    def _query_config(self, **options: Any) -> bigquery.QueryJobConfig:
        from google.cloud import bigquery

        return bigquery.QueryJobConfig(default_dataset=self.reference, **options)

    def _labels(self, label: str) -> dict[str, str]:
        return {**_LABELS, **self.target.labels, DECLARATION_LABEL: label}

    def _get(self, name: str) -> bigquery.Table:
        return self.client.get_table(self.reference.table(name), retry=retry_policy())

    def _delete(self, name: str) -> None:
        self.client.delete_table(self.reference.table(name), not_found_ok=True, retry=retry_policy())

    def _ensure_dataset(self, listed: Mapping[str, str]) -> None:
        from google.cloud import bigquery

        if listed:
            return
        dataset = bigquery.Dataset(self.reference)
        dataset.location = self.target.location
        dataset.description = _DATASET_DOC
        dataset.labels = {**_LABELS, **self.target.labels}
        if self.target.expiration_days is not None:
            dataset.default_table_expiration_ms = self.target.expiration_days * _DAY_MS
        self.client.create_dataset(dataset, exists_ok=True, retry=retry_policy())

    def _ensure(self, table: Table, listed: dict[str, str]) -> None:
        if listed.get(table.name) != table.label:
            existing = self._create(table.resource(self.reference, self._labels(table.label)))
            if existing.labels.get(DECLARATION_LABEL) != table.label:
                self._evolve(existing, table, table.label)
            listed[table.name] = table.label

    def _ensure_view(self, datasets: Mapping[str, Dataset], listed: Mapping[str, str]) -> None:
        from google.cloud import bigquery

        select = trips_view(datasets)
        if select is None:
            return
        view = bigquery.Table(self.reference.table("trips"))
        view.view_query = self._translate(select)
        label = label_of(view.view_query)
        view.description, view.labels = TRIPS_DOC, self._labels(label)
        if listed.get("trips") != label and self._create(view).labels.get(DECLARATION_LABEL) != label:
            self.client.update_table(view, ["view_query", "description", "labels"], retry=retry_policy())

    def _create(self, table: bigquery.Table) -> bigquery.Table:
        """Create the table; returns the existing one if there is one of this name."""
        return self.client.create_table(table, exists_ok=True, retry=retry_policy())

    def _evolve(self, table: bigquery.Table, declared: Table, label: str) -> None:
        evolve(table, declared, label)
        self.client.update_table(table, ["schema", "description", "labels"], retry=retry_policy())

    def _translate(self, sql: str) -> str:
        return translate(sql, self.target.project, self.target.dataset)

    def _create_as(self, name: str, doc: str, label: str, select: str) -> None:
        """Create an empty table with the columns of the SELECT after those of the dataset and the month."""
        labels = ", ".join(f"({literal(key)}, {literal(text)})" for key, text in self._labels(label).items())
        sql = (
            f"CREATE TABLE IF NOT EXISTS `{name}`\n"
            f"PARTITION BY DATE_TRUNC({MONTH}, MONTH) CLUSTER BY dataset\n"
            f"OPTIONS (description = {literal(doc)}, labels = [{labels}]) AS\n"
            f"SELECT '' AS dataset, DATE '2000-01-01' AS {MONTH}, built.* FROM (\n{select}\n) AS built WHERE FALSE"
        )
        self.run("create", f"mart {name}", sql)
