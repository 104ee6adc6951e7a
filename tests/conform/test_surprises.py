"""What TLC's data did: a small fixture for each entry of `docs/surprises.md` that no other test pins.

The rows are made up, in the form of the published ones. Tests that need the layouts of all months take those of the
sample site.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_eras import fhvhv, green, rows, table, times, write, yellow

from pipeline.conform.check import check, enforce
from pipeline.conform.month import conform_file
from pipeline.conform.profile import Measures
from pipeline.datasets import DATASETS
from pipeline.datasets.codes import PAYMENT_WORDS, VENDOR_WORDS
from pipeline.datasets.published import published_months
from pipeline.errors import NotPublished, SchemaError, SourceError
from pipeline.months import add_months, parse_month
from pipeline.sample import SampleSite
from pipeline.sample.csv_eras import csv_layout
from pipeline.sample.csv_files import write_csv
from pipeline.sample.eras import FIRST_MONTHS, LAST_CSV_MONTH, parquet_columns
from pipeline.sample.files import order, write_parquet
from pipeline.source.retries import RetryPolicy
from pipeline.source.site import make_source

YELLOW_2009 = (
    "vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,Trip_Distance,Start_Lon,Start_Lat,Rate_Code,"
    "store_and_forward,End_Lon,End_Lat,Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,Total_Amt"
)
YELLOW_2010 = (
    "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,pickup_longitude,pickup_latitude,"
    "rate_code,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,surcharge,mta_tax,"
    "tip_amount,tolls_amount,total_amount"
)
YELLOW_2016 = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,store_and_fwd_flag,"
    "PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,improvement_surcharge,"
    "total_amount"
)
GREEN_2014 = (
    "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Pickup_longitude,"
    "Pickup_latitude,Dropoff_longitude,Dropoff_latitude,Passenger_count,Trip_distance,Fare_amount,Extra,MTA_tax,"
    "Tip_amount,Tolls_amount,Ehail_fee,Total_amount,Payment_type,Trip_type "
)
FHV_2017 = '"Dispatching_base_num","Pickup_DateTime","DropOff_datetime","PUlocationID","DOlocationID","SR_Flag"'


def _csv(folder: Path, dataset: str, month: str, header: str, lines: Sequence[str], *, blank: int = 0) -> Path:
    """A CSV with TLC's line ends, and `blank` blank lines after the header."""
    path = folder / f"{dataset}_tripdata_{month}.csv"
    path.write_bytes("".join(f"{line}\r\n" for line in [header, *[""] * blank, *lines]).encode())
    return path


def _conform(raw: Path, dataset: str, month: str) -> tuple[Measures, list[dict[str, Any]]]:
    """The measures, and the rows without their nulls."""
    draft = raw.with_name("draft")
    measures = conform_file(raw, draft, dataset, parse_month(month))
    return measures, rows(draft)


def _parquet(folder: Path, dataset: str, month: str, content: pa.Table) -> tuple[Measures, list[dict[str, Any]]]:
    return _conform(write(folder, f"{dataset}_tripdata_{month}.parquet", content), dataset, month)


def _column(trips: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row.get(name) for row in trips]


def _green(month: str, **replaced: Sequence[Any]) -> pa.Table:
    """Ten rows of green in that month's era, with some columns replaced."""
    era = green(parse_month(month), "A" if month < "2023-02" else "B" if month < "2025-01" else "C")
    types = {name: kind for name, kind, _ in era}
    ten = table(era).take([row % 3 for row in range(10)])
    for name, values in replaced.items():
        ten = ten.set_column(ten.schema.get_field_index(name), name, pa.array(values, types[name]))
    return ten


