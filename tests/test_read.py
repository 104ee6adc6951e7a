"""`pipeline.read`: what it gives, in every form, and what it says of each mistake."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Folder, make_folder
from emulators import GcsEmulator

import pipeline
from pipeline.datasets import DATASETS
from pipeline.errors import PipelineError, StoreError, UsageError
from pipeline.lake import open_store
from pipeline.sample import SampleSite

ROWS = 300
YELLOW, GREEN = DATASETS["yellow"], DATASETS["green"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A lake with two months of green, the first of them of yellow, too, and the zones."""
    with SampleSite(rows=ROWS) as site:
        folder = make_folder(tmp_path_factory.mktemp("read") / "work", site.url)
        for words in ("yellow 2024-01 --through conform", "green 2024-01..2024-02"):
            ended = folder.pipeline("backfill", *words.split())
            assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(autouse=True)
def _work_there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.path)


def _trips(folder: Folder, dataset: str, month: str) -> pa.Table:
    return pq.read_table(
        folder.lake / "trips" / dataset / f"month={month}-01" / f"{dataset}_{month}.parquet", partitioning=None
    )


def test_the_conformed_months_are_one_dataframe() -> None:
    wanted = ["pickup_datetime", "vendor_id", "total_amount", "cbd_congestion_fee"]
    frame = pipeline.read("green", "2024-01..2024-02", columns=wanted)
    assert list(frame.columns) == wanted
    assert len(frame) == 2 * ROWS
    assert [str(kind) for kind in frame.dtypes] == ["datetime64[us]", "Int64", "float64", "float64"]
    assert frame["pickup_datetime"].iloc[0] < pd.Timestamp("2024-02-01") < frame["pickup_datetime"].iloc[-1]
    assert list(pipeline.read("green", "2024-02").columns) == list(GREEN.by_name)


@pytest.mark.parametrize(
    "period",
    [
        "2024-01..2024-02",
        "2024-02,2024-01",
        "all",
        ["2024-01", date(2024, 2, 1)],
        ["2024-02", "2024-01..2024-02"],
        pd.date_range("2024-01-20", "2024-02-10"),
        pd.period_range("2024-01", "2024-02", freq="M"),
        pd.date_range("2024-01-20", "2024-02-10").to_numpy(),
        (month for month in (date(2024, 1, 1), date(2024, 2, 29))),
    ],
)
def test_months_can_be_named_in_many_ways_and_come_once_each_in_their_order(folder: Folder, period: Any) -> None:
    both = [_trips(folder, "green", month)["pickup_datetime"].to_pylist() for month in ("2024-01", "2024-02")]
    frame = pipeline.read("green", period, ["pickup_datetime"])
    assert frame["pickup_datetime"].tolist() == [pd.Timestamp(each) for each in both[0] + both[1]]


@pytest.mark.parametrize(
    "period", ["2024-02", "latest", date(2024, 2, 1), datetime(2024, 2, 29, 23), pd.Period("2024-02-29")]
)
def test_latest_is_the_newest_month_of_the_lake_and_a_date_means_its_month(folder: Folder, period: Any) -> None:
    table = pipeline.read("green", period, as_="arrow")
    assert table.equals(_trips(folder, "green", "2024-02"))
    assert table.schema.field("trip_distance").metadata[b"unit"] == b"miles"


