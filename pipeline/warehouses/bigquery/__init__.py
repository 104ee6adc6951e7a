"""The warehouse in a dataset of BigQuery: jobs, schemas, tables, SQL, the contract."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.warehouses.bigquery.tables import parse_url
from pipeline.warehouses.bigquery.warehouse import BigQueryWarehouse
from pipeline.warehouses.registry import Bounds, allowed_urls


def open_url(url: str, _: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> BigQueryWarehouse:
    """See `pipeline.warehouses.registry.Engine`."""
    target = parse_url(url)
    if target is None:
        raise UsageError(f"warehouse {url!r} is not the URL of a BigQuery dataset; allowed: {allowed_urls()}")
    return BigQueryWarehouse(target, datasets, zones)
