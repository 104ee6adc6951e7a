"""The engines that a warehouse may be of: one entry each, with all that the rest of the package needs to know of it.

A new engine is a module with `open_url` (and, where useful, `local_file` and `judge`) and an entry here, or a call of
`register`. Neither this module nor asking it imports a driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
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

    #: The schemes of its URLs.
    schemes: tuple[str, ...]
    #: Such URLs, as messages show them.
    urls: str
    #: Imported only when such a warehouse is opened. It has `open_url(url, bounds, datasets, zones)`, which returns the
    #: warehouse, opens no file and no connection, and raises UsageError for an invalid URL.
    module: str
    #: Luigi's resource of which each step that writes takes one, and how many there are unless luigi.cfg says so.
    resource: str
    writers: int = 4
    #: Modules that are slow to import, and that every step needs.
    drivers: tuple[str, ...] = ()
    #: The extra of this package that installs the drivers.
    extra: str = ""
    #: What `pipeline doctor` asks; the module's `judge(row, writers)`, if it has one, says what follows.
    question: str = "SELECT 1 AS one"

    def local_file(self, url: str) -> Path | None:
        """The file on this machine that grows with each load, None where there is none."""
        find = getattr(import_module(self.module), "local_file", None)
        path: Path | None = find(url) if find else None
        return path

    def judge(self, row: Mapping[str, Any], writers: int) -> Iterable[tuple[str, str, str]]:
        """What the answer to the question means: ok, warning or failed, then what is so, then the remedy."""
        found = getattr(import_module(self.module), "judge", None)
        return list(found(row, writers)) if found else [("ok", "", "")]


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
    """Make the engine known by each of its schemes; one that was known by such a scheme is replaced."""
    ENGINES.update(dict.fromkeys(engine.schemes, engine))


register(
    Engine(
        schemes=("duckdb",),
        urls="duckdb:///folder/name.duckdb (relative to the working folder), duckdb:////folder/name.duckdb (absolute)",
        module="pipeline.warehouses.duckdb",
        resource="duckdb",
        writers=1,  # https://duckdb.org/docs/stable/connect/concurrency
        drivers=("duckdb",),
    )
)
register(
    Engine(
        schemes=("postgresql", "postgres"),
        urls="postgresql://user@host/database (as libpq takes it)",
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
        urls="bigquery://project/dataset?location=US (with expiration_days and label.<name>, too)",
        module="pipeline.warehouses.bigquery",
        resource="bigquery",
        drivers=("google.cloud.bigquery", "sqlglot"),
    )
)


def engine_of(url: str) -> Engine:
    """The engine of a warehouse's URL.

    Raises:
        UsageError: no engine has such URLs.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ENGINES:
        return ENGINES[scheme]
    # It may be the address of any database, with a password in it.
    shown = f"{scheme}://…" if separator and re.search("[@?]", rest) else repr(url)
    if not separator and re.search("[@?]|password", url, re.IGNORECASE):
        shown = "…"
    raise UsageError(f"warehouse {shown} is none of the kinds there are; allowed: {allowed_urls()}")


def allowed_urls() -> str:
    """The URLs that the engines have, as messages show them."""
    return ", ".join(engine.urls for engine in dict.fromkeys(ENGINES.values()))


def open_warehouse(
    url: str,
    *,
    memory_limit: str = Bounds.memory_limit,
    threads: int = Bounds.threads,
    lock_timeout_s: float = Bounds.lock_timeout_s,
    datasets: Mapping[str, Dataset] = DATASETS,
    zones: Dataset = ZONES,
) -> Warehouse:
    """The warehouse that a URL names, see `Bounds` for its limits; tables are made for all of `datasets`.

    Raises:
        UsageError: no engine has such URLs, or the URL or a limit is invalid.
    """
    module = import_module(engine_of(url).module)
    warehouse: Warehouse = module.open_url(url, Bounds(memory_limit, threads, lock_timeout_s), datasets, zones)
    return warehouse
