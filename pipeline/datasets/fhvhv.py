"""Fhvhv: trips of the high-volume for-hire services (Uber, Lyft, Via, Juno), since 2019-02.

Times are New York wall-clock times without a zone, money is US dollars, distances are miles, `trip_time` is seconds.
The CSVs (until 2021-06) have a handful of columns, the Parquet files of the same months all of them. Sources: TLC's
data dictionary, https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, and `docs/surprises.md`.
"""

from __future__ import annotations

from datetime import date
from functools import partial

from pipeline.datasets import codes
from pipeline.datasets.base import CBD_CONGESTION_FEE, FLOAT64, INT64, TEXT, TIME, Column, Dataset, usd
from pipeline.datasets.rules import TRIP_RULES

_FIRST = date(2019, 2, 1)
_flag = partial(Column, type=TEXT, parquet_from=_FIRST, codes=codes.YES_NO)

FHVHV = Dataset(
    name="fhvhv",
    file_name="fhvhv_tripdata_{month:%Y-%m}",
    first_month=_FIRST,
    first_parquet_month=_FIRST,
    declared_in="pipeline/datasets/fhvhv.py",
    doc="Trips of the high-volume for-hire services, one row per trip.",
    view="for_hire_trips",
    rules=TRIP_RULES,
    columns=(
        Column(
            "hvfhs_license_num",
            TEXT,
            # The CSV of 2021-06 lacks it.
            parquet_from=_FIRST,
            codes=codes.LICENSES,
            doc="Licence number of the service.",
        ),
        Column(
            "dispatching_base_num",
            TEXT,
            expected_from=_FIRST,
            doc="Licence number of the base that dispatched the trip.",
        ),
        Column(
            "originating_base_num",
            TEXT,
            parquet_from=_FIRST,
            doc="Licence number of the base that received the request.",
        ),
        Column("request_datetime", TIME, parquet_from=_FIRST, doc="When the passenger asked to be picked up."),
        Column(
            "on_scene_datetime",
            TIME,
            parquet_from=_FIRST,
            doc="When the driver arrived at the pickup; recorded for accessible vehicles and by Uber.",
        ),
        Column("pickup_datetime", TIME, expected_from=_FIRST, required=True, doc="When the trip started."),
        Column("dropoff_datetime", TIME, expected_from=_FIRST, required=True, doc="When the trip ended."),
        Column(
            "pickup_location_id",
            INT64,
            tlc="PULocationID",
            expected_from=_FIRST,
            doc="Taxi zone of the pickup.",
        ),
        Column(
            "dropoff_location_id",
            INT64,
            tlc="DOLocationID",
            expected_from=_FIRST,
            doc="Taxi zone of the drop-off.",
        ),
        Column("trip_miles", FLOAT64, unit="miles", parquet_from=_FIRST, doc="Distance with the passenger."),
        Column("trip_time", INT64, unit="seconds", parquet_from=_FIRST, doc="Time with the passenger."),
        usd("base_passenger_fare", parquet_from=_FIRST, doc="The passenger's fare before tolls, tips, taxes and fees."),
        usd("tolls", parquet_from=_FIRST, doc="All tolls paid."),
        usd("bcf", parquet_from=_FIRST, doc="Collected for the Black Car Fund."),
        usd("sales_tax", parquet_from=_FIRST, doc="Collected as New York State's sales tax."),
        usd(
            "congestion_surcharge",
            parquet_from=_FIRST,
            doc="New York State's surcharge for trips in Manhattan south of 96th Street.",
        ),
        usd("airport_fee", parquet_from=_FIRST, doc="For pickups and drop-offs at LaGuardia, JFK and Newark."),
        CBD_CONGESTION_FEE,
        usd("tips", parquet_from=_FIRST, doc="Tips from the passenger."),
        usd("driver_pay", parquet_from=_FIRST, doc="Paid to the driver, without tolls and tips."),
        _flag("shared_request_flag", doc="Whether the passenger agreed to a shared ride."),
        _flag("shared_match_flag", doc="Whether the passenger shared the vehicle with one who booked apart."),
        _flag(
            "access_a_ride_flag",
            codes={**codes.YES_NO, " ": "not stated (a single blank in many rows)"},
            doc="Whether the trip was made for the MTA's paratransit.",
        ),
        _flag("wav_request_flag", doc="Whether a wheelchair-accessible vehicle was asked for."),
        _flag("wav_match_flag", doc="Whether the trip was made in a wheelchair-accessible vehicle."),
        Column(
            "sr_flag",
            INT64,
            tlc="SR_Flag",
            codes=codes.SHARED_RIDE,
            words=codes.SHARED_RIDE_WORDS,
            doc="In the CSVs only: whether the trip was part of a shared ride; null means that it was not.",
        ),
        Column(
            "affiliated_base_number",
            TEXT,
            tlc="Affiliated_base_number",
            doc="In the CSV of 2021-06 only: licence number of the base that the vehicle belongs to.",
        ),
    ),
)
