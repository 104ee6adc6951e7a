"""Commands that the board starts and cancels, in real processes; and that nothing is started without permission."""

from __future__ import annotations

import math
import os
import re
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from boards import PATIENCE_S, Board, running_board, until
from conftest import Folder, make_folder

from pipeline.runs.history import History
from pipeline.sample import SampleSite
from pipeline.settings import Settings, adopt, child_command


@pytest.fixture
def slow(tmp_path: Path, site: SampleSite) -> Folder:
    """A working folder; each download takes a second."""
    site.faults.add("*.parquet", "delay", 1, times=math.inf)
    return make_folder(tmp_path / "work", site.url)


@pytest.fixture
def board(folder: Folder) -> Iterator[Board]:
    """A board that may start runs, over an empty lake."""
    with running_board(folder, "--allow-runs") as board:
        yield board


def test_a_run_that_was_started_on_the_page_stands_in_the_history_with_its_command(board: Board) -> None:
    form = board.get("/actions", dataset="green", period="2024-01..2024-02", action="backfill")
    assert "2 months to do" in form.body
    command = "pipeline backfill green 2024-01..2024-02 --workers 1"
    answer = board.post("/actions/backfill", dataset="green", period="2024-01..2024-02", workers="1")
    assert (answer.status, answer.header("location")[:6]) == (303, "/runs/"), answer.body
    run = _ended(board)
    assert (run["asked"], run["outcome"]) == (command, "done")
    assert answer.header("location") == f"/runs/{run['id']}"
    page = board.get(answer.header("location")).body
    assert command in page
    assert "2 of 2" in page
    # Nothing to do any more, and so no button.
    again = board.get("/actions", dataset="green", period="2024-01..2024-02", action="backfill").body
    assert "There is nothing to do." in again
    assert 'action="/actions/backfill"' not in again


def test_settings_of_the_board_are_those_of_its_runs(folder: Folder) -> None:
    with running_board(folder, "--allow-runs", "--lake", "data/other") as board:
        board.post("/actions/backfill", dataset="green", period="2024-01", through="download")
        run = _ended(board)
    assert run["asked"] == "pipeline backfill green 2024-01 --through download --lake data/other"
    assert list((folder.path / "data" / "other" / "raw" / "green").glob("*.parquet"))


def test_a_password_reaches_a_run_through_its_environment_only() -> None:
    adopt(Settings(lake="other", warehouse="postgresql://user:hunter2@example.org/taxi"))
    try:
        arguments, environment = child_command("latest")
    finally:
        adopt(None)
    assert arguments[-4:] == ["pipeline", "latest", "--lake", "other"]
    assert environment["PIPELINE_WAREHOUSE"] == "postgresql://user:hunter2@example.org/taxi"


def test_a_redo_names_first_what_is_deleted_and_does_it_again(board: Board) -> None:
    assert board.folder.pipeline("backfill", "green", "2024-01").returncode == 0
    page = board.get("/actions", dataset="green", period="2024-01", action="redo", step="load").body
    assert "green 2024-01" in page
    assert "500 rows" in page.replace("2,000 rows", "500 rows")
    assert "pipeline redo green 2024-01 --from load --yes" in page
    assert board.post("/actions/redo", dataset="green", period="2024-01", step="load").status == 303
    run = _ended(board)
    assert (run["asked"], run["outcome"]) == ("pipeline redo green 2024-01 --from load --yes", "done")
    zones = board.post("/actions/redo", dataset="zones", step="conform")
    assert zones.status == 303, zones.body
    until(lambda: board.history()[0]["asked"] == "pipeline redo zones --from conform --yes")
    assert _ended(board)["outcome"] == "done"


