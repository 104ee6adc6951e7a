"""The warehouse in a dataset of BigQuery: jobs, schemas, tables, SQL, the contract."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.warehouses.bigquery.place import parse_place
from pipeline.warehouses.bigquery.warehouse import BigQueryWarehouse
from pipeline.warehouses.registry import Bounds, allowed_urls


def open_url(url: str, _: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> BigQueryWarehouse:
    """See `pipeline.warehouses.registry.Engine`."""
    place = parse_place(url)
    if place is None:
        raise UsageError(f"warehouse {url!r} does not name a dataset of BigQuery; allowed: {allowed_urls()}")
    return BigQueryWarehouse(place, datasets, zones)
