"""What a finished step leaves behind, as Luigi targets; asking whether it exists touches nothing but that question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path

import luigi

from pipeline.datasets.base import Dataset
from pipeline.lake import Entry, Store
from pipeline.months import format_month
from pipeline.state.inventory import Inventory
from pipeline.warehouses.base import Exposing


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


class WarehouseRecord(luigi.Target):
    """What a step leaves in the warehouse; exists once its rows and its records are committed and count."""

    def __init__(self, ask: Callable[[], Inventory], step: str, dataset: Dataset, month: date | None) -> None:
        self.ask, self.step, self.dataset, self.month = ask, step, dataset, month

    def __str__(self) -> str:
        month = f" {format_month(self.month)}" if self.month else ""
        return f"{self.step} of {self.dataset.name}{month} in the warehouse"

    def exists(self) -> bool:
        """Whether the step is done."""
        return self.ask().done(self.step, self.dataset, self.month)


class ExternalTables(luigi.Target):
    """The lake's files as tables of the warehouse; exist once all of them are there, as declared."""

    def __init__(self, warehouse: Exposing, lake: str) -> None:
        self.warehouse, self.lake = warehouse, lake

    def __str__(self) -> str:
        return f"external tables over {self.lake}"

    def exists(self) -> bool:
        """Whether they are there."""
        return self.warehouse.exposed(self.lake)
