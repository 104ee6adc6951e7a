"""The dataset of BigQuery and what is in it, made and evolved to fit the declarations.

One listing shows by the tables' labels whether anything is to be done; mostly nothing is. Columns are added in place,
and nothing is dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import Mart
from pipeline.warehouses.bigquery.jobs import new_job_id, patient, run_job
from pipeline.warehouses.bigquery.schema import DECLARATION_LABEL, Table, evolved, ledger_tables, table_of
from pipeline.warehouses.bigquery.sql import names_of, translate
from pipeline.warehouses.tables import MONTH, TRIPS_DOC, trips_view

if TYPE_CHECKING:
    from google.cloud import bigquery

_DATASET_DOC = "Months of New York taxi trips as TLC publishes them, loaded from a lake in Cloud Storage."
_LABELS = {"made_by": "taxi-pipeline"}
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Tables:
    """The tables of one dataset of BigQuery, through this process's client."""

    client: bigquery.Client
    dataset: str
    expiration_days: int | None
    labels: Mapping[str, str]

    @property
    def reference(self) -> bigquery.DatasetReference:
        """The dataset."""
        from google.cloud import bigquery

        return bigquery.DatasetReference(self.client.project, self.dataset)

    def rows(self, name: str, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """The rows of a ledger table; none when the listed `labels` lack it."""
        from google.api_core.exceptions import NotFound

        table = next(table for table in ledger_tables() if table.name == name)
        if name not in labels:
            return
        fields = table.fields()
        try:
            if labels[name] != table.label:  # Made by another version of the package: it may lack a column.
                declared = {field.name for field in fields}
                fields = [field for field in self._get(name).schema if field.name in declared]
            columns = [field.name for field in fields]
            yield from (
                dict(zip(columns, row.values(), strict=True))
                for row in self.client.list_rows(self.reference.table(name), selected_fields=fields, retry=patient())
            )
        except NotFound:
            return

    def ensure(self, datasets: Iterable[Dataset], zones: Dataset) -> None:
        """Make what is missing: the dataset, its tables and their new columns, the view `trips`."""
        there = self.labels_there()
        if not there:
            self._make_dataset()
        datasets = list(datasets)
        for table in (*ledger_tables(), *map(table_of, (*datasets, zones))):
            if there.get(table.name) != table.label:
                self._make_or_evolve(table, table.name in there)
        self._ensure_view(there, {dataset.name: dataset for dataset in datasets})

    def evolve_ledger(self, labels: Mapping[str, str]) -> None:
        """Add what an older version of the package did not know to those of the listed tables that are the ledger."""
        for table in ledger_tables():
            if labels.get(table.name, table.label) != table.label:
                self._make_or_evolve(table, there=True)

    def make_staging(self, table: Table, name: str) -> None:
        """Make an empty table that is laid out like another one; it expires after a day if nobody deletes it."""
        staging = replace(table, name=name).resource(self.reference, {**_LABELS, **self.labels})
        staging.expires = datetime.now(timezone.utc) + timedelta(days=1)
        self.client.create_table(staging, retry=patient())

    def ensure_mart(self, mart: Mart, select: str) -> list[str]:
        """Make the mart's table by what its SELECT gives, or add the columns it lacks; returns the SELECT's names.

        Raises:
            WarehouseError: the SELECT cannot be, or a column has another type than before.
        """
        names = names_of(select)
        # The table's shape is the SELECT's, whatever month it is bound to.
        label = hashlib.sha256(f"{mart.doc} {mart.sql}".encode()).hexdigest()[:16]
        there = self.labels_there()
        if mart.name not in there:
            self._create_as(mart.name, mart.doc, label, select)
        elif there[mart.name] != label:
            draft = new_job_id("draft", mart.name)
            self._create_as(draft, mart.doc, label, select)
            try:
                drafted = self._get(draft)
                columns = tuple((of.name, of.field_type, of.description or "") for of in drafted.schema)
                table = evolved(self._get(mart.name), Table(mart.name, mart.doc, columns, True))
                table.labels = {**table.labels, DECLARATION_LABEL: label}
                self.client.update_table(table, ["schema", "description", "labels"], retry=patient())
            finally:
                self.client.delete_table(self.reference.table(draft), not_found_ok=True, retry=patient())
        return names

    def ensure_external(self, lake: str, datasets: Iterable[Dataset], zones: Dataset) -> list[str]:
        """An external table `<name>_lake` over the files of each dataset; made anew when it is not as declared."""
        from google.cloud import bigquery

        wanted = self._external(lake, [*datasets, zones])
        there = self.labels_there()
        if not there:
            self._make_dataset()
        for name, (configuration, label, doc) in wanted.items():
            if there.get(name) == label:
                continue
            table = bigquery.Table(self.reference.table(name))
            table.external_data_configuration = configuration
            table.description, table.labels = doc, {**_LABELS, **self.labels, DECLARATION_LABEL: label}
            # It holds no rows: making it anew loses nothing.
            self.client.delete_table(table.reference, not_found_ok=True, retry=patient())
            self.client.create_table(table, retry=patient())
        return list(wanted)

    def has_external(self, lake: str, datasets: Iterable[Dataset], zones: Dataset) -> bool:
        """Whether all of them are there, as declared."""
        wanted = self._external(lake, [*datasets, zones])
        there = self.labels_there()
        return all(there.get(name) == label for name, (_, label, _) in wanted.items())

    def _external(self, lake: str, datasets: Iterable[Dataset]) -> dict[str, tuple[Any, str, str]]:
        from google.cloud import bigquery

        if not lake.startswith("gs://"):
            raise WarehouseError(f"external tables: BigQuery reads a gs:// lake only, not {lake}; see [pipeline] lake")
        found = {}
        for dataset in datasets:
            configuration = bigquery.ExternalConfig(bigquery.ExternalSourceFormat.PARQUET)
            table = table_of(dataset)
            if dataset.first_month is None:
                configuration.source_uris = [f"{lake}/{dataset.name}/*.parquet"]
                configuration.schema = table.fields()
            else:
                options = bigquery.HivePartitioningOptions()
                options.mode = "CUSTOM"
                options.source_uri_prefix = f"{lake}/trips/{dataset.name}/{{{MONTH}:DATE}}"
                configuration.hive_partitioning = options
                configuration.source_uris = [f"{lake}/trips/{dataset.name}/*"]
                # The key of the path is no column of the files.
                configuration.schema = [of for of in table.fields() if of.name != MONTH]
            facts = repr((configuration.to_api_repr(), table.doc))
            label = hashlib.sha256(facts.encode()).hexdigest()[:16]
            found[f"{dataset.name}_lake"] = (
                configuration,
                label,
                f"{table.doc} Read from the lake's files; nothing is loaded.",
            )
        return found

    def _get(self, name: str) -> bigquery.Table:
        return self.client.get_table(self.reference.table(name), retry=patient())

    def labels_there(self) -> dict[str, str]:
        """The tables that exist, each with the label of its declaration; none without a dataset. One request."""
        from google.api_core.exceptions import NotFound

        try:
            listed = list(self.client.list_tables(self.reference, retry=patient()))
        except NotFound:
            return {}
        return {item.table_id: item.labels.get(DECLARATION_LABEL, "") for item in listed}

    def _make_dataset(self) -> None:
        from google.cloud import bigquery

        dataset = bigquery.Dataset(self.reference)
        dataset.location = self.client.location
        dataset.description = _DATASET_DOC
        dataset.labels = {**_LABELS, **self.labels}
        if self.expiration_days is not None:
            dataset.default_table_expiration_ms = self.expiration_days * _DAY_MS
        self.client.create_dataset(dataset, exists_ok=True, retry=patient())

    def _make_or_evolve(self, table: Table, there: bool) -> None:
        from google.api_core.exceptions import Conflict

        if not there:
            try:
                self.client.create_table(table.resource(self.reference, {**_LABELS, **self.labels}), retry=patient())
                return
            except Conflict:  # Another worker was quicker.
                pass
        changed = evolved(self._get(table.name), table)
        self.client.update_table(changed, ["schema", "description", "labels"], retry=patient())

    def _ensure_view(self, there: Mapping[str, str], datasets: Mapping[str, Dataset]) -> None:
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        select = trips_view(datasets)
        if select is None:
            return
        view = bigquery.Table(self.reference.table("trips"))
        view.view_query = translate(select, self.client.project, self.dataset)
        label = hashlib.sha256(view.view_query.encode()).hexdigest()[:16]
        if there.get("trips") == label:
            return
        view.description, view.labels = TRIPS_DOC, {**_LABELS, **self.labels, DECLARATION_LABEL: label}
        if "trips" not in there:
            try:
                self.client.create_table(view, retry=patient())
                return
            except Conflict:
                pass
        self.client.update_table(view, ["view_query", "description", "labels"], retry=patient())

    def _create_as(self, name: str, doc: str, label: str, select: str) -> None:
        """An empty table with the columns of the SELECT, after the dataset and the month."""
        from google.cloud import bigquery

        labels = {**_LABELS, **self.labels, DECLARATION_LABEL: label}
        listed = ", ".join(f'("{key}", "{text}")' for key, text in labels.items())
        sql = (
            f"CREATE TABLE IF NOT EXISTS `{name}`\n"
            f"PARTITION BY DATE_TRUNC({MONTH}, MONTH) CLUSTER BY dataset\n"
            f"OPTIONS (description = {doc!r}, labels = [{listed}]) AS\n"
            f"SELECT '' AS dataset, DATE '2000-01-01' AS {MONTH}, built.* FROM (\n{select}\n) AS built WHERE FALSE"
        )
        config = bigquery.QueryJobConfig(default_dataset=self.reference)
        run_job(
            self.client,
            f"mart {name}",
            new_job_id("create", name),
            lambda job_id, retry: self.client.query(sql, job_id=job_id, job_config=config, retry=retry, job_retry=None),
        )
