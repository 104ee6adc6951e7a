"""`pipeline status` and `pipeline plan`: what they show of a real lake, in words, as JSON and as a page."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cloud import Cloud
from conftest import Folder, make_folder
from state import rows, state

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.months import parse_month
from pipeline.runs.history import Failure, History
from pipeline.runs.overview import MARKS
from pipeline.sample import SampleSite
from pipeline.source.site import Sidecar
from pipeline.state.steps import STEPS

GREEN = DATASETS["green"]
#: Every month may be unpublished yet, as long as nothing of it is here.
YOUNG = {"PIPELINE_PUBLICATION_LAG_MONTHS": "1200"}


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("filled") / "work", shared_site.url)
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def filled(_filled: Folder) -> Folder:
    """Green 2024-01 and 2024-02, complete, for tests that change nothing."""
    return Folder(_filled.path, _filled.source)


def ask(folder: Folder, *arguments: str) -> str:
    """What the command says on standard output."""
    ended = folder.pipeline(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "" or "--html" in arguments
    return ended.stdout


def ask_json(folder: Folder, *arguments: str) -> Any:
    return json.loads(ask(folder, *arguments, "--json"))


def stages(folder: Folder, *what: str) -> dict[str, str]:
    """The stage of each month, such as green 2024-01."""
    found = ask_json(folder, "status", *what)
    return {f"{of['dataset']} {month['month']}": month["stage"] for of in found["datasets"] for month in of["months"]}


def line(text: str, beginning: str) -> str:
    """The one line with this beginning, with single spaces."""
    (found,) = (" ".join(line.split()) for line in text.splitlines() if re.match(beginning, line))
    return found


def recompress(folder: Folder, month: str) -> None:
    """Replace the raw file by other bytes with the same rows, as if TLC had republished the month."""
    raw = folder.lake / lake.raw_key(GREEN, f"green_tripdata_{month}.parquet")
    beside = raw.with_name(f"{raw.name}.json")
    pq.write_table(pq.read_table(raw), raw, compression="gzip")
    content = raw.read_bytes()
    old = Sidecar.from_json(beside.read_bytes(), "")
    sidecar = replace(old, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    beside.write_text(sidecar.to_json())


def publish(files: Path, month: str, table: pa.Table) -> None:
    """Put a month of green into a folder that is laid out like TLC's site."""
    path = files / "trip-data" / f"green_tripdata_{month}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


# --- status


def test_a_row_is_a_year_and_the_legend_has_only_the_marks_that_occur(filled: Folder) -> None:
    assert ask(filled, "status", "green", "2024").splitlines()[:4] == [
        "      green",
        "2024  ██··········",
        "█ complete   · missing",
        "",
    ]
    assert ask(filled, "status", "yellow", "green", "2023-12..2024-03").splitlines()[:5] == [
        "      yellow        green",
        "2023             ·             ·",
        "2024  ···           ██·",
        "█ complete   · missing",
        "",
    ]
    assert ask(filled, "status", "green", "2024-01").splitlines()[2] == "█ complete"


def test_totals_count_months_rows_and_bytes_and_name_lake_and_warehouse(filled: Folder) -> None:
    said = ask(filled, "status", "yellow", "green", "2024-01..2024-03")
    assert line(said, "complete ") == "complete 2"
    assert line(said, "missing ") == "missing 3 1"
    assert line(said, "rows loaded") == "rows loaded 0 4,000"
    assert line(said, "zones") == "zones complete, 265 rows"
    assert line(said, "lake") == f"lake {filled.lake}"
    assert line(said, "warehouse") == "warehouse duckdb:///data/warehouse.duckdb"
    raw = sum(path.stat().st_size for path in (filled.lake / "raw" / "green").glob("*.parquet"))
    assert line(said, "raw bytes") == f"raw bytes 0 bytes {raw / 1e3:,.1f} kB"


@pytest.mark.parametrize("command", ["status", "plan"])
def test_piped_output_has_no_colours_and_whole_lines_whatever_the_width(filled: Folder, command: str) -> None:
    usual = ask(filled, command, "all", "2023..2024")
    assert "\x1b" not in usual
    filled.environment |= {"COLUMNS": "20"}
    assert ask(filled, command, "all", "2023..2024") == usual
    assert "…" not in usual


