"""The sample site: its months look like TLC's, its HTTP like a CDN's, and its faults happen on demand."""

from __future__ import annotations

import gzip
import io
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import requests

from pipeline.datasets.published import published_months
from pipeline.errors import UsageError
from pipeline.months import parse_month
from pipeline.sample import SampleSite
from pipeline.sample.eras import parquet_columns
from pipeline.sample.faults import Faults, add_fault
from pipeline.sample.files import order, write_parquet

GREEN = "/trip-data/green_tripdata_2024-01.parquet"
FIRST_MONTHS = ["yellow 2009-01", "green 2014-01", "fhv 2015-01", "fhvhv 2019-02"]


@pytest.fixture(scope="module")
def shared() -> Iterator[SampleSite]:
    """A site without faults, for tests that only read."""
    with SampleSite(rows=300) as site:
        yield site


@pytest.fixture
def site() -> Iterator[SampleSite]:
    with SampleSite(rows=300) as site:
        yield site


def get(site: SampleSite, path: str = GREEN, method: str = "GET", **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    with requests.Session() as session:
        return session.request(method, site.url + path, headers={"Accept-Encoding": "identity", **named}, timeout=30)


def trips(site: SampleSite, dataset: str, month: str) -> pa.Table:
    answer = get(site, f"/trip-data/{dataset}_tripdata_{month}.parquet")
    assert answer.status_code == 200
    return pq.read_table(io.BytesIO(answer.content))


def types(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def make(dataset: str, month: str, rows: int, folder: Path) -> pa.Table:
    write_parquet(order(dataset, parse_month(month), rows=rows), folder / "made.parquet")
    return pq.read_table(folder / "made.parquet")


# --- months as TLC publishes them


@pytest.mark.parametrize(
    ("dataset", "month", "count", "some"),
    [
        ("yellow", "2009-01", 18, {"vendor_name": "string", "Trip_Pickup_DateTime": "string", "Rate_Code": "double"}),
        ("yellow", "2010-01", 18, {"rate_code": "string", "pickup_datetime": "string", "payment_type": "string"}),
        ("yellow", "2010-02", 19, {"rate_code": "int64", "__index_level_0__": "int64"}),
        ("yellow", "2011-02", 19, {"tpep_pickup_datetime": "timestamp[us]", "congestion_surcharge": "null"}),
        ("yellow", "2014-08", 19, {"improvement_surcharge": "null", "RatecodeID": "int64"}),
        ("yellow", "2018-11", 19, {"congestion_surcharge": "double", "airport_fee": "null", "RatecodeID": "double"}),
        ("yellow", "2023-01", 19, {"VendorID": "int64", "store_and_fwd_flag": "string", "airport_fee": "double"}),
        ("yellow", "2023-02", 19, {"VendorID": "int32", "store_and_fwd_flag": "large_string", "Airport_fee": "double"}),
        ("yellow", "2025-01", 20, {"cbd_congestion_fee": "double", "payment_type": "int64"}),
        ("green", "2019-08", 20, {"ehail_fee": "double", "trip_type": "double"}),
        ("green", "2023-01", 20, {"ehail_fee": "null", "payment_type": "double"}),
        ("green", "2024-01", 20, {"ehail_fee": "double", "PULocationID": "int32", "trip_type": "int64"}),
        ("green", "2025-01", 21, {"cbd_congestion_fee": "double"}),
        ("fhv", "2015-01", 7, {"dropOff_datetime": "timestamp[us]", "PUlocationID": "double", "SR_Flag": "null"}),
        ("fhv", "2019-05", 7, {"PUlocationID": "int64", "SR_Flag": "null"}),
        ("fhv", "2023-02", 7, {"PUlocationID": "int64", "SR_Flag": "int64", "dispatching_base_num": "large_string"}),
        ("fhvhv", "2019-02", 24, {"wav_match_flag": "null", "airport_fee": "null", "trip_time": "int64"}),
        ("fhvhv", "2020-10", 24, {"wav_match_flag": "string", "airport_fee": "null"}),
        ("fhvhv", "2025-01", 25, {"PULocationID": "int32", "cbd_congestion_fee": "double", "bcf": "double"}),
    ],
)
def test_a_month_has_the_columns_and_types_of_its_era(
    shared: SampleSite, dataset: str, month: str, count: int, some: dict[str, str]
) -> None:
    columns = types(trips(shared, dataset, month))
    assert len(columns) == count
    assert {name: columns.get(name) for name in some} == some


def test_every_month_of_every_dataset_can_be_made(tmp_path: Path) -> None:
    for dataset in ("yellow", "green", "fhv", "fhvhv"):
        layouts = {parquet_columns(dataset, month): month for month in published_months(dataset)}
        for month in layouts.values():
            write_parquet(order(dataset, month, rows=50), tmp_path / "made.parquet")
            assert pq.read_metadata(tmp_path / "made.parquet").num_rows == 50


def test_files_until_2023_01_are_gzip_and_later_ones_zstd(shared: SampleSite) -> None:
    for month, codec, version in (("2023-01", "GZIP", "1.0"), ("2023-02", "ZSTD", "2.6")):
        answer = get(shared, f"/trip-data/yellow_tripdata_{month}.parquet")
        metadata = pq.ParquetFile(io.BytesIO(answer.content)).metadata
        assert metadata.row_group(0).column(0).compression == codec
        assert metadata.format_version == version


def test_a_month_has_its_share_of_the_published_rows_and_says_which() -> None:
    with SampleSite(scale=0.01) as site:
        table = trips(site, "green", "2024-01")
    assert table.num_rows == round(published_months("green")[date(2024, 1, 1)].rows * 0.01)
    assert table.schema.metadata[b"sample_scale"] == b"0.01"


def test_a_fixed_number_of_rows_is_a_share_of_the_published_ones_too(shared: SampleSite) -> None:
    table = trips(shared, "green", "2024-01")
    scale = float(table.schema.metadata[b"sample_scale"])
    assert table.num_rows == 300 == round(published_months("green")[date(2024, 1, 1)].rows * scale)


def test_the_same_month_has_the_same_bytes_in_every_run_and_others_with_another_seed() -> None:
    contents = []
    for seed in (0, 0, 1):
        with SampleSite(rows=2000, seed=seed) as site:
            contents.append(get(site, "/trip-data/yellow_tripdata_2024-01.parquet").content)
    assert contents[0] == contents[1] != contents[2]


def test_the_size_of_row_groups_does_not_change_the_rows(tmp_path: Path) -> None:
    with SampleSite(rows=2500) as usual, SampleSite(rows=2500, row_group_rows=1000) as small:
        assert trips(usual, "yellow", "2024-01") == trips(small, "yellow", "2024-01")
        metadata = pq.ParquetFile(io.BytesIO(get(small, "/trip-data/yellow_tripdata_2024-01.parquet").content)).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [1000, 1000, 500]


def test_the_zones_are_tlc_s_265_with_names_that_are_not_unique_and_n_a_as_a_value(shared: SampleSite) -> None:
    text = get(shared, "/misc/taxi_zone_lookup.csv").content
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=False)
    table = pyarrow.csv.read_csv(io.BytesIO(text), convert_options=options)
    assert text.startswith(b'"LocationID","Borough","Zone","service_zone"\r\n1,"EWR","Newark Airport","EWR"\r\n')
    assert table["LocationID"].to_pylist() == list(range(1, 266))
    names = dict(enumerate(table["Zone"].to_pylist(), 1))
    assert (names[132], names[237]) == ("JFK Airport", "Upper East Side South")
    assert names[56] == names[57] == "Corona"
    assert names[103] == names[104] == names[105] == "Governor's Island/Ellis Island/Liberty Island"
    assert table.slice(263).to_pylist() == [
        {"LocationID": 264, "Borough": "Unknown", "Zone": "N/A", "service_zone": "N/A"},
        {"LocationID": 265, "Borough": "N/A", "Zone": "Outside of NYC", "service_zone": "N/A"},
    ]


# --- rows


@pytest.mark.parametrize(("dataset", "fees"), [("yellow", ["Airport_fee"]), ("green", [])])
def test_a_total_is_the_sum_of_its_parts(tmp_path: Path, dataset: str, fees: list[str]) -> None:
    table = make(dataset, "2025-01", 20_000, tmp_path)
    parts = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge"]
    cents = 0
    for name in [*parts, "congestion_surcharge", "cbd_congestion_fee", *fees]:
        cents = pc.add(cents, pc.round(pc.multiply(pc.fill_null(table[name], 0.0), 100)))
    assert pc.all(pc.equal(cents, pc.round(pc.multiply(table["total_amount"], 100)))).as_py()


def test_a_large_month_has_the_odd_rows_of_real_ones(tmp_path: Path) -> None:
    table = make("yellow", "2023-01", 300_000, tmp_path)
    pickups = pc.cast(table["tpep_pickup_datetime"], pa.date32())
    outside = pc.or_(pc.less(pickups, date(2023, 1, 1)), pc.greater(pickups, date(2023, 1, 31)))
    assert 1 <= pc.sum(outside).as_py() <= 30
    assert 100 <= pc.sum(pc.less(table["total_amount"], 0)).as_py() <= 3000
    assert pc.sum(pc.equal(table["RatecodeID"], 99)).as_py() > 0
    assert pc.sum(pc.less(table["tpep_dropoff_datetime"], table["tpep_pickup_datetime"])).as_py() > 0
    assert pc.max(table["trip_distance"]).as_py() > 1000
    assert {264, 265} <= set(table["PULocationID"].unique().to_pylist())


def test_dispatched_trips_come_last_and_lack_the_same_values(tmp_path: Path) -> None:
    table = make("green", "2023-03", 10_000, tmp_path)
    lacking = ["store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "congestion_surcharge"]
    patterns = {tuple(pc.is_null(table[name]).to_pylist()) for name in lacking}
    (nulls,) = patterns
    assert list(nulls) == sorted(nulls)
    assert 300 <= sum(nulls) <= 500


def test_a_month_of_a_hundred_rows_is_mostly_ordinary(tmp_path: Path) -> None:
    for month in ("2023-05", "2024-01", "2025-07"):
        table = make("green", month, 100, tmp_path)
        days = pc.strftime(table["lpep_pickup_datetime"], format="%Y-%m").to_pylist()
        assert sum(day != month for day in days) <= 1
        assert pc.sum(pc.less(table["total_amount"], 0)).as_py() <= 3
        assert table["passenger_count"].null_count <= 5


def test_rows_are_in_the_order_of_their_hours(tmp_path: Path) -> None:
    hours = pc.floor_temporal(make("fhvhv", "2024-01", 20_000, tmp_path)["pickup_datetime"], unit="hour")
    assert pc.min(pc.pairwise_diff(hours.combine_chunks()).drop_null().cast(pa.int64())).as_py() >= 0


def test_one_drop_off_of_fhv_2019_02_is_in_the_year_3019(tmp_path: Path) -> None:
    years = pc.year(make("fhv", "2019-02", 5000, tmp_path)["dropOff_datetime"])
    assert pc.sum(pc.equal(years, 3019)).as_py() == 1


def test_a_whole_number_column_of_the_pandas_years_has_no_null(tmp_path: Path) -> None:
    assert make("fhv", "2019-05", 2000, tmp_path)["PUlocationID"].null_count == 0
    assert make("fhv", "2019-07", 2000, tmp_path)["PUlocationID"].null_count > 0
    assert make("fhv", "2023-02", 2000, tmp_path)["PUlocationID"].null_count > 0


# --- CSVs


@pytest.mark.parametrize(
    ("dataset", "month", "start", "fields"),
    [
        ("yellow", "2009-01", b"vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,", 18),
        ("yellow", "2014-01", b"vendor_id, pickup_datetime, dropoff_datetime, passenger_count,", 18),
        ("yellow", "2016-07", b"VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,", 19),
        ("green", "2013-08", b"VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,", 22),
        ("green", "2020-12", b"VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,", 20),
        ("fhv", "2018-03", b'"Pickup_DateTime","DropOff_datetime","PUlocationID",', 7),
        ("fhvhv", "2021-06", b"dispatching_base_num,pickup_datetime,dropoff_datetime,", 7),
    ],
)
def test_a_csv_has_the_form_of_its_time(
    shared: SampleSite, dataset: str, month: str, start: bytes, fields: int
) -> None:
    content = get(shared, f"/trip-data/{dataset}_tripdata_{month}.csv").content
    lines = [line for line in content.splitlines() if line]
    assert content.startswith(start)
    assert len(lines) == 301
    assert {line.count(b",") + 1 for line in lines[1:]} == {fields}


def test_csvs_have_blank_second_lines_quotes_and_crlf_where_tlc_s_have() -> None:
    with SampleSite(rows=20) as site:
        assert b"Trip_type \n\n\r\n" in get(site, "/trip-data/green_tripdata_2014-01.csv").content
        assert b"total_amount\n\r\n" in get(site, "/trip-data/yellow_tripdata_2017-01.csv").content
        quoted = get(site, "/trip-data/fhv_tripdata_2018-01.csv").content.split(b"\r\n")
        assert all(line.startswith(b'"') and line.endswith(b'"') for line in quoted if line)
        assert all(line.endswith(b',""') for line in quoted[1:] if line)
        assert b"\r" not in get(site, "/trip-data/fhvhv_tripdata_2021-06.csv").content


def test_the_mirror_of_csvs_serves_the_same_rows_compressed(shared: SampleSite) -> None:
    plain = get(shared, "/trip-data/green_tripdata_2020-12.csv").content
    packed = get(shared, "/releases/download/green/green_tripdata_2020-12.csv.gz").content
    assert gzip.decompress(packed) == plain
    assert get(shared, "/trip-data/green_tripdata_2020-12.csv.gz").content == packed


# --- what there is and what there is not


@pytest.mark.parametrize("text", FIRST_MONTHS)
def test_a_dataset_begins_in_its_first_month(shared: SampleSite, text: str) -> None:
    dataset, first = text.split()
    before = f"{int(first[:4]) - 1}-12"
    assert get(shared, f"/trip-data/{dataset}_tripdata_{first}.parquet", "HEAD").status_code == 200
    assert get(shared, f"/trip-data/{dataset}_tripdata_{before}.parquet", "HEAD").status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/trip-data/green_tripdata_2026-01.parquet",
        "/trip-data/green_tripdata_2024-13.parquet",
        "/trip-data/purple_tripdata_2024-01.parquet",
        "/trip-data/green_tripdata_2024-01.csv",
        "/trip-data/../../etc/passwd",
        "/elsewhere",
    ],
)
def test_a_missing_file_is_denied_as_by_tlc_s_cdn(shared: SampleSite, path: str) -> None:
    answer = get(shared, path)
    assert answer.status_code == 403
    assert b"<Code>AccessDenied</Code>" in answer.content


