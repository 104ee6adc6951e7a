"""Plain `luigi --module pipeline` with our luigi.cfg: whole runs, their files and output, and how they are stopped."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import time
from datetime import date
from itertools import accumulate
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Heard, Luigid, running_luigid, started_by, stopped_by
from conftest import Folder, make_folder
from state import rows, works_in

from pipeline.datasets import DATASETS
from pipeline.errors import SourceError, error_from_json
from pipeline.marts import all_marts
from pipeline.months import add_months, parse_month
from pipeline.sample import SampleSite
from pipeline.tasks.runs import Latest

ZONES = [
    "lake/checks/zones/zones.json",
    "lake/raw/zones/taxi_zone_lookup.csv",
    "lake/raw/zones/taxi_zone_lookup.csv.json",
    "lake/zones/zones.parquet",
]
DATABASE = ["warehouse.duckdb", "warehouse.duckdb.loads.json"]


def raw_of(dataset: str, month: str) -> list[str]:
    raw = f"lake/raw/{dataset}/{dataset}_tripdata_{month}.parquet"
    return [raw, f"{raw}.json"]


def files_of(dataset: str, *months: str) -> list[str]:
    conformed = [
        file
        for month in months
        for file in (
            f"lake/checks/{dataset}/{month}.json",
            f"lake/trips/{dataset}/month={month}-01/{dataset}_{month}.parquet",
        )
    ]
    return [*conformed, *(file for month in months for file in raw_of(dataset, month))]


def backfill(datasets: str, first: str, last: str, workers: int = 2) -> tuple[str, ...]:
    return ("Backfill", "--datasets", datasets, "--first", first, "--last", last, "--workers", str(workers))


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    """A folder whose source is a site that this test may make misbehave."""
    return make_folder(tmp_path / "work", site.url)


def loaded(folder: Folder) -> list[tuple[str, str, int]]:
    return rows(
        folder.database,
        "SELECT dataset, strftime(month, '%Y-%m'), rows FROM loads WHERE month IS NOT NULL ORDER BY ALL",
    )


def configure(folder: Folder, **options: int) -> None:
    """Change values in the folder's luigi.cfg."""
    file = folder.path / "luigi.cfg"
    text = file.read_text()
    for name, value in options.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    file.write_text(text)


# Whole runs


def test_a_backfill_leaves_these_files_and_rows_and_a_second_one_does_nothing(own: Folder, site: SampleSite) -> None:
    ended = own.luigi(*backfill("green", "2024-01", "2024-03"))
    assert ended.returncode == 0, ended.stderr
    months = ("2024-01", "2024-02", "2024-03")
    assert own.files() == sorted([*files_of("green", *months), *ZONES, *DATABASE]), "and nothing else is on disk"
    assert loaded(own) == [("green", month, 500) for month in months]
    assert rows(own.database, "SELECT month::VARCHAR, COUNT(*) FROM green GROUP BY 1 ORDER BY 1") == [
        (f"{month}-01", 500) for month in months
    ]
    assert rows(own.database, "SELECT COUNT(*) FROM zones") == [(265,)]
    for mart in all_marts():
        assert rows(own.database, f"SELECT COUNT(DISTINCT month) FROM {mart}") == [(3,)]
    asked, there = list(site.requests), [(path, (own.path / "data" / path).stat().st_mtime_ns) for path in own.files()]
    again = own.luigi(*backfill("green", "2024-01", "2024-03"))
    assert again.returncode == 0
    assert "Did not run any tasks" in again.stderr
    assert site.requests == asked
    assert [(path, (own.path / "data" / path).stat().st_mtime_ns) for path in own.files()] == there


def test_a_load_with_one_worker_loads_exactly_its_month(own: Folder, site: SampleSite) -> None:
    load = ("Load", "--dataset", "yellow", "--month", "2024-01")
    ended = own.luigi(*load)
    assert ended.returncode == 0, ended.stderr
    assert own.files() == sorted([*files_of("yellow", "2024-01"), *DATABASE])
    assert loaded(own) == [("yellow", "2024-01", 500)]
    asked = list(site.requests)
    assert own.luigi(*load).returncode == 0
    assert site.requests == asked


