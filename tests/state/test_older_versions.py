"""A lake and a warehouse that version 0.1.0 made are taken over as they are.

tests/data/version_0.1.0.tar.gz holds them with the raw files that they were made from: of the sample site, green
2024-01 and 2024-02, yellow 2024-01 and fhvhv 2024-01 with 30 rows each, and the zones.
tests/data/version_0.1.0.sql.gz is what `pg_dump --inserts` wrote of a database into which version 0.1.0 had loaded that
lake, without the settings that only Postgres 17 and newer know.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import ROOT, Folder, make_folder
from postgres import Database

from pipeline.marts import marts_of

MONTHS = {"green": ["2024-01", "2024-02"], "yellow": ["2024-01"], "fhvhv": ["2024-01"]}
#: What `status --json` reports of each of these months, besides its rows and raw bytes: what 0.1.0 did, except that the
#: marts which it lacks are not built.
LOADED = {
    **dict.fromkeys(("raw", "conformed", "loaded"), True),
    "marts": False,
    "failed": [],
    "stale": {},
    "young": False,
    "stage": "loaded",
}
OLD_MARTS = {"daily_trips", "monthly_zone_revenue"}
RAW_BYTES = {("green", "2024-01"): 7951, ("green", "2024-02"): 7961, ("yellow", "2024-01"): 7739}


@pytest.fixture
def old(tmp_path: Path) -> Folder:
    """A working folder as version 0.1.0 left it; the source is the folder of raw files."""
    with tarfile.open(ROOT / "tests" / "data" / "version_0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return make_folder(tmp_path, str(tmp_path / "site"))


def contents(folder: Folder) -> dict[str, str]:
    files = [name for name in folder.files() if not name.endswith(".loads.json")]
    return {name: hashlib.sha256((folder.path / "data" / name).read_bytes()).hexdigest() for name in files}


def definitions(folder: Folder) -> dict[tuple[str, str], str | None]:
    """The recorded hash of each mart's SQL; empty where the ledger has no such column yet."""
    with duckdb.connect(str(folder.database), read_only=True) as connection:
        columns = {name for name, *_ in connection.execute("DESCRIBE mart_loads").fetchall()}
        if "definition" not in columns:
            return {}
        rows = connection.execute("SELECT mart, dataset || ' ' || month, definition FROM mart_loads").fetchall()
    return {(mart, month): definition for mart, month, definition in rows}


@pytest.fixture
def old_postgres(old: Folder, database: Database) -> Folder:
    """The same with the warehouse in Postgres."""
    old.database.unlink()
    old.database.with_suffix(".duckdb.loads.json").unlink()
    database.execute(gzip.decompress((ROOT / "tests" / "data" / "version_0.1.0.sql.gz").read_bytes()).decode())
    old.environment["PIPELINE_WAREHOUSE"] = database.url
    return old


@pytest.mark.parametrize("warehouse", ["duckdb", "postgres"])
def test_status_reports_every_month_as_loaded_and_without_the_new_marts(
    warehouse: str, request: pytest.FixtureRequest
) -> None:
    old: Folder = request.getfixturevalue("old" if warehouse == "duckdb" else "old_postgres")
    status = json.loads(old.pipeline("status", "--json").stdout)
    months = {(month["dataset"], month["month"]): month for each in status["datasets"] for month in each["months"]}
    loaded = {key for key, month in months.items() if month["stage"] == "loaded"}
    assert loaded == {(name, month) for name, listed in MONTHS.items() for month in listed}
    for key in loaded:
        assert {name: months[key][name] for name in LOADED} == LOADED
        assert months[key]["rows"] == 30
    assert {key: months[key]["raw_bytes"] for key in RAW_BYTES} == RAW_BYTES
    assert (status["zones"]["stage"], status["zones"]["rows"]) == ("complete", 265)
    assert status["totals"]["rows"] == 120


def loads(folder: Folder) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder.database), read_only=True) as connection:
        return connection.execute("SELECT * FROM loads ORDER BY ALL").fetchall()


