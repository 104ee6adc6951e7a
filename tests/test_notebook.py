"""docs/notebook.py: its three pictures show what the files have, and a lake that is not there is a message."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import BIN, ROOT, Folder, make_folder

from pipeline.sample import SampleSite

pytest.importorskip("marimo")
NOTEBOOK = ROOT / "docs" / "notebook.py"
MONTHS = {"yellow": ["2024-02"], "green": ["2024-01", "2024-02"]}

#: Runs the notebook's app and prints its pictures as Vega-Lite, after what the script prints itself.
RUN = f"""
import json, runpy
_, found = runpy.run_path({str(NOTEBOOK)!r})["app"].run()
pictures = [found[name].to_dict() for name in ("daily_chart", "weekly_chart", "tips_chart")]
print(json.dumps({{"stray": found["stray"], "pictures": pictures}}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    with SampleSite(rows=2_000) as site:
        folder = make_folder(tmp_path_factory.mktemp("notebook") / "work", site.url)
        for words in ("yellow 2024-02", "green 2024-01..2024-02"):
            ended = folder.pipeline("backfill", *words.split(), "--through", "conform")
            assert ended.returncode == 0, ended.stderr
    return folder


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def found(folder: Folder) -> dict[str, Any]:
    ended = _python(folder.path, "-c", RUN, "--", "--lake", "data/lake")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def _rows(found: dict[str, Any], picture: int) -> list[dict[str, Any]]:
    (rows,) = found["pictures"][picture]["datasets"].values()
    return rows


def _pickups(folder: Folder) -> list[tuple[str, datetime]]:
    """The pickups that the notebook is to count: those of the months that are in the lake."""
    files = f"read_parquet('{folder.lake}/trips/{{0}}/*/*.parquet', hive_partitioning = false)"
    return [
        (name, pickup)
        for name in MONTHS
        for (pickup,) in duckdb.sql(f"SELECT pickup_datetime FROM {files.format(name)}").fetchall()
        if f"{pickup:%Y-%m}" in MONTHS[name]
    ]


def test_the_first_picture_has_the_trips_of_each_day(folder: Folder, found: dict[str, Any]) -> None:
    pickups = _pickups(folder)
    assert 5_900 < len(pickups) < 6_000
    assert found["stray"] == 6_000 - len(pickups) > 0
    shown = {(row["dataset"], row["day"][:10]): row["trips"] for row in _rows(found, 0)}
    assert shown == Counter((name, f"{pickup:%Y-%m-%d}") for name, pickup in pickups)


def test_the_second_picture_has_the_trips_of_an_average_hour_of_the_week(folder: Folder, found: dict[str, Any]) -> None:
    pickups = _pickups(folder)
    hours = Counter((name, pickup.weekday(), pickup.hour) for name, pickup in pickups)
    days = Counter((name, day.weekday()) for name, day in {(name, pickup.date()) for name, pickup in pickups})
    averages = {key: count / days[key[:2]] for key, count in hours.items()}
    busiest = {name: max(average for key, average in averages.items() if key[0] == name) for name in MONTHS}
    shown = {(row["dataset"], row["weekday"], row["hour_of_day"]): row for row in _rows(found, 1)}
    assert {key: row["average"] for key, row in shown.items()} == pytest.approx(averages)
    assert {key: row["of_busiest"] for key, row in shown.items()} == pytest.approx(
        {key: average / busiest[key[0]] for key, average in averages.items()}
    )
    assert {(row["weekday"], row["day_name"]) for row in shown.values()} >= {(0, "Mon"), (6, "Sun")}


def test_the_third_picture_has_the_tips_by_card_of_each_borough(folder: Folder, found: dict[str, Any]) -> None:
    expected = {}
    for name, months in MONTHS.items():
        rows = duckdb.sql(f"""
            SELECT borough, sum(tip_amount) / sum(fare_amount)
            FROM read_parquet('{folder.lake}/trips/{name}/*/*.parquet', hive_partitioning = false) AS trips
            JOIN '{folder.lake}/zones/zones.parquet' AS zones ON pickup_location_id = zones.location_id
            WHERE strftime(pickup_datetime, '%Y-%m') IN {(*months, "")} AND payment_type = 1
                AND fare_amount > 0 AND fare_amount <= 1000 AND tip_amount >= 0 AND tip_amount <= 1000
            GROUP BY borough HAVING count(*) >= 30
        """).fetchall()
        expected |= {(name, borough): share for borough, share in rows}
    shown = {(row["dataset"], row["borough"]): row["share"] for row in _rows(found, 2)}
    assert shown == pytest.approx(expected)
    assert {("yellow", "Manhattan"), ("green", "Queens")} <= {*shown}
    assert all(0.1 < share < 0.4 for share in shown.values())


def test_the_exported_page_has_the_pictures_of_the_months_that_were_asked_for(folder: Folder) -> None:
    page = folder.path / "trips.html"
    # marimo leaves a folder beside a notebook.
    notebook = shutil.copy(NOTEBOOK, folder.path)
    asked = ["--lake", "data/lake", "--datasets", "green", "--first", "2024-01", "--last", "2024-01"]
    command = [str(BIN / "marimo"), "export", "html", str(notebook), "-o", str(page), "--", *asked]
    ended = subprocess.run(command, cwd=folder.path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    text = page.read_text()
    assert "1 month(s), 2024-01 to 2024-01" in text
    assert text.count("application/vnd.vega") == 3
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--lake nowhere", "no trips in the folder `nowhere`. For the sample, run `pipeline demo`"),
        ("--lake data/lake --datasets fhv", "The lake has yellow, green, with months from 2024-01 to 2024-02"),
        ("--lake data/lake --datasets yellow --last 2024-01", "none that has months from 2024-01 to 2024-01"),
    ],
)
def test_what_the_lake_does_not_have_is_a_message_without_a_traceback(
    folder: Folder, arguments: str, message: str
) -> None:
    ended = _python(folder.path, str(NOTEBOOK), "--", *arguments.split())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
