"""Fhv: trips of for-hire vehicles (community cars, black cars, limousines) as their bases report them, since 2015-01.

Until 2019-01 it includes the app companies, which are in fhvhv since 2019-02. Times are New York wall-clock times
without a zone. Sources: TLC's data dictionary, https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, and
`docs/surprises.md`.
"""

from __future__ import annotations

from datetime import date

from pipeline.datasets import codes
from pipeline.datasets.base import INT64, TEXT, TIME, Column, Dataset
from pipeline.datasets.rules import TRIP_RULES

_FIRST = date(2015, 1, 1)

FHV = Dataset(
    name="fhv",
    file_name="fhv_tripdata_{month:%Y-%m}",
    first_month=_FIRST,
    first_parquet_month=_FIRST,
    declared_in="pipeline/datasets/fhv.py",
    doc="Trips of for-hire vehicles other than the high-volume services, one row per dispatched trip.",
    view="for_hire_trips",
    rules=TRIP_RULES,
    columns=(
        Column(
            "dispatching_base_num",
            TEXT,
            # The CSVs of 2018 have both spellings; one of them is empty in most rows.
            aliases=("Dispatching_base_number",),
            expected_from=_FIRST,
            doc="Licence number of the base that dispatched the trip.",
        ),
        Column(
            "pickup_datetime",
            TIME,
            aliases=("Pickup_date",),
            expected_from=_FIRST,
            required=True,
            doc="When the trip started.",
        ),
        Column(
            "dropoff_datetime",
            TIME,
            tlc="dropOff_datetime",
            expected_from=date(2017, 1, 1),
            parquet_from=_FIRST,
            doc="When the trip ended; 2019-02 has one in the year 3019.",
        ),
        Column(
            "pickup_location_id",
            INT64,
            tlc="PUlocationID",
            # The CSVs of 2015 and 2016 have one zone per trip, that of the pickup.
            aliases=("locationID",),
            expected_from=_FIRST,
            doc="Taxi zone of the pickup; missing in most rows.",
        ),
        Column(
            "dropoff_location_id",
            INT64,
            tlc="DOlocationID",
            expected_from=date(2017, 1, 1),
            parquet_from=_FIRST,
            doc="Taxi zone of the drop-off.",
        ),
        Column(
            "sr_flag",
            INT64,
            tlc="SR_Flag",
            expected_from=date(2017, 7, 1),
            parquet_from=_FIRST,
            codes=codes.SHARED_RIDE,
            words=codes.SHARED_RIDE_WORDS,
            doc="Whether the trip was part of a shared ride; null means that it was not, or that nobody said.",
        ),
        Column(
            "affiliated_base_number",
            TEXT,
            tlc="Affiliated_base_number",
            parquet_from=_FIRST,
            doc="Licence number of the base that the vehicle belongs to.",
        ),
    ),
)
