"""Whole runs on the real files, served over loopback HTTP as TLC's site serves them.

`PIPELINE_TLC_FILES` names the folder with them; it is no part of the project.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import Folder, make_folder
from postgres import Database
from state import rows

from pipeline.marts import all_marts
from pipeline.sample import SampleSite

if "PIPELINE_TLC_FILES" not in os.environ:
    pytest.skip("real files: PIPELINE_TLC_FILES names no folder", allow_module_level=True)

FILES = Path(os.environ["PIPELINE_TLC_FILES"])

#: Rows of every complete month, as counted by the publishers of copies.
PARQUET = {
    "2020-04": 35_644,
    "2020-12": 83_130,
    "2021-01": 76_518,
    "2021-02": 64_572,
    "2022-01": 62_495,
    "2022-06": 73_718,
    "2023-01": 68_211,
    "2023-02": 64_809,
    "2023-03": 72_044,
    "2024-01": 56_551,
    "2024-02": 53_577,
    "2024-03": 57_457,
    "2025-01": 48_326,
    "2025-02": 46_621,
    "2025-07": 48_205,
}
CSV = {"2020-04": 35_612, "2020-05": 57_360, "2020-12": 83_130}


def _loaded(folder: Folder) -> dict[str, tuple[int, Decimal, int]]:
    """Rows, the exact sum of all totals, and rows without a vendor, by month."""
    return {
        f"{month:%Y-%m}": (count, total, nulls)
        for month, count, total, nulls in rows(
            folder.database,
            "SELECT month, COUNT(*), SUM(CAST(total_amount AS DECIMAL(18, 2))), COUNT(*) - COUNT(vendor_id) "
            "FROM green GROUP BY month",
        )
    }


def _published(table: pa.Table) -> tuple[int, Decimal, int]:
    totals = [Decimal(str(total)) for total in table["total_amount"].to_pylist() if total is not None]
    return table.num_rows, sum(totals, Decimal()), table["VendorID"].null_count


def test_every_complete_month_loads_as_published_and_the_months_between_are_refused(tmp_path: Path) -> None:
    with SampleSite(folder=FILES) as site:
        folder = make_folder(tmp_path / "work", site.url)
        ended = folder.pipeline("backfill", "green", "2020-04..2025-07", "--workers", "4")
    assert ended.returncode == 1, "49 months are not in the folder"
    assert f"{64 - len(PARQUET)} months failed" in ended.stdout
    found = _loaded(folder)
    assert {month: count for month, (count, _, _) in found.items()} == PARQUET
    for month in PARQUET:
        assert found[month] == _published(pq.read_table(FILES / f"trip-data/green_tripdata_{month}.parquet")), month
    assert rows(folder.database, "SELECT COUNT(*) FROM zones") == [(265,)]
    vendors = "SELECT vendor_id, COUNT(*) FROM green WHERE month = '2025-02-01' GROUP BY ALL ORDER BY 1"
    raw = pq.read_table(FILES / "trip-data/green_tripdata_2025-02.parquet")["VendorID"].value_counts().to_pylist()
    assert rows(folder.database, vendors) == sorted((entry["values"], entry["counts"]) for entry in raw)
    assert "negative durations" in ended.stdout


def test_the_months_of_the_old_mirror_load_as_published(tmp_path: Path) -> None:
    with SampleSite(folder=FILES) as site:
        folder = make_folder(tmp_path / "work", f"{site.url}/owner/nyc-tlc-data/releases/download")
        wanted = ("--of", "Load", "--of-params", '{"dataset": "green"}', "--start", "2020-04", "--stop", "2021-01")
        limits = ("--months-back", "500", "--task-limit", "1000")
        ended = folder.luigi("RangeMonthly", *wanted, *limits)
    assert ended.returncode != 0, "the months between are not in the folder"
    assert {month: count for month, (count, _, _) in _loaded(folder).items()} == CSV
    total = "SELECT SUM(CAST(total_amount AS DECIMAL(18, 2))) FROM green WHERE month = '2020-12-01'"
    parquet = pq.read_table(FILES / "trip-data/green_tripdata_2020-12.parquet")
    assert rows(folder.database, total) == [(_published(parquet)[1],)]


def _broken(name: str) -> Callable[[Path], object]:
    return lambda path: shutil.copyfile(FILES / "broken" / name, path)


def _changed(change: Callable[[pa.Table], pa.Table], name: str = "2024-01") -> Callable[[Path], object]:
    return lambda path: pq.write_table(change(pq.read_table(FILES / f"trip-data/green_tripdata_{name}.parquet")), path)


def _with_a_passenger_and_a_half(table: pa.Table) -> pa.Table:
    counts = pc.cast(table["passenger_count"], pa.float64()).to_pylist()
    counts[3] = 1.5
    place = table.column_names.index("passenger_count")
    return table.set_column(place, "passenger_count", pa.array(counts, pa.float64()))


#: The file that is served for each month, and the expected result: error class and message.
BAD_MONTHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "2021-01": (
        lambda path: shutil.copyfile(FILES / "resaved/green_tripdata_2021-01.parquet", path),
        r"SchemaError: green 2021-01: unknown columns \['duration'\]; declare them in pipeline/datasets/green.py",
    ),
    "2021-02": (
        _broken("access_denied__green_tripdata_2022-01.parquet"),
        r"SourceError: green 2021-02: .*an XML answer \(AccessDenied\)",
    ),
    "2021-03": (
        _broken("lfs_pointer__green_tripdata_2022-01.parquet"),
        "SourceError: green 2021-03: .*a Git LFS pointer",
    ),
    "2021-04": (_broken("truncated_head_of_parquet__head.csv"), "SourceError: green 2021-04: .*not end as one"),
    "2021-05": (
        _broken("html_page__yellow_tripdata_2019-02.csv"),
        "SourceError: green 2021-05: .*not a Parquet file: it is an HTML page",
    ),
    "2021-06": (lambda path: path.write_bytes(b""), "SourceError: green 2021-06: .*it is empty"),
    "2021-07": (
        _changed(lambda table: table.slice(0, 0)),
        "CheckFailed: green 2021-07: failed its checks, so not published: no_rows",
    ),
    "2021-08": (
        _changed(lambda table: table.rename_columns([n.replace("fare_", "meter_") for n in table.column_names])),
        r"SchemaError: green 2021-08: unknown columns \['meter_amount'\], missing columns \['fare_amount'\]",
    ),
    "2021-09": (
        _changed(lambda table: table.drop_columns(["congestion_surcharge"])),
        r"SchemaError: green 2021-09: missing columns \['congestion_surcharge'\]",
    ),
    "2021-10": (
        _changed(_with_a_passenger_and_a_half),
        r"SchemaError: green 2021-10: passenger_count: values that are not int64: 1, namely 1\.5 \(1\)",
    ),
    "2021-11": (_changed(lambda table: table), r"CheckFailed: green 2021-11: .*wrong_month: .*56,551 of 56,551"),
}


def test_every_bad_month_is_a_clear_error_and_the_good_months_continue(tmp_path: Path) -> None:
    published = tmp_path / "published" / "trip-data"
    published.mkdir(parents=True)
    shutil.copytree(FILES / "misc", tmp_path / "published" / "misc")
    for month, (make, _) in BAD_MONTHS.items():
        make(published / f"green_tripdata_{month}.parquet")
    # This rewrite changed no value: it is a good month.
    shutil.copyfile(FILES / "resaved/green_tripdata_2023-02.parquet", published / "green_tripdata_2023-02.parquet")
    with SampleSite(folder=tmp_path / "published") as site:
        folder = make_folder(tmp_path / "work", site.url)
        folder.environment["PIPELINE_RETRIES"] = "1"
        ended = folder.pipeline("backfill", "green", "2021-01..2021-11")
        good = folder.pipeline("backfill", "green", "2023-02")
    assert ended.returncode == 1
    assert good.returncode == 0, good.stdout
    for month, (_, message) in BAD_MONTHS.items():
        assert re.search(message, ended.stderr), f"{month}: {ended.stderr}"
    assert "Traceback" not in ended.stdout + ended.stderr
    assert {month: found[0] for month, found in _loaded(folder).items()} == {"2023-02": 64_809}
    assert [name for name in folder.files() if name.startswith("lake/trips")] == [
        "lake/trips/green/month=2023-02-01/green_2023-02.parquet"
    ]
    assert [name for name in folder.files() if ".drafts" in name] == []


def test_the_months_load_into_postgres_as_published_and_its_marts_equal_those_of_duckdb(
    tmp_path: Path, database: Database
) -> None:
    with SampleSite(folder=FILES) as site:
        folder = make_folder(tmp_path / "work", site.url)
        ended = folder.pipeline("backfill", "green", "2020-04..2025-07", "--workers", "4", "--warehouse", database.url)
        assert ended.returncode == 1, "49 months are not in the folder"
        folder.pipeline("backfill", "green", "2024-01..2024-03", "--workers", "2")
    sums = "SUM(CAST(total_amount::text AS numeric)), COUNT(*) - COUNT(vendor_id)"
    found = database.execute(f"SELECT month, COUNT(*), {sums} FROM green GROUP BY month")
    assert {f"{month:%Y-%m}": count for month, count, *_ in found} == PARQUET
    for month, *measures in found:
        raw = pq.read_table(FILES / f"trip-data/green_tripdata_{month:%Y-%m}.parquet")
        assert tuple(measures) == _published(raw), month
    for mart in all_marts():
        select = f"SELECT * FROM {mart} WHERE month BETWEEN '2024-01-01' AND '2024-03-01'"
        assert sorted(map(str, database.execute(select))) == sorted(map(str, rows(folder.database, select)))
