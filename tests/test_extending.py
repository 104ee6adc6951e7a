"""docs/extending.md works as it stands: its code blocks are applied to a copy of the package, which runs a backfill."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import DATASETS
from pipeline.sample.zones import zones_csv

ROOT = Path(__file__).parent.parent
GREEN = DATASETS["green"]

#: A command of the copy, then the content of its in-memory warehouse, which ends with the process.
PROGRAM = """
import json, sys
from pipeline.warehouses.memory import LOADS, MARTS
if sys.argv[1] == "luigi":  # With one worker, steps run in this process, whose memory is the warehouse.
    from luigi.cmdline import luigi_run as main
    sys.argv[2:2] = ["--module", "pipeline", "--local-scheduler", "--workers", "1"]
else:
    from pipeline.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code
rows = {f"{name} {month}": table.num_rows for (name, month), (table, _) in LOADS.items()}
marts = {f"{mart} {month}": table.to_pylist() for (mart, _, month), (table, _) in MARTS.items()}
print("\\n" + json.dumps([code, rows, marts]))
"""


def blocks() -> list[tuple[str, str, str]]:
    """Language, file and text of each code block that names a file in its first line."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    pattern = r"^( *)```(\w+)\n *(?:#|--) (pipeline/\S+|luigi\.cfg)\n(.*?)^ *```$"
    found = re.findall(pattern, page, re.MULTILINE | re.DOTALL)
    return [(language, file, re.sub(rf"^{indent}", "", text, flags=re.M)) for indent, language, file, text in found]