def test_months_after_the_reference_exist_up_to_the_last() -> None:
    with SampleSite(scale=0.001, last=date(2026, 2, 1)) as site:
        rows = trips(site, "green", "2026-02").num_rows
        assert rows == round(published_months("green")[date(2025, 2, 1)].rows * 0.001)
        assert get(site, "/trip-data/green_tripdata_2026-03.parquet").status_code == 403


def test_a_folder_laid_out_like_tlc_s_site_is_served_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "site" / "trip-data").mkdir(parents=True)
    (tmp_path / "site" / "csv" / "green").mkdir(parents=True)
    (tmp_path / "site" / "trip-data" / "green_tripdata_2024-01.parquet").write_bytes(b"PAR1 real PAR1")
    (tmp_path / "site" / "csv" / "green" / "green_tripdata_2020-04.csv.gz").write_bytes(gzip.compress(b"real"))
    (tmp_path / "secret").write_text("not to be served")
    with SampleSite(folder=tmp_path / "site") as site:
        assert get(site).content == b"PAR1 real PAR1"
        mirrored = get(site, "/releases/download/green/green_tripdata_2020-04.csv.gz")
        assert gzip.decompress(mirrored.content) == b"real"
        assert get(site, "/trip-data/green_tripdata_2024-02.parquet").status_code == 403
        assert get(site, "/%2e%2e/secret").status_code == 403
        assert get(site, "/trip-data").status_code == 403


