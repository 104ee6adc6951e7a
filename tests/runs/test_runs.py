"""Whole runs of the `pipeline` command against the sample site, and what they leave on disk."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Folder, make_folder
from state import rows, state

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.errors import CheckFailed, NotPublished, PipelineError
from pipeline.marts import all_marts
from pipeline.months import parse_month
from pipeline.runs.events import Outcome
from pipeline.runs.job import exit_code
from pipeline.sample import SampleSite

GREEN = DATASETS["green"]


def _files_of(dataset: str, month: str) -> list[str]:
    raw = f"lake/raw/{dataset}/{dataset}_tripdata_{month}.parquet"
    trips = f"lake/trips/{dataset}/month={month}-01/{dataset}_{month}.parquet"
    return [f"lake/checks/{dataset}/{month}.json", raw, f"{raw}.json", trips]


_ZONES = [
    "lake/checks/zones/zones.json",
    "lake/raw/zones/taxi_zone_lookup.csv",
    "lake/raw/zones/taxi_zone_lookup.csv.json",
    "lake/zones/zones.parquet",
]
_DATABASE = ["warehouse.duckdb", "warehouse.duckdb.loads.json"]


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    """A folder whose source is a site in which this test can inject faults."""
    return make_folder(tmp_path / "work", site.url)


def _months(folder: Folder, table: str = "green") -> list[str]:
    return [f"{month:%Y-%m}" for (month,) in rows(folder.database, f"SELECT DISTINCT month FROM {table} ORDER BY 1")]


def test_a_backfill_prints_a_table_and_leaves_these_files(folder: Folder) -> None:
    ended = folder.pipeline("backfill", "green", "yellow", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    months = [
        file for name in ("green", "yellow") for month in ("2024-01", "2024-02") for file in _files_of(name, month)
    ]
    assert folder.files() == sorted([*months, *_ZONES, *_DATABASE])
    for line in ("green 2024-01", "green 2024-02", "yellow 2024-01", "yellow 2024-02", "zones"):
        assert re.search(rf"^{line} +(2,000|265) ", ended.stdout, re.MULTILINE), ended.stdout
    assert str(folder.lake) in ended.stdout
    assert "duckdb:///data/warehouse.duckdb" in ended.stdout
    assert rows(folder.database, "SELECT dataset, COUNT(*) FROM trips GROUP BY ALL ORDER BY 1") == [
        ("green", 4000),
        ("yellow", 4000),
    ]
    assert all(_months(folder, mart) == ["2024-01", "2024-02"] for mart in all_marts())


def test_a_second_backfill_does_nothing_and_says_so(own: Folder, site: SampleSite) -> None:
    assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    before, asked = state(own.path / "data"), len(site.requests)
    ended = own.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 0
    assert "Nothing to do: the month is up to date." in ended.stdout
    assert state(own.path / "data") == before
    assert len(site.requests) == asked


def test_a_longer_backfill_downloads_only_missing_months(own: Folder, site: SampleSite) -> None:
    own.pipeline("backfill", "green", "2024-02")
    site.requests.clear()
    assert own.pipeline("backfill", "green", "2024-01..2024-03").returncode == 0
    asked = [request.path.rpartition("_")[2] for request in site.requests]
    assert sorted(asked) == ["2024-01.parquet", "2024-03.parquet"]


def test_the_demo_needs_no_settings_and_no_internet_and_does_not_touch_the_real_lake(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "work", "http://127.0.0.1:9")
    ended = folder.pipeline("demo", "--scale", "0.001")
    assert ended.returncode == 0, ended.stderr
    assert "pipeline backfill green 2024-01..2024-03" in ended.stdout.splitlines()[-1]
    assert {name.split("/")[0] for name in folder.files()} == {"sample"}
    again = folder.pipeline("demo", "--scale", "0.001")
    assert "Nothing to do: all 6 months are up to date." in again.stdout


def test_a_failed_month_does_not_stop_the_others_and_is_retried_alone(own: Folder, site: SampleSite) -> None:
    site.faults.add("*2024-02*", 500, times=math.inf)
    ended = own.pipeline("backfill", "green", "2024-01..2024-03")
    assert ended.returncode == 1
    assert re.search(r"^SourceError: green 2024-02: .*HTTP 500", ended.stdout, re.MULTILINE), ended.stdout
    assert re.search(r"^green 2024-02 .* download failed: the source failed$", ended.stdout, re.MULTILINE), ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("1 month failed.")
    assert "Traceback" not in ended.stdout + ended.stderr
    assert _months(own) == ["2024-01", "2024-03"]
    wanted = [*_files_of("green", "2024-01"), *_files_of("green", "2024-03"), *_ZONES, *_DATABASE]
    assert own.files() == sorted(wanted), "and nothing else is on disk"
    site.faults.clear()
    site.requests.clear()
    assert own.pipeline("backfill", "green", "2024-01..2024-03").returncode == 0
    assert [request.path for request in site.requests] == ["/trip-data/green_tripdata_2024-02.parquet"]
    assert _months(own) == ["2024-01", "2024-02", "2024-03"]


def test_months_that_are_not_published_yet_are_exit_code_3_and_the_others_are_done(tmp_path: Path) -> None:
    with SampleSite(rows=300, last=parse_month("2025-12")) as site:
        folder = make_folder(tmp_path / "work", site.url)
        folder.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "1200"
        ended = folder.pipeline("backfill", "green", "2025-12..2026-01")
        assert ended.returncode == 3, ended.stdout
        assert re.search(r"^green 2026-01 .* not published yet", ended.stdout, re.MULTILINE), ended.stdout
        assert _months(folder) == ["2025-12"]
        folder.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "0"
        ended = folder.pipeline("backfill", "green", "2025-12..2026-01")
        assert (ended.returncode, "long due" in ended.stdout) == (1, True)


def test_a_broken_connection_is_resumed_within_the_run(own: Folder, site: SampleSite) -> None:
    site.faults.add("*.parquet", "cut", times=4)
    site.faults.add("*.csv", "html")
    assert own.pipeline("backfill", "green", "2024-01..2024-02").returncode == 0
    assert rows(own.database, "SELECT COUNT(*) FROM green") == [(1000,)]


def test_a_republished_month_changes_nothing_silently(own: Folder, site: SampleSite) -> None:
    own.pipeline("backfill", "green", "2024-01")
    before = state(own.path / "data")
    site.faults.add("*2024-01*", "republished")
    assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    assert state(own.path / "data") == before
    (own.lake / lake.trips_key(GREEN, parse_month("2024-01"))).unlink()
    assert own.luigi("Conform", "--dataset", "green", "--month", "2024-01").returncode == 0
    assert state(own.path / "data") == before, "conformed from the raw bytes that were kept"


def test_deleted_raw_files_are_downloaded_only_when_they_are_needed(own: Folder, site: SampleSite) -> None:
    own.pipeline("backfill", "green", "2024-01")
    before = state(own.path / "data")
    for path in (own.lake / "raw" / "green").iterdir():
        path.unlink()
    site.requests.clear()
    assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    assert site.requests == []
    (own.lake / lake.trips_key(GREEN, parse_month("2024-01"))).unlink()
    assert own.luigi("Conform", "--dataset", "green", "--month", "2024-01").returncode == 0
    assert len(site.requests) == 1
    assert state(own.path / "data") == before


def test_a_raw_file_that_does_not_match_its_sidecar_is_an_error_that_names_both(own: Folder) -> None:
    own.luigi("Download", "--dataset", "green", "--month", "2024-01")
    raw = own.lake / "raw" / "green" / "green_tripdata_2024-01.parquet"
    damaged = bytearray(raw.read_bytes())
    damaged[100] ^= 0xFF
    raw.write_bytes(damaged)
    ended = own.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 1
    assert "SourceError: raw/green/green_tripdata_2024-01.parquet: its bytes" in ended.stdout
    raw.with_name(raw.name + ".json").unlink()
    ended = own.pipeline("backfill", "green", "2024-01")
    assert "has no sidecar raw/green/green_tripdata_2024-01.parquet.json" in ended.stdout


def test_the_checks_are_written_for_a_month_that_fails_them(tmp_path: Path) -> None:
    files = tmp_path / "published" / "trip-data"
    files.mkdir(parents=True)
    empty = pa.table([pa.array([], field.type) for field in GREEN.schema], schema=GREEN.schema)
    pq.write_table(empty, files / "green_tripdata_2024-01.parquet")
    folder = make_folder(tmp_path / "work", str(tmp_path / "published"))
    ended = folder.luigi("Conform", "--dataset", "green", "--month", "2024-01")
    assert ended.returncode == 1
    assert "CheckFailed: green 2024-01: failed its checks, so not published: no_rows" in ended.stderr
    document = json.loads((folder.lake / "checks/green/2024-01.json").read_text())
    assert document["findings"][0]["rule"] == "no_rows"
    assert not (folder.lake / "trips").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("backfill",), "Missing argument"),
        (("backfill", "green"), "a dataset and a period are needed"),
        (("backfill", "gren", "2024-01"), r"unknown datasets \['gren'\]; allowed are yellow, green, fhv, fhvhv"),
        (("backfill", "gren"), r"unknown datasets \['gren'\]; allowed are .*; did you mean green\?$"),
        (("backfill", "2024-01", "2024-02"), "a dataset and a period are needed"),
        (("backfill", "green", "latest,2024-01"), "latest and all are allowed only without another period"),
        (("backfill", "green", "2024-13"), "'2024-13' is not a month: months are 01 to 12$"),
        (("backfill", "green", "2024-03..2024-01"), "ends before it starts"),
        (("backfill", "fhvhv", "2018"), "no month of '2018' exists: fhvhv starts in 2019-02"),
        (("backfill", "green", "2024-01", "--workers", "0"), "Invalid value for '--workers'"),
        (
            ("backfill", "green", "2024-01", "--lake", "s3://bucket"),
            "s3 is not a supported kind of lake; allowed are a folder and gs://bucket",
        ),
        (("backfill", "green", "2024-01", "--warehouse", "mysql://host/x"), "no known scheme; allowed:"),
        (
            ("backfill", "green", "2024-01", "--warehouse", "bigquery://project/taxi"),
            "it cannot load from lake = .*; allowed is lake = gs://bucket/prefix",
        ),
        (("backfill", "green", "2024-01", "--source", "/no/such/folder"), "there is no such folder"),
        (("backfill", "green", "2024-01", "--scheduler", "http://127.0.0.1:9"), "no luigid answers at this address"),
        (("backfil", "green"), "No such command 'backfil'"),
        (("demo", "--scale", "7"), "Invalid value for '--scale'"),
    ],
)
def test_a_usage_error_is_one_message_and_exit_code_2(folder: Folder, arguments: tuple[str, ...], message: str) -> None:
    ended = folder.pipeline(*arguments)
    assert ended.returncode == 2
    assert re.search(message, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 4
    assert folder.files() == []


@pytest.mark.parametrize("words", ["redo green 2024-01", "backfill green 2024-01 --workers 0", "describe blue", "no"])
def test_an_invalid_command_line_is_one_line_that_names_the_help(folder: Folder, words: str) -> None:
    ended = folder.pipeline(*words.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"pipeline: .*; see pipeline( \w+)? --help\n", ended.stderr), ended.stderr


def test_an_unwritable_folder_is_one_message_without_a_traceback(folder: Folder) -> None:
    (folder.path / "data").write_text("a file where the folder should be")
    ended = folder.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    assert re.search(r"(Store|Warehouse)Error: .*Not a directory", ended.stdout + ended.stderr), ended.stderr


def _outcome(status: str, error: PipelineError | None = None) -> Outcome:
    return Outcome("load", "green", None, status, 0.0, error)


def test_every_outcome_has_its_exit_code() -> None:
    done, late, broken = _outcome("DONE"), _outcome("FAILED", NotPublished()), _outcome("DISABLED", CheckFailed())
    waiting = _outcome("PENDING")
    assert exit_code([]) == exit_code([done]) == 0
    assert exit_code([done, broken, late, waiting]) == 1
    assert exit_code([done, late, waiting]) == 3
    assert exit_code([done, waiting]) == exit_code([_outcome("UNKNOWN")]) == 4


IN_A_THREAD = """
import threading
from datetime import date
import luigi, pipeline
def build():
    month = date(2024, 1, 1)
    task = pipeline.Backfill(datasets=("green",), first=month, last=month)
    print("built:", luigi.build([task], local_scheduler=True, workers=2))
thread = threading.Thread(target=build)
thread.start()
thread.join()
"""


def test_luigi_build_works_in_a_thread_with_the_option_in_the_page_about_many_machines(folder: Folder) -> None:
    option = "no_install_shutdown_handler = true"
    assert option in (ROOT / "docs" / "how-to" / "many-machines.md").read_text()
    settings = folder.path / "luigi.cfg"
    settings.write_text(settings.read_text().replace("[worker]\n", f"[worker]\n{option}\n"))
    ended = folder.run("python", "-c", IN_A_THREAD)
    assert "built: True" in ended.stdout, ended.stderr
    assert folder.pipeline("plan", "green", "2024-01").stdout.endswith("Nothing to do.\n")
