"""The published answers of the Data Engineering Zoomcamp, from the files that they are about.

`PIPELINE_TLC_FILES` names a folder with real files, which is not part of the project: answers whose files are there are
computed through lake and warehouse; counts of the others are compared with the published ones.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import Cloud
from conftest import Folder
from postgres import Database
from questions import ROOT, Files, Question, all_questions, answer_of, environment_of, run_pipeline

from pipeline.datasets import DATASETS
from pipeline.sample import SampleSite
from pipeline.warehouses import open_warehouse

QUESTIONS = all_questions()
REAL = Path(os.environ["PIPELINE_TLC_FILES"]) if "PIPELINE_TLC_FILES" in os.environ else None
#: The sample months in which the queries are tried.
MONTHS = {"yellow": "2024-01", "green": "2024-01", "fhv": "2024-01"}


def real_file(files: Files, name: str) -> Path | None:
    """The whole file of that name, if it is there."""
    assert REAL
    folders = ("trip-data",) if files.source == "tlc" else ("csv/green", "samples")
    return next((path for folder in folders if (path := REAL / folder / name).exists()), None)


def real_files(files: Files) -> dict[str, Path | None]:
    ending = "parquet" if files.source == "tlc" else "csv.gz"
    names = [f"{DATASETS[files.dataset].base_name(month)}.{ending}" for month in files.months]
    # The samples of other datasets are parts of months.
    there = REAL is not None and (files.source == "tlc" or files.dataset == "green")
    return {name: real_file(files, name) if there else None for name in names}


ALL_FILES = sorted({question.files for question in QUESTIONS})
PRESENT = [files for files in ALL_FILES if all(real_files(files).values())]
needs_real_files = pytest.mark.skipif(REAL is None, reason="real files: PIPELINE_TLC_FILES names no folder")


@pytest.fixture
def real_site(tmp_path: Path) -> Iterator[SampleSite]:
    """A site with all files that are there: TLC's, and those of the mirror."""
    assert REAL
    folder = tmp_path / "site"
    for files in PRESENT:
        place = folder / ("trip-data" if files.source == "tlc" else f"releases/download/{files.dataset}")
        place.mkdir(parents=True, exist_ok=True)
        for name, path in real_files(files).items():
            assert path
            shutil.copy(path, place / name)
    for place in (folder / "misc", folder / "releases" / "download" / "misc"):
        place.mkdir(parents=True)
        shutil.copy(REAL / "misc" / "taxi_zone_lookup.csv", place)
    with SampleSite(folder=folder) as site:
        yield site