def apply(language: str, path: Path, text: str) -> None:
    """Write a new file, or replace the lines of a diff's context by those with its additions."""
    if language != "diff":
        assert not path.exists(), path
        path.write_text(text, encoding="utf-8")
        return
    before, after = (
        "\n".join(line[1:] for line in text.splitlines() if not line or line[0] in kept) for kept in (" -", " +")
    )
    code = path.read_text(encoding="utf-8")
    assert code.count(before) == 1, f"{path.name}: {code.count(before)} times:\n{before}"
    path.write_text(code.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with every change of the page, and raw files for it in a folder."""
    checkout = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", checkout / "pipeline", ignore=ignore)
    shutil.copy(ROOT / "luigi.cfg", checkout)
    (checkout / "pipeline" / "warehouses" / "memory").mkdir()
    shutil.copy(ROOT / "tests" / "memory_warehouse.py", checkout / "pipeline" / "warehouses" / "memory" / "__init__.py")
    for language, file, text in blocks():
        apply(language, checkout / file, text)
    site = checkout / "site"
    site.mkdir()
    (site / "taxi_zone_lookup.csv").write_bytes(zones_csv())
    for month, stations in ((1, ["A", "A", "B"]), (2, ["C"])):
        time = pa.array([datetime(2024, month, 1)] * len(stations), pa.timestamp("us"))
        columns = {"started_at": time, "ended_at": time, "start_station_name": stations}
        pq.write_table(pa.table(columns), site / f"bikes_tripdata_2024-{month:02}.parquet")
    names = [column for column in GREEN.columns if column.expected(datetime(2024, 1, 1).date(), parquet=True)]
    green: dict[str, Any] = {column.name: pa.nulls(2, column.arrow_type) for column in names}
    green |= dict.fromkeys(
        ("pickup_datetime", "dropoff_datetime"), pa.array([datetime(2024, 1, 1)] * 2, pa.timestamp("us"))
    )
    pq.write_table(pa.table({**green, "Weather": ["rain", None]}), site / "green_tripdata_2024-01.parquet")
    return checkout


def run(
    checkout: Path, command: str, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run a command of the copy; its end, and the exit code, rows and marts of the program above."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
    environment = {
        **kept,
        "PYTHONPATH": str(checkout),
        "PIPELINE_SOURCE": str(checkout / "site"),
        "PIPELINE_WAREHOUSE": "memory://",
        **environment,
    }
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), command, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process, json.loads(process.stdout.splitlines()[-1])


def backfill(dataset: str, first: str, last: str) -> tuple[str, ...]:
    return ("Backfill", "--datasets", dataset, "--first", first, "--last", last)


def test_every_recipe_names_the_files_that_it_touches() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^## ", page, re.MULTILINE)) == 11
    named = set(re.findall(r"`((?:pipeline|tests)/[\w./]+\.(?:py|csv))`", page))
    added = {file for language, file, _ in blocks() if language != "diff"}
    assert [file for file in sorted(named - added) if not (ROOT / file).exists()] == []


def test_a_new_dataset_step_mart_check_and_warehouse_take_part_in_a_backfill(checkout: Path) -> None:
    process, (code, rows, marts) = run(checkout, "luigi", *backfill("bikes", "2024-01", "2024-02"))
    assert code == 0, process.stderr
    assert rows == {"bikes 2024-01-01": 3, "bikes 2024-02-01": 1}
    stations = {month: {row["station"]: row["trips"] for row in table} for month, table in marts.items()}
    assert stations == {"bike_stations 2024-01-01": {"A": 2, "B": 1}, "bike_stations 2024-02-01": {"C": 1}}
    lake = checkout / "data" / "lake"
    counts = {path.name: json.loads(path.read_text())["rows"] for path in (lake / "counts" / "bikes").iterdir()}
    assert counts == {"2024-01-01.json": 3, "2024-02-01.json": 1}
    document = json.loads((lake / "checks" / "bikes" / "2024-01.json").read_text())
    assert [finding["rule"] for finding in document["findings"]] == ["few_rows"]


def test_a_new_column_is_conformed_loaded_and_described(checkout: Path) -> None:
    process, (code, rows, _) = run(
        checkout, "luigi", *backfill("green", "2024-01", "2024-01"), "--through", "load", PIPELINE_LAKE="data/green"
    )
    assert code == 0, process.stderr
    assert rows["green 2024-01-01"] == 2
    trips = checkout / "data" / "green" / "trips" / "green" / "month=2024-01-01" / "green_2024-01.parquet"
    assert pq.read_table(trips, partitioning=None)["weather"].to_pylist() == ["rain", None]
    process, _ = run(checkout, "pipeline", "describe", "green")
    assert "Weather at the pickup." in process.stdout


def test_a_new_store_keeps_the_lake(checkout: Path) -> None:
    lake = checkout / "data" / "other"
    process, (code, rows, _) = run(
        checkout, "luigi", *backfill("bikes", "2024-01", "2024-01"), PIPELINE_LAKE=f"other:/{lake}"
    )
    assert code == 0, process.stderr
    assert rows["bikes 2024-01-01"] == 3
    assert (lake / "trips" / "bikes" / "month=2024-01-01" / "bikes_2024-01.parquet").exists()


def test_status_plan_and_redo_know_the_new_step(checkout: Path) -> None:
    environment = {"PIPELINE_LAKE": "data/redone"}
    run(checkout, "pipeline", "backfill", "bikes", "2024-01", "--through", "count", **environment)
    process, _ = run(checkout, "pipeline", "status", "bikes", "2024-01", **environment)
    assert "counted, not loaded" in process.stdout
    process, _ = run(checkout, "pipeline", "plan", "bikes", "2024-01", **environment)
    assert re.search(r"load +bikes +2024-01 .*trips are counted", process.stdout), process.stdout
    process, _ = run(checkout, "pipeline", "logs", "bikes", "2024-01", "--step", "count", **environment)
    assert "3 rows counted" in process.stdout
    count = checkout / "data" / "redone" / "counts" / "bikes" / "2024-01-01.json"
    count.unlink()
    process, _ = run(
        checkout, "pipeline", "redo", "bikes", "2024-01", "--from", "count", "--yes", "--json", **environment
    )
    assert '"step": "count"' in process.stdout
    assert count.exists()


def test_a_new_command_is_listed_and_runs(checkout: Path) -> None:
    environment = {"PIPELINE_LAKE": "data/listed"}
    run(checkout, "pipeline", "backfill", "bikes", "2024-01", "--through", "count", **environment)
    process, _ = run(checkout, "pipeline", "counts", "bikes", "2024-01..2024-02", **environment)
    assert process.stdout.startswith("bikes 2024-01\n")
    process, _ = run(checkout, "pipeline", "--help")
    assert "counts      List the months that are counted." in process.stdout


def test_a_new_picture_is_in_the_report(checkout: Path) -> None:
    environment = {"PIPELINE_LAKE": "data/drawn", "PIPELINE_WAREHOUSE": "duckdb:///data/drawn.duckdb"}
    _, (code, _, _) = run(checkout, "luigi", *backfill("green", "2024-01", "2024-01"), **environment)
    assert code == 0
    run(checkout, "pipeline", "report", "green", "--html", "report.html", **environment)
    page = (checkout / "report.html").read_text(encoding="utf-8")
    assert "How much do passengers tip each month?" in page
    assert page.count("no such values for green") == 4, "the two trips of this month have no amounts"


def test_a_dataset_without_zone_ids_needs_no_zones(checkout: Path) -> None:
    (checkout / "site" / "taxi_zone_lookup.csv").rename(checkout / "zones.csv")
    try:
        process, (code, rows, marts) = run(
            checkout, "luigi", *backfill("bikes", "2024-01", "2024-01"), PIPELINE_LAKE="data/no_zones"
        )
    finally:
        (checkout / "zones.csv").rename(checkout / "site" / "taxi_zone_lookup.csv")
    assert code == 0, process.stderr
    assert (rows, list(marts)) == ({"bikes 2024-01-01": 3}, ["bike_stations 2024-01-01"])