def test_without_a_period_everything_is_shown_in_80_columns(filled: Folder) -> None:
    said = ask(filled, "status").splitlines()
    assert said[0].split() == list(DATASETS)
    assert said[1].startswith("2009  ")
    places = [text for text in said if text.startswith(("lake", "warehouse"))]
    assert max(map(len, [text for text in said if text not in places])) <= 80


def test_json_agrees_with_the_lake_and_the_warehouse(filled: Folder) -> None:
    found = ask_json(filled, "status", "green", "2024-01..2024-03")
    (green,) = found["datasets"]
    assert [(month["month"], month["stage"]) for month in green["months"]] == [
        ("2024-01", "complete"),
        ("2024-02", "complete"),
        ("2024-03", "missing"),
    ]
    for month in green["months"][:2]:
        raw = filled.lake / lake.raw_key(GREEN, f"green_tripdata_{month['month']}.parquet")
        trips = filled.lake / lake.trips_key(GREEN, parse_month(month["month"]))
        assert month["raw_bytes"] == raw.stat().st_size
        assert month["rows"] == pq.read_metadata(trips).num_rows
        assert all(month[step] is True for step in ("raw", "conformed", "loaded", "marts"))
    assert rows(filled.database, "SELECT COUNT(*) FROM green") == [(green["rows"],)]
    assert green["raw_bytes"] == sum(month["raw_bytes"] or 0 for month in green["months"])
    assert green["stages"] == {"complete": 2, "missing": 1}
    assert (found["zones"]["stage"], found["zones"]["month"], found["zones"]["rows"]) == ("complete", None, 265)
    assert found["lake"] == str(filled.lake)


def test_an_empty_lake_is_shown_and_nothing_is_created(folder: Folder) -> None:
    said = ask(folder, "status", "green", "2024")
    assert said.splitlines()[1] == "2024  ············"
    assert line(said, "zones") == "zones missing"
    assert folder.files() == []


