"""The dataset of BigQuery and its tables (created, evolved, loaded and read), and the jobs that do this.

One listing with the tables' labels shows which tables differ from their declaration; usually none does. Columns are
added in place, and nothing is dropped.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError, WarehouseError
from pipeline.lake.google_cloud import bigquery_client
from pipeline.warehouses.base import Mart
from pipeline.warehouses.bigquery import schema
from pipeline.warehouses.bigquery.schema import LABEL, Table, label_of, literal
from pipeline.warehouses.registry import allowed_urls
from pipeline.warehouses.tables import MONTH, bind_mart
from pipeline.warehouses.views import View, declared_views, not_ours

if TYPE_CHECKING:
    from google.cloud import bigquery

#: For how long a failed job is followed by new ones: many months wait for each other's statements.
_PATIENCE_S = 1_800.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
#: The pauses between two questions whether a job has ended; each is half as long again as the one before.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 5.0
#: For how long one request is retried.
_DEADLINE_S = 300
_TRANSIENT_REASONS = {"rateLimitExceeded", "jobRateLimitExceeded", "backendError", "jobBackendError", "internalError"}
#: Statements that met a concurrent one or a full queue; their `reason` does not identify them.
_CONCURRENT = re.compile(
    "aborted due to concurrent update|Could not serialize access|Too many DML statements outstanding"
)
_log = logging.getLogger("luigi-interface.pipeline.warehouses")
#: The label of a view or a mart whose columns have no descriptions yet.
_INCOMPLETE = "incomplete"
_LABELS = {"made_by": "taxi-pipeline"}
_URL = re.compile(r"bigquery://(?P<project>[a-z][a-z0-9.:-]+)/(?P<dataset>\w{1,1024})(?:\?(?P<options>.*))?")
#: For labels see https://cloud.google.com/bigquery/docs/labels-intro#requirements
_OPTION = re.compile(
    r"location=[A-Za-z][\w-]*|expiration_days=[1-9]\d{0,4}|load=(direct|staged)"
    r"|label\.[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}"
)


@dataclass(frozen=True)
class Tables:
    """The tables of one dataset of BigQuery, and the options with which it is created."""

    project: str
    dataset: str
    location: str = "US"
    #: Tables expire after so many days; None for never.
    expiration_days: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Whether a month is loaded into a table of its own and copied from there, not directly into its partition.
    staged: bool = False

    @property
    def _client(self) -> bigquery.Client:
        return bigquery_client(self.project, self.location)

    @property
    def _reference(self) -> bigquery.DatasetReference:
        from google.cloud import bigquery

        return bigquery.DatasetReference(self.project, self.dataset)

    def run(self, action: str, subject: str, sql: str, **options: Any) -> Any:
        """Run one statement on the tables of the dataset; returns its job, see `run_job`."""
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(default_dataset=self._reference, **options)
        return run_job(self._client, action, subject, self._client.query, sql, job_config=config, job_retry=None)

    def load(self, subject: str, table: Table, month: date | None, uri: str) -> Any:
        """Replace the table, or its month's partition, by the rows of the file; returns the load job."""
        from google.cloud import bigquery

        partition = f"${month:%Y%m}" if month else ""
        if month is None or not self.staged:
            return self._load(subject, table, f"{table.name}{partition}", uri)
        staging = f"staging_{table.name}_{secrets.token_hex(4)}_{month:%Y%m}"
        try:
            resource = replace(table, name=staging).resource(self._reference, self._labels(table.label))
            # In case this process is killed before it deletes the table.
            resource.expires = datetime.now(timezone.utc) + timedelta(days=1)
            self._client.create_table(resource, retry=retry_policy())
            job = self._load(subject, table, staging, uri, "WRITE_EMPTY")
            config = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE", create_disposition="CREATE_NEVER")
            source, destination = (self._reference.table(f"{name}{partition}") for name in (staging, table.name))
            run_job(self._client, "copy", subject, self._client.copy_table, source, destination, job_config=config)
        finally:
            self._delete(staging)
        return job

    def _load(self, subject: str, table: Table, name: str, uri: str, write: str = "WRITE_TRUNCATE") -> Any:
        from google.cloud import bigquery

        # With a schema, because BigQuery would make TIMESTAMP of our DATETIME.
        config = bigquery.LoadJobConfig(source_format="PARQUET", schema=table.fields(of_files=True))
        config.write_disposition, config.create_disposition = write, "CREATE_NEVER"
        if table.partitioned:
            config.hive_partitioning = schema.month_in_path(uri.partition(f"/{MONTH}=")[0])
        begin, destination = self._client.load_table_from_uri, self._reference.table(name)
        return run_job(self._client, "load", subject, begin, uri, destination, job_config=config)

    def listed(self) -> dict[str, str]:
        """The tables that exist, with their declaration labels, by one request; none if there is no dataset."""
        from google.api_core.exceptions import NotFound

        try:
            tables = list(self._client.list_tables(self._reference, retry=retry_policy()))
        except NotFound:
            return {}
        return {table.table_id: table.labels.get(LABEL, "") for table in tables}

    def rows(self, name: str, listed: Mapping[str, str]) -> list[dict[str, Any]]:
        """The rows of a ledger table; none if it is not listed."""
        if name not in listed:
            return []
        table = next(table for table in schema.ledger_tables() if table.name == name)
        fields = table.fields()
        if listed[name] != table.label:  # Another version of the package made it: it may lack a column.
            declared = {field.name for field in fields}
            fields = [field for field in self._get(name).schema if field.name in declared]
        rows = self._client.list_rows(self._reference.table(name), selected_fields=fields, retry=retry_policy())
        return [dict(zip([field.name for field in fields], row.values(), strict=True)) for row in rows]

    def ensure(self, datasets: Mapping[str, Dataset], zones: Dataset, listed: dict[str, str]) -> None:
        """Create what is not listed and evolve what differs: the dataset, its tables and views."""
        self._ensure_dataset(listed)
        self.ensure_tables([*schema.ledger_tables(), *map(schema.table_of, (*datasets.values(), zones))], listed)
        changed = [self._ensure_view(view, listed) for view in declared_views(datasets.values(), zones)]
        if any(changed) and (names := foreign_views(datasets, zones, listed)):
            _log.warning(not_ours(names))

    def _ensure_view(self, view: View, listed: Mapping[str, str]) -> bool:
        """Create or replace the view unless it is as declared or not ours; returns whether it was changed."""
        from google.cloud import bigquery

        query = schema.translate(view.select, self.project, self.dataset)
        label = label_of(f"{view.comment} {query}")
        if listed.get(view.name) == label or (listed.get(view.name) == "" and not view.is_required):
            return False
        resource = bigquery.Table(self._reference.table(view.name))
        resource.view_query, resource.description = query, view.doc
        # The label is final once the columns have their descriptions, which a new view cannot have.
        resource.labels = self._labels(_INCOMPLETE)
        existing = self._client.create_table(resource, exists_ok=True, retry=retry_policy())
        found = existing.labels.get(LABEL)
        if found == label or (found is None and not view.is_required):
            return False  # Another worker or the user has just created it.
        if found != _INCOMPLETE or view.name in listed:
            self._client.update_table(resource, ["view_query", "description", "labels"], retry=retry_policy())
        self._describe(view.name, schema.view_table(view), label)
        return True

    def _describe(self, name: str, declared: Table, label: str) -> None:
        """Give the columns of a new table or view their descriptions, then its final label."""
        from google.cloud import bigquery

        # A resource without etag: another worker may do the same.
        described = bigquery.Table(self._reference.table(name), schema=declared.fields())
        described.labels = self._labels(label)
        self._client.update_table(described, ["schema", "labels"], retry=retry_policy())

    def ensure_tables(self, tables: Iterable[Table], listed: dict[str, str]) -> None:
        """Create or evolve those of the tables that are not listed with their label; `listed` is updated."""
        for table in tables:
            if listed.get(table.name) != table.label:
                resource = table.resource(self._reference, self._labels(table.label))
                existing = self._client.create_table(resource, exists_ok=True, retry=retry_policy())
                if existing.labels.get(LABEL) != table.label:
                    self._evolve(existing, table, table.label)
                listed[table.name] = table.label

    def prepare_mart(self, mart: Mart, dataset: str, month: date, listed: Mapping[str, str]) -> str:
        """Create the mart's table, or add the columns that it lacks; returns the checked statement that fills it."""
        select = schema.translate(bind_mart(mart.sql, dataset, month), self.project, self.dataset)
        # Of the SQL with its placeholders: the columns are the same for every month.
        label = label_of(f"{mart.doc} {mart.sql}")
        # With the label that it will have, so that whoever finds the table knows that only descriptions are missing.
        incomplete = f"{_INCOMPLETE}_{label}"
        if mart.name not in listed:
            self._create_as(mart.name, mart.doc, incomplete, select)
        if listed.get(mart.name, incomplete) == incomplete:
            found = self._get(mart.name)
            if found.labels.get(LABEL) == incomplete:  # Otherwise another worker was faster.
                self._describe(mart.name, _table_of_mart(mart, found), label)
        elif listed[mart.name] != label:
            draft = f"draft_{mart.name}_{secrets.token_hex(4)}"
            self._create_as(draft, mart.doc, label, select)
            try:
                self._evolve(self._get(mart.name), _table_of_mart(mart, self._get(draft)), label)
            finally:
                self._delete(draft)
        merge = schema.replacement(mart.name, dataset, month, select)
        self.run("check", f"mart {mart.name}", merge, dry_run=True)
        return merge

    def ensure_external(self, lake: str, datasets: Iterable[Dataset]) -> list[str]:
        """Create the external tables, or replace those that differ from their declaration; returns their names."""
        tables, listed = self._external(lake, datasets), self.listed()
        self._ensure_dataset(listed)
        for table in tables:
            if listed.get(table.table_id) != table.labels[LABEL]:
                # The table holds no rows.
                self._delete(table.table_id)
                self._client.create_table(table, retry=retry_policy())
        return [table.table_id for table in tables]

    def has_external(self, lake: str, datasets: Iterable[Dataset]) -> bool:
        """Whether all external tables exist as declared."""
        tables, listed = self._external(lake, datasets), self.listed()
        return all(listed.get(table.table_id) == table.labels[LABEL] for table in tables)

    def _external(self, lake: str, datasets: Iterable[Dataset]) -> list[bigquery.Table]:
        """The declared external tables `<name>_lake` over the files of each dataset."""
        from google.cloud import bigquery

        if not lake.startswith("gs://"):
            raise WarehouseError(f"external tables: BigQuery reads a gs:// lake only, not {lake}; see [pipeline] lake")
        tables = []
        for dataset in datasets:
            declared = schema.table_of(dataset)
            external = bigquery.ExternalConfig(bigquery.ExternalSourceFormat.PARQUET)
            if declared.partitioned:
                external.hive_partitioning = schema.month_in_path(f"{lake}/trips/{dataset.name}")
            pattern = f"trips/{dataset.name}/*" if declared.partitioned else f"{dataset.name}/*.parquet"
            external.source_uris = [f"{lake}/{pattern}"]
            external.schema = declared.fields(of_files=True)
            table = bigquery.Table(self._reference.table(f"{dataset.name}_lake"))
            table.external_data_configuration = external
            table.description = f"{dataset.doc} Read from the lake's files; nothing is loaded."
            table.labels = self._labels(label_of(repr((external.to_api_repr(), dataset.doc))))
            tables.append(table)
        return tables

    def _labels(self, label: str) -> dict[str, str]:
        return {**_LABELS, **self.labels, LABEL: label}

    def _get(self, name: str) -> bigquery.Table:
        return self._client.get_table(self._reference.table(name), retry=retry_policy())

    def _delete(self, name: str) -> None:
        self._client.delete_table(self._reference.table(name), not_found_ok=True, retry=retry_policy())

    def _ensure_dataset(self, listed: Mapping[str, str]) -> None:
        from google.cloud import bigquery

        if listed:
            return
        dataset = bigquery.Dataset(self._reference)
        dataset.location = self.location
        dataset.description = (
            "Months of New York taxi trips as TLC publishes them, loaded from a lake in Cloud Storage."
        )
        dataset.labels = {**_LABELS, **self.labels}
        if self.expiration_days is not None:
            dataset.default_table_expiration_ms = self.expiration_days * 86_400_000
        self._client.create_dataset(dataset, exists_ok=True, retry=retry_policy())

    def _evolve(self, table: bigquery.Table, declared: Table, label: str) -> None:
        schema.evolve(table, declared, label)
        self._client.update_table(table, ["schema", "description", "labels"], retry=retry_policy())

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


