"""Operating: the options, output, logs, history and notification of runs."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from commands import read_to_end, started_by
from conftest import Folder, make_folder
from listeners import SECRET, Mail, Terminal, serving, webhook
from postgres import PASSWORD, Database
from state import processes_in, rows

from pipeline.cli import run as cli_run
from pipeline.errors import UsageError, WarehouseError, error_from_json
from pipeline.months import add_months, format_month, month_range
from pipeline.runs.events import Inbox, StepEvent, StepFinished
from pipeline.sample import SampleSite
from pipeline.settings import Settings
from pipeline.tasks.base import log
from pipeline.tasks.lake import Conform

_STEP = re.compile(r"^(?:download|conform|load|mart) (?:green|yellow|fhvhv) \d{4}-\d\d", re.MULTILINE)
_PATIENCE_S = 60


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    """A folder whose source is a site in which this test can inject faults."""
    return make_folder(tmp_path / "work", site.url)


def _steps(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """The steps that were reported as done, in order."""
    return _STEP.findall(ended.stderr)


def _history(folder: Folder) -> list[dict[str, Any]]:
    """The runs, oldest first."""
    ended = folder.pipeline("history", "--json")
    assert ended.returncode == 0, ended.stderr
    return list(reversed(json.loads(ended.stdout)))


def _wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.02)


def _absent(site: SampleSite, month: str) -> None:
    """Remove a month that is long due from the site: an error that is not retried."""
    site.faults.add(f"*green*{month}*", 403, times=math.inf)


def _endless(site: SampleSite, month: str) -> None:
    site.faults.add(f"*green*{month}*", "slow", 100, times=math.inf)


def _fetching(site: SampleSite, month: str) -> bool:
    return any(month in request.path and request.sent for request in list(site.requests))


# Options of a run


def test_a_run_ends_with_the_given_step_and_the_next_run_continues_from_it(own: Folder, site: SampleSite) -> None:
    parts = {"download": "raw", "conform": "trips", "load": "warehouse.duckdb"}
    for done, through in enumerate(parts, 1):
        ended = own.pipeline("backfill", "green", "2024-01..2024-02", "--through", through, "--workers", "1")
        assert ended.returncode == 0, ended.stderr
        assert _steps(ended) == [f"{through} green 2024-02", f"{through} green 2024-01"]
        there = {part for part in parts.values() if any(part in name.split("/") for name in own.files())}
        assert there == set([*parts.values()][:done])
    assert rows(own.database, "SELECT COUNT(*) FROM green") == [(1000,)]
    assert rows(own.database, "SELECT COUNT(*) FROM mart_loads") == [(0,)]
    asked = len(site.requests)
    assert _steps(own.pipeline("backfill", "green", "2024-01..2024-02", "--workers", "1")) == [
        "mart green 2024-02",
        "mart green 2024-01",
    ]
    assert len(site.requests) == asked


@pytest.mark.parametrize("through", ["download", "mart"])
@pytest.mark.parametrize("option", ["--newest-first", "--oldest-first", ""])
def test_months_are_done_in_the_requested_order(own: Folder, option: str, through: str) -> None:
    wanted = ("backfill", "green", "2023-10..2024-03", "--workers", "1", "--through", through)
    done = [line.split()[-1] for line in _steps(own.pipeline(*wanted, *filter(None, [option]))) if through in line]
    assert len(done) == 6
    assert done == sorted(done, reverse=option != "--oldest-first")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_fail_fast_starts_nothing_more_after_the_first_failure(own: Folder, site: SampleSite, workers: str) -> None:
    _absent(site, "2024-01")
    wanted = ("backfill", "green", "2024-01..2024-05", "--oldest-first", "--workers", workers)
    ended = own.pipeline(*wanted, "--fail-fast")
    assert ended.returncode == 1
    # With two workers the next month may have started while the first one failed.
    begun = {path.parent.name for path in (own.path / "data/logs/green").rglob("*.log")}
    assert begun <= {"2024-01", *(["2024-02"] if workers == "2" else [])}
    assert "2024-01" in begun
    assert re.search(r"^green 2024-05 .* download not run", ended.stdout, re.MULTILINE), ended.stdout
    ended = own.pipeline(*wanted, "--keep-going")
    assert ended.returncode == 1
    assert rows(own.database, "SELECT COUNT(DISTINCT month) FROM green") == [(4,)]


def test_latest_is_the_newest_month_of_the_site_and_all_ends_with_it(tmp_path: Path) -> None:
    newest = add_months(date.today().replace(day=1), -5)
    with SampleSite(rows=100, last=newest) as site:
        folder = make_folder(tmp_path / "work", site.url)
        ended = folder.pipeline("backfill", "green", "latest", "--through", "download")
        assert (ended.returncode, _steps(ended)) == (0, [f"download green {format_month(newest)}"])
        site.faults.add("*fhvhv*2019-02*", 403, times=math.inf)
        ended = folder.pipeline("backfill", "fhvhv", "all", "--through", "download", "--oldest-first", "--fail-fast")
        assert ended.returncode == 1
        count = len(month_range(date(2019, 2, 1), newest))
        assert re.search(rf"^{count} months to do", ended.stderr, re.MULTILINE), ended.stderr
        assert len(_steps(ended)) < 5


def test_datasets_may_have_commas_between_them(folder: Folder) -> None:
    ended = folder.pipeline("backfill", "green,yellow", "2024-01", "--through", "download")
    assert sorted(_steps(ended)) == ["download green 2024-01", "download yellow 2024-01"]


# Logs


def test_each_step_has_a_log_with_the_traceback_that_the_terminal_does_not_show(own: Folder, site: SampleSite) -> None:
    _absent(site, "2024-02")
    ended = own.pipeline("backfill", "green", "2024-01..2024-02")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stdout + ended.stderr
    said = own.pipeline("logs", "green", "2024-01").stdout
    for step in ("download", "conform", "load", "mart"):
        assert f"==> data/logs/green/2024-01/{step}.log <==" in said
        assert f"{step} green 2024-01: begins, process " in said
    assert "Traceback" not in said
    said = own.pipeline("logs", "green", "2024-02").stdout
    assert re.search(r"^\S+Z ERROR download green 2024-02: failed: SourceError: green 2024-02: ", said, re.MULTILINE)
    assert "Traceback" not in said
    said = own.pipeline("logs", "green", "2024-02", "--all").stdout
    assert "\nTraceback (most recent call last):\n" in said
    assert "\npipeline.errors.SourceError: green 2024-02: " in said
    last = own.pipeline("logs", "green", "2024-01..2024-02", "--step", "download", "--lines", "1").stdout
    assert re.findall("==> (.*) <==", last) == [
        f"data/logs/green/{month}/download.log" for month in ("2024-01", "2024-02")
    ]
    assert "begins" not in last
    assert "load zones: 265 zones" in own.pipeline("logs", "zones").stdout
    ended = own.pipeline("logs", "green", "2024-03")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no log of green 2024-03 in data/logs/green/2024-03" in ended.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_logs_that_cannot_be_written_are_one_warning_and_do_not_stop_the_run(folder: Folder, workers: str) -> None:
    (folder.path / "data").mkdir()
    (folder.path / "data" / "logs").write_text("a file where the folder should be")
    ended = folder.pipeline("backfill", "green", "2024-01", "--workers", workers)
    assert ended.returncode == 0
    assert [line for line in ended.stderr.splitlines() if "logs" in line] == [
        "no logs and no history: data/logs is no folder"
    ]
    assert rows(folder.database, "SELECT COUNT(*) FROM green") == [(2000,)]
    ended = folder.pipeline("history")
    assert ended.returncode == 0
    assert ended.stderr == "pipeline: further runs cannot be recorded: data/logs is no folder\n"


def test_logs_show_the_last_attempt_and_all_of_them_newest_first(folder: Folder) -> None:
    for lake in ("data/one", "data/two"):
        assert folder.pipeline("backfill", "green", "2024-01", "--through", "download", "--lake", lake).returncode == 0
    last = folder.pipeline("logs", "green", "2024-01").stdout
    assert last.startswith("==> data/logs/green/2024-01/download.log <==; 1 earlier attempt: --all\n")
    assert re.findall(r"begins, process \d+, lake (.*)", last) == [str(folder.path / "data/two")]
    every = folder.pipeline("logs", "green", "2024-01", "--all").stdout
    assert re.findall(r"begins, process \d+, lake (.*)", every) == [
        str(folder.path / lake) for lake in ("data/two", "data/one")
    ]


def test_a_large_log_is_rotated(folder: Folder) -> None:
    path = folder.path / "data" / "logs" / "green" / "2024-01" / "download.log"
    path.parent.mkdir(parents=True)
    path.write_text("x" * 1_000_001)
    assert folder.pipeline("backfill", "green", "2024-01", "--through", "download").returncode == 0
    assert path.with_name("download.log.1").read_text() == "x" * 1_000_001
    assert path.read_text().count("\n") == 2


# History


def test_the_log_of_a_failed_step_has_its_traceback_without_the_secrets_of_an_address(folder: Folder) -> None:
    folder.environment["PIPELINE_SOURCE"] = "http://127.0.0.1:9/{dataset}/{file}?token=hidden-1"
    folder.environment["PIPELINE_RETRIES"] = "0"
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 1
    files = [path.read_text() for path in (folder.path / "data" / "logs").rglob("*") if path.is_file()]
    assert any("Traceback" in text and "token=…" in text for text in files)
    assert not any("hidden-1" in text for text in files)


def test_the_history_has_the_outcome_of_each_run(own: Folder, site: SampleSite) -> None:
    assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    _absent(site, "2024-02")
    assert own.pipeline("backfill", "green", "2024-02..2024-03").returncode == 1
    for number, months in ((signal.SIGINT, ("2024-04", "2024-05")), (signal.SIGKILL, ("2024-06", "2024-07"))):
        _endless(site, months[0])
        process = own.start("pipeline", "backfill", "green", "..".join(months), "--workers", "1")
        _wait(lambda months=months: _fetching(site, months[0]))  # type: ignore[misc]
        process.send_signal(number)
        process.communicate(timeout=_PATIENCE_S)
    good, nothing, failed, stopped, killed = _history(own)
    assert [run["outcome"] for run in (good, nothing, failed, stopped, killed)] == [
        *("done", "done", "failed", "stopped", "killed")
    ]
    assert [run["exit_code"] for run in (good, nothing, failed, stopped, killed)] == [0, 0, 1, 130, None]
    assert [run["months_done"] for run in (good, nothing, failed, stopped)] == [
        *(["green 2024-01"], [], ["green 2024-03"], ["green 2024-05"])
    ]
    # The zones' rows come with the first run.
    assert [run["rows"] for run in (good, nothing, failed, stopped)] == [765, 0, 500, 500]
    raw = own.lake / "raw" / "green" / "green_tripdata_2024-01.parquet"
    assert good["bytes"] == raw.stat().st_size + (own.lake / "raw/zones/taxi_zone_lookup.csv").stat().st_size
    assert good["seconds"].keys() == {"download", "conform", "load", "mart"}
    assert (good["failures"], nothing["seconds"]) == ([], {})
    (failure,) = failed["failures"]
    assert {name: failure[name] for name in ("step", "dataset", "month", "kind")} == {
        **{"step": "download", "dataset": "green", "month": "2024-02", "kind": "SourceError"}
    }
    assert killed["ended"] is None
    assert good["asked"] == "pipeline backfill green 2024-01"


def test_a_password_on_the_command_line_is_not_recorded(folder: Folder, database: Database) -> None:
    for warehouse in (["--warehouse", database.url], [f"--warehouse={database.url}"]):
        ended = folder.pipeline("backfill", "green", "2024-01", *warehouse)
        assert ended.returncode == 0, ended.stderr
        logs = (folder.path / "data" / "logs").rglob("*")
        said = ended.stdout + ended.stderr + "".join(path.read_text() for path in logs if path.is_file())
        assert not [word for word in (PASSWORD, quote(PASSWORD, safe="")) if word in said]
    asked = [run["asked"] for run in _history(folder)]
    assert [f"/{database.name}" in words for words in asked] == [True, True]


def test_two_runs_at_once_are_both_recorded_and_an_incomplete_line_does_not_damage_the_next(folder: Folder) -> None:
    both = [folder.start("pipeline", "backfill", "green", month) for month in ("2024-01", "2024-02")]
    for process in both:
        process.communicate(timeout=_PATIENCE_S)
    found = _history(folder)
    assert {run["asked"] for run in found} == {f"pipeline backfill green 2024-0{month}" for month in (1, 2)}
    assert [run["outcome"] for run in found] == ["done", "done"]
    path = folder.path / "data" / "logs" / "runs.jsonl"
    whole = path.read_bytes()
    # In the middle of a character, as after a full disk.
    path.write_bytes(whole + '{"id": "2024…'.encode()[:-1])
    folder.pipeline("backfill", "green", "2024-01")
    assert [run["asked"] for run in _history(folder)] == [
        *(run["asked"] for run in found),
        "pipeline backfill green 2024-01",
    ]
    folder.environment["COLUMNS"] = "80"
    head, *lines = folder.pipeline("history").stdout.splitlines()
    assert head.startswith("run (began, UTC)")
    assert len(lines) == 3
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d{6}-\w{6}  +done .* backfill green 2024-0\d$", line) for line in lines), (
        lines
    )


def _events(text: str) -> list[dict[str, Any]]:
    """The events without the time at which each was written."""
    return [{name: value for name, value in json.loads(line).items() if name != "at"} for line in text.splitlines()]


def _shown(folder: Folder, run_id: str) -> dict[str, list[str]]:
    """The lines of `pipeline history RUN_ID`: by their first words, the others, without seconds."""
    ended = folder.pipeline("history", run_id)
    assert ended.returncode == 0, ended.stderr
    lines = [re.split(r"  +", re.sub(r" [\d.]+ s\b", "", line)) for line in ended.stdout.splitlines()]
    return {name: others for name, *others in lines}


def test_the_events_of_a_run_are_in_a_file_of_its_own_as_json_prints_them(own: Folder, site: SampleSite) -> None:
    _absent(site, "2023-02")
    ended = own.pipeline("backfill", "green", "2023-02..2023-03", "--json")
    assert ended.returncode == 1
    (path,) = (own.path / "data/logs/runs").iterdir()
    assert _events(path.read_text()) == _events(ended.stdout)
    assert path.stem == _history(own)[0]["id"]
    printed = own.pipeline("history", path.stem, "--json").stdout
    assert json.loads(printed) == [json.loads(line) for line in path.read_text().splitlines()]
    assert own.pipeline("history", path.stem, "--follow").stdout == path.read_text()
    shown = _shown(own, path.stem)
    assert (shown["command"], shown["outcome"]) == (["pipeline backfill green 2023-02..2023-03 --json"], ["failed"])
    assert shown["green 2023-02"] == ["failed", "not run", "not run", "not run"]
    assert shown["green 2023-03"][:5] == ["done", "done", "done", "done", "500"]
    assert shown["zones"][:3] == ["done", "done", "done"]
    (failure, warning) = list(shown)[-2:]
    assert failure.startswith("download green 2023-02: SourceError: green 2023-02: ")
    assert warning == "conform green 2023-03: 500 rows, 1 warning: negative durations"


def test_a_run_can_be_followed_until_its_process_is_killed(own: Folder, site: SampleSite) -> None:
    _endless(site, "2024-01")
    process = own.start("pipeline", "backfill", "green", "2024-01..2024-02", "--workers", "1", "--oldest-first")
    _wait(lambda: _fetching(site, "2024-01"))
    (run,) = _history(own)
    path = own.path / "data/logs/runs" / f"{run['id']}.jsonl"
    _wait(lambda: "progress" in path.read_text())
    assert _shown(own, run["id"])["green 2024-01"][:2] == ["running", "waiting"]
    follower = own.start("pipeline", "history", run["id"], "--follow")
    assert follower.stdout is not None
    first = follower.stdout.readline()
    assert _events(first)[0]["run"] == run["id"]
    process.kill()
    process.communicate(timeout=_PATIENCE_S)
    rest, said = read_to_end(follower)
    assert first + rest == path.read_text()
    assert (follower.returncode, "run_finished" in rest) == (0, False)
    assert said == f"pipeline: the run was killed: {run['asked']}\n"
    shown = _shown(own, run["id"])
    assert (shown["outcome"], shown["green 2024-01"][0]) == (["killed"], "killed")
    assert shown["green 2024-02"] == ["not run"] * 4


def test_two_runs_at_once_have_a_file_each_and_only_the_newest_hundred_stay(folder: Folder) -> None:
    runs = folder.path / "data/logs/runs"
    runs.mkdir(parents=True)
    old = [runs / f"2020-01-01T{number:06}-abcdef.jsonl" for number in range(100)]
    for path in (*old, runs / "notes.jsonl"):
        path.touch()
    both = [
        folder.start("pipeline", "backfill", "green", month, "--through", "download", "--json")
        for month in ("2024-01", "2024-02")
    ]
    for process in both:
        printed, said = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 0, said
        lines = _events(printed)
        assert _events((runs / f"{lines[0]['run']}.jsonl").read_text()) == lines
    assert [path for path in old if path.exists()] == old[2:]
    assert len([*runs.iterdir()]) == 101


def test_an_unknown_run_is_an_error_with_the_nearest_ids_and_a_run_without_events_is_shown(folder: Folder) -> None:
    assert folder.pipeline("backfill", "green", "2024-01", "--through", "download").returncode == 0
    (run,) = _history(folder)
    ended = folder.pipeline("history", run["id"][:-2])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith(f"no such run in data/logs/runs.jsonl; the nearest ids are: {run['id']}\n")
    assert folder.pipeline("history", "--follow").returncode == 2
    completed = {"_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": "pipeline history 2", "COMP_CWORD": "2"}
    folder.environment |= completed
    assert folder.pipeline().stdout == f"plain,{run['id']}\n"
    for name in completed:
        del folder.environment[name]
    shutil.rmtree(folder.path / "data/logs/runs")
    (folder.path / "data/logs/runs").write_text("a file where the folder should be")
    ended = folder.pipeline("history", run["id"], "--json")
    assert (ended.returncode, ended.stdout) == (0, "[]\n")
    assert ended.stderr.startswith("pipeline: no events of this run: data/logs/runs/")
    assert _shown(folder, run["id"])["outcome"] == ["done"]
    ended = folder.pipeline("backfill", "green", "2024-02", "--through", "download")
    assert ended.returncode == 0
    assert ended.stderr.count("no history: data/logs/runs/") == 1


# Notification


def test_a_webhook_gets_one_report_of_done_and_failed_months_and_warnings(own: Folder, site: SampleSite) -> None:
    _absent(site, "2023-02")
    with webhook() as (url, got):
        own.environment["PIPELINE_NOTIFY_URL"] = url
        # The synthetic 2023-03 has trips that end before they begin.
        assert own.pipeline("backfill", "green", "2023-02..2023-03").returncode == 1
        (post,) = got
        first, *others = post["text"].splitlines()
        assert (
            first == "taxi-pipeline: 1 month done, 1 month failed, 1 warning (pipeline backfill green 2023-02..2023-03)"
        )
        assert others[0].startswith("765 rows conformed, ")
        assert others[1].startswith("FAILED download green 2023-02: SourceError: green 2023-02: ")
        assert others[2] == "warning: conform green 2023-03: 500 rows, 1 warning: negative durations"
        ended = own.pipeline("backfill", "green", "2023-03")
        assert "Nothing to do" in ended.stdout
        assert len(got) == 1


@pytest.mark.parametrize("status", [500, None], ids=["refused", "unreachable"])
def test_an_unreachable_webhook_changes_nothing_and_its_address_stays_secret(
    folder: Folder, status: int | None
) -> None:
    with webhook(status or 200) as (url, got):
        if status:
            folder.environment["PIPELINE_NOTIFY_URL"] = url
            ended = folder.pipeline("backfill", "green", "2024-01", "--through", "download")
            assert len(got) == 1
    if not status:
        folder.environment["PIPELINE_NOTIFY_URL"] = url
        ended = folder.pipeline("backfill", "green", "2024-01", "--through", "download")
    assert ended.returncode == 0
    assert "the report of this run was not delivered" in ended.stderr
    kept = "".join(path.read_text() for path in (folder.path / "data" / "logs").rglob("*") if path.is_file())
    assert SECRET not in ended.stdout + ended.stderr + kept


def test_a_run_is_reported_by_mail_and_a_mail_that_cannot_be_sent_is_a_warning(folder: Folder) -> None:
    server = socketserver.TCPServer(("127.0.0.1", 0), Mail)
    server.got = got = []  # type: ignore[attr-defined, var-annotated]
    with serving(server) as port, (folder.path / "luigi.cfg").open("a") as settings:
        settings.write(
            f"[email]\nreceiver = data@example.org\nmethod = smtp\n[smtp]\nhost = 127.0.0.1\nport = {port}\n"
        )
        settings.flush()
        ended = folder.pipeline("backfill", "green", "2024-01", "--through", "download")
        assert ended.returncode == 0
        assert "Warning" not in ended.stderr
    (mail,) = got
    assert "To: data@example.org" in mail
    assert "taxi-pipeline: 1 month done" in mail
    ended = folder.pipeline("backfill", "green", "2024-02", "--through", "download")
    assert ended.returncode == 0
    assert re.search(r"^\[email\]: .*Connection refused.*; no mail of this run was sent$", ended.stderr, re.MULTILINE)


# The live display


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_sees_the_months_fill_up_and_then_the_summary(own: Folder, site: SampleSite, workers: str) -> None:
    site.faults.add("*2023-02*", "slow", 15_000, times=math.inf)
    terminal = Terminal(own, "pipeline", "backfill", "green", "2023-01..2023-03", "--workers", workers)
    assert terminal.ended() == 0
    lines = [line for line in terminal.lines if line]
    summary = max(place for place, line in enumerate(lines) if line.startswith("month "))
    assert max(map(len, lines[:summary])) <= 80
    assert any("━" in line and "0/3 months" in line for line in lines), "a bar from the start"
    assert any(re.match(r"  download green  2023-02 +[1-9]\d?%  ", line) for line in lines), "a running step"
    assert any("▸" in line for line in lines)
    legends = [line.rstrip() for line in lines if "█ complete" in line]
    assert any("▸ at work" in line for line in legends), "a legend of the stages that occur"
    assert legends[-1] == "█ complete"
    assert not any("begins" in line for line in lines)
    assert [line.rstrip() for line in lines[summary - 3 : summary - 2]] == ["2023  ███"]
    assert "3/3 months" in lines[summary - 1]
    assert re.match(r"green 2023-01 +500 ", lines[summary + 1])
    assert "\x1b[?25h" in terminal.raw, "the cursor is visible again"
    assert not any(_STEP.match(line) and "warning" not in line for line in lines), "no lines of steps in the display"


def test_ctrl_c_in_a_terminal_ends_everything_and_says_how_to_continue(own: Folder, site: SampleSite) -> None:
    _endless(site, "2024-01")
    terminal = Terminal(own, "pipeline", "backfill", "green", "2024-01..2024-02")
    _wait(lambda: _fetching(site, "2024-01") and "1/2 months" in terminal.raw)
    terminal.type(b"\x03")
    assert terminal.ended() == 130
    assert "pipeline: stopped; finished steps are kept, and the same command continues" in terminal.raw
    assert "Traceback" not in terminal.raw
    assert processes_in(own.path) == []


def test_piped_each_step_is_one_line_without_colours_and_q_and_v_print_less_and_more(folder: Folder) -> None:
    folder.environment |= {"TERM": "xterm-256color", "COLUMNS": "80"}
    plain = folder.pipeline("backfill", "green", "2024-01")
    assert "\x1b" not in plain.stdout + plain.stderr
    assert _steps(plain) == [f"{step} green 2024-01" for step in ("download", "conform", "load", "mart")]
    quiet = folder.pipeline("backfill", "green", "2024-02", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert re.search(r"^green 2024-02 +2,000 ", quiet.stdout, re.MULTILINE)
    much = folder.pipeline("backfill", "green", "2024-03", "-v")
    assert _steps(much) == [f"{step} green 2024-03" for step in ("download", "conform", "load", "mart")]
    assert "running   Conform(month=2024-03, dataset=green)" in much.stderr
    assert "\x1b" not in much.stdout + much.stderr
    folder.environment["PIPELINE_RETRIES"] = "0"
    wrong = folder.pipeline("backfill", "green", "2024-04", "-q", "--source", "http://127.0.0.1:9")
    assert wrong.returncode == 1
    assert "SourceError: green 2024-04" in wrong.stderr


# Processes


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_order_and_reports_reach_steps_however_their_process_starts(own: Folder, method: str) -> None:
    wanted = ("pipeline", "backfill", "green", "2024-01..2024-03", "--oldest-first", "--through", "conform")
    ended = own.run(*started_by(method, *wanted))
    assert ended.returncode == 0, ended.stderr
    logs = own.path / "data" / "logs" / "green"
    first, last = ((logs / month / "download.log").read_text() for month in ("2024-01", "2024-03"))
    assert first.split()[0] < last.split()[0]
    (run,) = _history(own)
    assert run["rows"] == 3 * 500 + 265
    assert run["bytes"] > 30_000


def test_the_last_report_is_never_lost_however_many_came_before_it() -> None:
    tell = (
        "import sys; from pipeline.runs.events import *\n"
        "step = {'step': 'load', 'dataset': 'green', 'month': '2024-01'}\n"
        "for turn in range(600): send(sys.argv[1], Progress(**step, message=str(turn)))\n"
        "print('full', flush=True); send(sys.argv[1], StepFinished(**step, message='', rows=7))"
    )
    with Inbox() as inbox:
        with subprocess.Popen([sys.executable, "-c", tell, inbox.path], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"full\n"
            found: list[StepEvent] = []
            _wait(lambda: found.extend(inbox.read()) or (found and isinstance(found[-1], StepFinished)))  # type: ignore[func-returns-value]
    assert isinstance(found[-1], StepFinished)
    assert found[-1].rows == 7


def test_a_run_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.settings._adopted", None)
    monkeypatch.setattr("pipeline.settings._context", None)
    monkeypatch.setattr(cli_run, "run_plan", lambda *_, **__: 0)  # It would ask TLC's site.
    monkeypatch.setattr(log, "level", logging.INFO)
    said: list[str] = []
    monkeypatch.setattr(log, "warning", said.append)
    free = 10**6
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))

    def begin(*options: str, source: str = Settings.source) -> object:
        with pytest.raises((UsageError, SystemExit)) as ended:
            cli_run.backfill.main(["yellow", "2023", "--source", source, *options], standalone_mode=False)
        return ended.value.code if isinstance(ended.value, SystemExit) else str(ended.value)

    assert re.match(r"these months take about \d\.\d GB, and the disk of data/lake has 1.0 MB free; ", str(begin()))
    assert said == []
    assert begin("--no-space-check") == 0
    assert begin(source="http://127.0.0.1:9") == 0
    assert "if they are as large as TLC's" in said[0]
    free = 10**12
    assert begin() == 0


def test_bash_completes_commands_datasets_and_options(folder: Folder) -> None:
    script = folder.pipeline("completion", "bash").stdout
    if bash := shutil.which("bash"):
        asked = [bash, "-c", 'eval "$1"; complete -p pipeline', "bash", script]
        path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        ended = subprocess.run(asked, env=path, capture_output=True, text=True)
        assert "-F _pipeline_completion pipeline" in ended.stdout, ended.stderr
    for words, wanted in (
        ("backfill gr", "plain,green"),
        ("his", "plain,history"),
        ("backfill green --thr", "plain,--through"),
    ):
        folder.environment = {"_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": f"pipeline {words}"}
        folder.environment["COMP_CWORD"] = str(len(words.split()))
        assert folder.pipeline().stdout.splitlines() == [wanted]


@pytest.mark.parametrize("kind", [WarehouseError, ValueError])
def test_a_huge_error_message_is_cut_for_display_and_history(kind: type[Exception]) -> None:
    step = Conform(dataset="green", month=date(2024, 1, 1))
    try:
        raise kind("it says " + "x" * 3_000_000)
    except kind as error:
        sent = step.on_failure(error)
    found = error_from_json(sent)
    assert found.words.startswith(f"{kind.__name__}: it says xxx")
    assert found.words.endswith("xxx… (3,000,008 characters)")
    assert len(sent) < 11_000