def test_a_refresh_shows_what_is_republished_and_brings_it(tmp_path: Path, site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", site.url)
    assert folder.pipeline("backfill", "green", "2024-01..2024-02").returncode == 0
    site.faults.add("*green*2024-01*", "republished")
    with running_board(folder, "--allow-runs") as board:
        page = board.get("/actions", dataset="green", period="2024-01..2024-02", action="refresh").body
        assert "republished" in page
        assert "1 of 2 months match the source" in page
        answer = board.post("/actions/refresh", dataset="green", period="2024-01..2024-02")
        assert answer.status == 303, answer.body
        until(lambda: board.history()[0]["asked"].startswith("pipeline refresh"))
        assert _ended(board)["outcome"] == "done"
        page = board.get("/actions", dataset="green", period="2024-01..2024-02", action="refresh").body
        assert "2 of 2 months match the source" in page
        # Without anything to do, a refresh has no run; the page shows what it said.
        nothing = board.post("/actions/refresh", dataset="green", period="2024-01..2024-02")
        assert "Nothing to do" in nothing.body or nothing.status == 303


def test_cancelling_stops_a_run_and_keeps_finished_steps(slow: Folder) -> None:
    with running_board(slow, "--allow-runs") as board:
        answer = board.post("/actions/backfill", dataset="green", period="2023", workers="1")
        address = answer.header("location")
        run_id = address.removeprefix("/runs/")
        with board.events(run=run_id) as events:
            # Not the zones, which have no delay.
            events.until(
                "cells", lambda cells: any(each["mark"] == "raw" for key, each in cells.items() if "2023" in key)
            )
            assert "Cancel" in board.get(address).body
            assert board.post("/actions/cancel", run=run_id).status == 303
            events.until("run", lambda news: news.get("version", "").startswith("stopped"))
        page = board.get(address).body
        assert "was stopped" in page
        assert "Run again" in page
        again = re.search(r'href="(/actions\?[^"]*)"', page)
        assert again
        assert 'value="2023"' in board.get(again[1].replace("&amp;", "&")).body
    (run,) = board.history()
    assert run["outcome"] == "stopped"
    done = sorted(path.name for path in (slow.lake / "raw" / "green").glob("*.parquet"))
    assert 1 <= len(done) < 12
    until(lambda: run["process"] not in psutil.pids() or psutil.Process(run["process"]).status() == "zombie")


def test_a_run_outlives_a_killed_board_and_a_new_board_shows_it(slow: Folder) -> None:
    with running_board(slow, "--allow-runs") as board:
        address = board.post("/actions/backfill", dataset="green", period="2023-01..2023-03").header("location")
        board.process.send_signal(signal.SIGKILL)
        board.process.wait(PATIENCE_S)
    with running_board(slow) as new:
        page = new.get(address)
        assert page.status == 200
        assert "pipeline backfill green 2023-01..2023-03" in page.body
        run = _ended(new)
        assert run["outcome"] == "done"
        until(lambda: "3 of 3" in new.get(address).body)


def test_a_board_that_is_stopped_leaves_its_runs_alone(slow: Folder) -> None:
    with running_board(slow, "--allow-runs") as board:
        board.post("/actions/backfill", dataset="green", period="2023-01..2023-02")
    assert board.process.returncode == 0
    assert board.history()[0]["outcome"] in ("running", "done")
    assert _ended(board)["outcome"] == "done"


def test_at_most_four_commands_run_at_once_and_ended_ones_leave_no_zombie(slow: Folder) -> None:
    with running_board(slow, "--allow-runs") as board:
        for month in range(1, 5):
            answer = board.post("/actions/backfill", dataset="green", period=f"2023-0{month}", through="download")
            assert answer.status == 303
        fifth = board.post("/actions/backfill", dataset="green", period="2023-05", through="download")
        assert fifth.status in (303, 400)
        if fifth.status == 400:  # Unless the first has ended meanwhile.
            assert "4 commands" in fifth.body
        until(lambda: all(run["outcome"] != "running" for run in board.history()))
        until(lambda: not _started(board))


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("backfill", {"dataset": "green; touch hacked", "period": "2024-01"}),
        ("backfill", {"dataset": "--lake=/tmp/elsewhere", "period": "2024-01"}),
        ("backfill", {"dataset": "zones", "period": "2024-01"}),
        ("backfill", {"dataset": "green"}),
        ("backfill", {"period": "2024-01"}),
        ("backfill", {"dataset": "green", "period": "--warehouse=x"}),
        ("backfill", {"dataset": "green", "period": "2024-01 --lake=x"}),
        ("backfill", {"dataset": "green", "period": "$(touch hacked)"}),
        ("backfill", {"dataset": "green", "period": "2024-13"}),
        ("backfill", {"dataset": "green", "period": "2024-02..2024-01"}),
        ("backfill", {"dataset": "green", "period": "2024-01," * 5_000}),
        ("backfill", {"dataset": "green", "period": "2024-01\x00--lake=x"}),
        ("backfill", {"dataset": "green", "period": "<script>alert(1)</script>"}),
        ("backfill", {"dataset": "green", "period": "2024-01", "through": "--help"}),
        ("backfill", {"dataset": "green", "period": "2024-01", "workers": "0"}),
        ("backfill", {"dataset": "green", "period": "2024-01", "workers": "17"}),
        ("backfill", {"dataset": "green", "period": "2024-01", "workers": "1e1"}),
        ("backfill", {"dataset": "green", "period": "2024-01", "workers": "٣"}),
        ("redo", {"dataset": "green", "period": "2024-01"}),
        ("redo", {"dataset": "green", "period": "2024-01", "step": "load --yes"}),
        ("redo", {"dataset": ["zones", "green"], "period": "2024-01", "step": "load"}),
        ("refresh", {"dataset": "../../etc"}),
        ("latest", {"dataset": "-h"}),
        ("sql", {"dataset": "green", "period": "2024-01"}),
        ("demo", {}),
        ("cancel", {"run": "2026-01-01T000000-abcdef"}),
        ("cancel", {"run": "../../etc/passwd"}),
        ("cancel", {}),
    ],
)
def test_invalid_values_are_refused_and_start_nothing(refusing: Board, action: str, fields: dict[str, Any]) -> None:
    answer = refusing.post(f"/actions/{action}", **fields)
    assert answer.status == 400, answer.body
    assert "<script>alert" not in answer.body
    assert "Traceback" not in answer.body
    assert not _started(refusing)
    assert not refusing.folder.path.joinpath("hacked").exists()
    assert not refusing.folder.path.joinpath("data", "logs", "runs.jsonl").exists()
    # The same address as a link changes nothing either.
    assert refusing.get(f"/actions/{action}", dataset="green", period="2024-01").status == 405


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Iterator[Board]:
    """A board that may start runs, of whose folder no command has run."""
    with running_board(
        make_folder(tmp_path_factory.mktemp("refuse") / "work", shared_site.url), "--allow-runs"
    ) as board:
        yield board


