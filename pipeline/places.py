"""From settings to what they name: the lake, the warehouse, the source.

The one place that opens each, and that validates the settings which name them. Opening makes no connection and writes
nothing. The same settings in the same working folder give the same object, which keeps what it has learnt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.lake import Store, is_address, open_store
from pipeline.settings import Settings, validate_with
from pipeline.source.retries import RetryPolicy, is_valid_url, retry_message
from pipeline.source.site import Source, make_source
from pipeline.state.inventory import Inventory
from pipeline.state.steps import BY_NAME, STEPS
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.base import Warehouse

_T = TypeVar("_T")


def _kept(open_it: Callable[[Settings], _T]) -> Callable[[Settings], _T]:
    kept = lru_cache(maxsize=8)(lambda settings, working_folder: open_it(settings))
    return wraps(open_it)(lambda settings: kept(settings, Path.cwd()))


@_kept
def store_of(settings: Settings) -> Store:
    """The lake that the settings name."""
    return open_store(settings.lake, settings.scratch)


@_kept
def warehouse_of(settings: Settings) -> Warehouse:
    """The warehouse that the settings name."""
    return open_warehouse(
        settings.warehouse,
        memory_limit=settings.load_memory,
        threads=settings.load_threads,
        lock_timeout_s=settings.lock_timeout_s,
    )


@_kept
def source_of(settings: Settings) -> Source:
    """Where raw files come from."""
    limit_bytes = settings.download_limit_gb * 1e9
    policy = RetryPolicy(settings.timeout_s, settings.retries, settings.retry_wait_s, limit_bytes, _log_retry)
    return make_source(settings.source, settings.source_format, settings.publication_lag_months, policy)


def _log_retry(*attempt: Any) -> None:
    logging.getLogger("luigi-interface.pipeline").info("asking the source: %s", retry_message(*attempt))


def _validate(settings: Settings, invalid: Collection[str]) -> dict[str, str]:
    """What is wrong with the settings besides those that are invalid already, by name."""
    problems: dict[str, str] = {}
    checks: dict[str, Callable[[], object]] = {
        "lake": lambda: store_of(settings),
        "warehouse": lambda: _validate_warehouse(settings, lake_is_valid="lake" not in {*invalid, *problems}),
        "source": lambda: source_of(settings),
        "load_memory": lambda: warehouse_of(replace(settings, warehouse=Settings.warehouse)),
        "scratch": lambda: _validate_folder(settings.scratch),
        "logs": lambda: _validate_folder(settings.logs),
        "notify_url": lambda: _validate_address(settings.notify_url),
    }
    for name, check in checks.items():
        try:
            check()
        except UsageError as error:
            if name not in invalid:
                problems[name] = str(error).removeprefix("[pipeline] ")
    return problems


def _validate_warehouse(settings: Settings, *, lake_is_valid: bool) -> None:
    warehouse_of(replace(settings, load_memory=Settings.load_memory))
    if lake_is_valid and settings.warehouse.startswith("bigquery://") and not settings.lake.startswith("gs://"):
        raise UsageError(
            f"warehouse = {settings.warehouse!r}: BigQuery loads from a lake in Cloud Storage only; allowed is lake = "
            f"gs://bucket/prefix, not {settings.lake!r}"
        )


def _validate_folder(folder: str) -> None:
    if not folder or is_address(folder):
        raise UsageError(f"{folder!r}: allowed is a folder of this machine")


def _validate_address(url: str) -> None:
    if url and not is_valid_url(url):
        # Not with the address, which is a secret.
        raise UsageError("the address is invalid; allowed is nothing, or https://host/path")


validate_with(_validate)


def inventory_of(settings: Settings, through: str = STEPS[-1]) -> Inventory:
    """A new inventory; for steps that end in the lake without the warehouse, which may not exist."""
    warehouse = None if BY_NAME[through].files else warehouse_of(settings)
    return Inventory(store_of(settings), source_of(settings), warehouse)