def test_backfills_of_several_datasets_and_of_all_when_one_starts_later(own: Folder, site: SampleSite) -> None:
    ended = own.luigi(*backfill("green,yellow", "2019-01", "2019-01"))
    assert ended.returncode == 0, ended.stderr
    assert loaded(own) == [("green", "2019-01", 500), ("yellow", "2019-01", 500)]
    site.requests.clear()
    ended = own.luigi(*backfill("all", "2019-01", "2019-02"))
    assert ended.returncode == 0, ended.stderr
    assert "fhvhv starts in 2019-02; months before it do not exist" in ended.stderr
    both = [(name, f"2019-0{month}", 500) for name in ("fhv", "green", "yellow") for month in (1, 2)]
    assert loaded(own) == sorted([*both, ("fhvhv", "2019-02", 500)])
    assert len(site.requests) == 5, "what was there is not fetched again"


def test_the_zones_can_be_loaded_alone(own: Folder) -> None:
    ended = own.luigi("LoadZones")
    assert ended.returncode == 0, ended.stderr
    assert own.files() == sorted([*ZONES, *DATABASE])
    assert rows(own.database, "SELECT COUNT(*) FROM zones") == [(265,)]


def test_luigis_own_range_loads_its_months_and_a_second_run_does_nothing(own: Folder, site: SampleSite) -> None:
    span = ("--start", "2024-01", "--stop", "2024-03", "--months-back", "500", "--task-limit", "1000")
    command = ("RangeMonthly", "--of", "Load", "--of-params", '{"dataset": "yellow"}', *span)
    ended = own.luigi(*command)
    assert ended.returncode == 0, ended.stderr
    assert loaded(own) == [("yellow", "2024-01", 500), ("yellow", "2024-02", 500)], "the stop is left out"
    assert own.files() == sorted([*files_of("yellow", "2024-01", "2024-02"), *DATABASE])
    asked = list(site.requests)
    assert own.luigi(*command).returncode == 0
    assert site.requests == asked


def test_latest_skips_what_is_not_published_and_catches_up_later(tmp_path: Path) -> None:
    latest = ("Latest", "--datasets", "green", "--months", "3", "--last", "2024-03", "--workers", "2")
    with SampleSite(rows=300, last=parse_month("2024-02")) as site:
        folder = make_folder(tmp_path / "work", site.url)
        folder.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "1200"
        ended = folder.luigi(*latest)
        assert ended.returncode == 0, ended.stderr
        assert loaded(folder) == [("green", "2024-01", 300), ("green", "2024-02", 300)]
        site.requests.clear()
        assert folder.luigi(*latest).returncode == 0
        assert {(request.method, request.path[-15:]) for request in site.requests} == {("HEAD", "2024-03.parquet")}
    with SampleSite(rows=300) as site:
        folder.environment["PIPELINE_SOURCE"] = site.url
        assert folder.luigi(*latest).returncode == 0
        assert [month for _, month, _ in loaded(folder)] == ["2024-01", "2024-02", "2024-03"]
        assert [request.method for request in site.requests if request.path.endswith(".parquet")].count("GET") == 1


def test_latest_fails_for_a_month_that_is_long_due(tmp_path: Path) -> None:
    with SampleSite(rows=300, last=parse_month("2024-02")) as site:
        folder = make_folder(tmp_path / "work", site.url)
        ended = folder.luigi("Latest", "--datasets", "green", "--months", "2", "--last", "2024-03")
        assert ended.returncode == 1
        assert "green 2024-03: " in last_line(ended.stderr)
        assert "long due" in last_line(ended.stderr)
        assert [month for _, month, _ in loaded(folder)] == ["2024-02"]


# Failures: the exit code, and the message last


def last_line(said: str) -> str:
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_month_is_in_the_last_line_and_the_others_are_done(
    own: Folder, site: SampleSite, workers: int
) -> None:
    site.faults.add("*2024-02*", 500, times=math.inf)
    own.environment["PIPELINE_RETRIES"] = "1"
    ended = own.luigi(*backfill("green", "2024-01", "2024-03", workers))
    assert ended.returncode == 1
    assert last_line(ended.stderr).startswith("SourceError: green 2024-02: ")
    assert "HTTP 500" in last_line(ended.stderr)
    assert "Traceback" not in ended.stderr
    wanted = [*files_of("green", "2024-01", "2024-03"), *ZONES, *DATABASE]
    assert own.files() == sorted(wanted), "and nothing else is on disk"
    assert [month for _, month, _ in loaded(own)] == ["2024-01", "2024-03"]
    site.faults.clear()
    site.requests.clear()
    assert own.luigi(*backfill("green", "2024-01", "2024-03")).returncode == 0
    assert [request.path[-15:] for request in site.requests] == ["2024-02.parquet"]


