"""Opens the lake, the warehouse and the source that the settings name, and validates these settings.

Opening makes no connection and writes nothing. The same settings in the same working folder give the same object, with
its caches.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import UsageError
from pipeline.lake import STORES, Store, local_folder, open_store
from pipeline.settings import VALIDATORS, Settings
from pipeline.source.retries import RetryPolicy, is_valid_url, retry_message
from pipeline.source.site import Source, make_source
from pipeline.state.inventory import Inventory
from pipeline.state.steps import BY_NAME, STEPS
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.base import Warehouse
from pipeline.warehouses.registry import engine_of

_T = TypeVar("_T")


def _cached(opener: Callable[[Settings], _T]) -> Callable[[Settings], _T]:
    cached = lru_cache(maxsize=8)(lambda settings, working_folder: opener(settings))
    return wraps(opener)(lambda settings: cached(settings, os.getcwd()))  # noqa: PTH109 - every step asks; `Path` takes longer than the answer.


@_cached
def store_of(settings: Settings) -> Store:
    """The lake that the settings name."""
    return open_store(settings.lake, settings.scratch)


@_cached
def warehouse_of(settings: Settings) -> Warehouse:
    """The warehouse that the settings name."""
    return open_warehouse(
        settings.warehouse,
        memory_limit=settings.load_memory,
        threads=settings.load_threads,
        lock_timeout_s=settings.lock_timeout_s,
    )


@_cached
def source_of(settings: Settings) -> Source:
    """The source that the settings name."""
    limit_bytes = settings.download_limit_gb * 1e9
    policy = RetryPolicy(settings.timeout_s, settings.retries, settings.retry_wait_s, limit_bytes, _log_retry)
    return make_source(settings.source, settings.source_format, settings.publication_lag_months, policy)


def _log_retry(*attempt: Any) -> None:
    logging.getLogger("luigi-interface.pipeline").info("source: %s", retry_message(*attempt))


def _validate(settings: Settings, invalid: Collection[str]) -> dict[str, str]:
    """The problems by name, without those of the settings in `invalid`."""
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
    schemes = engine_of(settings.warehouse).lake_schemes
    if lake_is_valid and schemes and settings.lake.partition("://")[0] not in schemes:
        allowed = " or ".join(STORES[scheme].example for scheme in schemes)
        problem = f"it cannot load from lake = {settings.lake!r}; allowed is lake = {allowed}"
        raise UsageError(f"warehouse = {settings.warehouse!r}: {problem}")


def _validate_folder(folder: str) -> None:
    if not folder or local_folder(folder) is None:
        raise UsageError(f"{folder!r}: allowed is a folder of this machine")


def _validate_address(url: str) -> None:
    if url and not is_valid_url(url):  # The address is a secret, so it is not shown.
        raise UsageError("the address is invalid; allowed are an empty value and https://host/path")


VALIDATORS.append(_validate)


def inventory_of(settings: Settings, through: str = STEPS[-1]) -> Inventory:
    """A new inventory; it has no warehouse when the step `through` ends in the lake."""
    warehouse = None if BY_NAME[through].files else warehouse_of(settings)
    return Inventory(store_of(settings), source_of(settings), warehouse)


def warehouse_file(settings: Settings) -> Path | None:
    """The local file of the warehouse; None where it is a server."""
    return engine_of(settings.warehouse).local_file(settings.warehouse)
