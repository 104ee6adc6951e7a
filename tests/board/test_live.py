"""What open pages are sent while runs run: by a real board, about real and written histories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from boards import Board, Opener, running_board, until
from conftest import Folder, make_folder

from pipeline.runs.history import History, Run
from pipeline.sample import SampleSite


@pytest.fixture(scope="module")
def _board(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Iterator[Board]:
    folder = make_folder(tmp_path_factory.mktemp("live") / "work", shared_site.url)
    ended = folder.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 0, ended.stderr
    with running_board(folder) as board:
        yield board


@pytest.fixture
def board(_board: Board) -> Board:
    """A board over green 2024-01; each test adds runs of its own."""
    assert _board.get("/").status == 200
    return _board


class WrittenRun:
    """A run of this process, whose events a test writes."""

    def __init__(self, folder: Folder, process: int | None = None) -> None:
        self.history = History(str(folder.path / "data" / "logs"))
        self.run = self.history.begin("pipeline backfill yellow 2023-01")
        if process is not None:
            self.run.process = process
            self.history._append(self.run)
        self.path = self.history.event_file(self.run.id)
        steps = ["download", "conform", "load", "mart"]
        months = [{"dataset": "yellow", "month": "2023-01", "stage": "missing", "steps": steps}]
        self.write("run_started", run=self.run.id, asked=self.run.asked, wanted=1, bytes=0, months=months)

    def write(self, event: str, **values: Any) -> None:
        """Write an event."""
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self.write_text(json.dumps({"at": at, "event": event, **values}) + "\n")

    def step(self, event: str, step: str, **values: Any) -> None:
        """Write an event of a step of yellow 2023-01."""
        self.write(event, step=step, dataset="yellow", month="2023-01", **values)

    def write_text(self, text: str) -> None:
        """Write a text as it is."""
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as file:
            file.write(text)

    def end(self, code: int = 0) -> None:
        """Write the end of the run."""
        self.history.end(self.run, code)

    def __enter__(self) -> WrittenRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def test_a_page_sees_each_step_of_a_run_and_fetches_the_grid_again_at_its_end(
    folder: Folder,
) -> None:
    with running_board(folder) as board:
        assert "green 2024-01: missing" in board.get("/").body
        with board.events() as events:
            ended = folder.pipeline("backfill", "green", "2024-01")
            assert ended.returncode == 0, ended.stderr
            for state in ("queued", "done"):
                events.until("cells", lambda cells, state=state: _steps(cells, "green 2024-01").get("mart") == state)
            events.until("grid")
            events.until("runs")
        assert "green 2024-01: complete" in board.get("/").body
        assert 'title="zones: complete' in board.get("/").body


def test_an_event_is_on_the_stream_soon_after_it_happened(board: Board) -> None:
    with board.events() as events, WrittenRun(board.folder) as run:
        events.until("cells", lambda cells: "yellow 2023-01" in cells)
        waits = []
        for number in range(10):
            time.sleep(0.13)
            before = time.time()
            run.step("progress", "download", fraction=number / 10, message="", rows=0, bytes=number)
            note = f"download {number * 10}%"
            _data, at = events.until("cells", lambda cells, note=note: note in _title(cells, "yellow 2023-01"))
            waits.append(at - before)
        # The slowest ones are slow because of the machine.
        assert sorted(waits)[3] < 0.5


def test_hostile_and_half_written_lines_are_left_out_and_the_others_shown(board: Board) -> None:
    at = datetime.now(timezone.utc).isoformat()
    step = {"at": at, "event": "progress", "step": "load", "dataset": "yellow", "month": "2023-01"}
    hostile: list[Any] = [
        *(None, 7, "text", [], {}, {"event": []}, {"at": at}, {"at": 5, "event": "progress"}),
        {"at": "2026-01-01", "event": "progress"},
        {"at": at, "event": "run_started", "months": [None]},
        {"at": at, "event": "run_started", "months": [{"dataset": 1, "month": [], "steps": {}}]},
        {"at": at, "event": "run_started", "months": 12},
        {**step, "step": ["x"]},
        {**step, "dataset": {"a": 1}},
        {**step, "fraction": "half"},
        {**step, "fraction": float("nan")},
        {**step, "rows": None, "bytes": [1]},
        {"at": at, "event": "progress", "dataset": "yellow"},
        {**step, "event": "step_failed", "error": "text"},
        {**step, "event": "step_failed", "error": {"kind": 1, "message": []}},
        {**step, "event": "step_failed", "error": {"kind": "A", "message": "b", "more": 1}},
    ]
    with WrittenRun(board.folder) as run, board.events(run=run.run.id) as events:
        events.until("cells", lambda cells: "yellow 2023-01" in cells)
        run.write_text("\n".join(map(json.dumps, hostile)) + "\n" + "[" * 200_000 + "\n\x00\xff\n" + '{"at": "20')
        run.write_text("\n")
        run.step("step_started", "download", message="starting")
        events.until("cells", lambda cells: _steps(cells, "yellow 2023-01").get("download") == "running")
        run.write_text('{"at": "' + at)  # Half of a line, and later the rest.
        time.sleep(0.5)
        rest = {
            "event": "step_finished",
            "step": "download",
            "dataset": "yellow",
            "month": "2023-01",
            "message": "3 MB",
        }
        run.write_text('", ' + json.dumps(rest)[1:] + "\n")
        events.until("cells", lambda cells: _steps(cells, "yellow 2023-01").get("download") == "done")
        page = board.get(f"/runs/{run.run.id}")
        assert page.status == 200
        assert "download yellow 2023-01: 3 MB" in page.body
        assert "hostile" not in page.body


def test_a_history_with_hostile_records_still_has_the_others(board: Board) -> None:
    history = History(str(board.folder.path / "data" / "logs"))
    before = len(board.history())
    known = {"asked": "x", "began": "2026-01-01T00:00:00+00:00", "process": 1, "failures": []}
    for record in (
        {**known, "id": "../../../etc/passwd"},
        {**known, "id": ["a"]},
        {**known, "id": "b", "began": "yesterday"},
        {**known, "id": "c", "failures": [{"step": 1}]},
    ):
        history.append(history.path, json.dumps(record) + "\n")
    assert board.get("/runs").status == 200
    assert len(board.history()) == before


def test_a_killed_run_is_noticed_and_its_months_are_not_at_work_any_more(board: Board) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        run = WrittenRun(board.folder, sleeper.pid)
        with board.events(run=run.run.id) as events:
            run.step("step_started", "download", message="starting")
            events.until("cells", lambda cells: "at work" in _title(cells, "yellow 2023-01"))
            sleeper.kill()
            sleeper.wait()
            events.until("run", lambda news: news.get("version", "").startswith("killed"))
            events.until("grid")
        assert "yellow 2023-01: at work" not in board.get("/").body
        assert "was killed" in board.get(f"/runs/{run.run.id}").body
    finally:
        sleeper.kill()
        sleeper.wait()
        run.end(130)


def test_a_month_that_another_program_changes_is_shown_without_a_reload(folder: Folder) -> None:
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    with running_board(folder) as board:
        assert "green 2024-01: complete" in board.get("/").body
        with board.events() as events:
            for path in (folder.lake / "raw" / "green").glob("*2024-01*"):
                path.unlink()
            events.until("grid")
        until(lambda: 'class="missing" data-step="download"' in _cell(board.get("/").body, "green 2024-01"))


def test_twenty_pages_get_the_same_events_and_a_closed_page_leaves_its_place(board: Board) -> None:
    with WrittenRun(board.folder) as run:
        with ExitStack() as stack:
            streams = [stack.enter_context(board.events()) for _ in range(20)]
            run.step("step_started", "download", message="starting")
            for events in streams:
                events.until("cells", lambda cells: _steps(cells, "yellow 2023-01").get("download") == "running")
        with ExitStack() as stack:
            # The places of closed pages are free after a moment.
            for _ in range(64):
                until(lambda: stack.enter_context(board.events()).status == 200)
            assert stack.enter_context(board.events()).status == 503
            assert board.get("/").status == 200


def test_the_page_of_a_run_shows_each_new_event_once_without_being_loaded_again(
    board: Board, open_page: Opener
) -> None:
    with WrittenRun(board.folder) as run, open_page(board, f"/runs/{run.run.id}") as page:
        page.evaluate("document.querySelector('[data-version]').id = 'same'")
        run.step("step_started", "download", message="starting")
        run.step("progress", "download", fraction=0.5, message="", rows=0, bytes=7)
        page.locator('#same .running[data-state="yellow 2023-01 download"]', has_text="50%").wait_for()
        run.step("step_finished", "download", message="<b>3 MB</b>")
        page.locator("#same #events li:first-child .text", has_text="download yellow 2023-01: <b>3 MB</b>").wait_for()
        numbers = page.locator("#events li").evaluate_all("lines => lines.map((line) => Number(line.dataset.number))")
        assert numbers == [4, 2, 1]


def test_the_board_with_open_pages_needs_little_memory(board: Board) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(board.events())
        board.get("/")
        rss = psutil.Process(board.process.pid).memory_info().rss
        assert rss < 70_000_000 or sys.platform != "linux"


def test_a_run_whose_process_number_is_used_again_counts_as_killed(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    run = history.begin("pipeline latest")
    assert history.run(run.id).outcome == "running"
    for process, began in ((os.getpid(), "2020-01-01T00:00:00+00:00"), (0, run.began), (-1, run.began)):
        history._append(Run(run.id, began, run.asked, process))
        assert history.run(run.id).outcome == "killed"


def _title(cells: Any, month: str) -> str:
    title: str = cells.get(month, {}).get("title", "")
    return title


def _steps(cells: Any, month: str) -> dict[str, str]:
    steps: dict[str, str] = cells.get(month, {}).get("steps", {})
    return steps


def _cell(page: str, month: str) -> str:
    return page.partition(f'data-month="{month}"')[2].partition("</a>")[0]
