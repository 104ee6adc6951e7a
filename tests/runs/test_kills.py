"""After kills by any signal at any time, or two runs at once, one more run gives the result of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import psutil
import pytest
from conftest import Folder, make_folder
from state import is_damaged, processes_in, state, works_in

from pipeline.sample import SampleSite

YEAR = ("backfill", "green", "2023-01..2023-12", "--workers", "4")
WAL = "warehouse.duckdb.wal"
_STEPS = {"download", "conform", "load", "mart"}


@pytest.fixture(scope="module")
def small_site() -> Iterator[SampleSite]:
    with SampleSite(rows=300) as site:
        yield site


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, small_site: SampleSite) -> Folder:
    """A folder with the year brought up to date by one run."""
    folder = make_folder(tmp_path_factory.mktemp("undisturbed") / "work", small_site.url)
    ended = folder.pipeline(*YEAR)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def disturbed(tmp_path: Path, small_site: SampleSite) -> Folder:
    return make_folder(tmp_path / "work", small_site.url)


def _assert_as_undisturbed(folder: Folder, undisturbed: Folder) -> None:
    assert processes_in(folder.path) == [], "no orphan"
    # A load killed between its commit and its checkpoint leaves the WAL to the next load; `state` reads through it.
    assert [name for name in folder.files() if name != WAL] == undisturbed.files(), "and nothing else is on disk"
    found, wanted = state(folder.path / "data"), state(undisturbed.path / "data")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def _lines_of(process: subprocess.Popen[str]) -> Queue[str]:
    """The lines of the process's stderr as they arrive, and an empty one at its end."""
    lines: Queue[str] = Queue()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put(line)
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    return lines


def _signal_after(process: subprocess.Popen[str], steps: int, further_s: float, number: int, *, group: bool) -> str:
    """Start the run, wait for so many steps and some time, then send the signal; returns the output.

    With steps below 0 the moment begins with the process.
    """
    lines, said = _lines_of(process), ""
    with contextlib.suppress(Empty):
        while steps >= 0 and (line := lines.get(timeout=60)):
            said += line
            # The first line reports the number of months, each further one a finished step.
            steps -= 1
        said += lines.get(timeout=further_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number) if group else process.send_signal(number)
    process.wait(30)
    return said


def _remedied(folder: Folder, said: str) -> bool:
    """Whether a kill has damaged the database, which is then moved away as the message says."""
    if not is_damaged(said):
        return False
    folder.database.rename(folder.path / "damaged.duckdb")
    return True


def test_a_year_killed_thirty_times_gives_the_result_of_an_undisturbed_run(
    disturbed: Folder, undisturbed: Folder
) -> None:
    moments = random.Random(20_090_101)
    interrupted = damaged = 0
    seen = ""
    for attempt in range(30):
        process = disturbed.start(*("pipeline", *YEAR))
        # The first signals arrive during start and planning, the next during the creation of the database.
        steps = -1 if attempt < 4 else 0 if attempt < 6 else moments.choice([0, 1, 1, 2, 2, 3])
        further_s = moments.uniform(0.1, 0.9) if steps < 0 else moments.uniform(0.001, 0.25)
        said = _signal_after(process, steps, further_s, signal.SIGKILL, group=True)
        interrupted += process.returncode == -signal.SIGKILL
        seen += said
        process.communicate()
        damaged += _remedied(disturbed, said)
    assert interrupted >= 20, "most runs were under way when they were killed"
    assert {line.split()[0] for line in seen.splitlines()} >= _STEPS, "the kills cover every step"
    ended = disturbed.pipeline(*YEAR)
    if _remedied(disturbed, ended.stderr):
        damaged += 1
        ended = disturbed.pipeline(*YEAR)
    assert ended.returncode == 0, ended.stderr
    assert damaged <= 1, "the moment is too short to be hit twice"
    _assert_as_undisturbed(disturbed, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_signal_ends_every_process_at_once_and_leaves_no_stray_files(
    disturbed: Folder, undisturbed: Folder, number: int, steps: int
) -> None:
    process = disturbed.start(*("pipeline", *YEAR))
    said = _signal_after(process, steps, 0.05, number, group=number == signal.SIGINT)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert processes_in(disturbed.path) == []
    drafts = disturbed.lake / ".drafts"
    left = [path for path in drafts.rglob("*") if path.is_file()] if drafts.exists() else []
    assert [path for path in left if ".part" not in path.name] == [], "parts of downloads are kept, drafts are not"
    process.communicate()
    assert disturbed.pipeline(*YEAR).returncode == 0
    _assert_as_undisturbed(disturbed, undisturbed)


def test_the_children_of_a_killed_parent_end_too(disturbed: Folder, undisturbed: Folder) -> None:
    process = disturbed.start(*("pipeline", *YEAR))
    _signal_after(process, 3, 0.02, signal.SIGKILL, group=False)
    psutil.wait_procs([child for child in psutil.process_iter() if works_in(child, disturbed.path)], timeout=30)
    process.communicate()
    assert processes_in(disturbed.path) == []
    assert disturbed.pipeline(*YEAR).returncode == 0
    _assert_as_undisturbed(disturbed, undisturbed)


def test_two_backfills_of_the_same_range_at_once_both_succeed(disturbed: Folder, undisturbed: Folder) -> None:
    both = [disturbed.start(*("pipeline", *YEAR)) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    _assert_as_undisturbed(disturbed, undisturbed)