def test_all_failures_are_printed_last_each_once_from_any_process(own: Folder, site: SampleSite) -> None:
    site.faults.add("*.parquet", 503, times=math.inf)
    own.environment["PIPELINE_RETRIES"] = "0"
    command = ("luigi", "--module", "pipeline", *backfill("fhv,green", "2024-01", "2024-02"), "--local-scheduler")
    ended = own.run(*started_by("forkserver", *command))
    assert ended.returncode == 1
    last = ended.stderr.strip().rpartition("===== Luigi Execution Summary =====")[2].split("\n\n")[-1].splitlines()
    assert sorted(line[: line.index(":", 13)] for line in last) == [
        f"SourceError: {dataset} {month}" for dataset in ("fhv", "green") for month in ("2024-01", "2024-02")
    ]


def _published(folder: Path, dataset: str, month: str, table: pa.Table) -> None:
    files = folder / "trip-data"
    files.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, files / f"{dataset}_tripdata_{month}.parquet")


def test_a_month_that_failed_its_checks_or_has_unknown_columns_is_in_the_last_line(tmp_path: Path) -> None:
    schema = DATASETS["green"].schema
    empty = pa.table([pa.array([], field.type) for field in schema], schema=schema)
    _published(tmp_path / "published", "green", "2024-01", empty)
    _published(tmp_path / "published", "green", "2024-02", empty.append_column("tolls", pa.array([], pa.int64())))
    folder = make_folder(tmp_path / "work", str(tmp_path / "published"))
    for month, message in (
        ("2024-01", "CheckFailed: green 2024-01: failed its checks, so not published: no_rows"),
        ("2024-02", "SchemaError: green 2024-02: "),
    ):
        ended = folder.luigi("Load", "--dataset", "green", "--month", month)
        assert ended.returncode == 1
        assert last_line(ended.stderr).startswith(message), ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (folder.lake / "trips").exists()
    assert not folder.database.exists() or loaded(folder) == []


def test_a_month_not_published_yet_is_a_failure_when_it_was_requested(own: Folder) -> None:
    own.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "1200"
    ended = own.luigi("Download", "--dataset", "green", "--month", f"{add_months(parse_month('2026-01'), 600):%Y-%m}")
    assert ended.returncode == 1
    assert last_line(ended.stderr).startswith("NotPublished: green 2076-01: not published yet")
    assert own.files() == []


def test_a_step_whose_process_was_killed_is_in_the_last_line(own: Folder, site: SampleSite) -> None:
    site.faults.add("*2024-01*", "delay", 60)
    process = own.start("luigi", "--module", "pipeline", *backfill("fhv", "2024-01", "2024-02"), "--local-scheduler")
    heard = Heard(process)
    heard.until(lambda line: "running   Download(month=2024-01" in line)
    pid = re.search(r"\[pid (\d+)\]", heard.lines[-1])
    assert pid is not None
    if sys.platform == "linux":
        adjusted = Path(f"/proc/{pid[1]}/oom_score_adj").read_text()
        assert int(adjusted) > 0, "when memory runs out, it is killed before its parent, which reports it"
    os.kill(int(pid[1]), signal.SIGKILL)
    said = heard.rest()
    assert process.wait(30) == 1
    process.communicate()
    last = last_line(said)
    assert last.startswith("download fhv 2024-01: the step's process was killed (signal 9)"), said
    assert "memory" in last
    assert [month for _, month, _ in loaded(own)] == ["2024-02"]


def test_the_command_names_steps_whose_processes_were_killed_and_says_what_to_do(own: Folder, site: SampleSite) -> None:
    site.faults.add("*2024-0*", "delay", 60, times=2)
    process = own.start("pipeline", "backfill", "fhv", "2024-01..2024-02", "--workers", "2")
    until = time.monotonic() + 30
    while sum("fhv_tripdata_2024-0" in one.path for one in [*site.requests]) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children():
        child.kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"^Failed: download fhv 2024-0.: the step's process was killed \(signal 9\), .*memory", said, re.M)
    assert "(same for 1 other: fhv 2024-0" in said


