"""The columns of TLC's Parquet file of each month: names in their order, types, words; data only.

A layout is a month and the columns since that month; a type is a text such as `2009-01 string, 2011-01 int64`, with
the same meaning. Each published name stands for a quantity (`QUANTITIES`), which `taxi.py` or `for_hire.py` makes.
Sources: the footers that public repositories have printed (those of `pipeline.datasets.published`). Unknown, and
therefore guessed: green's types of 2014-03 to 2018-12, fhv's of 2015-02 to 2018-12, `request_source` (since
2026-06).
"""

from __future__ import annotations

from datetime import date
from functools import cache
from itertools import takewhile
from typing import TypeVar

from pipeline.months import parse_month

_T = TypeVar("_T")

#: The first month of each dataset in any format; the first five months of green were published as CSV only.
FIRST_MONTHS = {
    "yellow": date(2009, 1, 1),
    "green": date(2013, 8, 1),
    "fhv": date(2015, 1, 1),
    "fhvhv": date(2019, 2, 1),
}
FIRST_PARQUET_MONTHS = {**FIRST_MONTHS, "green": date(2014, 1, 1)}
#: TLC withdrew the CSVs in May 2022; the mirrors have no later ones.
LAST_CSV_MONTH = date(2021, 12, 1)
#: Earlier files were written by pandas: GZIP, format 1.0, and integers only in columns without nulls.
ARROW_ERA = date(2023, 2, 1)

_YELLOW_2009 = (
    "vendor_name Trip_Pickup_DateTime Trip_Dropoff_DateTime Passenger_Count Trip_Distance Start_Lon Start_Lat Rate_Code"
    " store_and_forward End_Lon End_Lat Payment_Type Fare_Amt surcharge mta_tax Tip_Amt Tolls_Amt Total_Amt"
)
_YELLOW_2010 = (
    "vendor_id pickup_datetime dropoff_datetime passenger_count trip_distance pickup_longitude pickup_latitude"
    " rate_code store_and_fwd_flag dropoff_longitude dropoff_latitude payment_type fare_amount surcharge mta_tax"
    " tip_amount tolls_amount total_amount"
)
_YELLOW_2011 = (
    "VendorID tpep_pickup_datetime tpep_dropoff_datetime passenger_count trip_distance RatecodeID store_and_fwd_flag"
    " PULocationID DOLocationID payment_type fare_amount extra mta_tax tip_amount tolls_amount improvement_surcharge"
    " total_amount congestion_surcharge airport_fee"
)
_YELLOW_2023 = _YELLOW_2011.replace("airport_fee", "Airport_fee")
_GREEN = (
    "VendorID lpep_pickup_datetime lpep_dropoff_datetime store_and_fwd_flag RatecodeID PULocationID DOLocationID"
    " passenger_count trip_distance fare_amount extra mta_tax tip_amount tolls_amount ehail_fee improvement_surcharge"
    " total_amount payment_type trip_type congestion_surcharge"
)
_FHV = "dispatching_base_num pickup_datetime dropOff_datetime PUlocationID DOlocationID SR_Flag Affiliated_base_number"
_FHVHV = (
    "hvfhs_license_num dispatching_base_num originating_base_num request_datetime on_scene_datetime pickup_datetime"
    " dropoff_datetime PULocationID DOLocationID trip_miles trip_time base_passenger_fare tolls bcf sales_tax"
    " congestion_surcharge airport_fee tips driver_pay shared_request_flag shared_match_flag access_a_ride_flag"
    " wav_request_flag wav_match_flag"
)

_LAYOUTS = {
    "yellow": (
        ("2009-01", _YELLOW_2009),
        ("2010-01", _YELLOW_2010),
        ("2010-02", _YELLOW_2010 + " __index_level_0__"),
        ("2010-04", _YELLOW_2010),
        ("2011-01", _YELLOW_2011),
        ("2023-02", _YELLOW_2023),
        ("2025-01", _YELLOW_2023 + " cbd_congestion_fee"),
        ("2026-06", _YELLOW_2023 + " cbd_congestion_fee request_source"),
    ),
    "green": (
        ("2014-01", _GREEN),
        ("2025-01", _GREEN + " cbd_congestion_fee"),
        ("2026-06", _GREEN + " cbd_congestion_fee request_source"),
    ),
    "fhv": (("2015-01", _FHV),),
    "fhvhv": (("2019-02", _FHVHV), ("2025-01", _FHVHV + " cbd_congestion_fee")),
}

