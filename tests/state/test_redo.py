"""`pipeline redo`: it redoes exactly what was named, asks first, and can be killed at any moment."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Heard
from conftest import Folder, make_folder
from state import processes_in, rows, state

from pipeline.marts import all_marts, marts_of
from pipeline.sample import SampleSite

#: `python -c` with this, an answer and a command: gives it as from a terminal; without an answer there is no terminal.
_ANSWERED = """
import os, pty, sys
answer, command, *arguments = sys.argv[1:]
if answer:
    keyboard, terminal = pty.openpty()
    os.write(keyboard, answer.encode() + b"\\n")
    os.set_inheritable(keyboard, True)
    os.dup2(terminal, 0)
else:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
path = os.path.join(os.path.dirname(sys.executable), command)
os.execv(path, [path, *arguments])
"""

#: `python -c` with this, a number, a signal and arguments of `pipeline`, which gets the signal when, after so many
#: files, a further one of the lake is about to be deleted.
DYING = """
import os, sys
left, number = int(sys.argv[1]), int(sys.argv[2])

def watch(event, arguments):
    global left
    if event == "os.remove" and "/lake/" in str(arguments[0]) and "/.drafts/" not in str(arguments[0]):
        left -= 1
        if left == -1:
            os.kill(os.getpid(), number)