def test_several_datasets_are_one_table_with_null_where_one_lacks_a_column(folder: Folder) -> None:
    frame = pipeline.read(["yellow", "green"], "all", ["fare_amount", "trip_type", "Airport_fee"])
    assert list(frame.columns) == ["dataset", "fare_amount", "trip_type", "Airport_fee"]
    assert frame["dataset"].tolist() == ["yellow"] * ROWS + ["green"] * 2 * ROWS
    yellow, green = frame[frame.dataset == "yellow"], frame[frame.dataset == "green"]
    assert yellow["trip_type"].isna().all()
    assert green["Airport_fee"].isna().all()
    assert (
        yellow["Airport_fee"].dropna().tolist()
        == _trips(folder, "yellow", "2024-01")["airport_fee"].drop_null().to_pylist()
    )
    assert green["trip_type"].count() > 0
    named = pipeline.read(("green", "yellow"), "2024-01", ["fare_amount", "dataset"])
    assert list(named.columns) == ["fare_amount", "dataset"]
    assert named["dataset"].tolist() == ["green"] * ROWS + ["yellow"] * ROWS
    everything = pipeline.read(["green", "yellow"], "latest", as_="arrow")
    assert everything.schema.names == ["dataset", *GREEN.by_name, *(set(YELLOW.by_name) - set(GREEN.by_name))]
    assert everything.num_rows == 2 * ROWS


def test_columns_have_the_names_that_were_asked_for_in_our_spelling_or_in_one_of_tlc_s(folder: Folder) -> None:
    names = ["PULocationID", "lpep_pickup_datetime", "vendorid", "total_amount"]
    ours = ["pickup_location_id", "pickup_datetime", "vendor_id", "total_amount"]
    expected = _trips(folder, "green", "2024-01").select(ours).rename_columns(names)
    assert pipeline.read("green", "2024-01", names, as_="arrow").equals(expected)
    assert pipeline.read("green", "2024-01", names, as_="duckdb").columns == names
    # Of several datasets, each has its own name for the same column.
    frame = pipeline.read(["yellow", "green"], "2024-01", ["tpep_pickup_datetime"])
    assert frame["tpep_pickup_datetime"].count() == 2 * ROWS


def test_the_zones_have_no_period(folder: Folder) -> None:
    zones = pipeline.read("zones")
    assert list(zones.columns) == ["location_id", "borough", "zone", "service_zone"]
    assert zones["location_id"].tolist() == list(range(1, 266))
    assert list(pipeline.read("zones", columns=["LocationID", "Zone"]).columns) == ["LocationID", "Zone"]


def test_a_relation_of_duckdb_can_be_queried_by_its_variable_s_name_and_sees_the_files_when_it_runs() -> None:
    trips = pipeline.read(["yellow", "green"], "all", as_="duckdb")
    counted = duckdb.sql("SELECT dataset, count(*), count(trip_type) > 0 FROM trips GROUP BY ALL ORDER BY ALL")
    assert counted.fetchall() == [("green", 2 * ROWS, True), ("yellow", ROWS, False)]
    frame = pipeline.read(["yellow", "green"], "all", ["total_amount"])
    assert trips.sum("total_amount").fetchall()[0][0] == pytest.approx(frame["total_amount"].sum())


def test_polars_gets_a_dataframe(folder: Folder) -> None:
    polars = pytest.importorskip("polars")
    frame = pipeline.read(["green"], "2024-01", ["VendorID", "pickup_datetime"], as_="polars")
    assert dict(frame.schema) == {
        "dataset": polars.String,
        "VendorID": polars.Int64,
        "pickup_datetime": polars.Datetime("us"),
    }
    assert frame["VendorID"].to_list() == _trips(folder, "green", "2024-01")["vendor_id"].to_pylist()


def test_without_polars_the_message_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UsageError, match="as_='polars' needs the package polars, .*; run: pip install polars"):
        pipeline.read("green", "2024-01", as_="polars")
    assert len(pipeline.read("green", "2024-01")) == ROWS


