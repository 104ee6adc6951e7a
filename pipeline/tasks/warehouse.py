"""The steps that end in the warehouse: a month of rows, the zones, and the month of every mart."""

from __future__ import annotations

import luigi

from pipeline.datasets import ZONES, need_zones
from pipeline.errors import UsageError
from pipeline.marts import marts_of
from pipeline.places import store_of, warehouse_of
from pipeline.settings import current_settings
from pipeline.tasks.base import OfZones, Step, WithSettings, log
from pipeline.units import counted
from pipeline.warehouses.registry import engine_of


class _WarehouseStep(Step):
    """A step that writes to the warehouse."""

    doing = "loading"

    @property
    def resources(self) -> dict[str, int]:
        """One of the engine's resource; DuckDB takes one writer at a time."""
        try:
            return {engine_of(current_settings().warehouse).resource: 1}
        except UsageError:
            return {}  # Luigi asks for this even after it has reported that the settings are invalid.


class Load(_WarehouseStep):
    """The month's rows in the dataset's table, exactly those of its trips file."""

    def requires(self) -> luigi.Task | list[luigi.Task]:
        """The conformed month, which is loaded on the way if the warehouse can do that."""
        conform = super().requires()
        if isinstance(conform, Step):
            conform.load_follows = True
        return conform

    def run(self) -> None:
        """Replace the month, unless it was loaded while it was conformed."""
        warehouse = warehouse_of(current_settings())
        if warehouse.loads_ahead and self.complete():
            rows = warehouse.loads(self.spec)[self.month].rows
        else:
            rows = warehouse.replace(self.spec, self.month, self.store.entry(self.files("conform")["trips"]))
        self.done(counted(rows, "row") if self.month else f"{rows:,} zones", rows=rows if self.month else 0)


class LoadZones(OfZones, Load):
    """The zones in the warehouse."""

    before: str = luigi.Parameter(
        default="",
        significant=False,
        description="the time of the load of zones that must be replaced; empty for none",
    )

    def complete(self) -> bool:
        """Whether zones are loaded, by another load than `before`."""
        return super().complete() and not (self.before and loaded_zones_at() == self.before)


def loaded_zones_at() -> str:
    """When the zones were loaded; empty when they are not."""
    record = warehouse_of(current_settings()).loads(ZONES).get(None)
    return record.loaded_at.isoformat() if record else ""


class Mart(_WarehouseStep):
    """The month of every mart that reads the dataset."""

    doing = "building marts"

    def requires(self) -> list[luigi.Task]:
        """The month's rows, and the zones' names if the dataset has zone ids."""
        zones = [LoadZones()] if need_zones([self.dataset]) else []
        return [*luigi.task.flatten(super().requires()), *zones]

    def run(self) -> None:
        """Build the month of each mart again."""
        assert self.month is not None
        rows = warehouse_of(current_settings()).replace_mart_month(self.spec, self.month, marts_of(self.dataset))
        self.done(", ".join(f"{mart} {counted(count, 'row')}" for mart, count in rows.items()))


class Expose(WithSettings, luigi.Task):
    """External tables over the lake's files in BigQuery, for queries without loading."""

    def complete(self) -> bool:
        """Whether all of them exist, as declared."""
        return warehouse_of(current_settings()).exposed(store_of(current_settings()).location)

    def run(self) -> None:
        """Create those that are missing."""
        tables = warehouse_of(current_settings()).expose(store_of(current_settings()).location)
        log.info(f"external tables: {', '.join(tables)}")
