"""The first look: what `pipeline demo` ends with, typed as printed, and --demo with every other command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from pipeline.sample import SampleSite

BIN = Path(sys.executable).parent
#: A place where nothing is listening: what asks it fails.
NOWHERE = "http://127.0.0.1:9"


class Shell:
    """A shell that was just opened in a folder: nothing is activated, and no setting is in its environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(path), "PIPELINE_SOURCE": NOWHERE}

    def start(self, line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/sh", "-c", line],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        process = self.start(line)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(line, process.returncode, out, err)


def _new_shell(folder: Path) -> Shell:
    """A shell in a folder whose environment for Python is in .venv, as `make` leaves it."""
    (folder / ".venv").mkdir(parents=True)
    (folder / ".venv" / "bin").symlink_to(BIN)
    return Shell(folder)


def _printed(stdout: str) -> list[str]:
    """The commands at the end of the demo."""
    return [line.strip() for line in stdout.splitlines()[-3:]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, str]:
    """A shell in whose folder the demo was run, and what it printed."""
    shell = _new_shell(tmp_path_factory.mktemp("demo") / "work")
    ended = shell.type(".venv/bin/pipeline demo --scale 0.002")
    assert ended.returncode == 0, ended.stderr
    return shell, ended.stdout


@pytest.fixture
def shell(demo: tuple[Shell, str]) -> Iterator[Shell]:
    """That shell; no process of the test is left afterwards."""
    yield demo[0]
    left = [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(demo[0].path)]
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive


# --- the end of the demo


def test_the_demo_ends_with_the_grid_the_busiest_zones_by_name_and_three_commands(demo: tuple[Shell, str]) -> None:
    _, printed = demo
    assert re.search(r"^ +yellow +green *\n2024  ███ +███$", printed, re.MULTILINE), printed
    table = printed.partition("busiest pickup zones")[2].splitlines()
    rows = [re.split(r"  +", line) for line in table[1:6]]
    assert ["Upper East Side South", "Manhattan"] in [row[:2] for row in rows]
    trips = [int(row[2].replace(",", "")) for row in rows]
    assert trips == sorted(trips, reverse=True)
    assert [line.split()[:2] for line in _printed(printed)] == [
        [".venv/bin/pipeline", command] for command in ("sql", "board", "backfill")
    ]


def test_the_demo_draws_its_months_and_says_where(demo: tuple[Shell, str], shell: Shell) -> None:
    (path,) = re.findall(r"^Pictures of these months: (.*)$", demo[1], re.MULTILINE)
    page = (shell.path / path).read_text(encoding="utf-8")
    assert page.count("<svg") == 9
    ended = shell.type(".venv/bin/pipeline report --demo yellow green 2024-01..2024-03 --html again.html")
    assert (ended.returncode, ended.stderr) == (0, "written: again.html\n")
    # Its time is that of the newest mart, and other tests build marts again, or those of other months.
    again = (shell.path / "again.html").read_text(encoding="utf-8")
    assert re.sub("<time.*?</time>", "", again) == re.sub("<time.*?</time>", "", page)


def test_the_first_command_answers_a_question(demo: tuple[Shell, str], shell: Shell) -> None:
    ended = shell.type(_printed(demo[1])[0])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.search(r"^payment +trips +tip\ncredit card +\d", ended.stdout), ended.stdout


def test_the_second_command_shows_the_sample_in_a_browser(demo: tuple[Shell, str], shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # The default one may be in use on this machine.
    with shell.start(f"exec {_printed(demo[1])[1]} --port {port}") as process:
        assert process.stdout is not None
        try:
            link = next((word for line in process.stdout for word in line.split() if word.startswith("http")), "")
            with requests.Session() as browser:
                assert browser.get(link, timeout=60).status_code == 200
                page = browser.get(f"http://127.0.0.1:{port}/", timeout=60)
            assert page.status_code == 200
            assert re.search(r'href="/months/green/2024-03"[^>]*><b[^>]*>✓', page.text)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_the_third_command_loads_real_months_into_the_real_lake(
    demo: tuple[Shell, str], shell: Shell, shared_site: SampleSite
) -> None:
    before = sorted((shell.path / "data" / "sample" / "lake").rglob("*"))
    shell.environment["PIPELINE_SOURCE"] = shared_site.url  # It takes the place of TLC's site.
    try:
        ended = shell.type(_printed(demo[1])[2])
    finally:
        shell.environment["PIPELINE_SOURCE"] = NOWHERE
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^green 2024-03 +2,000 ", ended.stdout, re.MULTILINE), ended.stdout
    assert sorted((shell.path / "data" / "sample" / "lake").rglob("*")) == before


def test_a_second_demo_shows_the_same_and_the_program_as_it_can_be_typed(demo: tuple[Shell, str], shell: Shell) -> None:
    shell.environment["PATH"] = f"{shell.path}/.venv/bin:/usr/bin:/bin"  # Activated.
    try:
        ended = shell.type("pipeline demo --scale 0.002")
        assert "Nothing to do: all 6 months are up to date." in ended.stdout
        assert _printed(ended.stdout) == [line.removeprefix(".venv/bin/") for line in _printed(demo[1])]
        assert shell.type(_printed(ended.stdout)[0]).returncode == 0
    finally:
        shell.environment["PATH"] = "/usr/bin:/bin"
    ended = shell.type(f"{sys.executable} -m pipeline demo --scale 0.002")
    assert _printed(ended.stdout)[0].startswith(f"{sys.executable} -m pipeline sql --demo ")
    assert shell.type(_printed(ended.stdout)[0]).returncode == 0


def test_a_demo_in_another_folder_prints_commands_that_find_it(tmp_path: Path) -> None:
    shell = _new_shell(tmp_path / "my work")
    ended = shell.type(".venv/bin/pipeline demo --scale 0.0005 --data 'my sample'")
    assert ended.returncode == 0, ended.stderr
    answer = shell.type(_printed(ended.stdout)[0])
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "credit card" in answer.stdout


# --- --demo


def test_every_command_with_settings_finds_the_sample_with_demo(shell: Shell) -> None:
    for words, shown in {
        "status green 2024-01": "data/sample/lake",
        "plan green 2024-01": "Nothing to do.",
        "head green 2024-01 --rows 1": "pickup_datetime",
        "check green 2024-01": "green 2024-01",
        "diff green 2024-02": "rows",
        "logs green 2024-01": "conform",
        "history": "demo --scale 0.002",
        "doctor": " months loaded",
    }.items():
        ended = shell.type(f".venv/bin/pipeline {words} --demo")
        assert ended.returncode == 0, ended.stderr
        assert shown in ended.stdout, words


def test_a_run_with_demo_brings_further_months_of_the_sample(shell: Shell) -> None:
    assert "Nothing to do:" in shell.type(".venv/bin/pipeline refresh --demo green 2024-01..2024-03").stdout
    ended = shell.type(".venv/bin/pipeline backfill --demo green 2023-12")
    assert ended.returncode == 0, ended.stderr
    sample = shell.path / "data" / "sample"
    assert [path.name for path in sample.glob("lake/raw/green/*2023*.parquet")] == ["green_tripdata_2023-12.parquet"]
    ended = shell.type(".venv/bin/pipeline redo --demo green 2023-12 --from download --yes")
    assert ended.returncode == 0, ended.stderr


def test_a_suggested_command_about_the_sample_works_as_printed(shell: Shell) -> None:
    (shell.path / "data/sample/lake/trips/yellow/month=2024-02-01/yellow_2024-02.parquet").unlink()
    ended = shell.type(".venv/bin/pipeline head yellow 2024-02 --demo")
    assert ended.returncode != 0
    command = ended.stderr.strip().partition("run: ")[2]
    assert command.startswith("pipeline backfill --demo yellow 2024-02 ")
    assert shell.type(f".venv/bin/{command}").returncode == 0
    assert shell.type(".venv/bin/pipeline head yellow 2024-02 --demo").returncode == 0


def test_demo_allows_no_other_place(shell: Shell) -> None:
    for line, options in {
        "status --demo --lake x --source-format csv": "--lake, --source-format",
        "doctor --demo --warehouse duckdb:///x.duckdb": "--warehouse",
    }.items():
        ended = shell.type(f".venv/bin/pipeline {line}")
        assert ended.returncode == 2
        assert f"--demo and {options}: only --demo is allowed" in ended.stderr


def test_demo_without_a_sample_says_how_to_make_it(tmp_path: Path) -> None:
    ended = _new_shell(tmp_path / "work").type(".venv/bin/pipeline sql --demo 'SELECT 1'")
    assert ended.returncode == 2
    assert ended.stderr.endswith("data/sample/lake; make it with: pipeline demo\n")
    assert not (tmp_path / "work" / "data").exists()