def test_a_lake_in_a_bucket_is_read_as_a_folder_is(
    folder: Folder, gcs: GcsEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    bucket = f"read-{os.getpid()}"
    gcs.make_bucket(bucket)
    lake = f"gs://{bucket}/lake"
    for path in (folder.lake / "trips").rglob("*.parquet"):
        with open_store(lake, str(tmp_path)).publish(path.relative_to(folder.lake).as_posix()) as draft:
            shutil.copy(path, draft)
    assert pipeline.read("green", "all", lake=lake).equals(pipeline.read("green", "all"))
    relation = pipeline.read(["yellow", "green"], "all", ["VendorID"], lake=lake, as_="duckdb")
    assert relation.aggregate("count(*)").fetchall() == [(3 * ROWS,)]
    with pytest.raises(StoreError, match=f"fhv: not in the lake {lake}; run: .* --lake {lake}"):
        pipeline.read("fhv", "latest", lake=lake)


@pytest.mark.parametrize("kind", [str, Path])
def test_another_lake_can_be_named_from_any_folder(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(pipeline.read("green", "latest", lake=kind(folder.lake))) == ROWS
    (tmp_path / "lake").symlink_to(folder.lake)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(pipeline.read("green", "latest", lake=kind("~/lake"))) == ROWS
    with pytest.raises(StoreError, match=f"green: not in the lake {tmp_path}/data/lake .this folder does not exist"):
        pipeline.read("green", "latest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("green", "2023-12..2024-04"),
            "green 2023-12, 2024-03..2024-04: not in the lake {lake}; run: pipeline backfill",
        ),
        (("green", "2023-12..2024-04"), " backfill green 2023-12,2024-03..2024-04 --through conform --lake {lake}"),
        ((["yellow", "green"], "2024-01..2024-03"), "yellow 2024-02..2024-03; green 2024-03: not in the lake {lake}; "),
        ((["green", "fhv"], "latest"), "fhv: not in the lake {lake}; run: pipeline backfill fhv latest --through conf"),
        (("fhvhv", "all"), "fhvhv: not in the lake {lake}; run: pipeline backfill fhvhv latest --through conform"),
    ],
)
def test_months_that_the_lake_lacks_are_named_with_its_absolute_path(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], message: str
) -> None:
    (tmp_path / "other").symlink_to(folder.lake)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError) as caught:
        pipeline.read(*arguments, lake="other")
    assert message.format(lake=tmp_path / "other") in str(caught.value)