def test_an_unexpected_error_keeps_its_traceback_and_its_message_is_the_last_line(own: Folder) -> None:
    (own.path / "broken.py").write_text(
        "from pipeline import *\n"
        "class Breaks(Load):\n"
        "    def requires(self):\n        return []\n"
        "    def run(self):\n        raise ZeroDivisionError('this is unexpected')\n"
    )
    own.environment["PYTHONPATH"] = str(own.path)
    task = ("Breaks", "--dataset", "green", "--month", "2024-01", "--workers", "2", "--local-scheduler")
    ended = own.run("luigi", "--module", "broken", *task)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert last_line(ended.stderr) == "ZeroDivisionError: this is unexpected"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("Load", "--dataset", "gren", "--month", "2024-01"),
            2,
            "unknown dataset 'gren'; allowed are yellow, green, fhv, fhvhv; did you mean green?",
        ),
        (("Load", "--dataset", "green", "--month", "2024-13"), 2, "'2024-13' is not a month: months are 01 to 12"),
        (("Load", "--dataset", "green", "--month", "2024-01-05"), 2, "'2024-01-05' is not a month; write YYYY-MM"),
        (("Load", "--dataset", "green"), 2, "requires the 'month' parameter to be set"),
        (backfill("green,gren", "2024-01", "2024-01"), 2, r"unknown datasets \['gren'\]; allowed are"),
        (backfill("", "2024-01", "2024-01"), 2, "requires the 'datasets' parameter to be set"),
        (backfill("green", "2024-1", "2024-01"), 2, "'2024-1' is not a month"),
        (backfill("green", "2024-03", "2024-01"), 5, "first 2024-03 is after last 2024-01; swap them"),
        (
            backfill("fhvhv", "2018-01", "2018-12"),
            5,
            "no month from 2018-01 to 2018-12 exists: fhvhv in 2019-02 starts",
        ),
        (("RangeMonthly", "--of", "Load", "--of-params", "{}", "--start", "soon"), 2, "'soon' is not a month"),
        (("RangeMonthly", "--of", "Load", "--start", "2026-01"), 5, "requires the 'dataset' parameter to be set"),
        (("RangeMonthly", "--of", "Load", "--of-params", "nope", "--start", "2026-01"), 2, "--of-params nope: "),
        (("Latest", "--months", "x"), 2, "--months x: "),
        (("Latest", "--months", "0"), 5, "--months 0: allowed is a whole number from 1 upwards"),
        (("LoadZones", "--workers", "0"), 5, "--workers 0: allowed is a whole number from 1 upwards"),
        (("LoadZones", "--workers", "two"), 2, "parsing the default value of 'workers'"),
        (("Lod", "--dataset", "green", "--month", "2024-01"), 1, "No task Lod. Did you mean"),
        (("Load", "--datasets", "green"), 2, "unrecognized arguments: --datasets green"),
    ],
)
def test_wrong_usage_fails_with_the_reason_in_the_last_line(
    folder: Folder, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = folder.luigi(*arguments)
    assert ended.returncode == code
    end = ended.stderr[ended.stderr.rindex("No task Lod") :] if code == 1 else last_line(ended.stderr)
    assert re.search(message, end), ended.stderr
    assert ("Traceback" in ended.stderr) == (code == 1), "only Luigi's own search for a task leaves one"
    assert folder.files() == []


def test_without_a_luigid_the_last_line_says_how_to_start_one_or_run_without(folder: Folder) -> None:
    file = folder.path / "luigi.cfg"
    file.write_text(file.read_text().replace("\n[core]\n", "\n[core]\nrpc_retry_wait = 0\n"))
    ended = folder.luigi("LoadZones", "--scheduler-host", "127.0.0.1", "--scheduler-port", "9", local=False)
    assert ended.returncode == 2
    assert "connecting to remote scheduler 'http://127.0.0.1:9'" in last_line(ended.stderr)
    assert last_line(ended.stderr).endswith("luigid.pickle, or run without it: --local-scheduler")
    assert "Traceback" not in ended.stderr


# Resources


def most_at_once(said: str, *families: str) -> int:
    """How many steps of these families ran at the same time, at most, by what Luigi's processes said of themselves."""
    family = "|".join(families)
    marks = re.findall(rf"\] Worker .* (running|done) +(?:{family})\(", said)
    assert marks.count("running") == marks.count("done") > 0
    return max(accumulate(1 if mark == "running" else -1 for mark in marks))


def test_no_more_steps_run_at_once_than_the_resources_allow(own: Folder, site: SampleSite) -> None:
    configure(own, tlc=2, cpu=1, duckdb=1)
    site.faults.add("*.parquet", "delay", 0.3, times=math.inf)
    ended = own.luigi(*backfill("green", "2024-01", "2024-05", workers=4))
    assert ended.returncode == 0, ended.stderr
    assert most_at_once(ended.stderr, "Download", "DownloadZones") == 2
    assert most_at_once(ended.stderr, "Conform", "ConformZones") == 1
    assert most_at_once(ended.stderr, "Load", "LoadZones", "Mart") == 1


# luigid


@pytest.fixture
def luigid(own: Folder, tmp_path: Path, site: SampleSite) -> object:
    """A luigid whose folder allows one download at a time, whatever those say that use it."""
    folder = make_folder(tmp_path / "luigid", site.url)
    configure(folder, tlc=1)
    with running_luigid(folder) as running:
        yield running


def test_luigid_shows_each_step_as_done_with_what_it_did(own: Folder, luigid: Luigid, site: SampleSite) -> None:
    site.faults.add("*.parquet", "delay", 0.3, times=math.inf)
    ended = own.luigi(*backfill("green", "2024-01", "2024-02", workers=4), *luigid.options, local=False)
    assert ended.returncode == 0, ended.stderr
    tasks = luigid.tasks()
    assert {task["status"] for task in tasks.values()} == {"DONE"}
    messages = {
        (task["name"], task["params"].get("month", "")): (
            task["status_message"].partition(" (log: ")[0],
            task["progress_percentage"],
        )
        for task in tasks.values()
        if task["name"] != "Backfill"
    }
    for month in ("2024-01", "2024-02"):
        assert re.fullmatch(r"\d+\.\d kB", messages["Download", month][0])
        assert messages["Conform", month][0] == messages["Load", month][0] == "500 rows"
        assert messages["Mart", month][0].startswith("airport_trips ")
        named = [task["status_message"] for task in tasks.values() if task["params"].get("month") == month]
        for message in named:
            assert (own.path / message.partition(" (log: ")[2].rstrip(")")).is_file(), "the log that it names is there"
    assert messages["LoadZones", ""][0] == "265 zones"
    assert {progress for _, progress in messages.values()} == {100}
    assert most_at_once(ended.stderr, "Download", "DownloadZones") == 1, "the limits are those of luigid"
    assert own.files() == sorted([*files_of("green", "2024-01", "2024-02"), *ZONES, *DATABASE])


def test_with_luigid_settings_and_progress_reach_children_under_forkserver_too(own: Folder, luigid: Luigid) -> None:
    conform = ("Conform", "--dataset", "green", "--month", "2024-01", "--workers", "2", "--pipeline-lake", "here")
    own.environment["PIPELINE_LOGS"] = "here/logs"
    ended = own.run(*started_by("forkserver", "luigi", "--module", "pipeline", *conform, *luigid.options))
    assert ended.returncode == 0, ended.stderr
    assert "500 rows" in {task["status_message"].partition(" (")[0] for task in luigid.tasks("DONE").values()}
    assert {path.name for path in own.path.iterdir()} == {"here", "luigi.cfg"}


def test_luigid_has_the_error_of_a_step_and_the_next_run_says_why_it_does_nothing(
    own: Folder, luigid: Luigid, site: SampleSite
) -> None:
    own.environment["PIPELINE_RETRIES"] = "0"
    site.faults.add("*2024-01*", 500, times=math.inf)
    load = ("Load", "--dataset", "green", "--month", "2024-01", *luigid.options)
    assert own.luigi(*load, local=False).returncode == 1
    (failed,) = luigid.tasks("DISABLED")
    error = error_from_json(json.loads(luigid.ask("fetch_error", task_id=failed)["error"]))
    assert isinstance(error, SourceError)
    assert str(error).startswith("green 2024-01: ")
    site.faults.clear()
    held_back = own.luigi(*load, local=False)
    assert held_back.returncode == 4
    assert "disable_persist" in last_line(held_back.stderr)
    luigid.ask("re_enable_task", task_id=failed)
    assert own.luigi(*load, local=False).returncode == 0
    assert loaded(own) == [("green", "2024-01", 500)]


def test_a_deleted_file_is_made_again_although_luigid_has_its_step_as_done(own: Folder, luigid: Luigid) -> None:
    conform = ("Conform", "--dataset", "green", "--month", "2024-01", *luigid.options)
    assert own.luigi(*conform, local=False).returncode == 0
    (trips,) = own.lake.glob("trips/green/*/*.parquet")
    before = trips.read_bytes()
    trips.unlink()
    assert own.luigi(*conform, local=False).returncode == 0
    assert trips.read_bytes() == before


# Stopping


def _processes(folder: Folder) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if works_in(process, folder.path)]


