"""The steps that end in the warehouse: a month of rows, the zones, and the month of every mart."""

from __future__ import annotations

import luigi

from pipeline import config
from pipeline.errors import UsageError
from pipeline.marts import marts_of
from pipeline.tasks.base import MonthTask, Step, WithSettings, ZonesTask, store_of, warehouse_of
from pipeline.tasks.lake import Conform, ConformZones
from pipeline.tasks.messages import log
from pipeline.tasks.targets import ExternalTables, WarehouseMart, WarehouseMonth, WarehouseZones
from pipeline.warehouses.base import Exposing, Warehouse


class _Writing(Step):
    """A step that writes to the warehouse."""

    doing = "loading"

    @property
    def resources(self) -> dict[str, int]:
        """One of those that the kind of warehouse has, by the name of its URL; DuckDB takes one writer at a time."""
        try:
            kind = self.settings.warehouse.partition("://")[0]
        except UsageError:
            return {}  # Luigi asks for this even when it has just learnt that the settings cannot be.
        return {"postgresql" if kind == "postgres" else kind: 1}


class Load(_Writing, MonthTask):
    """The month's rows in the dataset's table, exactly those of its trips file."""

    def requires(self) -> luigi.Task:
        """The trips file."""
        return self.clone(Conform)

    def output(self) -> WarehouseMonth:
        """The month in the warehouse."""
        return WarehouseMonth(self.warehouse, self.spec, self.month)

    def run(self) -> None:
        """Replace the month."""
        rows = self.warehouse.replace_month(self.spec, self.month, self.trips.entry())
        self.done(f"{rows:,} rows", rows=rows)


class LoadZones(_Writing, ZonesTask):
    """The zones in the warehouse."""

    before: str = luigi.Parameter(
        default="",
        significant=False,
        description="when the zones were loaded that must be loaded again; empty for none",
    )

    def complete(self) -> bool:
        """Whether zones are loaded, and not still those from before."""
        return super().complete() and not (self.before and loaded_zones_at(self.warehouse) == self.before)

    def requires(self) -> luigi.Task:
        """The zones file."""
        return self.clone(ConformZones)

    def output(self) -> WarehouseZones:
        """The zones in the warehouse."""
        return WarehouseZones(self.warehouse)

    def run(self) -> None:
        """Replace the zones."""
        rows = self.warehouse.replace_zones(self.trips.entry())
        self.done(f"{rows:,} zones")


def loaded_zones_at(warehouse: Warehouse) -> str:
    """When the zones were loaded; empty when they are not."""
    record = warehouse.loaded_zones()
    return record.loaded_at.isoformat() if record else ""


class Mart(_Writing, MonthTask):
    """The month of every mart that draws on the dataset."""

    doing = "building marts"

    def requires(self) -> list[luigi.Task]:
        """The month's rows, and the zones' names."""
        return [self.clone(Load), LoadZones()]

    def output(self) -> WarehouseMart:
        """The month in every mart."""
        return WarehouseMart(self.warehouse, self.spec, self.month, [mart.name for mart in marts_of(self.dataset)])

    def run(self) -> None:
        """Build the month of each mart anew."""
        rows = self.warehouse.replace_mart_month(self.spec, self.month, marts_of(self.dataset))
        self.done(", ".join(f"{mart} {count:,} rows" for mart, count in rows.items()))


class Expose(WithSettings, luigi.Task):
    """External tables over the lake's files in BigQuery, for those who query without loading."""

    def output(self) -> ExternalTables:
        """All of the tables."""
        return ExternalTables(self.warehouse, store_of(config.settings()).location)

    def run(self) -> None:
        """Make what is missing of them."""
        names = self.warehouse.expose(store_of(config.settings()).location)
        log.info(f"external tables: {', '.join(names)}")

    @property
    def warehouse(self) -> Exposing:
        """The warehouse, if it can do that."""
        warehouse = warehouse_of(config.settings())
        if not isinstance(warehouse, Exposing):
            raise UsageError(
                "Expose: external tables are BigQuery's; any other warehouse is loaded, and DuckDB reads the lake's "
                "files as they are. Allowed is [pipeline] warehouse = bigquery://project/dataset"
            )
        return warehouse