@pytest.mark.parametrize("arguments", [("green", "2024-01"), ("zones",), (["yellow", "green"], ["2024-01", "2024-03"])])
def test_the_command_that_gets_what_is_missing_does(folder: Folder, tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    with SampleSite(rows=20) as site:
        work = make_folder(tmp_path / "work", site.url)
        with pytest.raises(StoreError) as caught:
            pipeline.read(*arguments, lake=tmp_path / "new lake")
        command = shlex.split(str(caught.value).partition("; run: ")[2])
        assert command[0] == "pipeline"
        ended = work.pipeline(*command[1:])
        assert ended.returncode == 0, ended.stderr
    assert len(pipeline.read(*arguments, lake=tmp_path / "new lake")) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("gren", "2024-01"),
            "'gren' is not a dataset; allowed are yellow, green, fhv, fhvhv, zones; did you mean green?",
        ),
        (
            (["green", "yelow", 3], "2024-01"),
            "'yelow', 3 are not datasets; allowed are yellow, green, fhv, fhvhv, zones",
        ),
        ((None, "2024-01"), "None is not a dataset; allowed are yellow, green, fhv, fhvhv, zones"),
        ((b"green", "2024-01"), "b'green' is not a dataset; allowed are yellow, green"),
        (
            ("green_tripdata", "2024-01"),
            "'green_tripdata' is not a dataset; allowed are yellow, green, fhv, fhvhv, zones; did ",
        ),
        (("yellow, green", "2024-01"), "several datasets are a list of names; write ['yellow', 'green']"),
        (([], "2024-01"), "dataset is an empty list; allowed are yellow, green, fhv, fhvhv, zones"),
        ((["green", "green"], "2024-01"), "dataset has green more than once; name each once"),
        (
            (["green", "zones"], "2024-01"),
            "zones have no months, so they are read alone; trips are in yellow, green, f",
        ),
        (("zones", "2024-01"), "zones have no months; leave the period '2024-01' out"),
        (("green", "2024-01", "total_amount"), "columns must be a list of names; write columns=['total_amount']"),
        (("green", "2024-01", 3), "columns=3 must be a list of names, or None for all"),
        (("green", "2024-01", []), "columns is an empty list; name one, or leave it out for all"),
        (("green", "2024-01", ["tip_amount", "vendor_id"] * 2), "columns has tip_amount, vendor_id more than once; "),
        (("green", "2024-01", ["VendorID", "vendor_id"]), "columns has vendor_id more than once; name each once"),
        (("green", "2024-01", ["total_amont"]), "green has no columns ['total_amont']; allowed are vendor_id, "),
        (("green", "2024-01", ["total_amont"]), "did you mean total_amount?"),
        (("green", "2024-01", ["PULocatonID"]), "or TLC's names of them; did you mean PULocationID?"),
        (("green", "2024-01", ["dataset"]), "green has no columns ['dataset']; allowed are "),
        (("green", "2024-01", [3, ["a"]]), "green has no columns [3, ['a']]; allowed are "),
        ((["yellow", "fhv"], "2024-01", ["trip_typ"]), "yellow, fhv have no columns ['trip_typ']; allowed are "),
        (
            ("green",),
            "period is missing; it must be a text such as '2024-01', '2024-01..2024-03', 'latest' or 'all', a date, ",
        ),
        (("green", 2024), "period 2024 must be a text such as '2024-01', "),
        (("green", ("2024-01",)), "period ('2024-01',) must be a text such as '2024-01', "),
        (("green", []), "period is empty; it must be a text such as '2024-01', "),
        (
            ("green", ("2024-01", "2024-03")),
            "a range or two months; write '2024-01..2024-03' or ['2024-01', '2024-03']",
        ),
        (("green", (date(2024, 1, 1), date(2024, 3, 9))), "write '2024-01..2024-03' or ['2024-01', '2024-03']"),
        (("green", "2024-01-15"), "period '2024-01-15' names days, and months are read whole; write '2024-01'"),
        (("green", "2024-01-15..2024-02-03"), "names days, and months are read whole; write '2024-01..2024-02'"),
        (("green", ["latest", "2024-01"]), "period 'latest' is allowed only alone"),
        (("green", "latest,2024-01"), "period 'latest' is allowed only alone"),
        (("green", pd.NaT), "'NaT' is not a period; write a month (2024-01)"),
        (("green", "2024-13"), "'2024-13' is not a month: months are 01 to 12"),
    ],
)
def test_an_invalid_argument_of_read_is_named_with_the_allowed_values(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        pipeline.read(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"as_": "panda"}, "as_='panda' is invalid; allowed are pandas, arrow, polars, duckdb; did you mean pandas?"),
        ({"as_": ["arrow"]}, "as_=['arrow'] is invalid; allowed are pandas, arrow, polars, duckdb"),
        ({"lake": 3}, "lake=3 must be a folder or gs://bucket/prefix, as a text or a path"),
        (
            {"lake": "s3://trips"},
            "lake = 's3://trips': s3 is not a supported kind of lake; allowed are a folder and gs:",
        ),
        ({"lake": ""}, "lake = '': nothing is not a supported kind of lake"),
        ({"lake": __file__}, f"lake {__file__!r} is a file; it must be a folder or gs://bucket/prefix"),
    ],
)
def test_an_invalid_option_of_read_is_named_with_the_allowed_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        pipeline.read("green", "2024-01", **options)
    assert message in str(caught.value)


def test_one_error_has_all_mistakes() -> None:
    with pytest.raises(PipelineError) as caught:
        pipeline.read("gren", "2024-13", "tip_amount", lake=3, as_="panda")  # type: ignore[call-overload]
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "'gren'",
        "columns",
        "'2024-13'",
        "as_='panda'",
        "lake=3",
    ]