sys.addaudithook(watch)
from pipeline.cli import main
main(sys.argv[3:])
"""

_RAW = "raw/green/green_tripdata_2024-01.parquet"
FILES = {
    "sidecar": f"{_RAW}.json",
    "raw": _RAW,
    "checks": "checks/green/2024-01.json",
    "trips": "trips/green/month=2024-01-01/green_2024-01.parquet",
}


@pytest.fixture(scope="module")
def module_site() -> Iterator[SampleSite]:
    with SampleSite(rows=500) as site:
        yield site


@pytest.fixture
def site(module_site: SampleSite) -> Iterator[SampleSite]:
    """A site in which a test may inject faults and count requests."""
    module_site.requests.clear()
    yield module_site
    module_site.faults.clear()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, module_site: SampleSite) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("redo") / "work", module_site.url)
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def own(filled: Folder, site: SampleSite, tmp_path: Path) -> Folder:
    """A folder whose source is that site, with two months of green."""
    own = filled.copy(tmp_path / "work")
    site.requests.clear()
    return own


def seen(folder: Folder) -> dict[str, Any]:
    """Each file of the lake as who wrote it when, and when each load and mart was made."""
    files = {
        path.relative_to(folder.lake).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.lake.rglob("*")
        if path.is_file()
    }
    loads = rows(folder.database, "SELECT dataset, COALESCE(strftime(month, '%Y-%m'), ''), loaded_at FROM loads")
    marts = rows(folder.database, "SELECT mart, strftime(month, '%Y-%m'), built_at FROM mart_loads")
    return {**files, **{f"{name} {month}".strip(): moment for name, month, moment in [*loads, *marts]}}


def touched(folder: Folder, before: dict[str, Any]) -> set[str]:
    """The files, loads and marts that were made again since."""
    now = seen(folder)
    assert now.keys() == before.keys()
    return {name for name, version in before.items() if now[name] != version}


MART = {f"{mart} 2024-01" for mart in all_marts()}
LOAD = {*MART, "green 2024-01"}
CONFORM = {*LOAD, FILES["trips"], FILES["checks"]}
DOWNLOAD = {*CONFORM, FILES["raw"], FILES["sidecar"]}


@pytest.mark.parametrize(
    ("step", "redone", "requests"),
    [("mart", MART, 0), ("load", LOAD, 0), ("conform", CONFORM, 0), ("download", DOWNLOAD, 1)],
)
def test_the_step_and_those_after_it_are_redone_for_the_month_and_nothing_else_is_touched(
    own: Folder, site: SampleSite, step: str, redone: set[str], requests: int
) -> None:
    before, content = seen(own), state(own.path / "data")
    ended = own.pipeline("redo", "green", "2024-01", "--from", step, "--yes")
    assert ended.returncode == 0, ended.stderr
    assert touched(own, before) == redone
    assert state(own.path / "data") == content
    whole = [request.path for request in site.requests if request.status == 200]
    assert whole == ["/trip-data/green_tripdata_2024-01.parquet"] * requests


def _answer(folder: Folder, answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return folder.run("python", "-c", _ANSWERED, answer, "pipeline", *arguments)


def test_what_will_be_deleted_is_shown_and_a_no_keeps_it(own: Folder) -> None:
    before = seen(own)
    ended = _answer(own, "n", "redo", "green", "2024-01..2024-02", "--from", "conform")
    assert ended.returncode == 0, ended.stderr
    size = sum((own.lake / FILES[name]).stat().st_size for name in ("trips", "checks"))
    marts = len(marts_of("green"))
    assert f"green 2024-01  trips, checks  {size / 1e3:,.1f} kB    500  {marts:5}" in ended.stdout
    assert re.search(rf"^total +\S+ kB  1,000  {2 * marts:5}$", ended.stdout, re.MULTILINE), ended.stdout
    assert ended.stdout.endswith("Nothing was changed.\n")
    assert touched(own, before) == set()


def test_a_yes_deletes_and_redoes_it(own: Folder) -> None:
    before = seen(own)
    ended = _answer(own, "y", "redo", "green", "2024-01", "--from", "mart")
    assert ended.returncode == 0, ended.stderr
    assert touched(own, before) == MART


def test_without_a_terminal_yes_is_required(own: Folder) -> None:
    before = seen(own)
    ended = _answer(own, "", "redo", "green", "2024-01", "--from", "load")
    assert ended.returncode == 2
    assert ended.stderr == "pipeline: deleting needs a confirmation, and standard input is not a terminal; add --yes\n"
    assert touched(own, before) == set()


def test_months_of_which_nothing_exists_are_run_without_a_question(own: Folder) -> None:
    before = seen(own)
    ended = _answer(own, "", "redo", "green", "2024-03", "--from", "load")
    assert ended.returncode == 0, ended.stderr
    now = seen(own)
    assert {name for name in before if now[name] != before[name]} == set()
    assert rows(own.database, "SELECT COUNT(*) FROM green WHERE month = DATE '2024-03-01'") == [(500,)]


def test_an_unfinished_month_is_deleted_and_finished(own: Folder) -> None:
    whole = state(own.path / "data")
    for name in ("trips", "checks"):
        (own.lake / FILES[name]).unlink()
    own.database.unlink()
    ended = own.pipeline("redo", "green", "2024-01..2024-02", "--from", "download", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "green 2024-01  raw, sidecar " in ended.stdout
    assert state(own.path / "data") == whole


@pytest.mark.parametrize("damage", ["no sidecar", "a sidecar that is none", "cut raw bytes"])
def test_a_month_that_cannot_be_conformed_again_stays_as_it_is_and_the_others_are_done(
    own: Folder, damage: str
) -> None:
    raw, sidecar = own.lake / FILES["raw"], own.lake / FILES["sidecar"]
    if damage == "no sidecar":
        sidecar.unlink()
    elif damage == "cut raw bytes":
        raw.write_bytes(raw.read_bytes()[:-1])
    else:
        sidecar.write_text("{")
    before = seen(own)
    ended = own.pipeline("redo", "green", "2024-01..2024-02", "--from", "conform", "--yes")
    assert ended.returncode == 1
    assert "what exists of green 2024-01 stays as it is" in ended.stderr
    assert touched(own, before) == {name.replace("2024-01", "2024-02") for name in CONFORM}


def test_without_a_raw_file_conform_fetches_it_before_anything_is_deleted(own: Folder, site: SampleSite) -> None:
    for name in ("raw", "sidecar"):
        (own.lake / FILES[name]).unlink()
    before = seen(own)
    site.faults.add("*2024-01*", 403, times=1)
    ended = own.pipeline("redo", "green", "2024-01", "--from", "conform", "--yes")
    assert (ended.returncode, "stays as it is" in ended.stderr) == (1, True), ended.stderr
    assert touched(own, before) == set()
    assert own.pipeline("redo", "green", "2024-01", "--from", "conform", "--yes").returncode == 0
    assert seen(own).keys() == {*before, FILES["raw"], FILES["sidecar"]}
    assert (
        sum(request.sent for request in site.requests if request.status == 200)
        == (own.lake / FILES["raw"]).stat().st_size
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("green", "2024-01"), "Missing option '--from'"),
        (("green", "2024-01", "--from", "trips"), "'trips' is not one of 'download', 'conform', 'load', 'mart'"),
        (("green", "--from", "load"), "a dataset and a period are needed"),
        (("gren", "2024-01", "--from", "load"), "unknown datasets ['gren']"),
        (("zones", "--from", "mart"), "zones --from mart: has no marts"),
        (("zones", "2024-01", "--from", "load"), "zones is allowed only alone and without a period"),
    ],
)
def test_invalid_usage_is_one_message_and_exit_code_2(folder: Folder, arguments: tuple[str, ...], message: str) -> None:
    ended = folder.pipeline("redo", *arguments, "--yes")
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert folder.files() == []


# --- the zones


def test_the_same_zones_loaded_again_leave_the_marts_as_they_are(own: Folder, site: SampleSite) -> None:
    before, content = seen(own), state(own.path / "data")
    ended = own.pipeline("redo", "zones", "--from", "download", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert all("zones" in name for name in touched(own, before))
    assert state(own.path / "data") == content
    assert [request.path for request in site.requests if request.status == 200] == ["/misc/taxi_zone_lookup.csv"]


def test_other_zones_rebuild_all_marts(own: Folder) -> None:
    published = own.path / "published"
    published.mkdir()
    zones = (own.lake / "raw/zones/taxi_zone_lookup.csv").read_text()
    (published / "taxi_zone_lookup.csv").write_text(zones.replace("JFK Airport", "Idlewild"))
    for path in (own.lake / "raw/green").iterdir():
        shutil.copy(path, published)
    ended = own.pipeline("redo", "zones", "--from", "download", "--yes", "--source", str(published))
    assert ended.returncode == 0, ended.stderr
    assert rows(own.database, "SELECT COUNT(*) FROM zones WHERE zone = 'Idlewild'") == [(1,)]
    built = rows(own.database, "SELECT mart, month::VARCHAR FROM mart_loads ORDER BY ALL")
    assert built == [(m, f"2024-0{n}-01") for m in all_marts() for n in (1, 2)]


# --- killed


def _die(folder: Folder, deletions: int, number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return folder.run("python", "-c", DYING, str(deletions), f"{number:d}", *arguments)


@pytest.mark.parametrize(
    ("deletions", "then"), [(0, "backfill"), (1, "redo"), (2, "backfill"), (3, "backfill"), (3, "redo")]
)
def test_killed_between_two_deletions_a_backfill_or_the_same_redo_finishes_the_month(
    own: Folder, deletions: int, then: str
) -> None:
    content = state(own.path / "data")
    redo = ("redo", "green", "2024-01", "--from", "download", "--yes")
    assert _die(own, deletions, signal.SIGKILL, *redo).returncode == -signal.SIGKILL
    there = [name for name in FILES if (own.lake / FILES[name]).exists()]
    assert there == ["sidecar", "raw", "checks", "trips"][: 4 - deletions]
    assert rows(own.database, "SELECT month::VARCHAR FROM loads WHERE dataset = 'green'") == [("2024-02-01",)]
    ended = own.pipeline(*(redo if then == "redo" else ("backfill", "green", "2024-01")))
    assert ended.returncode == 0, ended.stderr
    assert state(own.path / "data") == content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_stopped_between_two_deletions_it_ends_without_a_traceback_and_continues_later(
    own: Folder, number: int
) -> None:
    content = state(own.path / "data")
    redo = ("redo", "green", "2024-01..2024-02", "--from", "download", "--yes")
    ended = _die(own, 2, number, *redo)
    assert ended.returncode in (128 + number, -number)
    assert "Traceback" not in ended.stderr
    assert own.pipeline(*redo).returncode == 0
    assert state(own.path / "data") == content


def test_killed_after_any_step_of_the_run_the_same_redo_finishes_the_month(own: Folder) -> None:
    content = state(own.path / "data")
    redo = ("redo", "green", "2024-01..2024-02", "--from", "download", "--yes")
    for step in ("2 months to do", "download", "conform", "load", "mart"):
        process = own.start("pipeline", *redo)
        heard = Heard(process)
        heard.until(lambda line, step=step: line.startswith(step))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        heard.rest()
        process.stdout and process.stdout.close()
        process.stderr and process.stderr.close()
    ended = own.pipeline(*redo)
    assert ended.returncode == 0, ended.stderr
    assert processes_in(own.path) == []
    assert state(own.path / "data") == content
    assert json.loads((own.lake / FILES["sidecar"]).read_text())["url"].endswith("2024-01.parquet")
