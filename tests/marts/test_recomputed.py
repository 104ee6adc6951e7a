"""Every mart equals, row for row, what plain Python computes from the raw file: made-up and real months, each engine.

`PIPELINE_TLC_FILES` names the folder with the real files; it is no part of the project.
"""

from __future__ import annotations

import os
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cloud import Cloud, warehouse_at
from loading import File
from postgres import Database
from recomputed import KEYS, half_up, median, recomputed

from pipeline.conform.month import conform_file
from pipeline.datasets import DATASETS, ZONES
from pipeline.marts import marts_of
from pipeline.months import parse_month
from pipeline.sample import SampleSite

FILES = Path(os.environ.get("PIPELINE_TLC_FILES", ""))
REAL = (
    *("trip-data/green_tripdata_2020-04.parquet", "trip-data/green_tripdata_2025-02.parquet"),
    *("csv/green/green_tripdata_2020-05.csv.gz", "samples/green_tripdata_2013-08.csv.gz"),
    *("samples/yellow_tripdata_2017-06.csv.gz", "samples/yellow_tripdata_2020-10.csv.gz"),
    *("samples/yellow_tripdata_2022-01.parquet", "samples/yellow_tripdata_2025-01.parquet"),
    *("samples/fhv_tripdata_2020-04.csv.gz", "samples/fhvhv_tripdata_2020-04.csv.gz"),
)
SMALL = [name for name in REAL if name.startswith("samples/") and not name.endswith("2022-01.parquet")]
real = pytest.mark.skipif("PIPELINE_TLC_FILES" not in os.environ, reason="PIPELINE_TLC_FILES names no folder")


@pytest.fixture
def duckdb_url(tmp_path: Path) -> str:
    return f"duckdb:///{tmp_path}/w.duckdb"


def _assert_equal(url: str, folder: Path, lookup: Path, files: list[Path]) -> None:
    """Load the files into the warehouse, build their marts, and compare all rows of all marts."""
    warehouse = warehouse_at(url, folder / "scratch")
    conform_file(lookup, folder / "zones.parquet", ZONES, None)
    warehouse.replace(ZONES, None, File(folder / "zones.parquet"))
    wanted: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {name: {} for name in KEYS}
    for raw in files:
        dataset, month = _subject(raw)
        trips = folder / f"{dataset}_{month:%Y-%m}.parquet"
        conform_file(raw, trips, dataset, month)
        warehouse.replace(DATASETS[dataset], month, File(trips))
        rows = warehouse.replace_mart_month(DATASETS[dataset], month, marts_of(dataset))
        for mart, by_key in recomputed(raw, lookup, dataset, month).items():
            assert rows.pop(mart) == len(by_key), (dataset, month, mart)
            wanted[mart] |= {(dataset, month, *key): row for key, row in by_key.items()}
        assert rows == {}
    for mart in filter(wanted.get, KEYS):
        found = {}
        for row in warehouse.query(f"SELECT * FROM {mart}").to_pylist():
            key = tuple(row.pop(name) for name in ("dataset", "month", *KEYS[mart]))
            assert key not in found, f"{mart} has {key} twice"
            found[key] = row
        assert found.keys() == wanted[mart].keys(), mart
        for key, row in found.items():
            assert row == wanted[mart][key], (mart, key)


def _subject(raw: Path) -> tuple[str, date]:
    match = re.match(r"(\w+)_tripdata_(\d{4}-\d{2})", raw.name)
    assert match is not None
    return match[1], parse_month(match[2])


def _published(site: SampleSite, folder: Path, months: dict[str, str]) -> tuple[Path, list[Path]]:
    """The zone lookup and the raw files of the months, as the sample site publishes them."""
    paths = ["misc/taxi_zone_lookup.csv"]
    paths += [
        f"trip-data/{name}_tripdata_{month}.parquet" for name, months in months.items() for month in months.split()
    ]
    for path in paths:
        target = folder / Path(path).name
        with urlopen(f"{site.url}/{path}", timeout=60) as answer:
            target.write_bytes(answer.read())
    lookup, *files = (folder / Path(path).name for path in paths)
    return lookup, files


def test_sample_months_of_every_dataset_in_duckdb(duckdb_url: str, tmp_path: Path, shared_site: SampleSite) -> None:
    months = {
        "yellow": "2011-03 2019-06 2024-01 2025-03",
        "green": "2014-02 2019-07 2025-03",
        "fhv": "2015-01 2019-02 2024-01",
        "fhvhv": "2019-02 2022-05 2025-03",
    }
    _assert_equal(duckdb_url, tmp_path, *_published(shared_site, tmp_path, months))


@pytest.mark.parametrize("engine", ["postgres", "bigquery"])
def test_a_sample_month_of_every_dataset_in_the_other_engines(
    engine: str, tmp_path: Path, shared_site: SampleSite, request: pytest.FixtureRequest
) -> None:
    lookup, files = _published(shared_site, tmp_path, dict.fromkeys(DATASETS, "2025-03"))
    _assert_equal(_url(engine, request), tmp_path, lookup, files)


@real
@pytest.mark.parametrize("name", REAL)
def test_real_months_in_duckdb(duckdb_url: str, tmp_path: Path, name: str) -> None:
    _assert_equal(duckdb_url, tmp_path, FILES / "misc/taxi_zone_lookup.csv", [FILES / name])


@real
@pytest.mark.parametrize("engine", ["postgres", "bigquery"])
def test_real_months_of_every_dataset_in_the_other_engines(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files = [FILES / name for name in SMALL]
    _assert_equal(_url(engine, request), tmp_path, FILES / "misc/taxi_zone_lookup.csv", files)


def _url(engine: str, request: pytest.FixtureRequest) -> str:
    if engine == "postgres":
        database: Database = request.getfixturevalue("database")
        return database.url
    cloud: Cloud = request.getfixturevalue("cloud")
    return cloud.warehouse


def test_the_recomputation_rounds_half_up() -> None:
    assert [half_up(1, 8), half_up(-1, 8), half_up(5, 1000)] == [Decimal("0.13"), Decimal("-0.12"), Decimal("0.01")]
    assert half_up(1, 0) is None
    assert [median([1, 2, 10, None], 1), median([1, 2], 1), median([], 1)] == [Decimal(2), Decimal("1.5"), None]
