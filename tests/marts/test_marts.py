"""The marts: what they count as plausible, and that their files have the expected form."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from loading import GREEN, JAN, YELLOW, trips, zones

from pipeline.datasets import DATASETS, ZONES
from pipeline.marts import all_marts, marts_of, parse_mart
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.tables import bind_mart


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
    assert set(all_marts()) == {"monthly_zone_revenue", "daily_trips"}
    for name, mart in all_marts().items():
        assert mart.name == name
        assert mart.doc.endswith(".")
        assert mart.datasets == ("yellow", "green")


def test_marts_are_built_for_the_datasets_that_they_name() -> None:
    assert [mart.name for mart in marts_of("green")] == ["daily_trips", "monthly_zone_revenue"]
    assert marts_of("yellow") == marts_of("green")
    assert marts_of("fhv") == marts_of("fhvhv") == marts_of("zones") == []


def test_a_mart_s_file_without_its_heading_is_an_error_that_names_it() -> None:
    assert parse_mart("m", "-- One.\n-- Two.\n--\n-- datasets: green\nSELECT 1 AS x\n").doc == "One. Two."
    for text in ("SELECT 1", "-- Doc.\nSELECT 1\n", "-- datasets: green\nSELECT 1\n"):
        with pytest.raises(ValueError, match=r"marts/m\.sql"):
            parse_mart("m", text)


def test_binding_replaces_whole_placeholders_only() -> None:
    sql = "SELECT a::date, ':x', :month, :next_month, :dataset, :months"
    assert bind_mart(sql, "green", date(2024, 12, 1)) == (
        "SELECT a::date, ':x', DATE '2024-12-01', DATE '2025-01-01', 'green', :months"
    )


def test_every_mart_builds_for_every_dataset_that_it_names(warehouse: Warehouse, tmp_path: Path) -> None:
    for dataset in (YELLOW, GREEN):
        warehouse.replace(dataset, JAN, trips(tmp_path, dataset, JAN, [10.0]))
        assert warehouse.replace_mart_month(dataset, JAN, marts_of(dataset.name)) == dict.fromkeys(all_marts(), 1)
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
    same = {"pickup_datetime": [datetime(2024, 1, 5)] * 3, "pickup_location_id": [1] * 3}
    file = trips(tmp_path, GREEN, JAN, [10.1, -10.1, 20.2], passenger_count=[1, 1, 2], **same)
    warehouse.replace(GREEN, JAN, file)
    columns = "trips, reversals, passengers, total_amount"
    for mart in all_marts():
        assert built(warehouse, mart, columns, "trips") == [(2, 1, 3, Decimal("20.20"))]


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
