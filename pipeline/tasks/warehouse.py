"""The steps that end in the warehouse: a month of rows, the zones, and the month of every mart."""

from __future__ import annotations

import luigi

from pipeline.datasets import ZONES
from pipeline.errors import UsageError
from pipeline.marts import marts_of
from pipeline.places import store_of, warehouse_of
from pipeline.settings import current_settings
from pipeline.tasks.base import OfZones, Step, WithSettings
from pipeline.tasks.messages import log
from pipeline.tasks.targets import ExternalTables
from pipeline.warehouses.base import Exposing, Warehouse
from pipeline.warehouses.registry import engine_of


class _Writing(Step):
    """A step that writes to the warehouse."""

    doing = "loading"

    @property
    def resources(self) -> dict[str, int]:
        """One of those that the engine of the warehouse has; DuckDB takes one writer at a time."""
        try:
            return {engine_of(self.settings.warehouse).resource: 1}
        except UsageError:
            return {}  # Luigi asks for this even when it has just learnt that the settings are invalid.


class Load(_Writing):
    """The month's rows in the dataset's table, exactly those of its trips file."""

    def run(self) -> None:
        """Replace the month."""
        rows = self.warehouse.replace(self.spec, self.month, self.trips.entry())
        self.done(f"{rows:,} rows" if self.month else f"{rows:,} zones", rows=rows if self.month else 0)


class LoadZones(OfZones, Load):
    """The zones in the warehouse."""

    before: str = luigi.Parameter(
        default="",
        significant=False,
        description="when the zones were loaded that must be loaded again; empty for none",
    )

    def complete(self) -> bool:
        """Whether zones are loaded, and not still those from before."""
        return super().complete() and not (self.before and loaded_zones_at(self.warehouse) == self.before)


def loaded_zones_at(warehouse: Warehouse) -> str:
    """When the zones were loaded; empty when they are not."""
    record = warehouse.loads(ZONES).get(None)
    return record.loaded_at.isoformat() if record else ""


class Mart(_Writing):
    """The month of every mart that draws on the dataset."""

    doing = "building marts"

    def requires(self) -> list[luigi.Task]:
        """The month's rows, and the zones' names."""
        return [*luigi.task.flatten(super().requires()), LoadZones()]

    def run(self) -> None:
        """Build the month of each mart again."""
        assert self.month is not None
        rows = self.warehouse.replace_mart_month(self.spec, self.month, marts_of(self.dataset))
        self.done(", ".join(f"{mart} {count:,} rows" for mart, count in rows.items()))


class Expose(WithSettings, luigi.Task):
    """External tables over the lake's files in BigQuery, for those who query without loading."""

    def output(self) -> ExternalTables:
        """All of the tables."""
        return ExternalTables(self.warehouse, store_of(current_settings()).location)

    def run(self) -> None:
        """Make what is missing of them."""
        names = self.warehouse.expose(store_of(current_settings()).location)
        log.info(f"external tables: {', '.join(names)}")

    @property
    def warehouse(self) -> Exposing:
        """The warehouse, if it can do that."""
        warehouse = warehouse_of(current_settings())
        if not isinstance(warehouse, Exposing):
            raise UsageError(
                "Expose: external tables are BigQuery's; any other warehouse is loaded, and DuckDB reads the lake's "
                "files as they are. Allowed is [pipeline] warehouse = bigquery://project/dataset"
            )
        return warehouse
