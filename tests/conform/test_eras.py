"""Every layout that TLC's Parquet files have had conforms to the one schema, empty columns included."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_eras import (
    DOUBLE,
    INT,
    NULL,
    SHORT,
    TEXT,
    US,
    Era,
    fhv,
    fhvhv,
    green,
    rows,
    table,
    times,
    write,
    yellow,
    yellow_2009,
    yellow_2010,
)

from pipeline.conform.month import conform_file
from pipeline.datasets import DATASETS


def _month(year: int, number: int) -> date:
    return date(year, number, 1)


_LEVIES = ("congestion_surcharge", "airport_fee")

ERAS: dict[str, tuple[str, date, Era]] = {
    "yellow 2009": ("yellow", _month(2009, 1), yellow_2009()),
    "yellow 2010-01, rate as text": ("yellow", _month(2010, 2), yellow_2010(rate=TEXT, index=False)),
    "yellow 2010-02, with an index": ("yellow", _month(2010, 2), yellow_2010(rate=INT, index=True)),
    "yellow 2010, should its times be times": (
        "yellow",
        _month(2010, 2),
        yellow_2010(rate=TEXT, index=False, times_as=US),
    ),
    "yellow 2011-01": ("yellow", _month(2011, 1), yellow(_month(2011, 1))),
    "yellow 2011-02, levies empty": ("yellow", _month(2011, 2), yellow(_month(2011, 2), empty=_LEVIES)),
    "yellow 2014-08": (
        "yellow",
        _month(2014, 8),
        yellow(_month(2014, 8), empty=(*_LEVIES, "improvement_surcharge")),
    ),
    "yellow 2018-07, codes as doubles": ("yellow", _month(2018, 7), yellow(_month(2018, 7), empty=_LEVIES)),
    "yellow 2020-08": ("yellow", _month(2020, 8), yellow(_month(2020, 8))),
    "yellow 2023-02, Airport_fee": ("yellow", _month(2023, 2), yellow(_month(2023, 2))),
    "yellow 2025-01": ("yellow", _month(2025, 1), yellow(_month(2025, 1))),
    "green era A": ("green", _month(2021, 1), green(_month(2021, 1), "A")),
    "green era B": ("green", _month(2023, 2), green(_month(2023, 2), "B")),
    "green era C": ("green", _month(2025, 1), green(_month(2025, 1), "C")),
    "fhv 2015-01": ("fhv", _month(2015, 1), fhv(_month(2015, 1))),
    "fhv 2015-01, nothing known of the drop-off": ("fhv", _month(2015, 1), fhv(_month(2015, 1), zones=(DOUBLE, NULL))),
    "fhv 2017-05, flag as double": ("fhv", _month(2017, 5), fhv(_month(2017, 5), flag=DOUBLE)),
    "fhv 2020-07, zones of two types": ("fhv", _month(2020, 7), fhv(_month(2020, 7), zones=(DOUBLE, INT))),
    "fhv 2023-02": ("fhv", _month(2023, 2), fhv(_month(2023, 2), zones=(INT, INT), flag=INT)),
    "fhvhv 2019-02": ("fhvhv", _month(2019, 2), fhvhv(_month(2019, 2), empty=("wav_match_flag", "airport_fee"))),
    "fhvhv 2019-07": ("fhvhv", _month(2019, 7), fhvhv(_month(2019, 7))),
    "fhvhv 2023-02": ("fhvhv", _month(2023, 2), fhvhv(_month(2023, 2))),
    "fhvhv 2025-01": ("fhvhv", _month(2025, 1), fhvhv(_month(2025, 1))),
}


def _conform(folder: Path, dataset: str, month: date, content: pa.Table) -> list[dict[str, Any]]:
    raw = write(folder, f"{DATASETS[dataset].base_name(month)}.parquet", content)
    conform_file(raw, folder / "draft", dataset, month)
    return rows(folder / "draft")


@pytest.mark.parametrize("era", ERAS.values(), ids=ERAS.keys())
def test_every_era_conforms_to_the_one_schema(tmp_path: Path, era: tuple[str, date, Era]) -> None:
    dataset, month, columns = era
    trips = _conform(tmp_path, dataset, month, table(columns))
    assert len(trips) == 3
    assert pq.read_schema(tmp_path / "draft").equals(DATASETS[dataset].schema)
    dropped = {"__index_level_0__"}
    filled = sum(value is not None for name, _, values in columns for value in values if name not in dropped)
    assert sum(len(row) for row in trips) == filled, "each published value is there, and no other"


def test_yellow_2009_has_words_strings_and_doubles(tmp_path: Path) -> None:
    month = _month(2009, 1)
    trips = _conform(tmp_path, "yellow", month, table(yellow_2009()))
    assert trips[0]["pickup_datetime"] == times(month)[0] == datetime(2009, 1, 3, 12, 0, 5)
    assert [row["vendor_id"] for row in trips] == [2, 1, 101]
    assert [row["payment_type"] for row in trips] == [2, 1, 3]
    assert [row.get("store_and_fwd_flag") for row in trips] == [None, "N", "Y"]
    assert [row.get("rate_code_id") for row in trips] == [None, 1, None]
    assert [row["extra"] for row in trips] == [0.5, 0.5, 0.0]
    assert trips[0]["pickup_longitude"] == -73.99
    assert "pickup_location_id" not in trips[0]


def test_yellow_2010_has_codes_as_text_and_a_word_of_unknown_meaning(tmp_path: Path) -> None:
    trips = _conform(tmp_path, "yellow", _month(2010, 2), table(yellow_2010(rate=TEXT, index=True)))
    assert [row["payment_type"] for row in trips] == [2, 1, 101]
    assert [row["rate_code_id"] for row in trips] == [1, 2, 0]
    assert [row.get("store_and_fwd_flag") for row in trips] == ["N", "Y", None]


def test_codes_published_as_doubles_become_integers(tmp_path: Path) -> None:
    month = _month(2018, 7)
    trips = _conform(tmp_path, "yellow", month, table(yellow(month)))
    assert [row.get("passenger_count") for row in trips] == [1, 3, None]
    assert pq.read_schema(tmp_path / "draft").field("passenger_count").type == pa.int64()


def test_fhv_2019_02_keeps_its_drop_off_in_the_year_3019(tmp_path: Path) -> None:
    month = _month(2019, 2)
    late = datetime(3019, 2, 3, 17, 30)
    ends = pa.array([late, None, None], US)
    trips = _conform(tmp_path, "fhv", month, table(fhv(month), dropOff_datetime=ends))
    assert trips[0]["dropoff_datetime"] == late


def test_a_time_with_nanoseconds_that_are_all_zero_is_a_time(tmp_path: Path) -> None:
    month = _month(2021, 1)
    stamps = pa.array(times(month), pa.timestamp("ns"))
    trips = _conform(tmp_path, "green", month, table(green(month, "A"), lpep_pickup_datetime=stamps))
    assert [row["pickup_datetime"] for row in trips] == times(month)


def test_the_announced_request_source_is_kept_as_text_whatever_its_type(tmp_path: Path) -> None:
    month = _month(2026, 6)
    for values, texts in (
        (pa.array(["app", None, " "]), ["app", None, " "]),
        (pa.array([1, 2, None]), ["1", "2", None]),
        (pa.array([1.0, 2.5, None]), ["1", "2.5", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    ):
        trips = _conform(tmp_path, "green", month, table(green(month, "C"), request_source=values))
        assert [row.get("request_source") for row in trips] == texts


def test_a_rewrite_with_other_types_and_the_same_values_gives_the_same_trips(tmp_path: Path) -> None:
    month = _month(2023, 2)
    published = table(green(month, "B"))
    rewritten = table(
        green(month, "B"),
        VendorID=pa.array(["1", "2", "6"]),
        RatecodeID=pa.array([1.0, 5.0, None]),
        PULocationID=pa.array([74, 166, 265], pa.uint16()),
        store_and_fwd_flag=pa.array(["N", "Y", None]).dictionary_encode(),
        passenger_count=pa.array(["1.0", "2", ""]),
        trip_distance=pa.array(["1.5", "0", " 7.25 "]),
        tolls_amount=pa.array(["0.0", "6.12", "0"]),
        __index_level_0__=pa.array([7, 8, 9]),
    )
    assert rewritten.schema.field("VendorID").type != SHORT
    first = _conform(tmp_path, "green", month, published)
    assert _conform(tmp_path, "green", month, rewritten) == first
