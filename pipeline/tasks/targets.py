"""What a finished step leaves behind, as Luigi targets; asking whether it exists touches nothing but that question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path

import luigi

from pipeline.datasets.base import Dataset
from pipeline.lake import Entry, Store
from pipeline.months import format_month
from pipeline.warehouses.base import Exposing, Warehouse


class LakeFile(luigi.Target):
    """A file of the lake; exists once it is whole."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key

    def __str__(self) -> str:
        return self.key

    def exists(self) -> bool:
        """Whether the file is published."""
        return self.store.exists(self.key)

    def publish(self, facts: Mapping[str, str]) -> AbstractContextManager[Path]:
        """Yield a draft's path; a clean exit publishes it, with these facts where the store keeps such."""
        return self.store.publish(self.key, facts)

    def entry(self) -> Entry:
        """The published file."""
        return self.store.entry(self.key)


class WarehouseMonth(luigi.Target):
    """A month of a dataset, or the zones (no month); exists once its rows and its record are committed."""

    def __init__(self, warehouse: Warehouse, dataset: Dataset, month: date | None) -> None:
        self.warehouse, self.dataset, self.month = warehouse, dataset, month

    def __str__(self) -> str:
        month = f" {format_month(self.month)}" if self.month else ""
        return f"{self.dataset.name}{month} in the warehouse"

    def exists(self) -> bool:
        """Whether the month is loaded."""
        return self.month in self.warehouse.loads(self.dataset)


class ExternalTables(luigi.Target):
    """The lake's files as tables of the warehouse; exist once all of them are there, as declared."""

    def __init__(self, warehouse: Exposing, lake: str) -> None:
        self.warehouse, self.lake = warehouse, lake

    def __str__(self) -> str:
        return f"external tables over {self.lake}"

    def exists(self) -> bool:
        """Whether they are there."""
        return self.warehouse.exposed(self.lake)


class WarehouseMart(luigi.Target):
    """A month of every mart of a dataset; exists once all of them are committed."""

    def __init__(self, warehouse: Warehouse, dataset: Dataset, month: date, marts: Iterable[str]) -> None:
        self.warehouse, self.dataset, self.month, self.marts = warehouse, dataset, month, frozenset(marts)

    def __str__(self) -> str:
        return f"marts of {self.dataset.name} {format_month(self.month)} in the warehouse"

    def exists(self) -> bool:
        """Whether every mart has the month."""
        return self.marts <= set(self.warehouse.mart_months(self.dataset).get(self.month, ()))