def start_course(tmp_path: Path, url: str, *options: str) -> subprocess.Popen[str]:
    """Start the program of `make course` against a site on this machine."""
    command = [sys.executable, str(ROOT / "tests" / "course"), "--data", "data/course", "--tlc", url]
    command += ["--mirror", f"{url}/releases/download", *options]
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
    env, pipe = {**kept, "PIPELINE_RETRY_WAIT_S": "0.05"}, subprocess.PIPE
    return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def run_course(tmp_path: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    process = start_course(tmp_path, url, *options)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_every_cohort_since_2022_has_its_questions_of_modules_1_and_3() -> None:
    found = {
        (year, module)
        for question in QUESTIONS
        for year in re.findall(r"20\d\d", question.homework)
        for module in re.findall(r"module (\d)", question.homework)
    }
    assert {(str(year), module) for year in range(2022, 2027) for module in "13"} <= found


@pytest.mark.parametrize("engine", ["duckdb", "postgres", "bigquery"])
def test_every_query_runs_unchanged_on_the_views(engine: str, folder: Folder, request: pytest.FixtureRequest) -> None:
    url = f"duckdb:///{folder.database}"
    if engine == "postgres":
        database: Database = request.getfixturevalue("database")
        url = folder.environment["PIPELINE_WAREHOUSE"] = database.url
    elif engine == "bigquery":
        cloud: Cloud = request.getfixturevalue("cloud")
        cloud.use(folder)
        url = cloud.warehouse
    for dataset, month in MONTHS.items():
        ended = folder.pipeline("backfill", dataset, month)
        assert ended.returncode == 0, ended.stderr
    warehouse = open_warehouse(url)
    # BigQuery is the course's third module. Durations, which later modules ask of Spark, are its own functions there.
    asked = [each for each in QUESTIONS if engine != "bigquery" or "EPOCH" not in each.sql]
    for sql in dict.fromkeys(each.sql for each in asked):
        assert warehouse.query(sql).num_columns


@needs_real_files
def test_answers_whose_files_are_there_are_the_published_ones(real_site: SampleSite, tmp_path: Path) -> None:
    assert {str(files) for files in PRESENT} >= {"green 2025-11 (tlc)", "green 2020-10..2020-12 (mirror)"}
    for files in PRESENT:
        ended = run_course(tmp_path, real_site.url, "--only", str(files))
        asked = [question for question in QUESTIONS if question.files == files]
        assert (ended.returncode, ended.stdout.count("ok   ")) == (0, len(asked)), ended.stdout + ended.stderr
    assert not [sent.path for sent in real_site.requests if sent.status >= 400]


@needs_real_files
def test_answers_whose_files_are_absent_are_left_to_make_course() -> None:
    if absent := [str(files) for files in ALL_FILES if files not in PRESENT]:
        pytest.skip(f"real files: absent: {', '.join(absent)}")


@needs_real_files
def test_postgres_gives_the_answers_of_the_first_module_too(
    real_site: SampleSite, database: Database, tmp_path: Path
) -> None:
    files = Files("tlc", "green", "2025-11")
    environment = environment_of(files, tmp_path, real_site.url) | {"PIPELINE_WAREHOUSE": database.url}
    ended = run_pipeline("backfill", files.dataset, files.period, environment=environment, cwd=tmp_path)
    assert ended.returncode == 0
    asked = [question for question in QUESTIONS if question.files == files]
    assert [answer_of(question, environment, tmp_path) for question in asked] == [each.answer for each in asked]


COUNTS = [
    each
    for each in QUESTIONS
    if each.files.source == "tlc" and re.fullmatch(r"SELECT COUNT\(\*\) AS trips FROM \w+", each.sql)
]


@pytest.mark.parametrize("question", COUNTS, ids=str)
def test_whole_months_have_the_published_rows(question: Question) -> None:
    assert int(question.answer) == question.files.rows


def test_make_course_says_what_it_downloads_and_downloads_it_once(tmp_path: Path, site: SampleSite) -> None:
    listed = run_course(tmp_path, site.url, "--list")
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^from \S+: \d+ months, about \d+\.\d [MG]B;", listed.stdout)
    assert list(tmp_path.iterdir()) == []
    assert site.requests == []
    first = run_course(tmp_path, site.url, "--only", "2026 module 1")
    assert first.returncode == 1, "the sample site's trips are not TLC's"
    assert re.search(
        r"^FAIL 2026 module 1, .*Trips of the file\.\n +500; published: 46912$", first.stdout, re.MULTILINE
    )
    site.requests.clear()
    second = run_course(tmp_path, site.url, "--only", "2026 module 1")
    assert second.stdout == first.stdout
    assert site.requests == []


def test_make_course_stops_at_ctrl_c_and_continues(tmp_path: Path, site: SampleSite) -> None:
    site.faults.add("*green*", "slow", 1000, times=math.inf)
    process = start_course(tmp_path, site.url, "--only", "2026 module 1")
    while not any("green" in sent.path and sent.sent for sent in site.requests):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in out + err
    assert "2026 module 1" not in out, "no question is answered without its files"
    site.faults.clear()
    again = run_course(tmp_path, site.url, "--only", "2026 module 1")
    assert "500; published: 46912" in again.stdout


def test_make_course_with_an_unknown_question_is_a_usage_error(tmp_path: Path) -> None:
    ended = run_course(tmp_path, "http://127.0.0.1:9", "--only", "2031")
    assert (ended.returncode, ended.stdout) == (2, "")


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_the_page_has_every_published_answer(question: Question) -> None:
    page = (ROOT / "docs" / "course.md").read_text(encoding="utf-8").replace(",", "")
    for value in re.split(r" [|;] ", question.answer):
        assert value == "?" or value in page
