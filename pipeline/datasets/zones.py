"""Zones: the 265 taxi zones that the location ids of the trips point to; one small table without months.

Names are not unique (Corona is 56 and 57), and `NA`, `NV` and `N/A` are values: a reader that reads them as nulls
loses the zones 264 and 265. Source: https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page
"""

from __future__ import annotations

from pipeline.datasets.base import INT64, TEXT, Column, Dataset, Rule
from pipeline.datasets.rules import NO_ROWS

ZONES = Dataset(
    name="zones",
    file_name="taxi_zone_lookup",
    first_month=None,
    declared_in="pipeline/datasets/zones.py",
    doc="The taxi zones, one row per zone.",
    zone_columns=("location_id",),
    rules=(
        NO_ROWS,
        Rule("zones", "warning", "rows", at_least=265, at_most=265, doc="rows of a table that has had 265 since 2015"),
        Rule("unknown_zones", "warning", "unknown_zones", at_most=0, doc="zone ids outside 1 to 265"),
    ),
    columns=(
        Column("location_id", INT64, tlc="LocationID", required=True, unique=True, doc="Number of the zone."),
        Column("borough", TEXT, tlc="Borough", required=True, doc="Borough, or EWR for Newark airport."),
        Column("zone", TEXT, tlc="Zone", required=True, doc="Name of the zone."),
        Column("service_zone", TEXT, required=True, doc="Which taxis may be hailed there."),
    ),
)