def test_all_that_is_invalid_is_said_at_once(refusing: Board) -> None:
    page = refusing.post("/actions/redo", dataset="blue", period="then", step="jump", workers="99").body
    for text in ("blue", "then", "jump", "99"):
        assert text in page.partition('role="alert"')[2].partition("</div>")[0]


def test_without_permission_nothing_can_be_started_or_cancelled(folder: Folder) -> None:
    with running_board(folder) as board:
        fields = {"dataset": "green", "period": "2024-01", "step": "load", "run": "x"}
        for action in ("backfill", "redo", "refresh", "latest", "cancel"):
            answer = board.post(f"/actions/{action}", **fields)
            assert answer.status in (403, 404)
            assert board.get(f"/actions/{action}").status == 404
        assert board.get("/actions").status == 404
        for page in ("/", "/runs"):
            assert "/actions" not in board.get(page).body
        assert board.history() == []


def test_a_command_that_fails_before_its_run_shows_its_message_and_its_output_is_private(board: Board) -> None:
    answer = board.post("/actions/redo", dataset="fhv", period="2009-01", step="mart")
    assert answer.status == 409, answer.body
    assert "fhv starts in 2015-01" in answer.body
    (output,) = (board.folder.path / "data" / "logs" / "board").glob("*.log")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert "ended without a run" in board.get("/runs").body
    assert board.history() == []


def test_a_run_of_another_process_with_the_same_number_is_not_cancelled(board: Board) -> None:
    run = History(str(board.folder.path / "data" / "logs")).begin("pipeline latest")  # In this process.
    answer = board.post("/actions/cancel", run=run.id)
    if "pipeline" not in Path(f"/proc/{os.getpid()}/cmdline").read_text():
        assert answer.status == 400
        assert "is not this run" in answer.body


def _ended(board: Board) -> dict[str, Any]:
    """The newest run, once it has ended."""

    def ended() -> dict[str, Any] | None:
        runs = board.history()
        return runs[0] if runs and runs[0]["outcome"] != "running" else None

    run: dict[str, Any] = until(ended)
    return run


def _started(board: Board) -> list[str]:
    """The commands of the board's child processes, zombies included, but not the one that answers."""
    commands = []
    for child in psutil.Process(board.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            commands.append(" ".join(child.cmdline()) if child.status() != psutil.STATUS_ZOMBIE else "zombie")
    # A child that is about to become the one that answers still has the board's own command.
    own = " ".join(psutil.Process(board.process.pid).cmdline())
    return [command for command in commands if command != own and "pipeline.board.answers" not in command]