def _table_of_mart(mart: Mart, built: bigquery.Table) -> Table:
    """The declaration of a mart's table, with the columns of one that was made from its SELECT."""
    columns = [(field.name, field.field_type, mart.columns.get(field.name, "")) for field in built.schema]
    return Table(mart.name, mart.doc, tuple(columns), partitioned=True)


def foreign_views(datasets: Mapping[str, Dataset], zones: Dataset, listed: Mapping[str, str]) -> list[str]:
    """The names of declared views that belong to something else: it has no label of ours."""
    views = declared_views(datasets.values(), zones)
    return [view.name for view in views if listed.get(view.name) == "" and not view.is_required]


def parse_url(url: str) -> Tables:
    """The tables at bigquery://project/dataset?location=EU&expiration_days=30&label.team=data."""
    match = _URL.fullmatch(url)
    pairs = parse_qsl(match["options"] or "", keep_blank_values=True) if match else []
    options = dict(pairs)
    if match is None or len(options) < len(pairs) or not all(_OPTION.fullmatch("=".join(pair)) for pair in pairs):
        raise UsageError(f"warehouse {url!r} is not the URL of a BigQuery dataset; allowed: {allowed_urls()}")
    days = int(options["expiration_days"]) if "expiration_days" in options else None
    labels = {name.removeprefix("label."): text for name, text in pairs if name.startswith("label.")}
    location, staged = options.get("location", "US"), options.get("load") == "staged"
    return Tables(match["project"], match["dataset"], location, days, labels, staged)


