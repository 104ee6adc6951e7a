"""The pages of the history and of one run, of a real board about real runs and written ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from boards import Board, running_board
from conftest import make_folder

from pipeline.errors import CheckFailed
from pipeline.runs.history import Failure, History
from pipeline.sample import SampleSite


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A board over a run of which two months failed for the same reason."""
    with SampleSite(rows=500) as site:
        site.faults.add("*2024-0[12]*", 404, times=math.inf)
        folder = make_folder(tmp_path_factory.mktemp("runs") / "work", site.url)
        assert folder.pipeline("backfill", "green", "2024-01..2024-03").returncode == 1
        with running_board(folder) as board:
            yield board


def test_a_run_shows_its_plan_and_its_failures_by_cause_with_links_to_the_months(board: Board) -> None:
    runs = History(str(board.folder.path / "data" / "logs")).runs()
    (run,) = [run for run in runs if "2024-01..2024-03" in run.asked]
    page = board.get(f"/runs/{run.id}").body
    failures = page.partition('id="failures"')[2].partition("</section>")[0]
    assert failures.count('class="note error"') == 1
    assert failures.count('href="/months/green/2024-0') == 2
    assert "1 of 3" in page
    for state in ("green 2024-03 mart", "green 2024-01 download"):
        assert f'data-state="{state}"' in page
    assert 'badge failed" data-state="green 2024-01 download"' in page
    assert 'badge missing" data-state="green 2024-01 load"' in page
    assert "download green 2024-01" in page.partition('id="events"')[2]
    assert "pipeline backfill green 2024-01..2024-03" in page
    # Without --allow-runs nothing can be run again or cancelled.
    assert "/actions" not in page


def test_the_history_lists_runs_newest_first_and_older_ones_on_further_pages(board: Board) -> None:
    history = History(str(board.folder.path / "data" / "logs"))
    for number in range(120):
        history.end(history.begin(f"pipeline latest --last number-{number}"), 0)
    running = history.begin("pipeline backfill green 2025")
    first = board.get("/runs").body
    assert first.index(running.id) < first.index("number-119") < first.index("number-71")
    assert "number-70" not in first
    older = board.get("/runs", before=_older(first)).body
    assert "number-70" in older
    assert "number-71" not in older
    assert running.id not in older
    last = board.get("/runs", before=_older(older)).body
    assert "2024-01..2024-03" in last
    assert "before=" not in last
    history.end(running, 0)


def test_hostile_texts_in_the_history_are_shown_and_never_run(board: Board) -> None:
    history = History(str(board.folder.path / "data" / "logs"))
    script = "<script>alert(1)</script>\x1b[31m"
    run = history.begin(f"pipeline {script}", lake=script, warehouse=script)
    at = datetime.now(timezone.utc).isoformat()
    plan = {"dataset": script, "month": '"><img src=x>', "stage": "raw", "steps": [script]}
    for event in (
        {"event": "run_started", "months": [plan]},
        {"event": "step_started", "dataset": script, "month": "../..", "step": script, "message": script},
        {"event": script},
    ):
        history.append(history.event_file(run.id), json.dumps({"at": at, **event}) + "\n")
    run.failures = [Failure(script, script, "2024-01", script, script, CheckFailed.code, remedy=script)]
    run.errors, run.warnings, run.months_done = [script], [script], [script]
    history.end(run, 1)
    for path in ("/runs", f"/runs/{run.id}"):
        answer = board.get(path)
        assert answer.status == 200
        for text in ("<script>alert", "<img", "\x1b", 'href="/months/<', "/months/.."):
            assert text not in answer.body
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m" in answer.body


def test_a_run_without_events_and_an_unknown_run_have_pages_too(board: Board) -> None:
    history = History(str(board.folder.path / "data" / "logs"))
    run = history.begin("pipeline latest")
    history.end(run, 3)
    page = board.get(f"/runs/{run.id}")
    assert page.status == 200
    assert "There are no events of this run" in page.body
    unknown = board.get("/runs/2020-01-01T000000-000000")
    assert unknown.status == 400
    assert "no such run" in unknown.body
    for path in ("/runs/..%2f..%2fluigi.cfg", "/runs/%00", "/runs/<b>"):
        assert board.get(path).status == 404


def _older(page: str) -> str:
    return page.partition('href="/runs?before=')[2].partition('"')[0]