@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("fork", signal.SIGTERM),
        ("fork", signal.SIGINT),
        ("fork", signal.SIGKILL),
        ("forkserver", signal.SIGKILL),
        ("spawn", signal.SIGKILL),
    ],
)
def test_a_stopped_parent_leaves_no_process_and_no_drafts_and_the_next_run_continues(
    own: Folder, site: SampleSite, method: str, number: signal.Signals
) -> None:
    # One child waits for the site, where it hangs; another is somewhere in its next step.
    site.faults.add("*2024-02*", "delay", 120)
    command = ("--module", "pipeline", *backfill("green", "2024-01", "2024-02"), "--local-scheduler")
    process = own.start(*started_by(method, "luigi", *command))
    heard = Heard(process)
    heard.until(lambda line: "conform green" in line)
    assert stopped_by(process, lambda: process.send_signal(number)) == -number
    _, living = psutil.wait_procs(_processes(own), timeout=30)
    assert living == [], "no orphan"
    heard.rest()
    process.communicate()
    months = ("2024-01", "2024-02")
    wanted = {*files_of("green", *months), *ZONES, *DATABASE}
    left = {file for file in own.files() if not file.startswith("lake/.drafts/")} - wanted
    # A killed load leaves what the next one takes away, beside a database of which nothing is lost.
    assert {file for file in left if not file.startswith("warehouse.duckdb.")} == set()
    site.faults.clear()
    ended = own.luigi(*backfill("green", "2024-01", "2024-02"))
    assert ended.returncode == 0, ended.stderr
    assert own.files() == sorted(wanted)
    assert loaded(own) == [("green", month, 500) for month in months]


