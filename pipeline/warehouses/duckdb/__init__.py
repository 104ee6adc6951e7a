"""The warehouse in one DuckDB file: the file and its lock, its dialect of the shared schema, the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.warehouses.duckdb.file import DuckDBFile
from pipeline.warehouses.duckdb.views_over_files import ViewsWarehouse
from pipeline.warehouses.duckdb.warehouse import DuckDBWarehouse
from pipeline.warehouses.registry import Bounds, allowed_urls

#: The end of a URL whose datasets are views over their files.
_VIEWS = "?tables=views"


def open_url(url: str, bounds: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> DuckDBWarehouse:
    """See `pipeline.warehouses.registry.Engine`."""
    memory_limit, threads, lock_timeout_s = bounds.memory_limit.strip(), bounds.threads, bounds.lock_timeout_s
    if not re.fullmatch(r"duckdb:///(?!:memory:$|md:|\w[\w+.-]+:/)[^?]*[^?/](\?tables=views)?", url):
        raise UsageError(f"warehouse {url!r} does not name a database file; allowed: {allowed_urls()}")
    if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGT]i?)?B", memory_limit, re.IGNORECASE):
        raise UsageError(f"memory limit {memory_limit!r} is not an amount of memory; write, for instance, 800MB or 2GB")
    if threads < 1 or lock_timeout_s < 0:
        raise UsageError(f"threads ({threads}) must be at least 1, lock_timeout_s ({lock_timeout_s:g}) at least 0")
    file = DuckDBFile(local_file(url), memory_limit, threads, lock_timeout_s)
    if not url.endswith(_VIEWS):
        return DuckDBWarehouse(file, datasets, zones)
    installed = version("duckdb")
    if int(installed.partition(".")[0]) < 2:
        raise UsageError(
            f"warehouse {url!r}: views need DuckDB 2, installed is {installed}; allowed is {url.removesuffix(_VIEWS)!r}"
        )
    return ViewsWarehouse(file, datasets, zones)


def local_file(url: str) -> Path:
    """The database file."""
    return Path(url.removeprefix("duckdb:///").removesuffix(_VIEWS)).absolute()