# --- HTTP


def test_the_site_says_that_it_is_a_stand_in(shared: SampleSite) -> None:
    answer = get(shared, "/")
    assert "stand-in" in answer.headers["Server"]
    assert "stand-in for TLC's site" in answer.text


def test_head_answers_like_get_without_a_body(shared: SampleSite) -> None:
    head, whole = get(shared, GREEN, "HEAD"), get(shared)
    assert head.content == b""
    assert int(head.headers["Content-Length"]) == len(whole.content)
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert whole.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=100-199", "bytes=100-", "bytes=-50", "bytes=0-9999999"])
def test_a_range_gives_that_part(shared: SampleSite, asked: str) -> None:
    whole, part = get(shared).content, get(shared, Range=asked)
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", asked).groups()
    expected = whole[-int(last) :] if not first else whole[int(first) : int(last or len(whole)) + 1]
    assert part.status_code == 206
    assert part.content == expected
    assert part.headers["Content-Range"].endswith(f"/{len(whole)}")


def test_a_range_after_the_end_cannot_be_satisfied(shared: SampleSite) -> None:
    size = len(get(shared).content)
    answer = get(shared, Range=f"bytes={size}-")
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{size}"


def test_if_range_gives_a_part_of_the_same_file_only(shared: SampleSite) -> None:
    tag = get(shared, GREEN, "HEAD").headers["ETag"]
    assert get(shared, Range="bytes=5-", If_Range=tag).status_code == 206
    assert get(shared, Range="bytes=5-", If_Range='"another"').status_code == 200