#: The quantity of a name in lower case without outer spaces, if the two differ.
QUANTITIES = {
    "vendorid": "vendor_id", "vendor_name": "vendor_id",
    "trip_pickup_datetime": "pickup_datetime", "tpep_pickup_datetime": "pickup_datetime",
    "lpep_pickup_datetime": "pickup_datetime", "pickup_date": "pickup_datetime",
    "trip_dropoff_datetime": "dropoff_datetime", "tpep_dropoff_datetime": "dropoff_datetime",
    "lpep_dropoff_datetime": "dropoff_datetime",
    "start_lon": "pickup_longitude", "start_lat": "pickup_latitude",
    "end_lon": "dropoff_longitude", "end_lat": "dropoff_latitude",
    "ratecodeid": "rate_code", "store_and_forward": "store_and_fwd_flag",
    "pulocationid": "pickup_zone", "locationid": "pickup_zone", "dolocationid": "dropoff_zone",
    "fare_amt": "fare_amount", "tip_amt": "tip_amount", "tolls_amt": "tolls_amount", "total_amt": "total_amount",
    "surcharge": "extra", "dispatching_base_number": "dispatching_base_num", "__index_level_0__": "row",
}  # fmt: skip

_STRING = "2009-01 string, 2023-02 large_string"
_ZONE = "2009-01 int64, 2023-02 int32"
_CODE = "2009-01 int64, 2018-07 double, 2023-02 int64"
_TIME = "2009-01 time"

_TYPES = {
    "yellow": {
        "vendor_id": "2009-01 string, 2011-01 int64, 2023-02 int32",
        "pickup_datetime": "2009-01 text, 2011-01 time",
        "dropoff_datetime": "2009-01 text, 2011-01 time",
        "passenger_count": _CODE,
        "rate_code": "2009-01 double, 2010-01 string, 2010-02 int64, 2010-04 string, 2011-01 int64, 2018-07 double,"
        " 2023-02 int64",
        "store_and_fwd_flag": "2009-01 double, 2010-01 string, 2023-02 large_string",
        "pickup_zone": _ZONE,
        "dropoff_zone": _ZONE,
        "payment_type": "2009-01 string, 2011-01 int64",
        "improvement_surcharge": "2009-01 double, 2014-08 null, 2014-09 double",
        "congestion_surcharge": "2011-01 double, 2011-02 null, 2011-03 double, 2011-04 null, 2012-12 double,"
        " 2013-01 null, 2013-05 double, 2013-06 null, 2014-01 double, 2014-02 null, 2018-01 double, 2018-02 null,"
        " 2018-06 double, 2018-07 null, 2018-09 double, 2018-10 null, 2018-11 double, 2018-12 null, 2019-01 double",
        "airport_fee": "2011-01 double, 2011-02 null, 2018-01 double, 2018-02 null, 2020-08 double, 2020-10 null,"
        " 2020-11 double",
        "row": "2009-01 int64",
        "request_source": _STRING,
    },
    "green": {
        "vendor_id": _ZONE,
        "pickup_datetime": _TIME,
        "dropoff_datetime": _TIME,
        "store_and_fwd_flag": _STRING,
        "rate_code": _CODE,
        "pickup_zone": _ZONE,
        "dropoff_zone": _ZONE,
        "passenger_count": _CODE,
        "payment_type": _CODE,
        "trip_type": "2014-01 double, 2015-01 int64, 2018-07 double, 2023-02 int64",
        "ehail_fee": "2014-01 null, 2019-01 double, 2019-09 null, 2023-02 double",
        "improvement_surcharge": "2014-01 double, 2014-02 null, 2015-01 double",
        "congestion_surcharge": "2014-01 null, 2019-01 double",
        "request_source": _STRING,
    },
    "fhv": {
        "dispatching_base_num": _STRING,
        "affiliated_base_number": _STRING,
        "pickup_datetime": _TIME,
        "dropoff_datetime": _TIME,
        "pickup_zone": "2015-01 double, 2019-05 int64, 2019-07 double, 2023-02 int64",
        "dropoff_zone": "2015-01 double, 2019-05 int64, 2019-07 double, 2020-07 int64, 2020-08 double, 2023-02 int64",
        "sr_flag": "2015-01 null, 2017-05 double, 2019-03 null, 2023-02 int64",
    },
    "fhvhv": {
        **dict.fromkeys(("hvfhs_license_num", "dispatching_base_num", "originating_base_num"), _STRING),
        **dict.fromkeys(("request_datetime", "on_scene_datetime", "pickup_datetime", "dropoff_datetime"), _TIME),
        **dict.fromkeys(
            ("shared_request_flag", "shared_match_flag", "access_a_ride_flag", "wav_request_flag"), _STRING
        ),
        "wav_match_flag": "2019-02 null, 2019-04 string, 2023-02 large_string",
        "pickup_zone": _ZONE,
        "dropoff_zone": _ZONE,
        "trip_time": "2019-02 int64",
        "airport_fee": "2019-02 null, 2019-07 double, 2020-04 null, 2020-05 double, 2020-10 null, 2020-11 double",
    },
}

