"""The warehouse in a Postgres database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.datasets.base import Dataset
from pipeline.warehouses.postgres.server import Server, validate_url
from pipeline.warehouses.postgres.warehouse import PostgresWarehouse
from pipeline.warehouses.registry import Bounds


def open_url(url: str, bounds: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> PostgresWarehouse:
    """See `pipeline.warehouses.registry.Engine`."""
    validate_url(url)
    return PostgresWarehouse(Server(url), datasets, zones, lock_timeout_s=bounds.lock_timeout_s)


def judge(row: Mapping[str, Any], writers: int) -> Iterator[tuple[str, str, str]]:
    """Whether the user may create tables, and whether enough connections are free for this many loads at once."""
    version = f"Postgres {row['version']}"
    if not row["may_create"]:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {row['schema']} TO {row['name']}"
        yield "failed", f"{version}; {row['name']} may not create tables in the schema {row['schema']}", grant
    free = row["most"] - row["reserved"] - row["used"]
    room = f"{version}; {free} of max_connections = {row['most']} are free"
    if free < writers:
        remedy = "raise max_connections, or lower postgresql in [resources] of luigi.cfg"
        yield "warning", f"{room}, and up to {writers} loads run at once", remedy
    elif row["may_create"]:
        yield "ok", room, ""