def _words_of_2010(folder: Path, words: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """A CSV of 2010 with these vendors, flags and payments."""
    lines = [
        f"{vendor},2010-02-13 01:{number:02}:36,2010-02-13 02:00:06,1,0.5,-73.96,40.75,1,{flag},-73.96,40.76,{payment},"
        "4.0999999999999996,0.5,0.5,1,0,6.0999999999999996"
        for number, (vendor, flag, payment) in enumerate(words)
    ]
    return _conform(_csv(folder, "yellow", "2010-02", YELLOW_2010, lines, blank=1), "yellow", "2010-02")[1]


# --- names


def test_a_space_before_each_name_but_the_first_does_not_matter(tmp_path: Path) -> None:
    lines = [
        f"CMT,2014-01-09 20:45:{second:02},2014-01-09 20:52:31,1,0.69999999999999996,-73.99,40.73,1,N,-73.98,40.73,CRD,"
        "6.5,0.5,0.5,1.3999999999999999,0,8.9000000000000004"
        for second in range(10)
    ]
    spaced, plain = YELLOW_2010.replace(",", ", "), YELLOW_2010
    trips = [
        _conform(_csv(tmp_path, "yellow", "2014-01", header, lines, blank=1), "yellow", "2014-01")[1]
        for header in (spaced, plain)
    ]
    assert trips[0] == trips[1]
    assert trips[0][9] == {
        "vendor_id": 1,
        "pickup_datetime": datetime(2014, 1, 9, 20, 45, 9),
        "dropoff_datetime": datetime(2014, 1, 9, 20, 52, 31),
        "passenger_count": 1,
        "trip_distance": 0.7,
        "rate_code_id": 1,
        "store_and_fwd_flag": "N",
        "payment_type": 1,
        "fare_amount": 6.5,
        "extra": 0.5,
        "mta_tax": 0.5,
        "tip_amount": 1.4,
        "tolls_amount": 0.0,
        "total_amount": 8.9,
        "pickup_longitude": -73.99,
        "pickup_latitude": 40.73,
        "dropoff_longitude": -73.98,
        "dropoff_latitude": 40.73,
    }


def test_the_airport_fee_is_one_column_with_its_capital_and_without(tmp_path: Path) -> None:
    for month, name in (("2023-01", "airport_fee"), ("2023-02", "Airport_fee")):
        content = table(yellow(parse_month(month)))
        assert name in content.column_names
        assert _column(_parquet(tmp_path, "yellow", month, content)[1], "airport_fee") == [0.0, 1.75, None]


def test_the_fhv_csvs_of_2015_have_one_zone_that_of_the_pickup(tmp_path: Path) -> None:
    lines = [f"B000{number:02},2015-03-01 00:{number:02}:00,{number * 20 or ''}" for number in range(10)]
    raw = _csv(tmp_path, "fhv", "2015-03", "Dispatching_base_num,Pickup_date,locationID", lines)
    trips = _conform(raw, "fhv", "2015-03")[1]
    assert _column(trips, "pickup_location_id") == [None, 20, 40, 60, 80, 100, 120, 140, 160, 180]
    assert _column(trips, "dropoff_location_id") == [None] * 10
    assert trips[9]["pickup_datetime"] == datetime(2015, 3, 1, 0, 9)


# --- layouts: every one that a month has had


@pytest.mark.parametrize("dataset", ["yellow", "green", "fhv", "fhvhv"])
def test_every_published_parquet_layout_conforms_with_its_empty_columns(tmp_path: Path, dataset: str) -> None:
    layouts = {parquet_columns(dataset, month): month for month in published_months(dataset)}
    assert len(layouts) >= 5
    for layout, month in layouts.items():
        write_parquet(order(dataset, month, rows=60), tmp_path / "raw.parquet")
        measures = conform_file(tmp_path / "raw.parquet", tmp_path / "draft", dataset, month)
        published = pq.read_table(tmp_path / "raw.parquet")
        names = {spelling: column.name for column in DATASETS[dataset].columns for spelling in column.spellings()}
        for name, _, kind in layout:
            if name != "__index_level_0__":
                nulls = measures.columns[names[name.casefold()]].nulls
                assert nulls == published[name].null_count, (month, name)
                assert nulls == 60 or kind != "null", (month, name)


@pytest.mark.parametrize("dataset", ["yellow", "green", "fhv", "fhvhv"])
def test_every_published_csv_layout_conforms(tmp_path: Path, dataset: str) -> None:
    months = [FIRST_MONTHS[dataset]]
    while months[-1] < LAST_CSV_MONTH:
        months.append(add_months(months[-1], 1))
    for month in {csv_layout(dataset, month): month for month in months}.values():
        write_csv(order(dataset, month, rows=60), tmp_path / "raw.csv")
        measures = conform_file(tmp_path / "raw.csv", tmp_path / "draft", dataset, month)
        assert measures.rows == 60, month
        enforce(DATASETS[dataset], month, check(DATASETS[dataset], month, measures))


# --- words and codes


def test_every_spelling_of_a_payment_has_its_code(tmp_path: Path) -> None:
    spellings = {
        **dict.fromkeys(["Credit", "CREDIT", "CRE", "Cre", "CRD"], 1),
        **dict.fromkeys(["CASH", "Cash", "CAS", "Cas", "CSH"], 2),
        **dict.fromkeys(["No Charge", "No ", "NOC"], 3),
        **dict.fromkeys(["Dispute", "DIS"], 4),
        **dict.fromkeys(["Unknown", "UNK"], 5),
        "NA ": 101,
    }
    trips = _words_of_2010(tmp_path, [("CMT", "0", word) for word in spellings])
    assert _column(trips, "payment_type") == list(spellings.values())
    assert {word.strip().casefold() for word in spellings} == set(PAYMENT_WORDS)


def test_every_word_for_a_vendor_has_its_code(tmp_path: Path) -> None:
    words = ["CMT", "VTS", "DDS", "VTS", "CMT"]
    trips = _words_of_2010(tmp_path, [(word, "0", "CAS") for word in words])
    assert _column(trips, "vendor_id") == [1, 2, 101, 2, 1]
    assert set(VENDOR_WORDS) == set(words)


def test_the_flag_of_0_and_1_is_that_of_n_and_y(tmp_path: Path) -> None:
    trips = _words_of_2010(tmp_path, [("CMT", flag, "CAS") for flag in ["0", "1", "", "N", "Y"]])
    assert _column(trips, "store_and_fwd_flag") == ["N", "Y", None, "N", "Y"]


def test_a_single_blank_is_a_value_of_access_a_ride(tmp_path: Path) -> None:
    measures, trips = _parquet(tmp_path, "fhvhv", "2021-01", table(fhvhv(date(2021, 1, 1))))
    assert _column(trips, "access_a_ride_flag") == [" ", "N", " "]
    assert measures.counts["unknown_access_a_ride_flag"] == 0


def test_codes_missing_in_tlc_s_lists_stay_and_only_new_ones_are_counted(tmp_path: Path) -> None:
    vendors, rates = [1, 2, 4, 5, 6, 7, 1, 2, 3, 1], [1.0, 2.0, 99.0, 99.0, 0.0, 6.0, None, 5.0, 1.0, 210.0]
    measures, trips = _parquet(tmp_path, "green", "2022-06", _green("2022-06", VendorID=vendors, RatecodeID=rates))
    assert _column(trips, "vendor_id") == vendors
    assert _column(trips, "rate_code_id") == rates
    assert (measures.counts["unknown_vendor_id"], measures.counts["unknown_rate_code_id"]) == (1, 1)
    assert measures.counts["unknown_codes"] == 2


# --- the shape of CSVs


def test_blank_lines_and_two_empty_fields_without_names_are_ignored(tmp_path: Path) -> None:
    lines = [
        f"2,2014-01-01 00:0{minute}:00,2014-01-01 01:08:06,N,1,0,0,-73.86504364013672,40.87,1,.68,20,0.5,0.5,0,0,,21,1"
        ",,,"
        for minute in range(10)
    ]
    for blank in (0, 1, 2):
        measures, trips = _conform(
            _csv(tmp_path, "green", "2014-01", GREEN_2014, lines, blank=blank), "green", "2014-01"
        )
        assert measures.rows == len(trips) == 10
        assert _column(trips, "trip_distance") == [0.68] * 10
        assert _column(trips, "trip_type") == _column(trips, "ehail_fee") == [None] * 10
        assert trips[9]["pickup_longitude"] == 0.0, "a coordinate of zero stays, although no pickup was there"
        assert trips[9]["dropoff_longitude"] == -73.86504364013672


def test_the_two_additional_fields_of_late_2016_must_be_empty(tmp_path: Path) -> None:
    line = "1,2016-07-10 06:56:05,2016-07-10 06:59:53,1,.50,1,N,263,236,1,4.5,1,0.5,2.7,0,0.3,9"
    trips = _conform(_csv(tmp_path, "yellow", "2016-07", YELLOW_2016, [f"{line},,"] * 10), "yellow", "2016-07")[1]
    assert _column(trips, "total_amount") == [9.0] * 10
    raw = _csv(tmp_path, "yellow", "2016-07", YELLOW_2016, [*[f"{line},,"] * 9, f"{line},,7"])
    with pytest.raises(SchemaError, match=r"17 columns of the header: 1, in lines 11 \(19 fields\); use the Parquet"):
        _conform(raw, "yellow", "2016-07")


def test_quotes_around_every_field_of_fhv_2017_do_not_belong_to_the_values(tmp_path: Path) -> None:
    lines = [
        f'"B02817","2017-07-18 21:2{minute}:00","2017-07-18 21:30:38","144","{132 if minute else ""}","{minute or ""}"'
        for minute in range(2)
    ]
    trips = _conform(_csv(tmp_path, "fhv", "2017-07", FHV_2017, lines * 5), "fhv", "2017-07")[1]
    assert _column(trips, "dispatching_base_num") == ["B02817"] * 10
    assert _column(trips, "dropoff_location_id") == [None, 132] * 5
    assert _column(trips, "sr_flag") == [None, 1] * 5


def test_decimals_of_seventeen_digits_are_the_numbers_that_parquet_has(tmp_path: Path) -> None:
    written = ["8.9000000000000004", "2.6299999999999999", "23.699999999999999", "28.440000000000001", ".50", "9", "-3"]
    lines = [
        f"VTS,2009-01-04 02:5{row}:00,2009-01-04 03:02:00,1,{text},-73.99,40.72,,,-73.99,40.69,CASH,{text},0.5,,0,0,9.4"
        for row, text in enumerate(written)
    ]
    trips = _conform(_csv(tmp_path, "yellow", "2009-01", YELLOW_2009, lines, blank=1), "yellow", "2009-01")[1]
    assert _column(trips, "fare_amount") == [8.9, 2.63, 23.7, 28.44, 0.5, 9.0, -3.0]
    assert _column(trips, "extra") == [0.5] * 7, "then called surcharge"
    assert _column(trips, "mta_tax") == [None] * 7


# --- odd rows that are real


def test_pickups_of_other_years_stay_in_the_month_of_their_file_and_are_counted(tmp_path: Path) -> None:
    strays = [
        datetime(2008, 12, 31, 23, 5),
        datetime(2009, 1, 1),
        datetime(2041, 11, 15),
        datetime(2024, 2, 29, 23, 59),
    ]
    pickups = [*strays, *times(date(2024, 3, 1)), *times(date(2024, 3, 1))]
    ends = [pickup + timedelta(minutes=9) for pickup in pickups]
    content = _green("2024-03", lpep_pickup_datetime=pickups, lpep_dropoff_datetime=ends)
    measures, trips = _parquet(tmp_path, "green", "2024-03", content)
    assert _column(trips, "pickup_datetime") == pickups
    assert measures.counts["pickups_outside_month"] == 4
    findings = check(DATASETS["green"], date(2024, 3, 1), measures)
    assert "stray_pickups" in [finding.rule for finding in findings]
    enforce(DATASETS["green"], date(2024, 3, 1), findings)


def test_the_wrong_minutes_of_vendor_6_stay_and_raise_a_warning(tmp_path: Path) -> None:
    starts = [datetime(2025, 2, 3, hour, 2, 5 * hour) for hour in range(10)]
    ends = [start + timedelta(seconds=20 if start.hour else -3) for start in starts]
    content = _green("2025-02", VendorID=[6] * 10, lpep_pickup_datetime=starts, lpep_dropoff_datetime=ends)
    measures, trips = _parquet(tmp_path, "green", "2025-02", content)
    assert _column(trips, "pickup_datetime") == starts
    assert _column(trips, "dropoff_datetime") == ends
    assert measures.counts["dropoffs_before_pickups"] == 1
    findings = check(DATASETS["green"], date(2025, 2, 1), measures)
    assert "negative_durations" in [finding.rule for finding in findings]
    enforce(DATASETS["green"], date(2025, 2, 1), findings)


def test_dispatched_trips_keep_their_gaps_from_parquet_and_from_csv(tmp_path: Path) -> None:
    gaps = ["store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "trip_type", "congestion_surcharge"]
    content = _green("2020-04", **{name: [None] * 10 for name in gaps})
    measures, _ = _parquet(tmp_path, "green", "2020-04", content)
    nulls = {name for name, column in measures.columns.items() if column.nulls == 10}
    lacking = {"ehail_fee", "cbd_congestion_fee", "request_source"}
    lacking |= {name for name in measures.columns if name.endswith("itude")}
    without = {"store_and_fwd_flag", "rate_code_id", "passenger_count", "payment_type", "trip_type"}
    assert nulls == {*without, "congestion_surcharge", *lacking}
    header = (
        "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
        "passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,"
        "improvement_surcharge,total_amount,payment_type,trip_type,congestion_surcharge"
    )
    lines = [",2020-04-01 00:06:00,2020-04-01 00:12:00,,,42,41,,1.65,9.73,0,0,0,0,,0.3,10.03,,,"] * 10
    measures, _ = _conform(_csv(tmp_path, "green", "2020-04", header, lines), "green", "2020-04")
    nulls = {name for name, column in measures.columns.items() if column.nulls == 10}
    assert nulls == {*without, "congestion_surcharge", "vendor_id", *lacking}


def test_absurd_distances_and_negative_totals_stay_and_the_totals_are_counted(tmp_path: Path) -> None:
    miles, totals = [0.0, 360_068.14, *[1.0] * 8], [-3.8, -52.0, *[12.3] * 8]
    content = _green("2024-01", trip_distance=miles, total_amount=totals)
    measures, trips = _parquet(tmp_path, "green", "2024-01", content)
    assert _column(trips, "trip_distance") == miles
    assert _column(trips, "total_amount") == totals
    assert measures.counts["negative_totals"] == 2
    findings = check(DATASETS["green"], date(2024, 1, 1), measures)
    assert "negative_totals" in [finding.rule for finding in findings]
    enforce(DATASETS["green"], date(2024, 1, 1), findings)


def test_zone_0_of_fhv_stays_and_is_counted_as_unknown(tmp_path: Path) -> None:
    header = "Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID"
    zones = ["0", "1", "265", "", "0", "266", "", "", "10", "0"]
    lines = [f"B00001,2017-03-01 00:{row:02}:00,,,{zone}" for row, zone in enumerate(zones)]
    measures, trips = _conform(_csv(tmp_path, "fhv", "2017-03", header, lines), "fhv", "2017-03")
    assert _column(trips, "dropoff_location_id") == [int(zone) if zone else None for zone in zones]
    assert _column(trips, "dropoff_datetime") == [None] * 10
    assert measures.counts["unknown_zones"] == 4
    findings = check(DATASETS["fhv"], date(2017, 3, 1), measures)
    assert "unknown_zones" in [finding.rule for finding in findings]
    enforce(DATASETS["fhv"], date(2017, 3, 1), findings)


# --- the site


def test_the_apps_leave_fhv_for_fhvhv_in_2019_02() -> None:
    fhv, app = published_months("fhv"), published_months("fhvhv")
    assert fhv[date(2019, 1, 1)].rows > 13 * fhv[date(2019, 2, 1)].rows
    assert min(app) == date(2019, 2, 1)
    assert app[date(2019, 2, 1)].rows > 0.8 * fhv[date(2019, 1, 1)].rows


def test_a_403_means_not_published_yet_for_a_young_month_and_an_error_for_an_old_one(tmp_path: Path) -> None:
    young, old = date.today().replace(day=1), date(2024, 1, 1)
    with SampleSite(rows=50, last=date(2023, 12, 1)) as site:
        source = make_source(site.url, "auto", 4, RetryPolicy(timeout_s=10, retries=0, first_wait_s=0))
        with pytest.raises(NotPublished, match=r"not published yet at .* come back later"):
            source.fetch(DATASETS["green"], young, tmp_path / "part")
        with pytest.raises(SourceError, match=r"green 2024-01: .* is refused or missing, and is long due"):
            source.fetch(DATASETS["green"], old, tmp_path / "part")
        assert {request.status for request in site.requests} == {403}
    assert list(tmp_path.iterdir()) == []
