"""The registry of engines: one entry each, with all that the rest of the package needs to know of it.

Neither importing this module nor looking up an engine imports a driver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError, redact
from pipeline.warehouses.base import Warehouse


@dataclass(frozen=True)
class Bounds:
    """The limits of one load: memory as DuckDB writes it (800MB, 2GB), threads, and how long to wait for a lock."""

    memory_limit: str = "1GB"
    threads: int = 2
    lock_timeout_s: float = 600


@dataclass(frozen=True)
class Engine:
    """A kind of warehouse."""

    #: The URL schemes, and example URLs for messages.
    schemes: tuple[str, ...]
    example: str
    #: Its `open_url(url, bounds, datasets, zones)` returns the warehouse or raises UsageError, and connects to nothing.
    module: str
    #: The Luigi resource of which each load takes one, and its default amount.
    resource: str
    writers: int = 4
    #: Modules that are slow to import; they are imported once, before steps are forked.
    drivers: tuple[str, ...] = ()
    #: The extra of this package that installs the drivers.
    extra: str = ""
    #: The URL schemes of the lakes that it can load from; empty for all.
    lake_schemes: tuple[str, ...] = ()
    #: The query that `pipeline doctor` runs; `judge` interprets its row.
    question: str = "SELECT 1 AS one"

    def local_file(self, url: str) -> Path | None:
        """The local file that grows with each load, by the module's `local_file(url)`; None without this function."""
        function: Callable[[str], Path] | None = getattr(import_module(self.module), "local_file", None)
        return function(url) if function else None

    def judge(self, row: Mapping[str, Any], writers: int) -> Iterable[tuple[str, str, str]]:
        """State (ok, warning, failed), text and remedy, by the module's `judge(row, writers)`; ok without it."""
        function = getattr(import_module(self.module), "judge", None)
        return list(function(row, writers)) if function else [("ok", "", "")]


_POSTGRES = """
SELECT current_setting('server_version') AS version, quote_ident(current_schema()) AS schema, quote_ident(who) AS name,
    has_schema_privilege(who, current_schema(), 'CREATE') AS may_create,
    current_setting('max_connections')::int AS most,
    current_setting('superuser_reserved_connections')::int AS reserved,
    (SELECT sum(numbackends)::int FROM pg_stat_database) AS used
FROM (SELECT coalesce(nullif(current_user, 'pg_read_all_data'), session_user)) AS asked(who)
"""
ENGINES: dict[str, Engine] = {}


def register(engine: Engine) -> None:
    """Add the engine under each of its schemes, or replace the one that had the scheme."""
    ENGINES.update(dict.fromkeys(engine.schemes, engine))


register(
    Engine(
        schemes=("duckdb",),
        example="duckdb:///folder/name.duckdb (in the working folder), duckdb:////folder/name.duckdb (absolute), "
        "both also with ?tables=views",
        module="pipeline.warehouses.duckdb",
        resource="duckdb",
        writers=1,  # https://duckdb.org/docs/stable/connect/concurrency
        drivers=("duckdb",),
    )
)
register(
    Engine(
        schemes=("postgresql", "postgres"),
        example="postgresql://user@host/database (any libpq URL)",
        module="pipeline.warehouses.postgres",
        resource="postgresql",
        drivers=("psycopg",),
        extra="postgres",
        question=_POSTGRES,
    )
)
register(
    Engine(
        schemes=("bigquery",),
        example="bigquery://project/dataset?location=US (optional: expiration_days, label.<name>)",
        module="pipeline.warehouses.bigquery",
        resource="bigquery",
        drivers=("google.cloud.bigquery", "sqlglot"),
        lake_schemes=("gs",),
    )
)


def engine_of(url: str) -> Engine:
    """The engine for a warehouse URL; UsageError if no engine has its scheme."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ENGINES:
        return ENGINES[scheme]
    # It may be any database's URL or connection string, with a password in it.
    secret = not separator and re.search("[@?]|password", url, re.IGNORECASE)
    shown = "…" if secret else repr(redact(url))
    raise UsageError(f"warehouse {shown} has no known scheme; allowed: {allowed_urls()}")


def allowed_urls() -> str:
    """Example URLs of all engines, for messages."""
    return ", ".join(engine.example for engine in dict.fromkeys(ENGINES.values()))


def open_warehouse(
    url: str,
    *,
    memory_limit: str = Bounds.memory_limit,
    threads: int = Bounds.threads,
    lock_timeout_s: float = Bounds.lock_timeout_s,
    datasets: Mapping[str, Dataset] = DATASETS,
    zones: Dataset = ZONES,
) -> Warehouse:
    """The warehouse at a URL, with the limits of `Bounds`; a load creates the tables of all `datasets`.

    Raises:
        UsageError: the URL or a limit is invalid.
    """
    module = import_module(engine_of(url).module)
    warehouse: Warehouse = module.open_url(url, Bounds(memory_limit, threads, lock_timeout_s), datasets, zones)
    return warehouse
