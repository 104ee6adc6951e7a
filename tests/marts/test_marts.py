"""The marts: what they count as plausible, and that their files have the expected form."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from loading import GREEN, JAN, YELLOW, trips, zones

from pipeline.datasets import DATASETS, ZONES
from pipeline.marts import all_marts, marts_of, parse_mart
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.tables import bind_mart

#: The marts of all four datasets, and those of yellow and green only.
OF_ALL = ["airport_trips", "hourly_zone_trips", "monthly_summary"]
OF_TAXIS = ["daily_trips", "monthly_zone_revenue", "payment_mix"]


@pytest.fixture(params=["duckdb"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    assert request.param == "duckdb"
    return open_warehouse(f"duckdb:///{tmp_path}/w.duckdb")


def built(warehouse: Warehouse, mart: str, columns: str, order: str) -> list[tuple[Any, ...]]:
    warehouse.replace_mart_month(GREEN, JAN, [all_marts()[mart]])
    return [
        tuple(row.values()) for row in warehouse.query(f"SELECT {columns} FROM {mart} ORDER BY {order}").to_pylist()
    ]


def test_each_file_is_a_mart_with_a_description() -> None:
    assert list(all_marts()) == sorted([*OF_ALL, *OF_TAXIS])
    for name, mart in all_marts().items():
        assert mart.name == name
        assert mart.doc.endswith(".")
        assert mart.datasets == (("yellow", "green") if name in OF_TAXIS else ("yellow", "green", "fhv", "fhvhv"))


def test_marts_are_built_for_the_datasets_that_they_name() -> None:
    assert [mart.name for mart in marts_of("green")] == sorted([*OF_ALL, *OF_TAXIS])
    assert marts_of("yellow") == marts_of("green")
    assert [mart.name for mart in marts_of("fhv")] == OF_ALL
    assert marts_of("fhvhv") == marts_of("fhv")
    assert marts_of("zones") == []


def test_a_mart_s_file_without_its_heading_is_an_error_that_names_it() -> None:
    assert parse_mart("m", "-- One.\n-- Two.\n--\n-- datasets: green\nSELECT 1 AS x\n").doc == "One. Two."
    for text in ("SELECT 1", "-- Doc.\nSELECT 1\n", "-- datasets: green\nSELECT 1\n"):
        with pytest.raises(ValueError, match=r"marts/m\.sql"):
            parse_mart("m", text)


def test_every_column_of_a_mart_has_its_meaning_as_a_comment(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    warehouse.replace_mart_month(GREEN, JAN, [*all_marts().values()])
    for name, mart in all_marts().items():
        rows = warehouse.query(f"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{name}'")
        comments = {row["column_name"]: row["comment"] for row in rows.to_pylist()}
        assert comments.pop("dataset")
        assert comments.pop("month")
        assert comments == mart.columns
        assert all(text.endswith(".") for text in mart.columns.values())


def test_binding_replaces_whole_placeholders_only() -> None:
    sql = "SELECT a::date, ':x', :month, :next_month, :dataset, :months"
    assert bind_mart(sql, "green", date(2024, 12, 1)) == (
        "SELECT a::date, ':x', DATE '2024-12-01', DATE '2025-01-01', 'green', :months"
    )


def test_every_mart_builds_for_every_dataset_that_it_names(warehouse: Warehouse, tmp_path: Path) -> None:
    for dataset in (YELLOW, GREEN):
        warehouse.replace(dataset, JAN, trips(tmp_path, dataset, JAN, [10.0], pickup_location_id=[132]))
        assert warehouse.replace_mart_month(dataset, JAN, marts_of(dataset.name)) == dict.fromkeys(all_marts(), 1)
    for name in ("fhv", "fhvhv"):
        dataset = DATASETS[name]
        warehouse.replace(dataset, JAN, trips(tmp_path, dataset, JAN, [10.0], pickup_location_id=[132]))
        assert warehouse.replace_mart_month(dataset, JAN, marts_of(name)) == dict.fromkeys(OF_ALL, 1)
    rows = warehouse.query("SELECT dataset, trips FROM daily_trips ORDER BY dataset").to_pylist()
    assert rows == [{"dataset": "green", "trips": 1}, {"dataset": "yellow", "trips": 1}]
    assert set(warehouse.mart_months(DATASETS["yellow"])) == {JAN}


def test_pickups_outside_the_month_are_left_out(warehouse: Warehouse, tmp_path: Path) -> None:
    pickups = [datetime(2023, 12, 31, 23, 59, 59), datetime(2024, 1, 1), datetime(2024, 1, 31, 23, 59), None]
    pickups[3] = datetime(2024, 2, 1)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0, 2.0, 4.0, 8.0], pickup_datetime=pickups))
    rows = built(warehouse, "daily_trips", "day, total_amount", "day")
    assert rows == [(date(2024, 1, 1), Decimal("2.00")), (date(2024, 1, 31), Decimal("4.00"))]


def test_a_reversal_cancels_its_money_and_is_not_counted_as_a_trip(warehouse: Warehouse, tmp_path: Path) -> None:
    same = {"pickup_datetime": [datetime(2024, 1, 5)] * 3, "pickup_location_id": [1] * 3, "trip_distance": [2, 2, 4]}
    file = trips(tmp_path, GREEN, JAN, [10.1, -10.1, 20.2], passenger_count=[1, 1, 2], **same)
    warehouse.replace(GREEN, JAN, file)
    for mart in all_marts():
        assert built(warehouse, mart, "trips, total_amount", "trips") == [(2, Decimal("20.20"))]
    for mart in (*OF_TAXIS, "monthly_summary"):
        assert built(warehouse, mart, "reversals", "trips") == [(1,)]
    for mart in ("daily_trips", "monthly_zone_revenue", "monthly_summary"):
        assert built(warehouse, mart, "passengers, trip_miles", "trips") == [(3, Decimal(6))]
    for mart in ("hourly_zone_trips", "airport_trips"):
        assert built(warehouse, mart, "miles", "trips") == [(Decimal(3),)]


def test_mistyped_totals_and_distances_do_not_count(warehouse: Warehouse, tmp_path: Path) -> None:
    day = [datetime(2024, 1, 5)] * 5
    file = trips(
        tmp_path,
        GREEN,
        JAN,
        [10.0, 401_095.62, 10.0, 10.0, 0.0],
        trip_distance=[1.25, 1.0, -3.0, 160_000.0, None],
        fare_amount=[9.0, 401_092.32, 9.0, 9.0, None],
        total_amount=[10.0, 401_095.62, 10.0, 10.0, None],
        pickup_datetime=day,
    )
    warehouse.replace(GREEN, JAN, file)
    rows = built(warehouse, "daily_trips", "trips, trip_miles, fare_amount, total_amount", "day")
    assert rows == [(4, Decimal("1.25"), Decimal("27.00"), Decimal("30.00"))]


def test_revenue_is_by_zone_and_includes_trips_without_a_known_zone(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path, {1: "Astoria"}))
    pickups = [1, 1, 7, None]
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0, 2.0, 4.0, 8.0], pickup_location_id=pickups))
    columns = "pickup_location_id, pickup_borough, pickup_zone, trips, total_amount"
    assert built(warehouse, "monthly_zone_revenue", columns, "total_amount") == [
        (1, "Queens", "Astoria", 2, Decimal("3.00")),
        (7, None, None, 1, Decimal("4.00")),
        (None, None, None, 1, Decimal("8.00")),
    ]


def test_odd_durations_and_distances_are_in_no_mean_no_median_and_no_speed(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    start = datetime(2024, 1, 7, 23, 30)  # A Sunday.
    minutes = [10, 20, 60, -5, 13 * 60, None]
    ends = [start + timedelta(minutes=each) if each is not None else start for each in minutes]
    file = trips(
        tmp_path,
        GREEN,
        JAN,
        [10.0] * 6,
        pickup_datetime=[start] * 6,
        dropoff_datetime=ends,
        pickup_location_id=[138] * 6,
        trip_distance=[1.0, 2.0, 201.0, 4.0, 5.0, 6.5],
    )
    warehouse.replace(GREEN, JAN, file)
    means = (6, Decimal("22.50"), Decimal("3.70"))
    assert built(warehouse, "airport_trips", "airport, direction, trips, minutes, miles", "trips") == [
        ("LaGuardia", "from", *means)
    ]
    assert built(warehouse, "hourly_zone_trips", "weekday, hour, trips, minutes, miles, mph", "trips") == [
        (7, 23, *means, Decimal("6.00"))
    ]
    columns = "trips, minutes, trip_miles, median_miles, median_minutes, negative_minutes"
    assert built(warehouse, "monthly_summary", columns, "trips") == [
        (6, Decimal("22.50"), Decimal("18.5"), Decimal("4.00"), Decimal("15.00"), 1)
    ]


def test_the_summary_counts_the_odd_rows_of_the_whole_file(warehouse: Warehouse, tmp_path: Path) -> None:
    file = trips(
        tmp_path,
        GREEN,
        JAN,
        [10.0, 20_000.0, -3.0, 1.0],
        pickup_datetime=[datetime(2024, 1, 5)] * 3 + [datetime(2008, 12, 31)],
        pickup_location_id=[1, 0, None, 266],
        dropoff_location_id=[265, 266, 1, None],
        vendor_id=[3, 2, None, 9],
        payment_type=[77, 1, 2, 2],
    )
    warehouse.replace(GREEN, JAN, file)
    columns = "trips, reversals, total_amount, negative_minutes, strays, unknown_zones, unknown_codes"
    assert built(warehouse, "monthly_summary", columns, "trips") == [(1, 1, Decimal("7.00"), 3, 1, 3, 3)]


def test_an_airport_counts_trips_to_it_and_from_it_and_between_two_for_both(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    file = trips(
        *(tmp_path, GREEN, JAN, [1.0, 2.0, 4.0, 8.0]),
        pickup_location_id=[132, 7, 138, 7],
        dropoff_location_id=[None, 1, 132, 8],
    )
    warehouse.replace(GREEN, JAN, file)
    assert built(warehouse, "airport_trips", "airport, direction, total_amount", "airport, direction") == [
        ("JFK", "from", Decimal(1)),
        ("JFK", "to", Decimal(4)),
        ("LaGuardia", "from", Decimal(4)),
        ("Newark", "to", Decimal(2)),
    ]