#: Before this month the quantity has a value in a few rows only (some are enough to make its column a double).
SPARSE_UNTIL = {
    ("yellow", "rate_code"): date(2010, 1, 1),
    ("yellow", "mta_tax"): date(2009, 11, 1),
    ("yellow", "congestion_surcharge"): date(2019, 1, 1),
    ("yellow", "airport_fee"): date(2021, 1, 1),
    ("green", "improvement_surcharge"): date(2015, 1, 1),
    ("green", "trip_type"): date(2015, 1, 1),
    ("green", "ehail_fee"): date(2019, 9, 1),
}

#: The words that stand for codes, since which month; each row has one of several spellings.
WORDS: dict[str, tuple[tuple[str, dict[int, tuple[str, ...]]], ...]] = {
    "vendor_id": (("2009-01", {1: ("CMT",), 2: ("VTS",), 3: ("DDS",)}),),
    "payment_type": (
        ("2009-01", {1: ("Credit", "CREDIT"), 2: ("CASH", "Cash"), 3: ("No Charge",), 4: ("Dispute",)}),
        ("2010-01", {1: ("CRE", "Cre"), 2: ("CAS", "Cas"), 3: ("NOC", "No "), 4: ("DIS",), 5: ("NA ",)}),
        ("2011-01", {1: ("CRD",), 2: ("CSH",), 3: ("NOC",), 4: ("DIS",), 5: ("UNK",)}),
    ),
    "rate_code": (("2009-01", {code: (str(code),) for code in (0, 1, 2, 3, 4, 5, 6, 99)}),),
    "store_and_fwd_flag": (("2009-01", {0: ("0",), 1: ("1",)}), ("2011-01", {0: ("N",), 1: ("Y",)})),
}


def since(steps: tuple[tuple[str, _T], ...], month: date) -> _T:
    """The value of the last step that starts in `month` or earlier; the first value before all steps."""
    started = list(takewhile(lambda step: parse_month(step[0]) <= month, steps))
    return started[-1][1] if started else steps[0][1]


def quantity_of(name: str) -> str:
    """The quantity that a published column name stands for."""
    folded = name.strip().lower()
    return QUANTITIES.get(folded, folded)


@cache
def parquet_columns(dataset: str, month: date) -> tuple[tuple[str, str, str], ...]:
    """The columns of a month's Parquet file in their order: published name, quantity, type.

    Types are those of Arrow, with `time` for timestamp[us] and `text` for a time written as a string.
    """
    names = since(_LAYOUTS[dataset], month).split()
    return tuple((name, quantity_of(name), _type(dataset, quantity_of(name), month)) for name in names)


def _type(dataset: str, quantity: str, month: date) -> str:
    steps = _TYPES[dataset].get(quantity, "2009-01 double").split(",")
    return since(tuple((step.split()[0], step.split()[1]) for step in steps), month)
