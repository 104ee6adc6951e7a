"""Runs that share a luigid or a lake, and runs that lose their luigid."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Heard, Luigid, read_to_end, running_luigid
from conftest import ROOT, Folder, make_folder
from state import rows

from pipeline.months import parse_month
from pipeline.sample import SampleSite
from pipeline.tasks.lake import Download

_MONTHS = ("backfill", "green", "2024-01..2024-03")


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    """A folder with short time limits for luigid, and a slow site."""
    site.faults.add("*.parquet", "delay", 0.5, times=math.inf)
    folder = make_folder(tmp_path / "work", site.url)
    file = folder.path / "luigi.cfg"
    file.write_text(file.read_text().replace("\n[core]\n", "\n[core]\nrpc_retry_wait = 4\n"))
    return folder


@pytest.fixture
def luigid(own: Folder, tmp_path: Path, site: SampleSite) -> Iterator[Luigid]:
    with running_luigid(make_folder(tmp_path / "luigid", site.url)) as running:
        yield running


def _loaded(folder: Folder) -> int:
    ((count,),) = rows(folder.database, "SELECT COUNT(*) FROM loads WHERE month IS NOT NULL")
    return int(count)


_OVERTAKEN = """
import subprocess, sys
from pipeline.cli import main
from pipeline.tasks.runs import Backfill

asked, requires = 0, Backfill.requires

def overtaken(self):
    global asked
    asked += 1
    if asked == 2:  # The run knows what is missing, and Luigi is about to ask.
        subprocess.run([sys.argv[1], *sys.argv[2:]], check=True, capture_output=True)
    return requires(self)

Backfill.requires = overtaken
main(sys.argv[2:])
"""


def test_a_step_that_another_run_did_meanwhile_is_done(folder: Folder) -> None:
    command = str(Path(sys.executable).with_name("pipeline"))
    ended = folder.run("python", "-c", _OVERTAKEN, command, "backfill", "green", "2024-01")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "not run" not in ended.stdout
    (_, run) = json.loads(folder.pipeline("history", "--json").stdout)
    assert run["months_done"] == ["green 2024-01"]


def test_two_backfills_at_once_that_share_a_luigid_both_succeed(own: Folder, luigid: Luigid) -> None:
    both = [own.start("pipeline", *_MONTHS, "--scheduler", luigid.url) for _ in range(2)]
    for process in both:
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, out + said
    assert _loaded(own) == 3


def test_a_luigid_that_does_not_return_is_one_message_and_the_same_command_continues_later(
    own: Folder, luigid: Luigid, tmp_path: Path, site: SampleSite
) -> None:
    process = own.start("pipeline", *_MONTHS, "--scheduler", luigid.url)
    heard = Heard(process)
    heard.until(lambda line: "load green" in line)
    luigid.process.kill()
    said = heard.rest()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 4, out + said
    assert "Traceback" not in out + said
    (message,) = [line for line in out.splitlines() if "does not answer" in line]
    assert message.endswith(
        f"steps not run: luigid at {luigid.url} does not answer any more. Finished steps are kept; run the "
        "same command again."
    )
    with running_luigid(make_folder(tmp_path / "next", site.url), luigid.port):
        assert own.pipeline(*_MONTHS, "--scheduler", luigid.url).returncode == 0
    assert _loaded(own) == 3


def test_a_luigid_that_is_killed_and_restarted_gets_the_remaining_steps_again(
    own: Folder, luigid: Luigid, tmp_path: Path, site: SampleSite
) -> None:
    process = own.start("pipeline", *_MONTHS, "--scheduler", luigid.url)
    heard = Heard(process)
    heard.until(lambda line: "download green" in line)
    luigid.process.kill()
    luigid.process.wait(10)
    with running_luigid(make_folder(tmp_path / "next", site.url), luigid.port):
        said = heard.rest()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out + said
    assert "Traceback" not in said
    assert _loaded(own) == 3


_WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import worker
worker.ALIVE = Path("alive")
sys.exit(worker.main())
"""


def test_a_worker_rejects_a_task_that_it_cannot_load_and_continues(own: Folder, luigid: Luigid) -> None:
    load = {"dataset": "green", "month": "2024-01"}
    for task_id, module, family, params in (
        ("foreign", "this", "Load", load),
        ("older", "pipeline.tasks.lake", "Fetch", load),
        ("newer", "pipeline.tasks.lake", "Download", {"month": "2024-01", "dataset": "blue"}),
        ("odd", "pipeline.tasks.lake", "Download", {"month": "2024-01"}),
        ("renamed", "pipeline.tasks.lake", "Download", load),
        (Download(dataset="green", month=parse_month("2024-01")).task_id, "pipeline.tasks.lake", "Download", load),
    ):
        priority = 0 if task_id.startswith("Download") else 9
        luigid.ask("add_task", worker="w", task_id=task_id, module=module, family=family, params=params,
                   priority=priority)  # fmt: skip
    own.environment["LUIGI_SCHEDULER_URL"] = luigid.url
    process = own.start("python", "-c", _WORKER, str(ROOT / "docker"))
    assert process.stdout is not None
    said = ""
    while "download green 2024-01" not in said:
        line = process.stdout.readline()
        assert line, said + process.communicate()[1]
        said += line
    process.terminate()
    out, error = read_to_end(process)
    assert process.returncode == 0, said + out + error
    assert "Traceback" not in said + out + error
    assert "Zen" not in said, "the foreign module was not even imported"
    rejected = [line for line in said.splitlines() if "rejected" in line]
    assert [line.split()[2].rstrip(":") for line in sorted(rejected)] == ["foreign", "newer", "odd", "older", "renamed"]
    assert "this" in luigid.ask("fetch_error", task_id="foreign")["error"]
