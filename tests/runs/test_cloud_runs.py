"""Whole runs on Google Cloud's emulators: a lake in Cloud Storage, a warehouse in BigQuery, one machine or two."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cloud import PROJECT, Cloud
from commands import Heard, running_luigid
from conftest import Folder, make_folder

from pipeline import lake
from pipeline.datasets import DATASETS, ZONES
from pipeline.lake import open_store
from pipeline.marts import marts_of
from pipeline.months import month_range, parse_month
from pipeline.sample import SampleSite
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.base import LoadRecord, MartRecord

GREEN = DATASETS["green"]


def _objects(cloud: Cloud, tmp_path: Path) -> list[str]:
    return sorted(open_store(cloud.lake, str(tmp_path / "asking")).entries(""))


def _files_of(month: str) -> list[str]:
    raw = f"raw/green/green_tripdata_{month}.parquet"
    return [f"checks/green/{month}.json", raw, f"{raw}.json", lake.trips_key(GREEN, parse_month(month))]


_ZONES = [
    "checks/zones/zones.json",
    "raw/zones/taxi_zone_lookup.csv",
    "raw/zones/taxi_zone_lookup.csv.json",
    "zones/zones.parquet",
]


def test_a_backfill_leaves_these_objects_and_tables_and_a_second_one_does_nothing(
    tmp_path: Path, folder: Folder, cloud: Cloud
) -> None:
    cloud.use(folder)
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    assert _objects(cloud, tmp_path) == sorted([*_files_of("2024-01"), *_files_of("2024-02"), *_ZONES])
    assert folder.files() == [], "nothing is left on this machine"
    assert cloud.lake in ended.stdout
    warehouse = open_warehouse(cloud.warehouse)
    counted = warehouse.query("SELECT month, COUNT(*) AS n FROM trips GROUP BY month ORDER BY month").to_pylist()
    assert counted == [{"month": date(2024, 1, 1), "n": 2000}, {"month": date(2024, 2, 1), "n": 2000}]
    assert set(warehouse.mart_months(GREEN)) == {date(2024, 1, 1), date(2024, 2, 1)}
    cloud.clear()
    again = folder.pipeline("backfill", "green", "2024-01..2024-02")
    assert "Nothing to do: all 2 months are up to date." in again.stdout, again.stderr
    changing = [f"{request.method} {request.path}" for request in (*cloud.gcs.requests, *cloud.bigquery.requests)]
    assert [line for line in changing if not line.startswith("GET")] == []


@pytest.mark.skipif("PIPELINE_TLC_FILES" not in os.environ, reason="real files: PIPELINE_TLC_FILES names no folder")
def test_real_months_are_loaded_as_published_and_can_be_queried_without_loading(tmp_path: Path, cloud: Cloud) -> None:
    files = Path(os.environ["PIPELINE_TLC_FILES"])
    with SampleSite(folder=files) as site:
        folder = cloud.use(make_folder(tmp_path / "work", site.url))
        ended = folder.pipeline("backfill", "green", "2024-01..2024-03")
    assert ended.returncode == 0, ended.stderr
    found = open_warehouse(cloud.warehouse).query(
        "SELECT month, COUNT(*) AS n, SUM(ROUND(CAST(total_amount AS NUMERIC), 2)) AS total, "
        "COUNT(*) - COUNT(vendor_id) AS nulls FROM green GROUP BY month ORDER BY month"
    )
    wanted = []
    for month, count in (("2024-01", 56_551), ("2024-02", 53_577), ("2024-03", 57_457)):
        raw = pq.read_table(files / f"trip-data/green_tripdata_{month}.parquet")
        total = sum((Decimal(str(value)) for value in raw["total_amount"].to_pylist() if value is not None), Decimal())
        assert raw.num_rows == count
        wanted.append((parse_month(month), count, total, raw["VendorID"].null_count))
    assert [tuple(row.values()) for row in found.to_pylist()] == wanted
    ended = folder.luigi("Expose")
    assert ended.returncode == 0, ended.stderr
    cloud.clear()
    assert folder.luigi("Expose").returncode == 0
    assert [request.method for request in cloud.bigquery.requests] == ["GET"], "one listing shows that all are there"


def test_a_run_over_all_months_with_nothing_to_do_makes_few_requests(folder: Folder, cloud: Cloud) -> None:
    cloud.use(folder)
    assert folder.luigi("LoadZones").returncode == 0
    warehouse = open_warehouse(cloud.warehouse)
    record = warehouse.loads(ZONES).get(None)
    assert record is not None
    loads, marts = [], []
    for name, spec in DATASETS.items():
        first = spec.first_parquet_month
        assert first is not None
        for month in month_range(first, date(2025, 12, 1)):
            facts = (record.source_sha256, record.declaration, record.fingerprint, record.loaded_at, record.version)
            loads.append(LoadRecord(name, month, 1, *facts))
            marts += [
                MartRecord(mart.name, name, month, 1, record.fingerprint, record.loaded_at, record.version)
                for mart in marts_of(name)
            ]
    assert len(loads) == 563
    _write_ledger(cloud, loads, marts)
    cloud.clear()
    ended = folder.pipeline("backfill", "all", "2009..2025")
    assert "Nothing to do: all 563 months are up to date." in ended.stdout, ended.stderr
    requests = [f"{request.method} {request.target}" for request in (*cloud.gcs.requests, *cloud.bigquery.requests)]
    assert len(requests) <= 20, requests
    cloud.clear()
    assert folder.pipeline("backfill", "green", "2014-01").returncode == 0
    assert len(cloud.gcs.requests) + len(cloud.bigquery.requests) == len(requests), "however many months"


def test_a_refresh_reads_no_sidecar_and_its_apply_compacts_the_ledger(folder: Folder, cloud: Cloud) -> None:
    cloud.use(folder)
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02", "--through", "load")
    assert ended.returncode == 0, ended.stderr
    cloud.clear()
    ended = folder.pipeline("refresh", "green", "2024-01..2024-02", "--apply")
    assert "2 of 2 months match the source" in ended.stdout, ended.stdout + ended.stderr
    read = [request.target for request in cloud.gcs.requests if "alt=media" in request.target]
    assert read == [], "one listing has all of them"
    statements = [
        one.body["configuration"]["query"]["query"]
        for one in cloud.bigquery.seen("POST", r"/jobs\?")
        if "query" in one.body["configuration"]
    ]
    assert [statement.split(" WHERE ")[0] for statement in statements] == [
        "SELECT month, COUNT(*) AS n FROM green GROUP BY month",
        "DELETE FROM loads",
        "DELETE FROM mart_loads",
    ]


def _write_ledger(cloud: Cloud, loads: list[LoadRecord], marts: list[MartRecord]) -> None:
    from google.cloud import bigquery

    from pipeline.lake.google_cloud import bigquery_client
    from pipeline.warehouses.bigquery.warehouse import insertion

    client = bigquery_client(PROJECT, "EU")
    config = bigquery.QueryJobConfig(default_dataset=f"{PROJECT}.{cloud.dataset}")
    for mart in sorted({record.mart for record in marts}):  # A mart counts while its table exists.
        client.query(f"CREATE TABLE {mart} (dataset STRING, month DATE)", job_config=config).result()
    for table, records in (("loads", loads), ("mart_loads", marts)):
        client.query(insertion(table, records), job_config=config).result()


def test_two_machines_share_a_backfill_and_when_one_is_killed_the_other_finishes(
    tmp_path: Path, shared_site: SampleSite, cloud: Cloud
) -> None:
    under_way = cloud.bigquery.delay(0, method="POST", path=r"/jobs\b", skip=15)
    machines = [cloud.use(make_folder(tmp_path / f"machine-{number}", shared_site.url)) for number in (1, 2)]
    middle = cloud.use(make_folder(tmp_path / "luigid", ""))
    settings = (middle.path / "luigi.cfg").read_text()
    # As in docs/luigid.cfg, but with a shorter delay. By default luigid looks for dead machines once a minute.
    dead = "retry_count = 2\nworker_disconnect_delay = 8\nprune_on_get_work = true\n"
    (middle.path / "luigi.cfg").write_text(settings.replace("retry_count = 1\n", dead))
    with running_luigid(middle) as luigid:
        command = ("luigi", "--module", "pipeline", "Backfill", "--datasets", "green", "--first", "2023-01")
        command += ("--last", "2023-06", "--workers", "2", *luigid.options)
        first, second = (machine.start(*command) for machine in machines)
        heard = [Heard(process) for process in (first, second)]
        try:
            assert under_way.reached.wait(60)
            os.killpg(first.pid, signal.SIGKILL)
            # Luigi's exit codes for steps that another worker has or had; all of them are done by then.
            assert second.wait(300) in (0, 4, 6), heard[1].rest()
        finally:
            for process in (first, second):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    months = month_range(date(2023, 1, 1), date(2023, 6, 1))
    warehouse = open_warehouse(cloud.warehouse)
    assert sorted(warehouse.loads(GREEN)) == sorted(warehouse.mart_months(GREEN)) == months
    counted = warehouse.query("SELECT month, COUNT(*) AS n FROM green GROUP BY month").to_pylist()
    assert {row["month"]: row["n"] for row in counted} == dict.fromkeys(months, 2000)
    assert _objects(cloud, tmp_path) == sorted([file for m in months for file in _files_of(f"{m:%Y-%m}")] + _ZONES)
    jobs = [request.body["jobReference"]["jobId"] for request in cloud.bigquery.seen("POST", r"/jobs\b")]
    loaded = Counter(found[1] for job in jobs if (found := re.match(r"load_green_(\d{4}-\d{2})_", job)))
    assert set(loaded) == {f"{month:%Y-%m}" for month in months}
    # Only the steps of the killed machine were started again.
    assert sum(count - 1 for count in loaded.values()) <= 2, loaded