def test_status_sends_no_request_to_the_source(tmp_path: Path, site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", site.url)
    folder.environment |= YOUNG
    assert ask(folder, "status").splitlines()[-1].startswith("warehouse")
    assert site.requests == []


class Page(HTMLParser):
    """The tags of a page, and the titles of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.titles: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "all tags are closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [text or "" for name, text in attrs if name in ("src", "href", "action", "srcset", "data")]
        self.titles += [text or "" for name, text in attrs if name == "title"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file_and_names_each_month(filled: Folder, tmp_path: Path) -> None:
    page = tmp_path / "months.html"
    assert ask(filled, "status", "yellow", "green", "2023-11..2024-03", "--html", str(page)) == ""
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert found.links == []
    assert not found.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"url\(|@import|https?://", text)
    months = ("2023-11", "2023-12", "2024-01", "2024-02", "2024-03")
    named = [title.split(":")[0] for title in found.titles]
    assert named == ["zones"] + [f"{name} {month}" for name in ("yellow", "green") for month in months]
    complete = [title for title in found.titles[1:] if ": complete" in title]
    assert [title.split(":")[0] for title in complete] == ["green 2024-01", "green 2024-02"]
    assert all("2,000 rows" in title for title in complete)
    assert str(filled.lake) in text


def test_the_page_escapes_paths(folder: Folder, tmp_path: Path) -> None:
    page = tmp_path / "months.html"
    odd = 'data/<b onclick="x">&amp;'
    ask(folder, "status", "green", "2024", "--lake", odd, "--html", str(page))
    text = page.read_text(encoding="utf-8")
    assert "<b onclick" not in text
    assert "&lt;b onclick=&quot;x&quot;&gt;&amp;amp;" in text


def test_page_and_json_can_be_combined_and_a_page_is_replaced(filled: Folder, tmp_path: Path) -> None:
    page = tmp_path / "months.html"
    page.write_text("an older page")
    said = ask(filled, "status", "green", "2024", "--html", str(page), "--json")
    assert json.loads(said)["datasets"][0]["stages"] == {"complete": 2, "missing": 10}
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["months.html"]


def test_a_stale_month_is_listed_with_the_command_that_fixes_it(folder: Folder, tmp_path: Path) -> None:
    ask_backfill(folder, "2024-01..2024-02")
    recompress(folder, "2024-02")
    said = ask(folder, "status", "green", "2024-01..2024-03")
    assert said.splitlines()[1:3] == ["2024  █~·", "█ complete   · missing   ~ out of date"]
    assert "green 2024-02: conformed from older raw bytes" in said
    assert "green 2024-01:" not in said
    page = tmp_path / "months.html"
    ask(folder, "status", "green", "2024-01..2024-03", "--html", str(page))
    assert "conformed from older raw bytes" in page.read_text(encoding="utf-8")
    planned = ask(folder, "plan", "green", "2024-01..2024-02")
    assert "Nothing to do." in planned, "a backfill does not change it"
    assert "green 2024-02: conformed from older raw bytes" in planned
    (command,) = re.findall(r"pipeline (redo green 2024-02 --from \w+)", said)
    assert command in planned
    ended = folder.pipeline(*command.split(), "--yes")
    assert ended.returncode == 0, ended.stderr
    assert set(stages(folder, "green", "2024-01..2024-02").values()) == {"complete"}


def test_a_refused_month_is_listed_with_the_rules_and_the_command_that_fixes_it(tmp_path: Path) -> None:
    files = tmp_path / "published"
    publish(files, "2024-01", pa.table([pa.array([], of.type) for of in GREEN.schema], schema=GREEN.schema))
    (files / "misc").mkdir()
    (files / "misc" / "taxi_zone_lookup.csv").write_text(ZONES_CSV)
    folder = make_folder(tmp_path / "work", str(files))
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 1
    said = ask(folder, "status", "green", "2024-01")
    assert said.splitlines()[1:3] == ["2024  !", "! refused by its checks"]
    assert re.search("^green 2024-01: refused by its checks.*no.rows", said, re.MULTILINE), said
    assert ask_json(folder, "status", "green", "2024-01")["datasets"][0]["months"][0]["failed"] == ["no_rows"]
    planned = ask(folder, "plan", "green", "2024-01")
    assert "1 month to do" in planned, "a backfill retries it"
    (command,) = re.findall(r"pipeline (redo green 2024-01 --from \w+)", said)
    with SampleSite(rows=300) as site:
        ended = folder.run("pipeline", *command.split(), "--yes", "--source", site.url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert stages(folder, "green", "2024-01") == {"green 2024-01": "complete"}


def test_months_that_failed_or_have_warnings_have_marks_of_their_own(filled: Folder, tmp_path: Path) -> None:
    shutil.copytree(filled.path, tmp_path / "work")
    folder = Folder(tmp_path / "work", filled.source)
    path = folder.lake / lake.checks_key(GREEN, parse_month("2024-02"))
    checks = json.loads(path.read_text())
    finding = {"rule": "stray_pickups", "severity": "warning", "found": "2", "allowed": "1", "message": "odd"}
    path.write_text(json.dumps({**checks, "findings": [finding]}))
    for place, months in (("elsewhere", ("2024-04",)), (str(folder.lake), ("2024-01", "2024-03"))):
        history = History(str(folder.path / "data/logs"))
        run = history.begin("pipeline backfill", lake=place, warehouse="duckdb:///data/warehouse.duckdb")
        run.failures += [Failure("download", "green", month, "SourceError", "not <there>") for month in months]
        history.end(run, 1)
    said = ask(folder, "status", "green", "2024-01..2024-04")
    assert said.splitlines()[1:3] == [
        "2024  █*x·",
        "█ complete   * complete, with warnings (pipeline check)   · missing   x failed",
    ]
    assert [line(said, mark) for mark in ("warned ", "failed ")] == ["warned 1", "failed 1"]
    assert "green 2024-03: download failed: SourceError: not <there>\n  pipeline backfill green 2024-03\n" in said
    page = tmp_path / "months.html"
    found = json.loads(ask(folder, "status", "green", "2024-01..2024-04", "--json", "--html", str(page)))
    (green,) = found["datasets"]
    assert [month["mark"] for month in green["months"]] == ["complete", "warned", "failed", "missing"]
    assert [month["stage"] for month in green["months"]] == ["complete", "complete", "missing", "missing"]
    assert (green["stages"], green["marks"]["warned"]) == ({"complete": 2, "missing": 2}, 1)
    assert green["months"][1]["warnings"] == ["stray_pickups"]
    assert green["months"][2]["failure"] == ["download", "SourceError", "not <there>"]
    titles = Page(page.read_text(encoding="utf-8")).titles
    assert "stray pickups" in titles[2]
    assert titles[3] == "green 2024-03: failed; download failed: SourceError: not <there>"
    assert "A backfill tries again what failed:" in ask(folder, "plan", "green", "2024-03")


ZONES_CSV = '"LocationID","Borough","Zone","service_zone"\n1,"EWR","Newark Airport","EWR"\n'


def ask_backfill(folder: Folder, period: str, *options: str) -> None:
    ended = folder.pipeline("backfill", "green", period, *options)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("through", "cell"),
    [("download", "raw"), ("conform", "conformed"), ("load", "loaded"), ("mart", "complete")],
)
def test_status_shows_the_last_step_of_a_backfill_and_plan_the_others(folder: Folder, through: str, cell: str) -> None:
    ask_backfill(folder, "2024-01", "--through", through)
    character, meaning = MARKS[cell].character, MARKS[cell].meaning
    said = ask(folder, "status", "green", "2024-01")
    assert said.splitlines()[1:3] == [f"2024  {character}", f"{character} {meaning}"]
    found = ask_json(folder, "plan", "green", "2024-01")
    left = STEPS[STEPS.index(through) + 1 :]
    assert {step for step, months in found["datasets"][0]["steps"].items() if months} == set(left)
    assert ask_json(folder, "plan", "green", "2024-01", "--through", through)["datasets"][0]["there"] == ["2024-01"]
    assert "Nothing to do." in ask(folder, "plan", "green", "2024-01", "--through", through)


# --- plan


def test_a_plan_lists_the_steps_and_a_backfill_then_leaves_nothing_to_do(folder: Folder) -> None:
    ask_backfill(folder, "2024-02", "--through", "conform")
    said = ask(folder, "plan", "green", "2024-01..2024-04")
    assert line(said, "from download") == "from download green 2024-01, 2024-03..2024-04 3 nothing is here"
    assert line(said, "from load") == "from load green 2024-02 1 trips file exists"
    assert line(said, "zones") == "zones load"
    assert re.search("^4 months to do", said, re.MULTILINE), said
    (green,) = ask_json(folder, "plan", "green", "2024-01..2024-04")["datasets"]
    fetched = ["2024-01", "2024-03", "2024-04"]
    every = ["2024-01", "2024-02", "2024-03", "2024-04"]
    assert green["steps"] == {"download": fetched, "conform": fetched, "load": every, "mart": every}
    assert green["bytes_to_download"] > 0
    ask_backfill(folder, "2024-01..2024-04")
    assert "Nothing to do." in ask(folder, "plan", "green", "2024-01..2024-04")
    found = ask_json(folder, "plan", "green", "2024-01..2024-04")
    assert found["zones"] == []
    (green,) = found["datasets"]
    assert (green["there"], green["steps"]) == (every, {step: [] for step in STEPS})
    assert green["bytes_to_download"] == 0


@pytest.mark.parametrize("through", STEPS)
def test_through_cuts_the_steps(folder: Folder, through: str) -> None:
    found = ask_json(folder, "plan", "green", "fhv", "2024-01", "--through", through)
    kept = STEPS[: STEPS.index(through) + 1]
    green, fhv = found["datasets"]
    assert [step for step, months in green["steps"].items() if months] == list(kept)
    assert [step for step, months in fhv["steps"].items() if months] == list(kept)
    assert found["zones"] == [step for step in kept if step != "mart"]


def test_young_months_that_the_source_lacks_are_not_published_and_no_step_is_planned(tmp_path: Path) -> None:
    with SampleSite(rows=100, last=parse_month("2024-02")) as site:
        folder = make_folder(tmp_path / "work", site.url)
        folder.environment |= YOUNG
        said = ask(folder, "plan", "green", "2024-02..2024-04")
        assert line(said, "not published") == "not published green 2024-03..2024-04 2 the source does not have it yet"
        assert re.search("^1 month to do", said, re.MULTILINE), said
        assert {request.method for request in site.requests} == {"HEAD"}
        (green,) = ask_json(folder, "plan", "green", "2024-02..2024-04")["datasets"]
        assert green["not_published"] == ["2024-03", "2024-04"]
        assert green["steps"]["download"] == ["2024-02"]
        assert stages(folder, "green", "2024-02") == {"green 2024-02": "not published"}, "status does not ask"
        folder.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "0"
        site.requests.clear()
        (green,) = ask_json(folder, "plan", "green", "2024-02..2024-04")["datasets"]
        assert (green["not_published"], len(green["steps"]["download"])) == ([], 3), "long due: an error of the run"
        assert site.requests == []


def test_a_source_that_does_not_answer_does_not_stop_the_plan(tmp_path: Path, site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", site.url)
    folder.environment |= YOUNG
    site.faults.add("*2024-01*", 500, times=math.inf)
    ended = folder.pipeline("plan", "green", "2024-01..2024-02", "--json")
    assert ended.returncode == 0, ended.stderr
    (green,) = json.loads(ended.stdout)["datasets"]
    assert green["steps"]["download"] == ["2024-01", "2024-02"]
    assert "HTTP 500" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["status", "plan"])
def test_status_and_plan_change_no_file(folder: Folder, command: str) -> None:
    ask_backfill(folder, "2024-01")
    recompress(folder, "2024-01")
    data = folder.path / "data"

    def seen() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in data.rglob("*")}

    before, content = seen(), state(data)
    ask(folder, command, "all", "2024")
    ask_json(folder, command, "all", "2024")
    assert seen() == before
    assert state(data) == content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("status", "gren"),
            "unknown datasets ['gren']; allowed are yellow, green, fhv, fhvhv, several with commas, or all; ",
        ),
        (("status", "gren"), "did you mean green?"),
        (("status", "green", "2024-13"), "'2024-13' is not a month: months are 01 to 12"),
        (("status", "green", "2024-03..2024-01"), "ends before it starts"),
        (("status", "green", "2001"), "no month of '2001' exists: green starts in"),
        (("status", "--html"), "'--html' requires an argument"),
        (("status", "green", "2024", "--html", "no/such/page.html"), "page.html"),
        (("status", "green", "2024", "--html", "."), "is not a file"),
        (("status", "-q", "-v"), "only one of them"),
        (("status", "--warehouse", "mysql://host/x"), "no known scheme"),
        (("plan",), "Missing argument"),
        (("plan", "green"), "a dataset and a period are needed"),
        (("plan", "green", "2024", "--through", "fly"), "Invalid value for '--through'"),
        (("plan", "green", "2024", "--html", "x.html"), "No such option"),
        (("plan", "green", "2024", "--lake", "s3://bucket"), "s3 is not a supported kind of lake"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(folder: Folder, arguments: tuple[str, ...], message: str) -> None:
    ended = folder.pipeline(*arguments)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert message in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert folder.files() == []


# --- in Google's cloud


def test_status_in_the_cloud_asks_as_often_for_one_month_as_for_two(folder: Folder, cloud: Cloud) -> None:
    cloud.use(folder)

    def requests(wanted: dict[str, int]) -> int:
        cloud.clear()
        found = ask_json(folder, "status", "green", "2024-01..2024-02")
        assert found["datasets"][0]["stages"] == wanted
        return len(cloud.gcs.requests) + len(cloud.bigquery.requests)

    ask_backfill(folder, "2024-01")
    for_one = requests({"complete": 1, "missing": 1})
    ask_backfill(folder, "2024-01..2024-02")
    assert requests({"complete": 2}) == for_one <= 20
