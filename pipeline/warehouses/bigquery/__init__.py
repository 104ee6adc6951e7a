"""The warehouse in a dataset of BigQuery: jobs, schemas, tables, SQL, the contract."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.datasets.base import Dataset
from pipeline.warehouses.bigquery.tables import parse_url
from pipeline.warehouses.bigquery.warehouse import BigQueryWarehouse
from pipeline.warehouses.registry import Bounds


def open_url(url: str, _: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> BigQueryWarehouse:
    """See `pipeline.warehouses.registry.Engine`."""
    return BigQueryWarehouse(parse_url(url), datasets, zones)