def test_an_unchanged_file_is_not_sent_again(shared: SampleSite) -> None:
    head = get(shared, GREEN, "HEAD").headers
    assert get(shared, If_None_Match=head["ETag"]).status_code == 304
    assert get(shared, If_Modified_Since=head["Last-Modified"]).status_code == 304
    assert get(shared, If_None_Match='"another"').status_code == 200
    assert get(shared, If_Modified_Since="Thu, 01 Jan 2009 00:00:00 GMT").status_code == 200


def test_one_connection_serves_many_requests(shared: SampleSite) -> None:
    with requests.Session() as session:
        answers = [session.get(shared.url + path, timeout=30).status_code for path in (GREEN, "/nothing", GREEN)]
        assert answers == [200, 403, 200]
        assert sum(pool.num_connections for pool in _pools(session)) == 1


def _pools(session: requests.Session) -> list:
    manager = session.get_adapter("http://").poolmanager
    return [manager.pools.get(key) for key in list(manager.pools.keys())]


def test_the_site_keeps_a_list_of_its_requests(site: SampleSite) -> None:
    get(site, Range="bytes=0-9")
    (seen,) = site.requests
    assert (seen.method, seen.path, seen.status, seen.sent) == ("GET", GREEN, 206, 10)
    assert seen.headers["Range"] == "bytes=0-9"