def test_ctrl_c_in_a_terminal_ends_every_process(own: Folder, site: SampleSite) -> None:
    site.faults.add("*.parquet", "delay", 120, times=2)
    process = own.start("luigi", "--module", "pipeline", *backfill("fhv", "2024-01", "2024-02"), "--local-scheduler")
    heard = Heard(process)
    heard.until(lambda line: "running   Download(" in line, times=2)
    assert stopped_by(process, lambda: os.killpg(process.pid, signal.SIGINT)) == -signal.SIGINT
    _, living = psutil.wait_procs(_processes(own), timeout=30)
    assert living == []
    heard.rest()
    process.communicate()
    assert [file for file in own.files() if file.startswith("lake/.drafts") and ".part" not in file] == []
    assert own.luigi(*backfill("fhv", "2024-01", "2024-02")).returncode == 0


def test_the_graceful_stop_finishes_running_steps_and_starts_no_more(own: Folder, site: SampleSite) -> None:
    site.faults.add("*.parquet", "delay", 1, times=math.inf)
    process = own.start("luigi", "--module", "pipeline", *backfill("fhv", "2024-01", "2024-06"), "--local-scheduler")
    heard = Heard(process)
    heard.until(lambda line: "running   Download(" in line, times=2)
    process.send_signal(signal.SIGUSR1)
    said = heard.rest()
    assert process.wait(30) == 4, "some steps were not run"
    process.communicate()
    taken, finished = (len(re.findall(rf"\] Worker .* {mark} +Download\(", said)) for mark in ("running", "done"))
    assert 2 <= taken == finished < 6
    assert len(list(own.lake.glob("raw/fhv/*.parquet"))) == finished
    assert not any((own.lake / ".drafts").iterdir())


def test_an_unreachable_lake_ends_the_run_with_the_reason_instead_of_waiting_forever(folder: Folder) -> None:
    folder.environment = {"HOME": str(folder.path), "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
    wanted = ("Load", "--dataset", "green", "--month", "2024-01", "--pipeline-lake", "gs://no-such-bucket/lake")
    for workers in ("1", "2"):
        ended = folder.luigi(*wanted, "--workers", workers)
        assert ended.returncode == 5
        assert "in one of three ways" in ended.stderr.splitlines()[-1], ended.stderr
        assert folder.files() == []


def test_a_month_of_none_stays_none_through_luigid() -> None:
    for last in (None, date(2024, 1, 1)):
        latest = Latest(datasets=("green",), last=last)
        assert Latest.from_str_params(latest.to_str_params()) == latest