def retry_policy() -> Any:
    """The library's default retries, until our deadline."""
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_DEADLINE_S)


def run_job(
    client: bigquery.Client, action: str, subject: str, begin: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """Start a job with the client's method `begin` and these arguments, wait for its end, and return it.

    Its id is readable and our own, such as load_green_2024-01_3f9c2b7a: if the answer to a request is lost, the next
    request finds the job (409). A job that failed because of a rate limit or a concurrent statement is started again.

    Raises:
        WarehouseError: the job failed, and a new one would fail, too.
    """
    from google.api_core.exceptions import Conflict

    retry, began = retry_policy(), time.monotonic()
    first_id = "_".join([action, *subject.split(), secrets.token_hex(4)])
    for attempt in itertools.count(1):
        job_id = first_id if attempt == 1 else f"{first_id}_{attempt}"
        try:
            job = begin(*arguments, **options, job_id=job_id, retry=retry)
        except Conflict:
            job = client.get_job(job_id, retry=retry)
        # Not `job.result()`: it fetches rows, too, and mistakes a failed job for a failed request.
        pause_s = _FIRST_LOOK_S
        while not job.done(retry=retry):
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_LOOK_S)
        if not job.error_result:
            return job
        errors = [error for error in (job.errors or []) if isinstance(error, dict)]
        if time.monotonic() - began > _PATIENCE_S or not any(map(_is_transient, errors)):
            error = job.exception()
            reasons = "; ".join(dict.fromkeys(map(_reason, errors))) or str(error)
            page = f"https://console.cloud.google.com/bigquery?project={job.project}&page=queryresults"
            page += f"&j=bq:{job.location or client.location}:{job.job_id}"
            raise WarehouseError(f"{subject}: {reasons}; job {job.job_id}, {page}") from error
        # A random pause, so that many workers do not try again at the same time.
        time.sleep(min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError


def _is_transient(error: dict[str, Any]) -> bool:
    return error.get("reason") in _TRANSIENT_REASONS or bool(_CONCURRENT.search(str(error.get("message"))))


def _reason(error: dict[str, Any]) -> str:
    location = f" (at {error['location']})" if error.get("location") else ""
    return f"{error.get('reason')}: {error.get('message')}{location}"