def test_requests_at_the_same_time_get_the_same_file_made_once(tmp_path: Path) -> None:
    with SampleSite(rows=50_000, cache=tmp_path) as site:
        contents: list[bytes] = []
        threads = [threading.Thread(target=lambda: contents.append(get(site).content)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(contents) == 6
    assert len(set(contents)) == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["green_tripdata_2024-01.parquet"]


def test_a_stopped_site_leaves_no_files_and_no_port() -> None:
    site = SampleSite(rows=10)
    with site:
        url, cache = site.url, site.shelf.cache
        get(site)
        assert list(cache.iterdir())
    assert not cache.exists()
    with requests.Session() as session, pytest.raises(requests.ConnectionError):
        session.get(url, timeout=5)
    site.stop()


# --- faults


def test_a_cut_ends_the_body_early_as_often_as_requested_and_can_be_resumed(site: SampleSite) -> None:
    whole = get(site).content
    site.faults.add("green*2024-01*", "cut", 1000, times=2)
    for _ in range(2):
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            get(site)
    assert [seen.sent for seen in site.requests[1:]] == [1000, 1000]
    assert whole[:1000] + get(site, Range="bytes=1000-").content == whole


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_status_is_sent_once_and_then_the_file(site: SampleSite, status: int) -> None:
    site.faults.add("*.parquet", status, 7)
    answer = get(site)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert get(site).status_code == 200
    assert [seen.status for seen in site.requests] == [status, 200]


def test_a_dropped_connection_has_no_response(site: SampleSite) -> None:
    site.faults.add(GREEN, "drop")
    with pytest.raises(requests.ConnectionError):
        get(site)
    assert get(site).status_code == 200


def test_an_announced_length_can_be_too_long_or_too_short(site: SampleSite) -> None:
    whole = get(site).content
    site.faults.add("*", "length", 10)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        get(site)
    site.faults.add("*", "length", -10)
    assert get(site).content == whole[:-10]


def test_a_corrupt_file_differs_in_one_byte(site: SampleSite) -> None:
    whole = get(site).content
    site.faults.add("*", "corrupt", 77)
    damaged = get(site).content
    assert [at for at, (one, other) in enumerate(zip(whole, damaged, strict=True)) if one != other] == [77]
    site.faults.add("*", "corrupt", 77)
    assert get(site, Range="bytes=70-79").content == damaged[70:80]


def test_a_truncated_file_pretends_to_be_whole(site: SampleSite) -> None:
    whole = get(site).content
    site.faults.add("*", "truncate")
    assert get(site).content == whole[: len(whole) // 2]


def test_a_page_can_be_sent_instead_of_a_file(site: SampleSite) -> None:
    site.faults.add("*", "html")
    answer = get(site)
    assert answer.status_code == 200
    assert answer.content.startswith(b"<!DOCTYPE html>")


def test_a_range_can_be_ignored_and_validators_be_missing(site: SampleSite) -> None:
    site.faults.add("*", "ignore_range")
    assert get(site, Range="bytes=5-").status_code == 200
    site.faults.add("*", "bare")
    for _ in range(2):
        answer = get(site, Range="bytes=5-")
        assert answer.status_code == 200
        assert not {"ETag", "Last-Modified", "Accept-Ranges"} & set(answer.headers)


def test_a_slow_site_takes_its_time(site: SampleSite) -> None:
    site.faults.add("*", "delay", 0.2)
    assert get(site, "/misc/taxi_zone_lookup.csv", "HEAD").elapsed.total_seconds() >= 0.2
    site.faults.add("*", "slow", 30_000)
    began = time.monotonic()
    size = len(get(site).content)
    assert time.monotonic() - began >= 0.9 * size / 30_000


def test_a_republished_month_has_other_rows_and_another_tag(site: SampleSite) -> None:
    old = get(site)
    site.faults.add("green*", "republished")
    new = get(site)
    assert new.headers["ETag"] != old.headers["ETag"]
    assert new.headers["Last-Modified"] != old.headers["Last-Modified"]
    tables = [pq.read_table(io.BytesIO(answer.content)) for answer in (old, new)]
    assert tables[0].num_rows == tables[1].num_rows
    assert not tables[0].equals(tables[1])
    assert get(site).content == new.content


def test_a_month_can_be_republished_between_a_cut_and_its_resumption(site: SampleSite) -> None:
    tag = get(site, GREEN, "HEAD").headers["ETag"]
    site.faults.add("green*", "republished", skip=1)
    site.faults.add("green*", "cut", 1000)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        get(site)
    answer = get(site, Range="bytes=1000-", If_Range=tag)
    assert answer.status_code == 200
    assert answer.headers["ETag"] != tag


def test_a_republished_file_of_a_folder_has_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "trip-data").mkdir()
    write_parquet(order("green", date(2024, 1, 1), rows=100), tmp_path / GREEN.lstrip("/"))
    with SampleSite(folder=tmp_path) as site:
        old = get(site).content
        site.faults.add("*", "republished", times=1)
        new = get(site).content
    assert new != old
    assert pq.read_table(io.BytesIO(new)) == pq.read_table(io.BytesIO(old))


def test_a_fault_waits_for_its_turn_and_leaves_other_paths_alone(site: SampleSite) -> None:
    site.faults.add("yellow*", 503, times=math.inf)
    site.faults.add("green*", 500, skip=1)
    site.faults.add("green*", 502)
    assert [get(site).status_code for _ in range(4)] == [502, 500, 200, 200]


def test_a_fault_can_be_written_as_text() -> None:
    faults = Faults()
    add_fault(faults, "cut:yellow*2024-01*:50000:times=2")
    (fault,) = faults.take("/trip-data/yellow_tripdata_2024-01.parquet")
    assert (fault.kind, fault.value, fault.times) == ("cut", 50_000, 2)
    assert faults.take(GREEN) == []


@pytest.mark.parametrize("text", ["explode:*", "cut", "cut:*:much", "cut:*:1:2", "cut:*:often=1", "200:*"])
def test_an_invalid_fault_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a fault"):
        add_fault(Faults(), text)


# --- the command


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.sample", "--port", "0", "--rows", "20", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_the_command_prints_its_address_serves_and_ends_on_a_signal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with start("--fault", "503:green*") as process:
            url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
            with requests.Session() as session:
                assert [session.get(url + GREEN, timeout=30).status_code for _ in range(2)] == [503, 200]
            process.send_signal(number)
            assert process.wait(20) == 0


def test_the_command_ends_with_the_process_it_was_bound_to() -> None:
    with subprocess.Popen(["sleep", "60"]) as other, start("--stop-with", str(other.pid)) as process:
        assert "http://" in process.stdout.readline()
        other.kill()
        other.wait()
        assert process.wait(20) == 0


def test_an_invalid_option_is_refused_in_one_line() -> None:
    command = [sys.executable, "-m", "pipeline.sample", "--last", "2024-15"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("sample site: '2024-15' is not a month")
