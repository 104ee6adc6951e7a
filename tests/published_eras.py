"""Small months in the layouts that TLC has published: what tests of readers, conforming and checks share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEXT, LARGE, NULL = pa.string(), pa.large_string(), pa.null()
INT, SHORT, DOUBLE, US = pa.int64(), pa.int32(), pa.float64(), pa.timestamp("us")

#: A column as an era has it: published name, type, values of the first, second and third row.
Era = Sequence[tuple[str, pa.DataType, Sequence[Any]]]


def times(month: date, minutes: int = 0) -> list[datetime]:
    """Three moments in the month."""
    start = datetime(month.year, month.month, 3, 12, 0, 5)
    return [start + timedelta(days=day, minutes=minutes) for day in range(3)]


def texts(moments: Sequence[datetime]) -> list[str]:
    """The moments as the strings of 2009 and 2010."""
    return [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments]


def table(era: Era, **replaced: Any) -> pa.Table:
    """The era's three rows; `replaced` gives arrays for columns by published name, None drops one."""
    arrays = {name: pa.array(values, kind) for name, kind, values in era} | replaced
    return pa.table({name: array for name, array in arrays.items() if array is not None})


def write(folder: Path, name: str, content: pa.Table, metadata: Mapping[str, str] | None = None) -> Path:
    """The table as a Parquet file of that name."""
    path = folder / name
    pq.write_table(content.replace_schema_metadata(dict(metadata) if metadata else None), path)
    return path


def green(month: date, era: str) -> Era:
    """Green as Parquet: era A until 2023-01, B until 2024-12, C after."""
    new = era != "A"
    short, code, text = (SHORT, INT, LARGE) if new else (INT, DOUBLE, TEXT)
    columns: list[tuple[str, pa.DataType, Sequence[Any]]] = [
        ("VendorID", short, [1, 2, 6]),
        ("lpep_pickup_datetime", US, times(month)),
        ("lpep_dropoff_datetime", US, times(month, 9)),
        ("store_and_fwd_flag", text, ["N", "Y", None]),
        ("RatecodeID", code, [1, 5, None]),
        ("PULocationID", short, [74, 166, 265]),
        ("DOLocationID", short, [42, 1, 264]),
        ("passenger_count", code, [1, 2, None]),
        ("trip_distance", DOUBLE, [1.5, 0.0, 7.25]),
        ("fare_amount", DOUBLE, [8.5, 5.0, -3.0]),
        ("extra", DOUBLE, [0.5, 0.0, 0.0]),
        ("mta_tax", DOUBLE, [0.5, 0.5, 0.5]),
        ("tip_amount", DOUBLE, [1.0, 0.0, 0.0]),
        ("tolls_amount", DOUBLE, [0.0, 6.12, 0.0]),
        ("ehail_fee", DOUBLE if new else NULL, [None] * 3),
        ("improvement_surcharge", DOUBLE, [0.3, 0.3, 0.3]),
        ("total_amount", DOUBLE, [10.8, 11.92, -2.2]),
        ("payment_type", code, [1, 2, None]),
        ("trip_type", code, [1, 2, None]),
        ("congestion_surcharge", DOUBLE, [0.0, 2.75, None]),
    ]
    if era == "C":
        columns.append(("cbd_congestion_fee", DOUBLE, [0.75, 0.0, None]))
    return columns


def yellow_2009() -> Era:
    """Yellow 2009 as Parquet: strings for times, words for codes, coordinates, a double for the flag."""
    month = date(2009, 1, 1)
    return [
        ("vendor_name", TEXT, ["VTS", "CMT", "DDS"]),
        ("Trip_Pickup_DateTime", TEXT, texts(times(month))),
        ("Trip_Dropoff_DateTime", TEXT, texts(times(month, 7))),
        ("Passenger_Count", INT, [1, 3, 2]),
        ("Trip_Distance", DOUBLE, [2.6, 4.55, 10.35]),
        ("Start_Lon", DOUBLE, [-73.99, -73.98, 0.0]),
        ("Start_Lat", DOUBLE, [40.72, 40.73, 0.0]),
        ("Rate_Code", DOUBLE, [None, 1.0, None]),
        ("store_and_forward", DOUBLE, [None, 0.0, 1.0]),
        ("End_Lon", DOUBLE, [-73.98, -73.95, -73.97]),
        ("End_Lat", DOUBLE, [40.69, 40.77, 40.76]),
        ("Payment_Type", TEXT, ["CASH", "Credit", "No Charge"]),
        ("Fare_Amt", DOUBLE, [8.9, 12.1, 23.7]),
        ("surcharge", DOUBLE, [0.5, 0.5, 0.0]),
        ("mta_tax", DOUBLE, [None, None, 0.5]),
        ("Tip_Amt", DOUBLE, [0.0, 2.0, 4.74]),
        ("Tolls_Amt", DOUBLE, [0.0, 0.0, 4.15]),
        ("Total_Amt", DOUBLE, [9.4, 14.6, 28.44]),
    ]


