"""Warehouses: where months of trips arrive as tables, one class per engine behind one contract (`base.py`).

Importing this imports no engine's driver; opening a warehouse opens no file and no connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.warehouses.base import LoadRecord, Mart, MartRecord, StoredFile, Warehouse

__all__ = ["LoadRecord", "Mart", "MartRecord", "StoredFile", "Warehouse", "open_warehouse"]

_ALLOWED = (
    "duckdb:///folder/name.duckdb (relative to the working folder), duckdb:////folder/name.duckdb (absolute), "
    "postgresql://user@host/database (as libpq takes it), "
    "bigquery://project/dataset?location=US (with expiration_days and label.<name>, too)"
)


def open_warehouse(
    url: str,
    *,
    memory_limit: str = "1GB",
    threads: int = 2,
    lock_timeout_s: float = 600,
    datasets: Mapping[str, Dataset] = DATASETS,
    zones: Dataset = ZONES,
) -> Warehouse:
    """The warehouse that a URL in SQLAlchemy's way names.

    The bounds are those of one load: memory (as DuckDB writes it: 800MB, 2GB; beyond it spills to disk), threads, and
    how long to wait while another process has the warehouse. Tables are made for all of `datasets`.

    Raises:
        UsageError: no engine is called so, or the URL or a bound cannot be.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "bigquery":
        from pipeline.warehouses.bigquery import BigQueryWarehouse
        from pipeline.warehouses.bigquery_place import parse_place

        place = parse_place(url)
        if place is None:
            raise UsageError(f"warehouse {url!r} does not name a dataset of BigQuery; allowed: {_ALLOWED}")
        return BigQueryWarehouse(place, datasets, zones)
    if separator and scheme in ("postgresql", "postgres"):
        from pipeline.warehouses.postgres import PostgresWarehouse
        from pipeline.warehouses.postgres_server import Server, refuse_unless_url

        refuse_unless_url(url)
        return PostgresWarehouse(Server(url), datasets, zones, lock_timeout_s=lock_timeout_s)
    if not separator or scheme != "duckdb":
        # It may be the address of any database, with a password in it.
        shown = f"{scheme}://…" if separator and re.search("[@?]", rest) else repr(url)
        if not separator and re.search("[@?]|password", url, re.IGNORECASE):
            shown = "…"
        raise UsageError(f"warehouse {shown} is none of the kinds there are; allowed: {_ALLOWED}")
    if not re.fullmatch(r"/(?!:memory:$|md:|\w[\w+.-]+:/)[^?]*[^?/]", rest):
        raise UsageError(f"warehouse {url!r} does not name a database file; allowed: {_ALLOWED}")
    if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGT]i?)?B", memory_limit.strip(), re.IGNORECASE):
        raise UsageError(f"memory limit {memory_limit!r} is not an amount of memory; write, for instance, 800MB or 2GB")
    if threads < 1 or lock_timeout_s < 0:
        raise UsageError(f"threads ({threads}) must be at least 1, lock_timeout_s ({lock_timeout_s:g}) at least 0")

    from pipeline.warehouses.duckdb import DuckDBWarehouse
    from pipeline.warehouses.duckdb_file import DuckDBFile

    file = DuckDBFile(Path(rest[1:]).absolute(), memory_limit.strip(), threads, lock_timeout_s)
    return DuckDBWarehouse(file, datasets, zones)
