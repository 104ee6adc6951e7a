"""The contract of a warehouse: tests for any engine; a test module imports all names of this one.

That module also defines three fixtures: `url`, the URL of an empty warehouse, and two functions: `drop` drops one of
its tables or views, `create` creates a table of the user's own. docs/extending.md shows how.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cloud import warehouse_at
from conftest import Folder
from loading import FEB, GREEN, JAN, MAR, YELLOW, File, many_trips, trips, write, zones
from state import is_damaged

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError, WarehouseError
from pipeline.marts import all_marts, marts_of
from pipeline.version import __version__
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.base import Mart
from pipeline.warehouses.tables import LEDGER

#: Enough to test an engine with; that it builds each mart as declared is tested in tests/marts.
MARTS = [all_marts()[name] for name in ("daily_trips", "monthly_zone_revenue")]


@pytest.fixture
def warehouse(url: str, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_at(url, tmp_path_factory.mktemp("scratch"), lock_timeout_s=30)


def totals(warehouse: Warehouse, dataset: Dataset, month: date) -> list[float]:
    sql = f"SELECT total_amount FROM {dataset.name} WHERE month = DATE '{month}' ORDER BY total_amount"
    return warehouse.query(sql).column(0).to_pylist()


def loading(url: str, dataset: Dataset, month: date, file: File) -> subprocess.Popen[str]:
    """A process that is about to load the month."""
    program = [sys.executable, str(Path(__file__).parent / "loading.py"), url, dataset.name, f"{month:%Y-%m}"]
    process = subprocess.Popen([*program, str(file.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def test_a_warehouse_that_does_not_exist_is_empty_and_reading_does_not_create_it(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    assert warehouse.loads(GREEN) == {}
    assert warehouse.loads(ZONES).get(None) is None
    assert warehouse.mart_months(GREEN) == {}
    warehouse.forget(GREEN, JAN)
    warehouse.forget_marts(GREEN, JAN)
    with pytest.raises(WarehouseError):
        warehouse.query("SELECT * FROM green")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_month_holds_the_rows_of_the_file_and_its_record(warehouse: Warehouse, tmp_path: Path) -> None:
    file = trips(tmp_path, GREEN, JAN, [10.0, 20.0, 30.0])
    before = datetime.now(timezone.utc)
    assert warehouse.replace(GREEN, JAN, file) == 3
    assert totals(warehouse, GREEN, JAN) == [10.0, 20.0, 30.0]
    months = warehouse.loads(GREEN)
    assert set(months) == {JAN}
    record = months[JAN]
    assert (record.dataset, record.month, record.rows, record.version) == ("green", JAN, 3, __version__)
    assert (record.source_sha256, record.declaration, record.fingerprint) == ("5" * 64, "d" * 16, file.fingerprint)
    assert before <= record.loaded_at <= datetime.now(timezone.utc)
    assert warehouse.loads(YELLOW) == {}


def test_loading_a_month_again_replaces_it_and_nothing_else(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [7.0]))
    for values in ([10.0, 20.0], [10.0, 20.0], [5.0]):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, values))
        assert totals(warehouse, GREEN, JAN) == values
        assert warehouse.loads(GREEN)[JAN].rows == len(values)
    assert totals(warehouse, GREEN, FEB) == [7.0]
    # In BigQuery, `loads` keeps older records.
    assert warehouse.query("SELECT DISTINCT month FROM loads ORDER BY month").to_pylist() == [
        {"month": JAN},
        {"month": FEB},
    ]


def test_a_row_that_occurs_twice_stays_twice(warehouse: Warehouse, tmp_path: Path) -> None:
    day = [datetime(2024, 1, 1)] * 2
    file = trips(tmp_path, GREEN, JAN, [10.0, 10.0], pickup_datetime=day, dropoff_datetime=day)
    warehouse.replace(GREEN, JAN, file)
    assert totals(warehouse, GREEN, JAN) == [10.0, 10.0]


def test_strays_belong_to_the_month_of_their_file(warehouse: Warehouse, tmp_path: Path) -> None:
    stray = [datetime(2009, 5, 1)]
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0], pickup_datetime=stray))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [2.0]))
    assert warehouse.query("SELECT COUNT(*) AS n FROM green").to_pylist() == [{"n": 1}]


def test_a_month_of_no_rows_is_loaded(warehouse: Warehouse, tmp_path: Path) -> None:
    assert warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [])) == 0
    assert warehouse.loads(GREEN)[JAN].rows == 0


def test_a_column_that_the_file_lacks_is_null(warehouse: Warehouse, tmp_path: Path) -> None:
    file = trips(tmp_path, GREEN, JAN, [10.0], drop=("cbd_congestion_fee", "request_source"))
    warehouse.replace(GREEN, JAN, file)
    assert warehouse.query("SELECT cbd_congestion_fee AS fee FROM green").to_pylist() == [{"fee": None}]


def test_a_file_of_another_month_or_dataset_is_an_error_with_every_problem(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    other = trips(tmp_path, YELLOW, FEB, [99.0])
    with pytest.raises(WarehouseError, match=r"green 2024-01: .*'yellow'.*'2024-02'.*airport_fee"):
        warehouse.replace(GREEN, JAN, other)
    assert totals(warehouse, GREEN, JAN) == [10.0]


def test_a_file_without_metadata_is_an_error(warehouse: Warehouse, tmp_path: Path) -> None:
    pq.write_table(GREEN.schema.empty_table().replace_schema_metadata(None), tmp_path / "raw.parquet")
    with pytest.raises(WarehouseError, match="not a conformed file"):
        warehouse.replace(GREEN, JAN, File(tmp_path / "raw.parquet"))
    (tmp_path / "no.parquet").write_text("not Parquet")
    with pytest.raises(WarehouseError, match="not a readable Parquet file"):
        warehouse.replace(GREEN, JAN, File(tmp_path / "no.parquet"))
    assert warehouse.loads(GREEN) == {}


def test_a_wrong_type_a_repeated_column_or_a_null_in_a_required_column_is_an_error(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    table = GREEN.schema.empty_table()
    table = table.set_column(table.schema.get_field_index("extra"), "extra", table.column("store_and_fwd_flag"))
    with pytest.raises(WarehouseError, match="extra is string, declared double"):
        warehouse.replace(GREEN, JAN, write(tmp_path / "a.parquet", GREEN, JAN, table))
    twice = GREEN.schema.empty_table().append_column("extra", pa.array([], pa.float64()))
    with pytest.raises(WarehouseError, match=r"columns \['extra'\] occur more than once"):
        warehouse.replace(GREEN, JAN, write(tmp_path / "b.parquet", GREEN, JAN, twice))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    with pytest.raises(WarehouseError, match="pickup_datetime"):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [11.0], pickup_datetime=[None]))
    assert totals(warehouse, GREEN, JAN) == [10.0]
    assert warehouse.loads(GREEN)[JAN].rows == 1


def test_forget_deletes_the_month_and_no_other(warehouse: Warehouse, tmp_path: Path) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [10.0]))
    warehouse.replace_mart_month(GREEN, JAN, MARTS)
    warehouse.forget(GREEN, JAN)
    warehouse.forget(GREEN, JAN)
    assert set(warehouse.loads(GREEN)) == {FEB}
    assert totals(warehouse, GREEN, JAN) == []
    assert totals(warehouse, GREEN, FEB) == [10.0]
    assert warehouse.mart_months(GREEN) == {}
    assert warehouse.query("SELECT COUNT(*) AS n FROM daily_trips").to_pylist() == [{"n": 0}]


def test_loads_of_a_dropped_table_do_not_count_and_can_be_repeated(
    warehouse: Warehouse, drop: Callable[[str], object], tmp_path: Path
) -> None:
    files = {month: trips(tmp_path, GREEN, month, [10.0]) for month in (JAN, FEB)}
    yellow = trips(tmp_path, YELLOW, JAN, [1.0])
    for dataset, month, file in ((GREEN, JAN, files[JAN]), (GREEN, FEB, files[FEB]), (YELLOW, JAN, yellow)):
        warehouse.replace(dataset, month, file)
        warehouse.replace_mart_month(dataset, month, MARTS)
    drop("TABLE green")
    assert (warehouse.loads(GREEN), warehouse.mart_months(GREEN)) == ({}, {})
    assert (set(warehouse.loads(YELLOW)), set(warehouse.mart_months(YELLOW))) == ({JAN}, {JAN})
    with pytest.raises(WarehouseError, match="green 2024-01: is not loaded"):
        warehouse.replace_mart_month(GREEN, JAN, MARTS)
    warehouse.replace(GREEN, FEB, files[FEB])
    assert (set(warehouse.loads(GREEN)), warehouse.mart_months(GREEN)) == ({FEB}, {}), "not the old record"
    warehouse.replace(GREEN, JAN, files[JAN])
    assert (set(warehouse.loads(GREEN)), warehouse.mart_months(GREEN)) == ({JAN, FEB}, {})
    assert totals(warehouse, GREEN, JAN) == [10.0]
    assert warehouse.query("SELECT * FROM daily_trips WHERE dataset = 'green'").num_rows == 0
    for month in (JAN, FEB):
        assert warehouse.replace_mart_month(GREEN, month, MARTS)["daily_trips"] == 1
    assert set(warehouse.mart_months(GREEN)) == {JAN, FEB}


def test_a_backfill_loads_all_months_again_after_their_table_was_dropped(
    url: str, folder: Folder, drop: Callable[[str], object], request: pytest.FixtureRequest
) -> None:
    folder.environment["PIPELINE_WAREHOUSE"] = url
    if url.startswith("bigquery"):
        request.getfixturevalue("cloud").use(folder)
    backfill = ("backfill", "green", "2024-01..2024-02")
    for _ in range(2):
        ended = folder.pipeline(*backfill)
        assert ended.returncode == 0, ended.stderr
        loaded = open_warehouse(url)
        assert set(loaded.loads(GREEN)) == set(loaded.mart_months(GREEN)) == {JAN, FEB}
        assert loaded.query("SELECT COUNT(*) AS n FROM green").to_pylist() == [{"n": 4000}]
        assert (loaded.changed_rows(GREEN), loaded.changed_rows(ZONES)) == ({}, {})
        drop("TABLE green")
        assert open_warehouse(url).changed_rows(GREEN).keys() == {JAN, FEB}
        refreshed = folder.pipeline("refresh", "green", "2024-01..2024-02", "--json")
        reported = [(each["month"], each["finding"]) for each in json.loads(refreshed.stdout)["findings"]]
        assert reported == [("2024-01", "rows"), ("2024-02", "rows")]


def test_a_mart_whose_table_was_dropped_is_built_month_by_month_again(
    warehouse: Warehouse, drop: Callable[[str], object], tmp_path: Path
) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [10.0]))
        warehouse.replace_mart_month(GREEN, month, MARTS)
    drop("TABLE daily_trips")
    assert set(warehouse.mart_months(GREEN)[JAN]) == {"monthly_zone_revenue"}
    warehouse.replace_mart_month(GREEN, JAN, MARTS)
    assert {month: len(built) for month, built in warehouse.mart_months(GREEN).items()} == {JAN: 2, FEB: 1}


def test_zones_whose_table_was_dropped_are_missing_and_so_are_all_marts(
    warehouse: Warehouse, drop: Callable[[str], object], tmp_path: Path
) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    warehouse.replace_mart_month(GREEN, JAN, MARTS)
    drop("TABLE zones")
    assert (warehouse.loads(ZONES).get(None), warehouse.mart_months(GREEN)) == (None, {})
    assert set(warehouse.loads(GREEN)) == {JAN}
    warehouse.replace(ZONES, None, zones(tmp_path))
    assert warehouse.mart_months(GREEN) == {}
    assert warehouse.replace_mart_month(GREEN, JAN, MARTS)["daily_trips"] == 1
    assert (set(warehouse.mart_months(GREEN)), warehouse.loads(ZONES).get(None) is None) == ({JAN}, False)


def test_the_view_of_all_trips_works_with_green_alone_and_names_the_zones(warehouse: Warehouse, tmp_path: Path) -> None:
    ends = {"pickup_location_id": [1, 264], "dropoff_location_id": [2, None]}
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0, 20.0], **ends))
    warehouse.replace(ZONES, None, zones(tmp_path))
    columns = "dataset, month, total_amount, pickup_zone, pickup_borough, dropoff_zone, dropoff_borough"
    rows = [tuple(row.values()) for row in warehouse.query(f"SELECT {columns} FROM trips ORDER BY 3").to_pylist()]
    assert rows == [
        ("green", JAN, 10.0, "Astoria", "Queens", "Corona", "Queens"),
        ("green", JAN, 20.0, None, None, None, None),
    ]
    warehouse.replace(YELLOW, JAN, trips(tmp_path, YELLOW, JAN, [30.0]))
    counts = warehouse.query("SELECT dataset, COUNT(*) AS n FROM trips GROUP BY dataset ORDER BY 1").to_pylist()
    assert counts == [{"dataset": "green", "n": 2}, {"dataset": "yellow", "n": 1}]


VIEWS = ["yellow_tripdata", "green_tripdata", "fhv_tripdata", "fhvhv_tripdata", "taxi_zone_lookup"]


def test_a_query_that_names_tables_and_columns_as_tlc_does_runs_unchanged(warehouse: Warehouse, tmp_path: Path) -> None:
    ends = {"pickup_location_id": [1, 1, 2], "dropoff_location_id": [2, 2, 1], "vendor_id": [1, 2, 2]}
    warehouse.replace(ZONES, None, zones(tmp_path))
    warehouse.replace(
        YELLOW, JAN, trips(tmp_path, YELLOW, JAN, [10.0, 20.0, 30.0], airport_fee=[1.75, 0, None], **ends)
    )
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0, 2.0, 3.0], **ends))

    def rows(sql: str) -> list[tuple[object, ...]]:
        return [tuple(row.values()) for row in warehouse.query(sql).to_pylist()]

    since = "WHERE tpep_pickup_datetime >= '2024-01-01'"
    assert rows(f"SELECT VendorID, COUNT(*) FROM yellow_tripdata {since} GROUP BY 1 ORDER BY 1") == [(1, 1), (2, 2)]
    assert rows("SELECT SUM(Airport_fee), COUNT(DISTINCT RatecodeID) FROM yellow_tripdata") == [(1.75, 0)]
    assert rows(
        "SELECT z.Zone, z.Borough, z.service_zone, SUM(g.total_amount) AS total FROM green_tripdata AS g "
        "JOIN taxi_zone_lookup AS z ON g.PULocationID = z.LocationID WHERE CAST(lpep_pickup_datetime AS DATE) < "
        "DATE '2024-02-01' GROUP BY 1, 2, 3 ORDER BY total DESC, 1"
    ) == [("Astoria", "Queens", "Boro Zone", 3.0), ("Corona", "Queens", "Boro Zone", 3.0)]
    month = "EXTRACT(MONTH FROM lpep_dropoff_datetime) AS month"
    assert rows(f"SELECT {month}, COUNT(*) AS n FROM green_tripdata GROUP BY month") == [(1, 3)]
    assert rows("SELECT PUlocationID, DOlocationID, dropOff_datetime, SR_Flag FROM fhv_tripdata") == []
    assert rows("SELECT hvfhs_license_num, PULocationID, driver_pay, SR_Flag FROM fhvhv_tripdata") == []


def test_every_column_is_in_the_view_with_tlcs_name_and_spelling(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    for view, dataset in zip(VIEWS, (*DATASETS.values(), ZONES), strict=True):
        names, spelled = warehouse.query(f"SELECT * FROM {view}").column_names, [c.tlc_name for c in dataset.columns]
        # Postgres folds names that are not quoted.
        assert names in (spelled, [name.lower() for name in spelled]), view


def test_codes_has_the_meaning_of_every_declared_code(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    rows = {tuple(row.values()) for row in warehouse.query("SELECT * FROM codes").to_pylist()}
    assert rows == {
        (dataset.name, column.name, str(code), meaning)
        for dataset in DATASETS.values()
        for column in dataset.columns
        for code, meaning in column.codes.items()
    }
    assert ("yellow", "payment_type", "1", "credit card") in rows
    assert ("green", "trip_type", "2", "dispatch") in rows


def test_trips_has_words_for_codes_what_one_dataset_lacks_as_null_and_minutes(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    codes = {"vendor_id": [6, 77], "payment_type": [1, None], "rate_code_id": [2, 99]}
    start = datetime(2024, 1, 5, 23, 59, 30)
    times = {"pickup_datetime": [start] * 2, "dropoff_datetime": [datetime(2024, 1, 6, 0, 45), start]}
    yellow = trips(tmp_path, YELLOW, JAN, [10.0, 20.0], airport_fee=[1.75, None], **codes, **times)
    warehouse.replace(YELLOW, JAN, yellow)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [30.0], trip_type=[2], cbd_congestion_fee=[0.75]))
    columns = "vendor, payment, rate, airport_fee, trip_type, cbd_congestion_fee, pickup_service_zone, "
    columns += "dropoff_service_zone, duration_minutes"
    sql = f"SELECT {columns} FROM trips ORDER BY total_amount"
    assert [tuple(row.values()) for row in warehouse.query(sql).to_pylist()] == [
        ("Myle Technologies", "credit card", "JFK", 1.75, None, None, "Boro Zone", None, 45.5),
        (None, None, "unknown", None, None, None, "Boro Zone", None, 0.0),
        (None, None, None, None, 2, 0.75, "Boro Zone", None, 10.0),
    ]
    by_payment = "SELECT payment, COUNT(*) AS n FROM trips WHERE dataset = 'yellow' AND payment IS NOT NULL GROUP BY 1"
    assert warehouse.query(by_payment).to_pylist() == [{"payment": "credit card", "n": 1}]


def test_for_hire_trips_has_fhv_and_fhvhv_with_fares_pay_and_wait_where_they_are_known(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    fhv, fhvhv = DATASETS["fhv"], DATASETS["fhvhv"]
    warehouse.replace(ZONES, None, zones(tmp_path))
    given = {"base_passenger_fare": [20.0], "driver_pay": [15.5], "hvfhs_license_num": ["HV0003"]}
    given |= {"request_datetime": [datetime(2024, 1, 1, 7, 57)], "dispatching_base_num": ["B03404"]}
    warehouse.replace(fhvhv, JAN, trips(tmp_path, fhvhv, JAN, [1.0], **given))
    warehouse.replace(fhv, JAN, trips(tmp_path, fhv, JAN, [1.0], dispatching_base_num=["B00001"]))
    columns = "dataset, month, dispatching_base_num, pickup_zone, pickup_service_zone, service, base_passenger_fare, "
    columns += "driver_pay, duration_minutes, wait_minutes"
    rows = warehouse.query(f"SELECT {columns} FROM for_hire_trips ORDER BY dataset").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("fhv", JAN, "B00001", "Astoria", "Boro Zone", None, None, None, 10.0, None),
        ("fhvhv", JAN, "B03404", "Astoria", "Boro Zone", "Uber", 20.0, 15.5, 10.0, 3.0),
    ]


@pytest.mark.parametrize("name", ["yellow_tripdata", "taxi_zone_lookup", "codes"])
def test_a_table_of_the_users_own_under_a_views_name_stays_and_is_reported(
    name: str,
    warehouse: Warehouse,
    create: Callable[[str], object],
    drop: Callable[[str], object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A command that ran in this process has turned them off.
    for logger in ("luigi-interface", "luigi-interface.pipeline"):
        monkeypatch.setattr(logging.getLogger(logger), "propagate", True)
        caplog.set_level(logging.WARNING, logger)
    file = trips(tmp_path, GREEN, JAN, [10.0])
    warehouse.replace(GREEN, JAN, file)
    assert warehouse.validate_shared() == []
    drop(f"VIEW {name}")
    create(name)
    for _ in range(2):
        assert warehouse.replace(GREEN, JAN, file) == 1
        assert warehouse.query(f"SELECT * FROM {name}").to_pylist() == [{"mine": 7}]
        assert warehouse.validate_shared() == [name]
    assert caplog.text == "", "nothing else had to be created"
    drop("VIEW green_tripdata")
    for _ in range(2):
        assert warehouse.replace(GREEN, JAN, file) == 1
    assert caplog.text.count(f"our views of these names are not created: {name}") == 1
    assert warehouse.query("SELECT COUNT(*) AS n FROM green_tripdata").to_pylist() == [{"n": 1}]
    drop(f"TABLE {name}")
    assert warehouse.replace(GREEN, JAN, file) == 1
    assert (warehouse.validate_shared(), warehouse.query(f"SELECT * FROM {name}").num_columns > 1) == ([], True)


def test_every_dataset_has_its_empty_table_after_the_first_load(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    for dataset in DATASETS.values():
        table = warehouse.query(f"SELECT * FROM {dataset.name}")
        assert (table.num_rows, table.column_names) == (0, [*dataset.by_name, "month"])
    assert warehouse.query("SELECT * FROM trips").num_rows == 0


def test_zones_are_replaced_as_a_whole(warehouse: Warehouse, tmp_path: Path) -> None:
    assert warehouse.replace(ZONES, None, zones(tmp_path)) == 2
    file = zones(tmp_path, {1: "Astoria", 2: "Elmhurst", 3: "Jamaica"})
    assert warehouse.replace(ZONES, None, file) == 3
    names = warehouse.query("SELECT zone FROM zones ORDER BY location_id").column(0).to_pylist()
    assert names == ["Astoria", "Elmhurst", "Jamaica"]
    record = warehouse.loads(ZONES).get(None)
    assert record is not None
    assert (record.dataset, record.month, record.rows, record.fingerprint) == ("zones", None, 3, file.fingerprint)


def test_a_zone_number_twice_is_an_error_because_it_would_duplicate_trips(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"\[7\]"):
        warehouse.replace(ZONES, None, zones(tmp_path, ids=[7, 7]))
    assert warehouse.loads(ZONES).get(None) is None


def test_a_mart_is_built_for_the_month_with_the_fingerprint_of_its_load(warehouse: Warehouse, tmp_path: Path) -> None:
    file = trips(tmp_path, GREEN, JAN, [10.0, 20.0, 30.0])
    warehouse.replace(GREEN, JAN, file)
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    built = warehouse.replace_mart_month(GREEN, JAN, MARTS)
    assert built == {"daily_trips": 3, "monthly_zone_revenue": 2}
    assert warehouse.replace_mart_month(GREEN, JAN, MARTS) == built
    assert warehouse.replace_mart_month(GREEN, FEB, MARTS)["daily_trips"] == 1
    months = warehouse.mart_months(GREEN)
    assert {month: set(marts) for month, marts in months.items()} == {JAN: set(built), FEB: set(built)}
    assert (months[JAN]["daily_trips"].rows, months[JAN]["daily_trips"].fingerprint) == (3, file.fingerprint)
    rows = warehouse.query("SELECT dataset, month, day, trips FROM daily_trips WHERE month = DATE '2024-02-01'")
    assert [tuple(row.values()) for row in rows.to_pylist()] == [("green", FEB, FEB, 1)]


def test_a_mart_is_recorded_with_the_hash_of_its_sql_also_where_an_older_version_made_the_ledger(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [daily, _] = marts = MARTS
    with monkeypatch.context() as older:
        doc, columns = LEDGER["mart_loads"]
        older.setitem(LEDGER, "mart_loads", (doc, tuple(column for column in columns if column.name != "definition")))
        for month in (JAN, FEB):
            warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [10.0]))
            warehouse.replace_mart_month(GREEN, month, marts)
    assert {built["daily_trips"].definition for built in warehouse.mart_months(GREEN).values()} == {None}
    warehouse.forget_marts(GREEN, JAN)
    warehouse.replace_mart_month(GREEN, JAN, marts)
    built = {month: marts["daily_trips"].definition for month, marts in warehouse.mart_months(GREEN).items()}
    assert built == {JAN: daily.definition, FEB: None}


def test_the_hash_of_a_mart_is_of_its_sql_and_not_of_its_comments() -> None:
    one = Mart("m", "Doc.", "-- Doc.\n--\nSELECT 1 AS n\nFROM trips\n", ("green",))
    same = Mart("m", "Doc.", "-- Other words.\nSELECT 1 AS n\n  FROM trips", ("green",))
    assert one.definition == same.definition
    assert one.definition != Mart("m", "Doc.", "SELECT 2 AS n FROM trips", ("green",)).definition


def test_a_mart_is_built_from_extreme_numbers(warehouse: Warehouse, tmp_path: Path) -> None:
    extremes: dict[pa.DataType, list[float]] = {
        pa.int64(): [10**9, -(10**9), 10**9 + 1, 2**63 - 1, -(2**63)],
        pa.float64(): [1e9, 1e9, 1e16, -1e300, 1e308],
    }
    values = {column.name: extremes[column.arrow_type] for column in GREEN.columns if column.arrow_type in extremes}
    values |= {"pickup_location_id": [1] * 5, "total_amount": [1.0] * 5, "dropoff_location_id": [2] * 5}
    day = [datetime(2024, 1, 5)] * 5
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0] * 5, pickup_datetime=day, **values))
    built = warehouse.replace_mart_month(GREEN, JAN, marts_of("green"))
    assert built.pop("payment_mix") == 5
    assert set(built.values()) == {1}
    for mart in built:
        [row] = warehouse.query(f"SELECT * FROM {mart}").to_pylist()
        wanted = {"trips": 5, "passengers": 0, "trip_miles": None, "miles": None, "fare_amount": 2 * 10**9}
        assert {name: row[name] for name in wanted if name in row} == {n: v for n, v in wanted.items() if n in row}


def test_loading_a_month_again_deletes_it_from_its_marts(warehouse: Warehouse, tmp_path: Path) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [10.0]))
        warehouse.replace_mart_month(GREEN, month, MARTS)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [11.0]))
    assert set(warehouse.mart_months(GREEN)) == {FEB}
    assert warehouse.query("SELECT DISTINCT month FROM daily_trips").column(0).to_pylist() == [FEB]


def test_a_month_can_be_deleted_from_its_marts_alone(warehouse: Warehouse, tmp_path: Path) -> None:
    for dataset, month in ((GREEN, JAN), (GREEN, FEB), (YELLOW, JAN)):
        warehouse.replace(dataset, month, trips(tmp_path, dataset, month, [10.0, 20.0]))
        warehouse.replace_mart_month(dataset, month, MARTS)
    record = warehouse.loads(GREEN)[JAN]
    for _ in range(2):
        warehouse.forget_marts(GREEN, JAN)
        assert (set(warehouse.mart_months(GREEN)), set(warehouse.mart_months(YELLOW))) == ({FEB}, {JAN})
        left = warehouse.query("SELECT DISTINCT dataset, month FROM daily_trips ORDER BY 1, 2").to_pylist()
        assert [tuple(row.values()) for row in left] == [("green", FEB), ("yellow", JAN)]
    assert totals(warehouse, GREEN, JAN) == [10.0, 20.0]
    assert warehouse.loads(GREEN)[JAN] == record, "not loaded again"
    assert warehouse.replace_mart_month(GREEN, JAN, MARTS)["daily_trips"] == 2


def test_other_zones_empty_the_marts_and_the_same_zones_do_not(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    warehouse.replace_mart_month(GREEN, JAN, MARTS)
    warehouse.replace(ZONES, None, zones(tmp_path))
    assert set(warehouse.mart_months(GREEN)) == {JAN}
    warehouse.replace(ZONES, None, zones(tmp_path, {1: "Elsewhere"}))
    assert warehouse.mart_months(GREEN) == {}
    assert warehouse.query("SELECT * FROM monthly_zone_revenue").num_rows == 0


def test_several_marts_are_all_built_or_none(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    broken = Mart("broken", "Fails.", "SELECT no_such_column FROM trips", ("green",))
    with pytest.raises(WarehouseError, match="no_such_column"):
        warehouse.replace_mart_month(GREEN, JAN, [*MARTS, broken])
    assert warehouse.mart_months(GREEN) == {}


def test_a_mart_of_a_month_that_is_not_loaded_or_of_another_dataset_is_an_error(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    with pytest.raises(WarehouseError, match="green 2024-02: is not loaded"):
        warehouse.replace_mart_month(GREEN, FEB, MARTS)
    with pytest.raises(WarehouseError, match="daily_trips"):
        warehouse.replace_mart_month(DATASETS["fhv"], JAN, MARTS)


def test_a_query_cannot_change_anything_and_its_error_is_the_engines(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    for statement in ("DELETE FROM green", "DROP TABLE green", "INSERT INTO loads SELECT * FROM loads"):
        with pytest.raises(UsageError):
            warehouse.query(statement)
    with pytest.raises(WarehouseError, match="no_such_table"):
        warehouse.query("SELECT * FROM no_such_table")
    assert totals(warehouse, GREEN, JAN) == [10.0]


def test_a_load_that_raises_midway_leaves_the_old_month(warehouse: Warehouse, tmp_path: Path) -> None:
    twice = GREEN.schema.empty_table().append_column("extra", pa.array([], pa.float64()))
    with pytest.raises(WarehouseError, match=r"columns \['extra'\] occur more than once"):
        warehouse.replace(GREEN, JAN, write(tmp_path / "b.parquet", GREEN, JAN, twice))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    with pytest.raises(WarehouseError, match="pickup_datetime"):
        warehouse.replace(GREEN, JAN, many_trips(tmp_path, GREEN, JAN, 200_000, last_pickup=False))
    assert totals(warehouse, GREEN, JAN) == [10.0]
    assert warehouse.loads(GREEN)[JAN].rows == 1


def test_a_load_killed_at_any_moment_leaves_the_old_month_or_the_new(
    url: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    old, new = trips(tmp_path, GREEN, JAN, [10.0, 20.0]), many_trips(tmp_path, GREEN, JAN, 150_000)
    warehouse.replace(GREEN, JAN, old)
    started = time.monotonic()
    assert loading(url, GREEN, JAN, new).communicate()[0] == "150000\n"
    whole_s = time.monotonic() - started
    chance, was_damaged = random.Random(7), False
    for _ in range(8):
        warehouse.replace(GREEN, JAN, old)
        process = loading(url, GREEN, JAN, new)
        time.sleep(chance.uniform(0, whole_s))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            record = warehouse.loads(GREEN).get(JAN)
        except WarehouseError as error:
            if was_damaged or not is_damaged(str(error)):  # The moment is too short to be hit twice.
                raise
            was_damaged = True
            Path(url.removeprefix("duckdb:///").partition("?")[0]).unlink()
            continue
        if record is None:  # Where rows and record cannot share a transaction, it is deleted first and written last.
            assert url.startswith("bigquery")
            assert len(totals(warehouse, GREEN, JAN)) in (2, 150_000)
            continue
        assert record.rows in (2, 150_000)
        assert len(totals(warehouse, GREEN, JAN)) == record.rows
        assert record.fingerprint == (old if record.rows == 2 else new).fingerprint
    warehouse.replace(GREEN, JAN, old)
    assert totals(warehouse, GREEN, JAN) == [10.0, 20.0]


def test_loads_by_four_processes_at_once_take_turns_from_the_first_moment_on(
    url: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    plan = [(GREEN, JAN), (GREEN, FEB), (YELLOW, JAN), (GREEN, JAN), (YELLOW, MAR), (GREEN, JAN)]
    files = [trips(tmp_path, dataset, month, [float(n)] * (n + 1)) for n, (dataset, month) in enumerate(plan)]
    processes = [loading(url, *month, file) for month, file in zip(plan, files, strict=True)]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda process: process.communicate(), processes))
    assert [out for out, _ in outputs] == [f"{n + 1}\n" for n in range(len(plan))], outputs
    assert set(warehouse.loads(GREEN)) == {JAN, FEB}
    assert set(warehouse.loads(YELLOW)) == {JAN, MAR}
    assert totals(warehouse, GREEN, JAN) in ([0.0], [3.0] * 4, [5.0] * 6)
    assert warehouse.loads(GREEN)[JAN].rows == len(totals(warehouse, GREEN, JAN))
