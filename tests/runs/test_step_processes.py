"""The processes of a run's steps: short steps share one, and one that dies takes no other step with it."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from commands import started_by
from conftest import Folder, make_folder
from state import processes_in

from pipeline.sample import SampleSite

_PATIENCE_S = 60


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    return make_folder(tmp_path / "work", site.url)


def _processes(folder: Folder, pattern: str = "green/*/*.log") -> list[int]:
    """The process of each attempt of each step, by its log."""
    texts = [path.read_text() for path in sorted((folder.path / "data" / "logs").glob(pattern))]
    return [int(number) for text in texts for number in re.findall(r": begins, process (\d+)", text)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_short_steps_share_a_process_however_it_starts(own: Folder, method: str) -> None:
    wanted = ("pipeline", "backfill", "green", "2024-01..2024-03", "--through", "conform", "--workers", "1")
    ended = own.run(*started_by(method, *wanted))
    assert ended.returncode == 0, ended.stderr
    processes = _processes(own)
    assert len(processes) == 6
    assert len(set(processes)) < 6
    assert processes_in(own.path) == []


def test_a_killed_process_fails_only_the_step_that_it_ran(own: Folder, site: SampleSite) -> None:
    site.faults.add("*green*2024-01*", "delay", 30)
    process = own.start("pipeline", "backfill", "green", "2024-01..2024-03", "--through", "download", "--workers", "1")
    until = time.monotonic() + _PATIENCE_S
    while not (started := _processes(own, "green/2024-01/*.log")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(started[0], signal.SIGKILL)
    summary, errors = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1, errors
    assert "the step's process was killed (signal 9)" in summary
    assert set(own.files()) >= {f"lake/raw/green/green_tripdata_2024-0{month}.parquet" for month in (2, 3)}
    assert processes_in(own.path) == []


def test_a_step_at_its_time_limit_fails_alone(own: Folder, site: SampleSite) -> None:
    site.faults.add("*green*2024-02*", "delay", 30)
    config = own.path / "luigi.cfg"
    config.write_text(config.read_text().replace("#timeout = 7200", "timeout = 4"))
    ended = own.pipeline("backfill", "green", "2024-01..2024-03", "--through", "download", "--workers", "1")
    assert ended.returncode == 1, ended.stderr
    assert set(own.files()) >= {f"lake/raw/green/green_tripdata_2024-0{month}.parquet" for month in (1, 3)}
    assert len(set(_processes(own))) == 2, "the stopped process takes no further step"
    assert processes_in(own.path) == []
