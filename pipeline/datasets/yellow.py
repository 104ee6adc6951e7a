"""Yellow: the medallion taxis, which can be hailed anywhere in the city, since 2009-01.

Times are New York wall-clock times without a zone, money is US dollars, distances are miles. The Parquet files use
three sets of names: of 2009, of 2010, and since 2011-01; those of the CSVs (until 2021-07) changed more often. Sources:
TLC's data dictionary, https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, and `docs/surprises.md`.
"""

from __future__ import annotations

from datetime import date
from functools import partial

from pipeline.datasets import codes
from pipeline.datasets.base import (
    CBD_CONGESTION_FEE,
    FLOAT64,
    INT64,
    REQUEST_SOURCE,
    TEXT,
    TIME,
    Column,
    Dataset,
    degrees,
    usd,
)
from pipeline.datasets.rules import NEGATIVE_TOTALS, TRIP_RULES

_FIRST = date(2009, 1, 1)
#: Since this month every Parquet file has today's columns, including levies of later years.
_REPUBLISHED = date(2011, 1, 1)
_zone = partial(Column, type=INT64, expected_from=date(2016, 7, 1), parquet_from=_REPUBLISHED)
#: The CSVs have coordinates until 2016-06, the Parquet files until 2010-12.
_coordinate = partial(degrees, expected_from=_FIRST, expected_until=date(2010, 12, 1))

YELLOW = Dataset(
    name="yellow",
    file_name="yellow_tripdata_{month:%Y-%m}",
    first_month=_FIRST,
    first_parquet_month=_FIRST,
    declared_in="pipeline/datasets/yellow.py",
    doc="Trips of yellow taxis, one row per trip.",
    total="total_amount",
    view="trips",
    rules=(*TRIP_RULES, NEGATIVE_TOTALS),
    columns=(
        Column(
            "vendor_id",
            INT64,
            tlc="VendorID",
            aliases=("vendor_name",),
            expected_from=_FIRST,
            codes=codes.VENDORS,
            words=codes.VENDOR_WORDS,
            doc="Which technology provider sent the record.",
        ),
        Column(
            "pickup_datetime",
            TIME,
            tlc="tpep_pickup_datetime",
            aliases=("Trip_Pickup_DateTime",),
            expected_from=_FIRST,
            required=True,
            doc="When the meter was switched on.",
        ),
        Column(
            "dropoff_datetime",
            TIME,
            tlc="tpep_dropoff_datetime",
            aliases=("Trip_Dropoff_DateTime",),
            expected_from=_FIRST,
            required=True,
            doc="When the meter was switched off.",
        ),
        Column(
            "passenger_count",
            INT64,
            expected_from=_FIRST,
            doc="Passengers in the vehicle, as entered by the driver.",
        ),
        Column("trip_distance", FLOAT64, unit="miles", expected_from=_FIRST, doc="Distance by the meter."),
        Column(
            "rate_code_id",
            INT64,
            tlc="RatecodeID",
            aliases=("rate_code",),
            expected_from=_FIRST,
            codes=codes.RATES,
            doc="The rate in force at the end of the trip.",
        ),
        Column(
            "store_and_fwd_flag",
            TEXT,
            aliases=("store_and_forward",),
            expected_from=_FIRST,
            codes=codes.STORE_AND_FORWARD,
            words=codes.STORE_AND_FORWARD_WORDS,
            doc="Whether the record waited in the vehicle before it was sent.",
        ),
        _zone("pickup_location_id", tlc="PULocationID", doc="Taxi zone of the pickup."),
        _zone("dropoff_location_id", tlc="DOLocationID", doc="Taxi zone of the drop-off."),
        Column(
            "payment_type",
            INT64,
            expected_from=_FIRST,
            codes=codes.PAYMENTS,
            words=codes.PAYMENT_WORDS,
            doc="How the passenger paid.",
        ),
        usd(
            "fare_amount", aliases=("Fare_Amt",), expected_from=_FIRST, doc="Fare by time and distance, from the meter."
        ),
        usd(
            "extra",
            aliases=("surcharge",),
            expected_from=_FIRST,
            doc="Extras and surcharges, such as rush hour and overnight.",
        ),
        usd("mta_tax", expected_from=_FIRST, doc="Tax that the metered rate triggers."),
        usd(
            "tip_amount",
            aliases=("Tip_Amt",),
            expected_from=_FIRST,
            doc="Tips paid by card; cash tips are not recorded.",
        ),
        usd("tolls_amount", aliases=("Tolls_Amt",), expected_from=_FIRST, doc="All tolls paid."),
        usd(
            "improvement_surcharge",
            expected_from=date(2015, 1, 1),
            parquet_from=_REPUBLISHED,
            doc="Levied since 2015 when the meter is switched on.",
        ),
        usd(
            "total_amount",
            aliases=("Total_Amt",),
            expected_from=_FIRST,
            doc="What the passenger was charged, without cash tips.",
        ),
        usd(
            "congestion_surcharge",
            expected_from=date(2019, 1, 1),
            parquet_from=_REPUBLISHED,
            doc="New York State's surcharge for trips in Manhattan south of 96th Street.",
        ),
        usd("airport_fee", tlc="Airport_fee", parquet_from=_REPUBLISHED, doc="For pickups at LaGuardia and JFK."),
        CBD_CONGESTION_FEE,
        REQUEST_SOURCE,
        _coordinate("pickup_longitude", aliases=("Start_Lon",), doc="Where the meter was switched on."),
        _coordinate("pickup_latitude", aliases=("Start_Lat",), doc="Where the meter was switched on."),
        _coordinate("dropoff_longitude", aliases=("End_Lon",), doc="Where it was switched off."),
        _coordinate("dropoff_latitude", aliases=("End_Lat",), doc="Where it was switched off."),
    ),
)
