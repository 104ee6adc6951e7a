"""Every run has events, history, notification and an exit code, however it was started."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Heard
from conftest import Folder, make_folder
from listeners import webhook

from pipeline.months import add_months, format_month, parse_month
from pipeline.runs.events import Progress, StepFailed, StepFinished, Totals, step_event, to_json
from pipeline.runs.history import History, Run
from pipeline.sample import SampleSite

STEPS = ["download", "conform", "load", "mart"]


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    """A folder whose source is a site in which this test can inject faults."""
    return make_folder(tmp_path / "work", site.url)


def runs(folder: Folder) -> list[Run]:
    return History(str(folder.path / "data" / "logs")).runs()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Events


def test_json_output_has_one_event_per_line_from_the_plan_to_the_exit_code(own: Folder, site: SampleSite) -> None:
    site.faults.add("*green*2024-02*", 403, times=math.inf)
    ended = own.pipeline("backfill", "green", "2024-01..2024-02", "--json")
    assert ended.returncode == 1
    first, *others, last = events(ended.stdout)
    assert (first["event"], first["wanted"], last["event"]) == ("run_started", 2, "run_finished")
    assert [(month["month"], month["stage"], month["steps"]) for month in first["months"]] == [
        *(("2024-01", "missing", STEPS), ("2024-02", "missing", STEPS))
    ]
    finished = [each["step"] for each in others if each["event"] == "step_finished" and each["month"] == "2024-01"]
    assert finished == STEPS
    (failed,) = (each for each in others if each["event"] == "step_failed")
    assert {name: failed["error"][name] for name in ("kind", "code", "retryable")} == {
        **{"kind": "SourceError", "code": "source", "retryable": True}
    }
    assert (last["exit_code"], last["months_done"], last["rows"]) == (1, ["green 2024-01"], 765)
    assert [(each["month"], each["code"]) for each in last["failures"]] == [("2024-02", "source")]
    (run,) = runs(own)
    assert (run.id, run.failures[0].error) == (first["run"], last["failures"][0]["error"])


def test_an_event_of_a_step_is_the_same_in_another_process() -> None:
    step = {"step": "conform", "dataset": "green", "month": "2024-01"}
    for event in (
        Progress(**step, fraction=0.5, message="5 rows", rows=5),
        StepFailed(**step, error={"code": "check_failed"}),
        StepFinished(**step, message="7 rows", rows=7, warnings=["stray pickups"]),
    ):
        assert step_event(to_json(event).encode()) == event


def test_rows_of_a_step_are_counted_once_however_often_they_are_reported() -> None:
    totals, step = Totals(), {"step": "conform", "dataset": "green", "month": "2024-01"}
    counts = []
    for event in (*(Progress(**step, rows=rows) for rows in (5, 5, 9)), StepFinished(**step, message="", rows=12)):
        totals.add(event)
        counts.append(totals.rows)
    assert counts == [5, 5, 9, 12]


# Retries


def test_a_retry_is_reported_within_two_seconds_with_its_time_and_reason(folder: Folder) -> None:
    folder.environment |= {"PIPELINE_SOURCE": "http://127.0.0.1:9", "PIPELINE_RETRY_WAIT_S": "30"}
    process = folder.start("pipeline", "backfill", "green", "2024-01")
    heard = Heard(process)
    heard.until(lambda line: "to do" in line)
    began = time.monotonic()
    heard.until(lambda line: line.startswith("download green 2024-01: attempt 2 of 6 in "))
    # Five times the promised time, for a busy machine; the attempt itself is after 30 s.
    assert time.monotonic() - began < 10
    assert heard.lines[-1].split(" s: ")[1].startswith("ConnectionRefusedError: ")
    process.terminate()
    heard.rest()
    assert process.wait(30) == 143
    process.communicate()


def test_an_unknown_host_is_looked_up_once_per_run_and_not_once_per_month(folder: Folder) -> None:
    folder.environment |= {"PIPELINE_SOURCE": "http://no-such-host.invalid", "PIPELINE_RETRY_WAIT_S": "0.01"}
    for words in (("backfill", "green", "2024-01..2024-03"), ("latest", "green", "--months", "3")):
        ended = folder.pipeline(*words, "--json")
        assert ended.returncode == 1
        retries = [each for each in events(ended.stdout) if each["event"] == "retry_scheduled"]
        assert [each["attempt"] for each in retries] == [2, 3, 4, 5, 6]
        assert {each["reason"] for each in retries} == {"name not known"}
        errors = [failure.error for failure in runs(folder)[-1].failures]
        assert ["gave up after 1 attempt," in error for error in errors if "green" in error] == [True] * 3


# The scheduled run


def test_latest_has_history_notification_and_exit_codes(own: Folder, site: SampleSite) -> None:
    own.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "1200"
    with webhook() as (url, got):
        own.environment["PIPELINE_NOTIFY_URL"] = url
        words = ("latest", "green", "fhv", "--months", "2", "--last", "2026-01", "--workers", "1")
        ended = own.pipeline(*words)
        assert ended.returncode == 0, ended.stderr
        (post,) = got
        assert post["text"].startswith("taxi-pipeline: 2 months done (pipeline latest green fhv --months 2")
        assert own.pipeline(*words).returncode == 0
        assert len(got) == 1, "nothing to report"
        site.faults.add("*green*2026-01*", 500, times=math.inf)
        own.environment |= {"PIPELINE_RETRIES": "0"}
        assert own.pipeline(*words).returncode == 1
        assert "FAILED download green 2026-01: SourceError: " in got[-1]["text"]
    assert [(run.outcome, sorted(run.months_done)) for run in runs(own)] == [
        ("done", ["fhv 2025-12", "green 2025-12"]),
        ("done", []),
        ("failed", []),
    ]


def test_a_scheduled_run_that_cannot_be_planned_is_reported(folder: Folder) -> None:
    (folder.path / "data").mkdir()
    folder.database.write_text("no database")
    with webhook() as (url, got):
        folder.environment["PIPELINE_NOTIFY_URL"] = url
        ended = folder.pipeline("latest", "green", "--months", "1", "--last", "2024-01")
    assert ended.returncode == 5, ended.stderr
    (run,) = runs(folder)
    assert (run.exit_code, len(run.errors), run.errors[0].split(":")[0]) == (5, 1, "WarehouseError")
    assert "ERROR WarehouseError: " in got[0]["text"]


def test_latest_uses_the_months_in_luigi_cfg(folder: Folder) -> None:
    with (folder.path / "luigi.cfg").open("a") as file:
        file.write("\n[Latest]\nmonths = 1\nlast = 2024-02\n")
    ended = folder.pipeline("latest", "fhv")
    assert ended.returncode == 0, ended.stderr
    last = parse_month("2024-02")
    assert runs(folder)[0].months_done == [f"fhv {format_month(last)}"]
    ended = folder.pipeline("latest", "fhv", "--months", "2", "--last", "2024-03")
    assert runs(folder)[1].months_done == [f"fhv {format_month(add_months(last, 1))}"]


# Other runs


def test_a_redo_of_the_zones_is_in_the_history_like_any_other(own: Folder) -> None:
    assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    ended = own.pipeline("redo", "zones", "--from", "download", "--yes")
    assert ended.returncode == 0, ended.stderr
    run = runs(own)[-1]
    assert (run.asked, run.outcome) == ("pipeline redo zones --from download --yes", "done")
    assert set(run.seconds) >= {"download", "conform", "load"}
    assert (own.path / "data" / "logs" / "zones" / "load.log").read_text().count("begins") == 2