def yellow_2010(*, rate: pa.DataType, index: bool, times_as: pa.DataType = TEXT) -> Era:
    """Yellow 2010 as Parquet; `rate` is the type of rate_code, `index` whether pandas left its row numbers."""
    month = date(2010, 2, 1)
    starts, ends = times(month), times(month, 7)
    columns: list[tuple[str, pa.DataType, Sequence[Any]]] = [
        ("vendor_id", TEXT, ["VTS", "CMT", "DDS"]),
        ("pickup_datetime", times_as, texts(starts) if times_as == TEXT else starts),
        ("dropoff_datetime", times_as, texts(ends) if times_as == TEXT else ends),
        ("passenger_count", INT, [1, 3, 2]),
        ("trip_distance", DOUBLE, [2.6, 4.55, 10.35]),
        ("pickup_longitude", DOUBLE, [-73.99, -73.98, 0.0]),
        ("pickup_latitude", DOUBLE, [40.72, 40.73, 0.0]),
        ("rate_code", rate, ["1", "2", "0"] if rate == TEXT else [1, 2, 0]),
        ("store_and_fwd_flag", TEXT, ["0", "1", None]),
        ("dropoff_longitude", DOUBLE, [-73.98, -73.95, -73.97]),
        ("dropoff_latitude", DOUBLE, [40.69, 40.77, 40.76]),
        ("payment_type", TEXT, ["CAS", "Cre", "NA "]),
        ("fare_amount", DOUBLE, [8.9, 12.1, 23.7]),
        ("surcharge", DOUBLE, [0.5, 0.5, 0.0]),
        ("mta_tax", DOUBLE, [0.5, 0.5, 0.5]),
        ("tip_amount", DOUBLE, [0.0, 2.0, 4.74]),
        ("tolls_amount", DOUBLE, [0.0, 0.0, 4.15]),
        ("total_amount", DOUBLE, [9.9, 15.1, 33.09]),
    ]
    return [*columns, ("__index_level_0__", INT, [0, 1, 2])] if index else columns


def yellow(month: date, *, empty: Sequence[str] = ()) -> Era:
    """Yellow from 2011-01 on as Parquet; the columns in `empty` have Arrow's null type."""
    new, doubles = month >= date(2023, 2, 1), date(2018, 7, 1) <= month < date(2023, 2, 1)
    short, text = (SHORT, LARGE) if new else (INT, TEXT)
    code = DOUBLE if doubles else INT
    columns: list[tuple[str, pa.DataType, Sequence[Any]]] = [
        ("VendorID", short, [1, 2, 2]),
        ("tpep_pickup_datetime", US, times(month)),
        ("tpep_dropoff_datetime", US, times(month, 7)),
        ("passenger_count", code, [1, 3, None]),
        ("trip_distance", DOUBLE, [2.6, 4.55, 10.35]),
        ("RatecodeID", code, [1, 2, None]),
        ("store_and_fwd_flag", text, ["N", "Y", None]),
        ("PULocationID", short, [161, 132, 265]),
        ("DOLocationID", short, [236, 1, 264]),
        ("payment_type", INT, [1, 2, 0 if new else 3]),
        ("fare_amount", DOUBLE, [8.9, 12.1, 23.7]),
        ("extra", DOUBLE, [0.5, 0.5, 0.0]),
        ("mta_tax", DOUBLE, [0.5, 0.5, 0.5]),
        ("tip_amount", DOUBLE, [0.0, 2.0, 4.74]),
        ("tolls_amount", DOUBLE, [0.0, 0.0, 4.15]),
        ("improvement_surcharge", DOUBLE, [0.3, 0.3, None]),
        ("total_amount", DOUBLE, [9.9, 15.1, 33.09]),
        ("congestion_surcharge", DOUBLE, [2.5, 0.0, None]),
        ("Airport_fee" if new else "airport_fee", DOUBLE, [0.0, 1.75, None]),
    ]
    if month >= date(2025, 1, 1):
        columns.append(("cbd_congestion_fee", DOUBLE, [0.75, 0.0, None]))
    return _emptied(columns, empty)