def test_a_backfill_builds_the_new_marts_and_nothing_else_and_refresh_finds_nothing(old: Folder) -> None:
    before, loaded = contents(old), loads(old)
    for name, months in MONTHS.items():
        done = old.pipeline("backfill", name, f"{months[0]}..{months[-1]}", "--json")
        assert done.returncode == 0, done.stderr
        steps = {(each["step"], each["month"]) for each in map(json.loads, done.stdout.splitlines()) if "step" in each}
        assert steps == {("mart", month) for month in months}
    assert loads(old) == loaded
    built = {
        (mart.name, f"{name} {month}-01") for name, of in MONTHS.items() for month in of for mart in marts_of(name)
    }
    assert definitions(old).keys() == built
    changed = {name for name, content in contents(old).items() if before.get(name) != content}
    assert changed == {"warehouse.duckdb"}
    before = contents(old)
    for name, months in MONTHS.items():
        done = old.pipeline("backfill", name, f"{months[0]}..{months[-1]}")
        assert done.returncode == 0, done.stderr
        assert "othing to do" in done.stdout + done.stderr
    done = old.luigi("Backfill", "--datasets", "green", "--first", "2024-01", "--last", "2024-02")
    assert done.returncode == 0, done.stderr
    refreshed = old.pipeline("refresh", "green", "2024-01..2024-02", "--json")
    assert refreshed.returncode == 0, refreshed.stderr
    assert json.loads(refreshed.stdout)["findings"] == []
    assert contents(old) == before


def views(folder: Folder) -> dict[str, list[str]]:
    """The columns of each view."""
    with duckdb.connect(str(folder.database), read_only=True) as connection:
        rows = connection.execute(
            "SELECT view_name, column_name FROM duckdb_views() JOIN duckdb_columns() ON table_name = view_name "
            "WHERE NOT duckdb_views.internal ORDER BY column_index"
        ).fetchall()
    columns: dict[str, list[str]] = {}
    for view, column in rows:
        columns.setdefault(view, []).append(column)
    return columns


def test_the_next_load_creates_the_new_views_and_trips_gets_columns_at_its_end(old: Folder) -> None:
    before = views(old)
    assert list(before) == ["trips"]
    assert "codes does not exist" in old.pipeline("sql", "SELECT * FROM codes").stderr, "reading creates nothing"
    assert views(old) == before
    done = old.pipeline("redo", "green", "2024-02", "--from", "load", "--yes")
    assert done.returncode == 0, done.stderr
    after = views(old)
    assert {"codes", "for_hire_trips", "yellow_tripdata", "fhvhv_tripdata", "taxi_zone_lookup"} <= after.keys()
    assert after["trips"][: len(before["trips"])] == before["trips"]
    assert after["trips"][-1] == "duration_minutes"
    sql = (
        "SELECT COUNT(tpep_pickup_datetime) FROM yellow_tripdata WHERE VendorID IN (SELECT CAST(code AS INT) FROM codes"
    )
    done = old.pipeline("sql", f"{sql} WHERE column_name = 'vendor_id' AND dataset = 'yellow')")
    assert done.returncode == 0, done.stderr
    assert "30" in done.stdout


def test_the_next_load_records_the_sql_of_its_marts_and_the_old_marts_count_on(old: Folder) -> None:
    assert definitions(old) == {}
    done = old.pipeline("redo", "green", "2024-02", "--from", "load", "--yes")
    assert done.returncode == 0, done.stderr
    recorded = definitions(old)
    for mart in marts_of("green"):
        assert recorded[mart.name, "green 2024-02-01"] == mart.definition
    assert {mart: recorded[mart, "green 2024-01-01"] for mart in OLD_MARTS} == dict.fromkeys(OLD_MARTS)
    status = json.loads(old.pipeline("status", "green", "2024-01..2024-02", "--json").stdout)
    stages = [month["stage"] for each in status["datasets"] for month in each["months"]]
    assert stages == ["loaded", "complete"], "2024-01 lacks the new marts only"


def test_in_postgres_too_a_backfill_builds_the_new_marts_only_and_a_load_the_new_views(
    old_postgres: Folder, database: Database
) -> None:
    before, loaded = contents(old_postgres), database.execute("SELECT * FROM loads ORDER BY dataset, month")
    for name, months in MONTHS.items():
        done = old_postgres.pipeline("backfill", name, f"{months[0]}..{months[-1]}", "--json")
        assert done.returncode == 0, done.stderr
        steps = {each["step"] for each in map(json.loads, done.stdout.splitlines()) if "step" in each}
        assert steps == {"mart"}
    assert database.execute("SELECT * FROM loads ORDER BY dataset, month") == loaded
    built = {(mart.name, name) for name in MONTHS for mart in marts_of(name)}
    assert {*database.execute("SELECT mart, dataset FROM mart_loads")} == built
    done = old_postgres.pipeline("refresh", "green", "2024-01..2024-02", "--json")
    assert json.loads(done.stdout)["findings"] == [], done.stderr
    done = old_postgres.pipeline("redo", "green", "2024-02", "--from", "load", "--yes")
    assert done.returncode == 0, done.stderr
    assert database.execute("SELECT COUNT(*), COUNT(vendor) FROM trips") == [(90, 90)]
    assert database.execute("SELECT COUNT(*) FROM green_tripdata") == [(60,)]
    assert contents(old_postgres) == before
