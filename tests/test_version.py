"""Everything that a run leaves or shows says which version of the package made it.

A sidecar does not: it describes bytes of TLC, and workers of version 0.1.0 refuse one with another field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest
from boards import running_board
from conftest import ROOT, Folder, make_folder

from pipeline.sample import SampleSite
from pipeline.source.retries import request
from pipeline.version import __version__


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    """A folder with one month."""
    folder = make_folder(tmp_path_factory.mktemp("work"), shared_site.url)
    done = folder.pipeline("backfill", "green", "2024-01")
    assert done.returncode == 0, done.stderr
    return folder


def said(folder: Folder, *arguments: str) -> str:
    done = folder.pipeline(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_lake(folder: Folder, name: str) -> bytes:
    return (folder.lake / name).read_bytes()


def versions_in(folder: Folder, table: str) -> str:
    rows = json.loads(said(folder, "sql", f"SELECT DISTINCT version FROM {table}", "--format", "json"))
    return " ".join(row["version"] for row in rows)


def in_trips(folder: Folder) -> str:
    path = folder.lake / "trips" / "green" / "month=2024-01-01" / "green_2024-01.parquet"
    return (pq.read_metadata(path).metadata or {})[b"pipeline_version"].decode()


def in_events(folder: Folder) -> str:
    run = json.loads(said(folder, "history", "--json"))[-1]
    lines = (folder.path / "data" / "logs" / "runs" / f"{run['id']}.jsonl").read_text().splitlines()
    return next(event["version"] for event in map(json.loads, lines) if event["event"] == "run_started")


def in_page(folder: Folder) -> str:
    said(folder, "status", "--html", "page.html")
    return shown_in((folder.path / "page.html").read_text(encoding="utf-8"))


def shown_in(page: str) -> str:
    return " ".join(re.findall(r"<code>taxi-pipeline (\S+)</code>", page))


ARTEFACTS: dict[str, Callable[[Folder], str]] = {
    "a trips file": in_trips,
    "a checks document": lambda folder: json.loads(in_lake(folder, "checks/green/2024-01.json"))["pipeline_version"],
    "the row of a load": lambda folder: versions_in(folder, "loads"),
    "the row of a mart": lambda folder: versions_in(folder, "mart_loads"),
    "a run": lambda folder: json.loads(said(folder, "history", "--json"))[-1]["version"],
    "the events of a run": in_events,
    "status as JSON": lambda folder: json.loads(said(folder, "status", "--json"))["version"],
    "a plan as JSON": lambda folder: json.loads(said(folder, "plan", "green", "2024-01", "--json"))["version"],
    "the page of status": in_page,
    "a data contract": lambda folder: re.findall(
        r"^version: (\S+)", said(folder, "describe", "green", "--contract"), re.M
    )[0],
    "dbt's sources": lambda folder: re.findall(r"taxi-pipeline ([\d.]+)", said(folder, "describe", "--dbt"))[0],
    "doctor": lambda folder: re.findall(r"taxi-pipeline ([\d.]+)", said(folder, "doctor", "--offline"))[0],
    "the command": lambda folder: said(folder, "--version").split()[-1],
    "the label of the images": lambda _: re.findall(
        r"image\.version=(\S+)", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    )[0],
}


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_the_version_is_in(artefact: str, work: Folder) -> None:
    assert ARTEFACTS[artefact](work) == __version__


def test_the_version_is_on_each_page_of_the_board(work: Folder) -> None:
    run = json.loads(said(work, "history", "--json"))[-1]["id"]
    with running_board(work) as board:
        for page in ("/", "/months/green/2024-01", "/runs", f"/runs/{run}"):
            assert shown_in(board.get(page).body) == __version__, page


def test_the_version_is_in_each_request_to_the_source(site: SampleSite) -> None:
    with request("HEAD", f"{site.url}/trip-data/green_tripdata_2024-01.parquet", 10, "the site"):
        assert site.requests[0].headers["User-Agent"] == f"taxi-pipeline/{__version__}"