def fhv(month: date, *, zones: tuple[pa.DataType, pa.DataType] = (DOUBLE, DOUBLE), flag: pa.DataType = NULL) -> Era:
    """Fhv as Parquet; `zones` are the types of the two zone columns, `flag` that of SR_Flag."""
    text = LARGE if month >= date(2023, 2, 1) else TEXT
    zone = [None, 79, 265]
    return [
        ("dispatching_base_num", text, ["B00001", "B00014", "B03157"]),
        ("pickup_datetime", US, times(month)),
        ("dropOff_datetime", US, [times(month, 20)[0], None, times(month, 5)[2]]),
        ("PUlocationID", zones[0], [None] * 3 if zones[0] == NULL else zone),
        ("DOlocationID", zones[1], [None] * 3 if zones[1] == NULL else zone),
        ("SR_Flag", flag, [None] * 3 if flag == NULL else [None, 1, None]),
        ("Affiliated_base_number", text, ["B00001", None, "B02682"]),
    ]


def fhvhv(month: date, *, empty: Sequence[str] = ()) -> Era:
    """Fhvhv as Parquet; the columns in `empty` have Arrow's null type."""
    new = month >= date(2023, 2, 1)
    short, text = (SHORT, LARGE) if new else (INT, TEXT)
    columns: list[tuple[str, pa.DataType, Sequence[Any]]] = [
        ("hvfhs_license_num", text, ["HV0003", "HV0005", "HV0003"]),
        ("dispatching_base_num", text, ["B03404", "B03406", "B03404"]),
        ("originating_base_num", text, ["B03404", None, "B03404"]),
        ("request_datetime", US, times(month)),
        ("on_scene_datetime", US, [times(month, 2)[0], None, times(month, 2)[2]]),
        ("pickup_datetime", US, times(month, 4)),
        ("dropoff_datetime", US, times(month, 20)),
        ("PULocationID", short, [161, 132, 265]),
        ("DOLocationID", short, [236, 1, 264]),
        ("trip_miles", DOUBLE, [2.6, 4.55, 10.35]),
        ("trip_time", INT, [960, 961, 962]),
        ("base_passenger_fare", DOUBLE, [18.9, 22.1, 43.7]),
        ("tolls", DOUBLE, [0.0, 6.94, 0.0]),
        ("bcf", DOUBLE, [0.5, 0.6, 1.2]),
        ("sales_tax", DOUBLE, [1.6, 1.9, 3.9]),
        ("congestion_surcharge", DOUBLE, [2.75, 0.0, None]),
        ("airport_fee", DOUBLE, [0.0, 2.5, None]),
        ("tips", DOUBLE, [0.0, 3.0, 0.0]),
        ("driver_pay", DOUBLE, [14.2, 17.3, 30.1]),
        ("shared_request_flag", text, ["N", "Y", "N"]),
        ("shared_match_flag", text, ["N", "Y", "N"]),
        ("access_a_ride_flag", text, [" ", "N", " "]),
        ("wav_request_flag", text, ["N", "N", "Y"]),
        ("wav_match_flag", text, ["N", "N", None]),
    ]
    if month >= date(2025, 1, 1):
        columns.append(("cbd_congestion_fee", DOUBLE, [1.5, 0.0, None]))
    return _emptied(columns, empty)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a trips file, without what is null."""
    listed = pq.read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in listed]


def facts(path: Path) -> dict[str, str]:
    """The file metadata of a trips file, as text."""
    pairs = (pq.read_metadata(path).metadata or {}).items()
    return {key.decode(): text.decode() for key, text in pairs if key != b"ARROW:schema"}


def codes(field: pa.Field) -> dict[str, str]:
    """The code list that a field of a trips file carries."""
    listed: dict[str, str] = json.loads(field.metadata[b"codes"])
    return listed


def _emptied(columns: Era, empty: Sequence[str]) -> Era:
    return [(name, NULL, [None] * 3) if name in empty else (name, kind, values) for name, kind, values in columns]
