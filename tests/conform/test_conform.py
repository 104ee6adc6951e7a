"""Conforming: no row lost, nothing guessed, every problem in one message, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from full_disk import full_disk
from published_eras import facts, fhvhv, green, rows, table, times, write, yellow, yellow_2009

from pipeline.conform.month import conform_file
from pipeline.conform.profile import Measures
from pipeline.datasets import DATASETS, ZONES, Column, Dataset
from pipeline.errors import SchemaError, SourceError, StoreError, UsageError
from pipeline.version import __version__

MONTH = date(2025, 1, 1)
GREEN = "green_tripdata_2025-01.parquet"


#: The first and the last microsecond of the years 1 to 9999.
FIRST_TICK, LAST_TICK = -62_135_596_800_000_000, 253_402_300_799_999_999


def _green(folder: Path, **replaced: Any) -> Path:
    return write(folder, GREEN, table(green(MONTH, "C"), **replaced))


def _many(count: int) -> pa.Table:
    """A month with `count` rows; passenger_count is the number of the row."""
    rows = table(green(MONTH, "C")).take([row % 3 for row in range(count)])
    place = rows.schema.get_field_index("passenger_count")
    return rows.set_column(place, "passenger_count", pa.array(range(count)))


def _refused(folder: Path, raw: Path, dataset: str = "green", month: date | None = MONTH) -> str:
    """The message with which a file is refused; verifies that no draft is left."""
    draft = folder / "draft"
    draft.write_text("from an earlier run")
    with pytest.raises(SchemaError) as caught:
        conform_file(raw, draft, dataset, month)
    assert not draft.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]
    return str(caught.value)


def test_unknown_columns_are_named_with_the_file_to_edit(tmp_path: Path) -> None:
    raw = _green(tmp_path, zeta=pa.array([1, 2, 3]), Alpha=pa.array([1, 2, 3]))
    assert _refused(tmp_path, raw) == (
        "green 2025-01: unknown columns ['Alpha', 'zeta']; declare them in pipeline/datasets/green.py"
    )


def test_a_lost_column_is_noticed_even_if_most_months_lack_it(tmp_path: Path) -> None:
    raw = _green(tmp_path, cbd_congestion_fee=None, trip_type=None)
    assert _refused(tmp_path, raw) == (
        "green 2025-01: missing columns ['cbd_congestion_fee', 'trip_type']; "
        "the expected columns are declared in pipeline/datasets/green.py"
    )


def test_a_renamed_column_is_both_unknown_and_missing_in_one_message(tmp_path: Path) -> None:
    raw = _green(tmp_path, trip_type=None, kind_of_trip=pa.array([1, 2, 1]), PULocationID=None)
    message = _refused(tmp_path, raw)
    assert "unknown columns ['kind_of_trip'], missing columns ['pickup_location_id', 'trip_type']" in message


@pytest.mark.parametrize(
    ("month", "present", "absent"),
    [
        (date(2010, 12, 1), "pickup_longitude", "pickup_location_id"),
        (date(2011, 1, 1), "airport_fee", "pickup_longitude"),
        (date(2024, 12, 1), "airport_fee", "cbd_congestion_fee"),
        (date(2025, 1, 1), "cbd_congestion_fee", "request_source"),
    ],
)
def test_yellow_parquet_must_have_what_its_era_has_and_no_more(month: date, present: str, absent: str) -> None:
    columns = DATASETS["yellow"].by_name
    assert columns[present].expected(month, parquet=True)
    assert not columns[absent].expected(month, parquet=True)


def test_a_type_that_no_era_explains_is_refused_with_the_declared_one(tmp_path: Path) -> None:
    zoned = pa.array(times(MONTH), pa.timestamp("us", tz="UTC"))
    raw = _green(tmp_path, lpep_pickup_datetime=zoned, trip_type=pa.array([True, False, None]))
    message = _refused(tmp_path, raw)
    assert "lpep_pickup_datetime is timestamp[us, tz=UTC], not timestamp[us]" in message
    assert "trip_type is bool, not int64" in message


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("RatecodeID", [1.5, 1.0, None], "rate_code_id: values that are not int64: 1, namely 1.5 (1)"),
        ("RatecodeID", [float("nan"), 1e300, 1.0], "rate_code_id: values that are not int64: 2, namely"),
        ("RatecodeID", ["1", "x", "x"], "rate_code_id: values that are not int64: 2, namely 'x' (2)"),
        ("RatecodeID", ["1", "2.5", "9223372036854775808"], "'2.5' (1), '9223372036854775808' (1)"),
        ("PULocationID", pa.array([1, 2**63, 3], pa.uint64()), "pickup_location_id: values that are not int64: 1"),
        ("fare_amount", ["1.5", "$2", "nan"], "fare_amount: values that are not double: 2, namely '$2' (1), 'nan' (1)"),
        ("fare_amount", [1.5, float("inf"), float("nan")], "fare_amount: values that are not double: 2, namely"),
        ("fare_amount", [1, 2**53 + 1, 3], "fare_amount: values that are not double: 1, namely 9007199254740993 (1)"),
        (
            "lpep_pickup_datetime",
            ["2025-01-03 12:00:00", "03/01/2025", "2025-01-03 12:00:00.0000001"],
            "pickup_datetime: values that are not timestamp[us] of the years 1 to 9999: 2, namely '03/01/2025' (1)",
        ),
        (
            "lpep_pickup_datetime",
            pa.array([1_735_900_000_000_000_001, 1_735_900_000_000_000_000, None], pa.timestamp("ns")),
            "pickup_datetime: values that are not timestamp[us] of the years 1 to 9999: 1, "
            "namely 2025-01-03 10:26:40.000000001 (1); "
            "pickup_datetime: rows without a value, which is required: 1",
        ),
        (
            "lpep_pickup_datetime",
            pa.array([FIRST_TICK - 1, LAST_TICK + 1, -(2**63)], pa.timestamp("us")),
            "timestamp[us] of the years 1 to 9999: 3, namely 0000-12-31 23:59:59.999999 (1), "
            "10000-01-01 00:00:00.000000 (1), <value out of range: -9223372036854775808> (1)",
        ),
        (
            "lpep_pickup_datetime",
            # The first is too large for microseconds, the second is not.
            pa.array([2**62, 253_402_300_800_000, 0], pa.timestamp("ms")),
            "of the years 1 to 9999: 2, namely 10000-01-01 00:00:00.000 (1), "
            "<value out of range: 4611686018427387904> (1)",
        ),
        (
            "lpep_dropoff_datetime",
            ["0000-01-01 00:00:00", "2025-01-03 12:00:00", "0000-01-01 00:00:00"],
            "dropoff_datetime: values that are not timestamp[us] of the years 1 to 9999: 2, "
            "namely '0000-01-01 00:00:00' (2)",
        ),
        (
            "lpep_dropoff_datetime",
            ["0000-01-01 00:00:00", "2025-01-03 12:00:00", "x"],
            "of the years 1 to 9999: 2, namely '0000-01-01 00:00:00' (1), 'x' (1)",
        ),
        (
            "VendorID",
            ["CMT", " vts ", "Uber"],
            "vendor_id: values that are not a known word or int64: 1, namely 'Uber' (1)",
        ),
        (
            "payment_type",
            ["CASH", "Bitcoin", "bitcoin"],
            "payment_type: values that are not a known word or int64: 2, namely 'Bitcoin' (1), 'bitcoin' (1)",
        ),
        (
            "lpep_dropoff_datetime",
            pa.array([None] * 3, pa.timestamp("us")),
            "dropoff_datetime: rows without a value, which is required: 3",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_and_never_a_null(
    tmp_path: Path, name: str, values: Any, words: str
) -> None:
    message = _refused(tmp_path, _green(tmp_path, **{name: pa.array(values)}))
    assert message.startswith("green 2025-01: ")
    assert words in message
    assert message.endswith("types and words are declared in pipeline/datasets/green.py")


def _not_utf8(kind: pa.DataType) -> pa.Array:
    """Three texts, the first of which is not UTF-8, as a Parquet file can contain them."""
    whole = pa.array(["B??", "B1", "B2"], kind)
    return pa.Array.from_buffers(kind, 3, [*whole.buffers()[:2], pa.py_buffer(b"B\xff\xfeB1B2")])


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("dispatching_base_num", ["B\0", "B1", "B\0"], r"2, namely 'B\x00' (2)"),
        ("dispatching_base_num", pa.array(["B\0", "B1", "B1"]).dictionary_encode(), r"1, namely 'B\x00' (1)"),
        ("dispatching_base_num", ["B1\nB2", "B\r", "B1"], r"2, namely 'B1\nB2' (1), 'B\r' (1)"),
        ("dispatching_base_num", _not_utf8(pa.string()), r"1, namely b'B\xff\xfe' (1)"),
        ("dispatching_base_num", _not_utf8(pa.large_string()), r"1, namely b'B\xff\xfe' (1)"),
        ("dispatching_base_num", ["é" * 5_001, "B1", "B2"], f"1, namely '{'é' * 100}'… (5,001 characters) (1)"),
        ("shared_request_flag", ["Y\0", "N", "Y"], r"1, namely 'Y\x00' (1)"),
        ("shared_request_flag", _not_utf8(pa.string()), r"1, namely b'B\xff\xfe' (1)"),
    ],
)
def test_text_that_some_warehouse_cannot_store_is_an_error(tmp_path: Path, name: str, values: Any, words: str) -> None:
    month = table(fhvhv(MONTH), **{name: values if isinstance(values, pa.Array) else pa.array(values)})
    message = _refused(tmp_path, write(tmp_path, "fhvhv_tripdata_2025-01.parquet", month), "fhvhv")
    assert message == (
        f"fhvhv 2025-01: {name}: values that are not text in UTF-8 without NUL and line breaks, of at most 10,000 bytes"
        f": {words} (in the first 3 rows); types and words are declared in pipeline/datasets/fhvhv.py"
    )


def test_unusual_text_that_every_warehouse_can_store_stays_as_it_is(tmp_path: Path) -> None:
    texts = ["B\t\u00e9 \U0001f695\u2028", "é" * 5_000, " B1 "]
    month = table(fhvhv(MONTH), dispatching_base_num=pa.array(texts))
    conform_file(write(tmp_path, "a.parquet", month), tmp_path / "draft", "fhvhv", MONTH)
    assert [row["dispatching_base_num"] for row in rows(tmp_path / "draft")] == texts


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_nul_in_a_csv_is_named_with_its_column_and_value(tmp_path: Path, name: str) -> None:
    text = "".join(f"{line}\n" for line in _csv_lines(100)).replace("B00077", "B\x0000077").encode()
    raw = tmp_path / name
    raw.write_bytes(gzip.compress(text) if name == "a.csv.gz" else text)
    message = _refused(tmp_path, raw, "fhvhv", date(2019, 2, 1))
    assert r"dispatching_base_num: values that are not text in UTF-8 without NUL and" in message
    assert r": 1, namely 'B\x0000077' (1)" in message


@pytest.mark.parametrize("name", ["RatecodeID", "fare_amount", "lpep_pickup_datetime", "VendorID"])
def test_bytes_that_are_not_utf8_do_not_fit_numbers_times_or_words(tmp_path: Path, name: str) -> None:
    message = _refused(tmp_path, _green(tmp_path, **{name: _not_utf8(pa.string())}))
    assert r": 3, namely 'B1' (1), 'B2' (1), b'B\xff\xfe' (1)" in message


@pytest.mark.parametrize(
    "name", ["RatecodeID", "fare_amount", "lpep_pickup_datetime", "VendorID", "store_and_fwd_flag"]
)
def test_a_huge_value_is_quoted_in_part_with_its_length(tmp_path: Path, name: str) -> None:
    message = _refused(tmp_path, _green(tmp_path, **{name: pa.array(["x" * 3_000_000, None, None])}))
    assert f"1, namely '{'x' * 100}'… (3,000,000 characters) (1)" in message
    assert len(message) < 500


def test_huge_values_that_contradict_each_other_are_quoted_in_part(tmp_path: Path) -> None:
    raw = tmp_path / "fhv_tripdata_2018-01.csv"
    raw.write_text(
        "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,Dispatching_base_number,"
        f"Dispatching_base_num\n2018-01-01 00:01:00,,,,,{'B' * 9_000},{'C' * 9_000}\n"
    )
    message = _refused(tmp_path, raw, "fhv", date(2018, 1, 1))
    assert f"namely '{'B' * 100}'… (18,009 characters) (1)" in message


def test_some_of_thousands_of_unknown_columns_are_named_and_the_others_counted(tmp_path: Path) -> None:
    one = pa.array([1, 2, 3])
    raw = _green(tmp_path, **{f"column_{number:04}": one for number in range(3_000)}, **{"a" * 3_000_000: one})
    message = _refused(tmp_path, raw)
    assert message.startswith(f"green 2025-01: unknown columns ['{'a' * 100}'… (3,000,000 characters), 'column_0000', ")
    assert message.endswith("'column_0038' and 2,961 more]; declare them in pipeline/datasets/green.py")
    assert len(message) < 2_000


def test_a_type_of_thousands_of_words_is_quoted_in_part(tmp_path: Path) -> None:
    nested = pa.struct([(f"field_{number}", pa.int64()) for number in range(2_000)])
    message = _refused(tmp_path, _green(tmp_path, trip_type=pa.array([None] * 3, nested)))
    assert "unexpected types: trip_type is struct<field_0: int64, field_1" in message
    assert len(message) < 400


def test_all_values_that_do_not_fit_are_in_one_message_with_their_counts(tmp_path: Path) -> None:
    month = _many(300_000).drop_columns(["RatecodeID", "payment_type"])
    month = month.append_column("RatecodeID", pa.array([1.0, 2.5, None] * 100_000))
    month = month.append_column("payment_type", pa.array(["cash"] * 299_999 + ["shells"]))
    message = _refused(tmp_path, write(tmp_path, GREEN, month.slice(0, 290_000)))
    assert "rate_code_id: values that are not int64: 96,667, namely 2.5 (96,667)" in message
    message = _refused(tmp_path, write(tmp_path, GREEN, month.slice(280_000)))
    assert "rate_code_id: values that are not int64: 6,667, namely 2.5 (6,667)" in message
    assert "payment_type: values that are not a known word or int64: 1, namely 'shells' (1)" in message


def test_a_file_of_nothing_but_misfits_is_refused_before_its_end(tmp_path: Path) -> None:
    month = _many(400_000).drop_columns(["trip_type"]).append_column("trip_type", pa.array([0.5] * 400_000))
    message = _refused(tmp_path, write(tmp_path, GREEN, month))
    assert "trip_type: values that are not int64: 122,880, namely 0.5 (122,880) (in the first 122,880 rows)" in message


def test_two_spellings_of_a_column_complete_each_other(tmp_path: Path) -> None:
    text = (
        '"Pickup_DateTime","DropOff_datetime","PUlocationID","DOlocationID","SR_Flag",'
        '"Dispatching_base_number","Dispatching_base_num"\n'
        '"2018-01-01 00:01:00","","","","1","B02914",""\n'
        '"2018-01-01 00:02:00","","","","","","B00001"\n'
        '"2018-01-01 00:03:00","","","","","B1","B1"\n'
        '"2018-01-01 00:04:00","","","","","",""\n'
    )
    raw = tmp_path / "fhv_tripdata_2018-01.csv"
    raw.write_text(text)
    conform_file(raw, tmp_path / "draft", "fhv", date(2018, 1, 1))
    assert [row.get("dispatching_base_num") for row in rows(tmp_path / "draft")] == ["B02914", "B00001", "B1", None]
    raw.write_text(text.replace('"B1","B1"', '"B1","B2"'))
    message = _refused(tmp_path, raw, "fhv", date(2018, 1, 1))
    assert (
        "dispatching_base_num: rows in which two spellings of the column are filled and differ: 1, "
        "namely 'B1 against B2' (1)"
    ) in message


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.string()], ids=str)
def test_the_first_and_the_last_time_of_the_calendar_are_kept(tmp_path: Path, kind: pa.DataType) -> None:
    ticks = pa.array([FIRST_TICK, LAST_TICK, 0], pa.timestamp("us"))
    conform_file(_green(tmp_path, lpep_dropoff_datetime=ticks.cast(kind)), tmp_path / "draft", "green", MONTH)
    assert pq.read_table(tmp_path / "draft")["dropoff_datetime"].combine_chunks() == ticks


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_doubled_column_shifts_no_other_column(tmp_path: Path, ending: str) -> None:
    once = table(green(MONTH, "C"))
    place = once.schema.get_field_index("ehail_fee") + 1
    twice = once.add_column(place, "fare_amount", once["fare_amount"])
    name = f"green_tripdata_2025-01.{ending}"

    def conformed(content: pa.Table) -> list[dict[str, Any]]:
        if ending == "csv":
            pacsv.write_csv(content, tmp_path / name)
        else:
            write(tmp_path, name, content)
        conform_file(tmp_path / name, tmp_path / "draft", "green", MONTH)
        return rows(tmp_path / "draft")

    assert conformed(twice) == conformed(once)
    other = once.add_column(place, "Fare_amount", pa.array([8.5, 6.0, None]))
    with pytest.raises(SchemaError) as caught:
        conformed(other)
    assert (
        "fare_amount: rows in which two spellings of the column are filled and differ: 1, namely '5 against 6' (1)"
    ) in str(caught.value)


def test_a_file_with_a_flipped_bit_conforms_or_is_refused_with_one_error_that_names_it(tmp_path: Path) -> None:
    path = _green(tmp_path)
    content = path.read_bytes()
    draw, messages = random.Random(5), []
    for _ in range(100):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            conform_file(path, tmp_path / "draft", "green", MONTH, threads=1)
        except (SourceError, SchemaError) as error:
            messages.append(str(error))
    assert messages
    for message in messages:
        assert message.startswith((GREEN, "green 2025-01"))
        assert "\n" not in message


def test_blank_text_stays_text_and_is_null_only_where_a_number_is_declared(tmp_path: Path) -> None:
    raw = _green(tmp_path, store_and_fwd_flag=pa.array([" ", "", "N"]), RatecodeID=pa.array([" ", "", "1"]))
    conform_file(raw, tmp_path / "draft", "green", MONTH)
    trips = rows(tmp_path / "draft")
    assert [row.get("store_and_fwd_flag") for row in trips] == [" ", "", "N"]
    assert [row.get("rate_code_id") for row in trips] == [None, None, 1]


def test_the_fhvhv_csv_without_licences_conforms_and_its_shared_ride_words_are_codes(tmp_path: Path) -> None:
    raw = tmp_path / "fhvhv_tripdata_2021-06.csv"
    raw.write_text(
        "dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag,Affiliated_base_number\n"
        "B02764,2021-06-01 00:02:41,2021-06-01 00:07:46,174,18,N,B02764\n"
        "B02510,2021-06-01 00:16:16,2021-06-01 00:21:14,32,254,Y,\n"
        "B02510,2021-06-01 00:27:01,2021-06-01 00:42:11,240,127,1,\n"
        "B02510,2021-06-01 00:27:01,2021-06-01 00:42:11,240,127,,\n"
    )
    conform_file(raw, tmp_path / "draft", "fhvhv", date(2021, 6, 1))
    assert [row.get("sr_flag") for row in rows(tmp_path / "draft")] == [0, 1, 1, None]
    assert "hvfhs_license_num" not in rows(tmp_path / "draft")[0]


def test_a_zone_named_na_is_a_zone(tmp_path: Path) -> None:
    raw = tmp_path / "taxi_zone_lookup.csv"
    raw.write_bytes(
        b'"LocationID","Borough","Zone","service_zone"\r\n1,"EWR","Newark Airport","EWR"\r\n'
        b'264,"Unknown","NV","N/A"\r\n265,"N/A","NA","N/A"\r\n'
    )
    measures = conform_file(raw, tmp_path / "draft", ZONES, None)
    assert measures.counts == {"rows": 3, "unknown_zones": 0}
    assert rows(tmp_path / "draft")[1:] == [
        {"location_id": 264, "borough": "Unknown", "zone": "NV", "service_zone": "N/A"},
        {"location_id": 265, "borough": "N/A", "zone": "NA", "service_zone": "N/A"},
    ]
    assert "month" not in facts(tmp_path / "draft")


def test_rows_too_long_for_any_layout_are_refused_with_the_hint_to_take_parquet(tmp_path: Path) -> None:
    names = ",".join(name for name, _, _ in yellow_2009())
    row = "VTS,2009-02-01 00:00:00,2009-02-01 00:05:00,1,1.5,-73.9,40.7,,,-73.9,40.7,CASH,5,0,,0,0,5"
    raw = tmp_path / "yellow_tripdata_2009-02.csv"
    raw.write_text(f"{names}\n\n{row}\n{row},7\n{row}\n")
    message = _refused(tmp_path, raw, "yellow", date(2009, 2, 1))
    assert message == (
        "yellow 2009-02: rows that do not fit the 18 columns of the header: 1, in lines 4 (19 fields); "
        "use the Parquet file of the month instead"
    )
    raw.write_text(f"{names}\n\n{row}\n{row}\n")
    assert conform_file(raw, tmp_path / "draft", "yellow", date(2009, 2, 1)).rows == 2


def test_a_gzipped_csv_and_the_plain_one_give_the_same_trips(tmp_path: Path) -> None:
    text = "".join(f"{line}\r\n" for line in _csv_lines(5))
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    month = date(2019, 2, 1)
    first = conform_file(tmp_path / "a.csv", tmp_path / "one", "fhvhv", month, source_sha256="0")
    second = conform_file(tmp_path / "a.csv.gz", tmp_path / "two", "fhvhv", month, source_sha256="0")
    assert first == second
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def _csv_lines(count: int) -> Iterator[str]:
    yield "hvfhs_license_num,dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag"
    for number in range(count):
        yield f"HV0003,B{number:05},2019-02-01 00:00:{number % 60:02},2019-02-01 01:00:00,1,2,"


def test_every_row_is_kept_in_its_order_in_row_groups_of_duckdbs_size(tmp_path: Path) -> None:
    path = tmp_path / GREEN
    pq.write_table(_many(300_001), path, row_group_size=70_000)
    draft = tmp_path / "draft"
    fractions: list[float] = []
    measures = conform_file(path, draft, "green", MONTH, progress=lambda fraction, text: fractions.append(fraction))
    file = pq.ParquetFile(draft)
    groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert groups == [122_880, 122_880, 54_241]
    assert file.read(["passenger_count"])["passenger_count"].to_pylist() == list(range(300_001))
    assert measures.rows == 300_001
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_the_same_file_gives_the_same_bytes_and_measures_whatever_the_threads(tmp_path: Path) -> None:
    path = tmp_path / GREEN
    pq.write_table(_many(300_000), path, row_group_size=100_000)
    before = pa.cpu_count()
    measures = [
        conform_file(path, tmp_path / f"{threads}", "green", MONTH, threads=threads) for threads in (None, 1, 3)
    ]
    assert pa.cpu_count() == before
    assert measures[0] == measures[1] == measures[2]
    assert (tmp_path / "None").read_bytes() == (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes()


def test_the_trips_file_says_where_it_came_from(tmp_path: Path) -> None:
    raw = _green(tmp_path)
    conform_file(raw, tmp_path / "draft", "green", MONTH)
    published = facts(tmp_path / "draft")
    present = published["columns_in_source"].split(",")
    assert published == {
        "dataset": "green",
        "month": "2025-01",
        "source_sha256": hashlib.sha256(raw.read_bytes()).hexdigest(),
        "declaration": DATASETS["green"].declaration(present),
        "columns_in_source": ",".join(present),
        "pipeline_version": __version__,
    }
    assert len(present) == 21
    assert "pickup_longitude" not in present
    conform_file(raw, tmp_path / "draft", "green", MONTH, source_sha256="known")
    assert facts(tmp_path / "draft")["source_sha256"] == "known"


def test_duckdb_reads_the_trips_with_their_types_and_statistics(tmp_path: Path) -> None:
    conform_file(_green(tmp_path), tmp_path / "draft.parquet", "green", MONTH)
    with duckdb.connect() as connection:
        source = f"'{tmp_path / 'draft.parquet'}'"
        types = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM {source})").fetchall())
        bounds = connection.execute(
            f"SELECT stats_min, stats_max FROM parquet_metadata({source}) WHERE path_in_schema = 'trip_distance'"
        ).fetchone()
    assert [types[name] for name in ("vendor_id", "pickup_datetime", "fare_amount", "store_and_fwd_flag")] == [
        "BIGINT",
        "TIMESTAMP",
        "DOUBLE",
        "VARCHAR",
    ]
    assert bounds == ("0.0", "7.25") or bounds == ("-0.0", "7.25")


def test_measures_count_what_the_rules_are_about(tmp_path: Path) -> None:
    month = date(2024, 3, 1)
    starts = [datetime(2024, 2, 29, 23, 59, 59), datetime(2024, 3, 1), datetime(2024, 4, 1)]
    ends = [datetime(2024, 3, 1), datetime(2024, 2, 29), datetime(2024, 4, 1)]
    raw = write(
        tmp_path,
        "green_tripdata_2024-03.parquet",
        table(
            green(month, "B"),
            lpep_pickup_datetime=pa.array(starts),
            lpep_dropoff_datetime=pa.array(ends),
            PULocationID=pa.array([0, 266, None]),
            DOLocationID=pa.array([1, 265, -1]),
            VendorID=pa.array([1, 77, 78]),
            store_and_fwd_flag=pa.array(["N", "?", None]),
        ),
    )
    measures = conform_file(raw, tmp_path / "draft", "green", month)
    assert measures.counts == {
        "rows": 3,
        "pickups_outside_month": 2,
        "dropoffs_before_pickups": 1,
        "huge_numbers": 0,
        "unknown_zones": 3,
        "negative_totals": 1,
        "unknown_codes": 3,
        "unknown_vendor_id": 2,
        "unknown_rate_code_id": 0,
        "unknown_store_and_fwd_flag": 1,
        "unknown_payment_type": 0,
        "unknown_trip_type": 0,
        "rows_off_published": 57_454,
    }
    assert {code: rows for code, rows in measures.codes["vendor_id"].items() if rows} == {"1": 1}
    assert (measures.codes["store_and_fwd_flag"], measures.codes.keys() - measures.columns.keys()) == (
        {"N": 1, "Y": 0},
        set(),
    )
    assert (measures.types_in_source["vendor_id"], "request_source" in measures.types_in_source) == ("int64", False)
    assert measures.published_rows == 57_457
    pickup, ehail = measures.columns["pickup_datetime"], measures.columns["ehail_fee"]
    assert (pickup.nulls, pickup.min, pickup.max) == (0, starts[0], starts[2])
    assert (ehail.nulls, ehail.min, ehail.max) == (3, None, None)
    assert measures.columns["vendor_id"].max == 78
    assert measures.columns["pickup_longitude"].nulls == 3
    assert list(measures.columns) == list(DATASETS["green"].by_name)


def test_a_sample_is_compared_with_its_share_of_the_published_rows(tmp_path: Path) -> None:
    month = date(2024, 1, 1)
    raw = write(tmp_path, "a.parquet", table(yellow(month)), {"sample_scale": "0.000001"})
    measures = conform_file(raw, tmp_path / "draft", "yellow", month)
    assert measures.published_rows == round(2_964_624 * 0.000001) == 3
    assert measures.counts["rows_off_published"] == 0


def test_a_csv_is_not_compared_with_the_published_rows(tmp_path: Path) -> None:
    raw = tmp_path / "fhvhv_tripdata_2019-02.csv"
    raw.write_text("".join(f"{line}\n" for line in _csv_lines(3)))
    measures = conform_file(raw, tmp_path / "draft", "fhvhv", date(2019, 2, 1))
    assert measures.published_rows is None
    assert "rows_off_published" not in measures.counts


def test_a_dataset_of_another_kind_is_measured_by_the_columns_that_it_declares(tmp_path: Path) -> None:
    bikes = Dataset(
        "citibike",
        file_name="{month:%Y%m}-citibike-tripdata",
        first_month=date(2013, 6, 1),
        doc="Rides.",
        pickup="started_at",
        zone_columns=("start_station",),
        zone_ids=(100, 199),
        columns=(
            Column("ride_id", pa.string(), expected_from=date(2013, 6, 1)),
            Column("started_at", pa.timestamp("us"), expected_from=date(2013, 6, 1), required=True),
            Column("start_station", pa.int64()),
        ),
    )
    raw = tmp_path / "202401-citibike-tripdata.csv"
    raw.write_text("ride_id,started_at,start_station\nA,2024-01-05 08:00:00,150\nB,2024-02-01 00:00:00,99\n")
    measures = conform_file(raw, tmp_path / "draft", bikes, date(2024, 1, 1))
    assert measures.counts == {"rows": 2, "pickups_outside_month": 1, "huge_numbers": 0, "unknown_zones": 1}
    plain = replace(bikes, pickup="pickup_datetime", zone_columns=("pickup_location_id",))
    measures = conform_file(raw, tmp_path / "draft", plain, date(2024, 1, 1))
    assert measures.counts == {"rows": 2, "huge_numbers": 0}


def test_a_file_without_rows_conforms_and_is_left_to_the_rules(tmp_path: Path) -> None:
    raw = write(tmp_path, GREEN, table(green(MONTH, "C")).slice(0, 0))
    measures = conform_file(raw, tmp_path / "draft", "green", MONTH)
    assert measures.rows == 0
    assert pq.read_table(tmp_path / "draft").num_rows == 0


def test_a_file_of_another_format_leaves_no_draft(tmp_path: Path) -> None:
    for name, content in ((GREEN, b""), (GREEN, b"<?xml?><Error/>"), ("a.csv", b""), ("a.csv.gz", b"x")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "draft").write_text("from an earlier run")
        with pytest.raises(SourceError, match=name):
            conform_file(tmp_path / name, tmp_path / "draft", "green", MONTH)
        assert not (tmp_path / "draft").exists()


def test_the_raw_file_is_never_the_draft(tmp_path: Path) -> None:
    raw = _green(tmp_path)
    before = raw.read_bytes()
    with pytest.raises(UsageError, match="is the raw file itself"):
        conform_file(raw, raw, "green", MONTH)
    assert raw.read_bytes() == before


def test_a_missing_or_superfluous_month_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="green: needs a month"):
        conform_file(_green(tmp_path), tmp_path / "draft", "green", None)
    with pytest.raises(UsageError, match="zones: has no months"):
        conform_file(_green(tmp_path), tmp_path / "draft", "zones", MONTH)


def test_a_draft_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        conform_file(_green(tmp_path), tmp_path / "nowhere" / "draft", "green", MONTH)


@pytest.mark.parametrize("limit_bytes", [0, 1_000, 200_000])
def test_a_disk_that_fills_up_is_a_store_error_and_leaves_neither_draft_nor_thread(
    tmp_path: Path, limit_bytes: int
) -> None:
    path = tmp_path / GREEN
    pq.write_table(_many(1_000_000), path)
    with full_disk(limit_bytes), pytest.raises(StoreError, match="draft: cannot be written"):
        conform_file(path, tmp_path / "draft", "green", MONTH)
    assert not (tmp_path / "draft").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_an_interrupt_leaves_neither_draft_nor_thread(tmp_path: Path) -> None:
    path = tmp_path / GREEN
    pq.write_table(_many(400_000), path)

    def interrupt(fraction: float, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conform_file(path, tmp_path / "draft", "green", MONTH, progress=interrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == [GREEN]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_an_interrupt_while_the_encoder_starts_does_not_close_the_file_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Slow(pq.ParquetWriter):
        def write_table(self, *_: object) -> None:
            calls.append("encode")
            time.sleep(0.3)
            calls.append("encoded")

        def close(self) -> None:
            calls.append("close")
            super().close()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("encode"):
            raise KeyboardInterrupt  # As by a signal that arrives while `start` waits for the thread.

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(pq, "ParquetWriter", Slow)
    with pytest.raises(KeyboardInterrupt):
        conform_file(_green(tmp_path), tmp_path / "draft", "green", MONTH)
    time.sleep(0.5)
    assert "encode" not in calls or calls.index("close") > calls.index("encoded")
    assert not (tmp_path / "draft").exists()


def test_the_file_of_another_dataset_is_refused(tmp_path: Path) -> None:
    raw = write(tmp_path, "green_tripdata_2025-01.parquet", table(fhvhv(MONTH)))
    assert "unknown columns ['access_a_ride_flag', 'airport_fee', 'base_passenger_fare'" in _refused(tmp_path, raw)


def test_measures_of_one_file_are_equal_and_of_another_are_not(tmp_path: Path) -> None:
    first = conform_file(_green(tmp_path), tmp_path / "draft", "green", MONTH)
    again = conform_file(_green(tmp_path), tmp_path / "draft", "green", MONTH)
    assert isinstance(first, Measures)
    assert first == again
    assert first != conform_file(_green(tmp_path, VendorID=pa.array([2, 2, 2])), tmp_path / "draft", "green", MONTH)
