"""Green: the street-hail liveries of the outer boroughs and northern Manhattan, since 2013-08.

Times are New York wall-clock times without a zone, money is US dollars, distances are miles. 2013-08 to 2013-12 exist
as CSV only; the Parquet files, which start in 2014-01, have one set of names. Sources: TLC's data dictionary,
https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, and `docs/surprises.md`.
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

_FIRST = date(2013, 8, 1)
_PARQUET = date(2014, 1, 1)
_zone = partial(Column, type=INT64, expected_from=date(2016, 7, 1), parquet_from=_PARQUET)

GREEN = Dataset(
    name="green",
    file_name="green_tripdata_{month:%Y-%m}",
    first_month=_FIRST,
    first_parquet_month=_PARQUET,
    declared_in="pipeline/datasets/green.py",
    doc="Trips of green taxis, one row per trip.",
    total="total_amount",
    view="trips",
    rules=(*TRIP_RULES, NEGATIVE_TOTALS),
    columns=(
        Column(
            "vendor_id",
            INT64,
            tlc="VendorID",
            expected_from=_FIRST,
            codes=codes.VENDORS,
            words=codes.VENDOR_WORDS,
            doc="Which technology provider sent the record.",
        ),
        Column(
            "pickup_datetime",
            TIME,
            tlc="lpep_pickup_datetime",
            expected_from=_FIRST,
            required=True,
            doc="When the meter was switched on.",
        ),
        Column(
            "dropoff_datetime",
            TIME,
            tlc="lpep_dropoff_datetime",
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
            expected_from=_FIRST,
            codes=codes.RATES,
            doc="The rate in force at the end of the trip.",
        ),
        Column(
            "store_and_fwd_flag",
            TEXT,
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
        usd("fare_amount", expected_from=_FIRST, doc="Fare by time and distance, from the meter."),
        usd("extra", expected_from=_FIRST, doc="Extras and surcharges, such as rush hour and overnight."),
        usd("mta_tax", expected_from=_FIRST, doc="Tax that the metered rate triggers."),
        usd("tip_amount", expected_from=_FIRST, doc="Tips paid by card; cash tips are not recorded."),
        usd("tolls_amount", expected_from=_FIRST, doc="All tolls paid."),
        usd(
            "improvement_surcharge",
            expected_from=date(2015, 1, 1),
            parquet_from=_PARQUET,
            doc="Levied since 2015 when the meter is switched on.",
        ),
        usd("total_amount", expected_from=_FIRST, doc="What the passenger was charged, without cash tips."),
        usd(
            "congestion_surcharge",
            expected_from=date(2019, 1, 1),
            parquet_from=_PARQUET,
            doc="New York State's surcharge for trips in Manhattan south of 96th Street.",
        ),
        CBD_CONGESTION_FEE,
        REQUEST_SOURCE,
        usd("ehail_fee", expected_from=_FIRST, doc="For trips hailed by app; hardly ever filled."),
        Column(
            "trip_type",
            INT64,
            expected_from=_FIRST,
            codes=codes.TRIP_TYPES,
            doc="Hailed on the street or dispatched, guessed from the rate.",
        ),
        # Only the CSVs until 2016-06 have coordinates; no Parquet file does.
        degrees("pickup_longitude", doc="Where the meter was switched on."),
        degrees("pickup_latitude", doc="Where the meter was switched on."),
        degrees("dropoff_longitude", doc="Where the meter was switched off."),
        degrees("dropoff_latitude", doc="Where the meter was switched off."),
    ),
)
