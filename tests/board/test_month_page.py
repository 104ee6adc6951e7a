"""The page of a month: its views from small examples, and the page itself as a real board serves it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests
import tornado.locale
from conftest import Folder, make_folder
from tornado.template import Loader

from pipeline import board as board_package
from pipeline.board import grid, month_page
from pipeline.errors import UsageError, visible
from pipeline.months import parse_month
from pipeline.runs.history import Failure, Run
from pipeline.sample import SampleSite

_PATIENCE_S = 60
ENGLISH = tornado.locale.get("en_US").translate
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> \x1b[31m \x07"


class Board:
    """A running board, and a browser that has used its link."""

    def __init__(self, link: str) -> None:
        self.session, self._base = requests.Session(), link.partition("/?")[0]
        self.session.get(link, timeout=_PATIENCE_S).raise_for_status()

    def get(self, path: str, status: int = 200, language: str = "en") -> str:
        headers = {"Accept-Language": language}
        answer = self.session.get(self._base + path, headers=headers, timeout=_PATIENCE_S)
        assert answer.status_code == status, answer.text
        return answer.text


@contextmanager
def running_board(folder: Folder, *options: str) -> Iterator[Board]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = folder.start("pipeline", "board", "--no-open", "--port", port, *options)
    try:
        assert process.stdout is not None
        link = process.stdout.readline().strip().removeprefix("The board: ")
        assert link, process.communicate(timeout=_PATIENCE_S)
        yield Board(link)
    finally:
        process.terminate()
        _, err = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, err) == (0, "")


@pytest.fixture(scope="module")
def folder_of_months(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """Green 2024-01 and 2024-02, complete, of which 2024-02 has a hostile log; 2024-03, of which TLC sent a page."""
    with SampleSite(rows=500) as site:
        folder = make_folder(tmp_path_factory.mktemp("month") / "work", site.url)
        assert folder.pipeline("backfill", "green", "2024-01..2024-02").returncode == 0
        site.faults.add("green_tripdata_2024-03*", "html", times=100)
        assert folder.pipeline("backfill", "green", "2024-03").returncode == 1
        with (folder.path / "data/logs/green/2024-02/load.log").open("a") as log:
            log.write(f"2026-01-01T00:00:00.000Z INFO load green 2024-02: begins, process 7, {HOSTILE}\n")
            log.write(f"2026-01-01T00:00:01.000Z ERROR load green 2024-02: failed: OSError: {HOSTILE}\n")
            log.write(f'Traceback (most recent call last):\n  File "{HOSTILE}", line 1\n')
        yield folder


@pytest.fixture(scope="module")
def board(folder_of_months: Folder) -> Iterator[Board]:
    with running_board(folder_of_months) as board:
        yield board


class _Page(HTMLParser):
    """The texts of a page, and its elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts += [" ".join(data.split())] if data.strip() else []

    @property
    def text(self) -> str:
        return " ".join(self.texts)


# --- A real board


def test_the_page_of_a_complete_month_has_its_steps_source_checks_and_commands(
    board: Board, folder_of_months: Folder
) -> None:
    page = _Page(board.get("/months/green/2024-02"))
    assert "✓ complete" in page.text
    for part in ("download", "conform", "load", "mart", "daily_trips", "raw/green/green_tripdata_2024-02.parquet"):
        assert part in page.texts
    assert "500 rows in the warehouse" in page.texts
    assert f"{folder_of_months.source}/trip-data/green_tripdata_2024-02.parquet" in page.texts
    assert re.search(r"SHA-256 [0-9a-f]{64}\b", page.text)
    assert "Difference from 2024-01" in page.text
    links = [attributes.get("href") for tag, attributes in page.elements if tag == "a"]
    assert {"/months/green/2024-01", "/months/green/2024-03", "/#green"} <= {*links}
    (run,) = {link for link in links if link and link.startswith("/runs/")}
    assert board.get(run)
    commands = [attributes["data-copy"] for _, attributes in page.elements if "data-copy" in attributes]
    assert "pipeline redo green 2024-02 --from conform" in commands
    assert not [link for link in links if link and link.startswith("/actions")], "this board does not start runs"


def test_a_board_that_may_run_things_links_to_their_previews(folder_of_months: Folder) -> None:
    with running_board(folder_of_months, "--allow-runs") as board:
        page = _Page(board.get("/months/green/2024-02"))
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and attributes.get("href")]
    queries = [urlsplit(link).query for link in links if link and urlsplit(link).path == "/actions"]
    assert "action=redo&dataset=green&period=2024-02&step=mart" in queries


def test_a_failed_month_shows_its_reason_remedy_and_log_two_clicks_from_the_grid(board: Board) -> None:
    first = _Page(board.get("/"))
    (cell,) = (each for _, each in first.elements if each.get("data-month") == "green 2024-03")
    page = _Page(board.get(cell["href"] or ""))
    assert "download failed" in page.texts
    assert "SourceError: green 2024-03" in page.text
    assert "it is an HTML page" in page.text
    commands = [attributes["data-copy"] for _, attributes in page.elements if "data-copy" in attributes]
    assert commands[0] == "pipeline backfill green 2024-03"
    log = next(each for tag, each in page.elements if tag == "details" and each.get("id") == "log-download")
    assert "open" in log, "the log of the failed step is open"
    assert "Traceback" in page.texts


def test_hostile_text_in_a_log_is_shown_and_not_run(board: Board) -> None:
    html = board.get("/months/green/2024-02")
    page = _Page(html)
    assert "<script>alert(1)</script> <img src=x onerror=alert(2)> \\x1b[31m \\x07" in page.text
    assert "\x1b" not in html
    assert all(attributes.get("src", "").startswith("/static/") for tag, attributes in page.elements if tag == "script")
    assert not [tag for tag, attributes in page.elements if tag == "img" or "onerror" in attributes]


def test_no_page_has_inline_styles_or_scripts(board: Board) -> None:
    for path in ("/months/green/2024-02", "/months/green/2024-02/data", "/months/zones", "/months/zones/data"):
        page = _Page(board.get(path))
        for tag, attributes in page.elements:
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith("on")]
            assert tag != "style"


def test_no_two_landmarks_of_a_month_share_a_name(board: Board) -> None:
    for path in ("/months/green/2024-02", "/months/green/2024-03", "/months/zones"):
        marks = [
            each for tag, each in _Page(board.get(path)).elements if tag == "section" or each.get("role") == "region"
        ]
        names = [each.get("aria-labelledby") or each.get("aria-label") for each in marks]
        assert len(names) >= 3
        assert len(names) == len({*names}), names


def test_a_month_is_compared_with_the_one_that_is_asked_for(board: Board) -> None:
    page = _Page(board.get("/months/green/2024-01?against=2024-02"))
    assert "from 2024-02" in page.texts
    assert "pickup_datetime" in page.texts
    assert "No earlier month has passed its checks." in _Page(board.get("/months/green/2024-01")).texts


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("2024-13", "months are 01 to 12"),
        ("2024", "is not a month"),
        ("2024-02' OR 1=1", "is not a month"),
        ("<script>alert(1)</script>", "is not a month"),
        ("../../etc", "is not a month"),
        ("2024-02", "is the month of this page"),
        ("2023-07", "no checks of green 2023-07"),
        ("\uff11\uff12\uff13\uff14-\uff10\uff11", "is not a month"),
    ],
)
def test_another_month_that_is_none_gets_a_message_on_the_page(board: Board, against: str, message: str) -> None:
    page = _Page(board.get(f"/months/green/2024-02?{urlencode({'against': against})}"))
    assert message in page.text
    assert "green 2024-02" in page.texts, "the rest of the page is there"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/months/pink/2024-01", 400, "allowed are yellow, green, fhv, fhvhv"),
        ("/months/green/2030-01", 400, "allowed is a month from 2014-01 to"),
        ("/months/green/2024-13", 400, "allowed is a month from"),
        ("/months/green", 400, "allowed is a month from"),
        ("/months/zones/2024-01", 400, "no such dataset"),
        ("/months/pink/2024-01/data", 400, "allowed are yellow, green, fhv, fhvhv"),
        ("/months/GREEN/2024-01", 404, "Nothing is here"),
    ],
)
def test_an_unknown_month_gets_a_message(board: Board, path: str, status: int, message: str) -> None:
    assert message in _Page(board.get(path, status)).text


def test_the_data_of_a_month_are_its_first_rows_and_pictures_with_tables(board: Board) -> None:
    page = _Page(board.get("/months/green/2024-02/data"))
    assert "10 of 500" in page.texts
    pictures = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 2
    assert all(each["aria-label"] for each in pictures)
    assert len([tag for tag, attributes in page.elements if attributes.get("class") == "heat"]) == 7 * 24
    assert {"2024-02-01", "2024-02-29", "pickup_datetime", "USD"} <= {*re.split(r"[\s,]+", page.text)}
    assert page.text.count("As a table") == 2


def test_the_data_of_the_zones_are_their_first_rows(board: Board) -> None:
    page = _Page(board.get("/months/zones/data"))
    assert "10 of 265" in page.texts
    assert "Newark Airport" in page.texts


def test_the_data_of_a_month_without_trips_say_why_there_are_none(board: Board) -> None:
    page = _Page(board.get("/months/green/2024-03/data"))
    assert "no trips file in the lake" in page.text
    assert "the mart daily_trips is not built" in page.text


def test_a_picture_whose_numbers_are_missing_says_why(folder_of_months: Folder, board: Board) -> None:
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(folder_of_months.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        page = _Page(board.get("/months/green/2024-02/data"))
        assert holder.stdin is not None
        holder.stdin.close()
    assert "WarehouseError" not in page.text
    assert str(folder_of_months.database.name) in page.text
    assert "10 of 500" in page.texts, "the rows are from the lake"


def test_the_page_is_korean_for_a_korean_browser(board: Board) -> None:
    page = _Page(board.get("/months/green/2024-02", language="ko-KR,ko;q=0.9"))
    assert "green 2024-02" in page.texts
    for text in ("단계", "명령", "출처", "다운로드", "해당 월 밖의 승차"):
        assert text in page.texts
    assert "Steps" not in page.texts


# --- Views


def test_months_have_neighbours_and_the_zones_have_none() -> None:
    months = [{"month": f"2024-0{number}"} for number in (1, 2, 3)]
    document = {"zones": {"dataset": "zones"}, "datasets": [{"dataset": "green", "months": months}]}
    assert month_page.neighbours(document, "green", "2024-02") == ("2024-01", "2024-03")
    assert month_page.neighbours(document, "green", "2024-01") == (None, "2024-02")
    assert month_page.neighbours(document, "green", "2024-03") == ("2024-02", None)
    assert month_page.neighbours(document, "zones", None) == (None, None)
    for dataset, month in (("green", "2024-04"), ("green", None), ("pink", "2024-01"), ("zones", "2024-01")):
        with pytest.raises(UsageError, match="allowed"):
            month_page.neighbours(document, dataset, month)


def test_the_failure_shown_is_that_of_the_newest_run_of_the_month_and_step() -> None:
    def run(id: str, month: str, step: str) -> Run:
        return Run(id, "", "", 1, ended=id, failures=[Failure(step, "green", month, "E", "e", remedy=f"fix {id}")])

    runs = [run("1", "2024-01", "load"), run("2", "2024-01", "load"), run("3", "2024-02", "load")]
    failure = ("load", "E", "e")
    shown = month_page.last_failure(runs, "green", "2024-01", failure)
    texts = {"step": "load", "kind": "E", "error": "e"}
    assert shown == {**texts, "run": "2", "ended": "2", "remedy": "fix 2"}
    assert month_page.last_failure(runs, "green", "2024-01", None) is None
    assert month_page.last_failure([], "green", "2024-01", failure)["run"] == ""


def test_a_log_is_shown_newest_attempt_first_without_its_traceback(tmp_path: Path) -> None:
    log = tmp_path / "green/2024-01/load.log"
    log.parent.mkdir(parents=True)
    first, second = (f"2026-01-0{day}T00:00:00.000Z INFO load: begins, process 1" for day in (1, 2))
    log.write_text(
        f"{first}\n2026-01-01T00:00:01.000Z ERROR failed\nTraceback (most recent call last):\n  x\n{second}\n"
    )
    (shown,) = month_page.step_logs(str(tmp_path), "green", parse_month("2024-01"), ["download", "load"])
    assert (shown["step"], shown["path"], shown["is_cut"]) == ("load", str(log), False)
    assert [each["text"] for each in shown["attempts"]] == [second, f"{first}\n2026-01-01T00:00:01.000Z ERROR failed"]
    assert [each["tracebacks"] for each in shown["attempts"]] == [[], ["Traceback (most recent call last):\n  x"]]


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "zones/load.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\xff" * 1_000_000 + b"\n" + b"line\n" * 10_000)
    (shown,) = month_page.step_logs(str(tmp_path), "zones", None, ["load"])
    (attempt,) = shown["attempts"]
    assert shown["is_cut"]
    assert set(attempt["text"].splitlines()) == {"line"}
    (tmp_path / "zones/load.log").unlink()
    (tmp_path / "zones/load.log").mkdir()
    assert month_page.step_logs(str(tmp_path), "zones", None, ["load"]) == []


def test_columns_are_marked_when_they_leave_what_the_months_before_had() -> None:
    def column(name: str, type: str, share: float, least: Any, most: Any, *before: Any) -> dict[str, Any]:
        measures = [{"share": a, "min": b, "max": c} for a, b, c in before]
        return {"column": name, "type": type, "share": share, "min": least, "max": most, "before": [*measures, None]}

    columns = [
        column("fee", "double", 0.5, -1.0, 5.0, (0.48, 0.0, 5.0), (0.5, 0.0, 4.0)),
        column("code", "string", 0.1, "A", "Z", (0.05, "A", "Y")),
        column("at", "timestamp[us]", 0.0, "2024-01-01", "2024-02-01", (0.0, "2024-01-02", "2024-01-31")),
        column("new", "int64", 0.0, 1, 2),
        column("empty", "int64", 1.0, None, None, (1.0, None, None)),
    ]
    rows = month_page.profile_rows(columns)
    assert {row["column"]: row["moved"] for row in rows} == {
        "fee": {"share", "min"},
        "code": {"share", "max"},
        "at": set(),
        "new": set(),
        "empty": set(),
    }
    assert rows[0]["before"] == {"share": 0.49, "min": 0.0, "max": 5.0}


def test_bars_are_relative_to_the_largest() -> None:
    days = month_page.day_bars([{"day": "2024-03-01", "trips": 5}, {"day": "2024-03-02", "trips": 10}])
    assert [bar["height"] for bar in days["bars"]] == [days["height"] / 2, days["height"]]
    assert [bar["is_weekend"] for bar in days["bars"]] == [False, True]
    assert month_page.day_bars([{"day": "2024-03-01", "trips": 0}])["bars"][0]["height"] == 0


def test_the_pictures_are_relative_to_the_largest_number_even_if_that_is_none() -> None:
    def shown(days: Any, hours: Any, revenues: Any) -> list[dict[str, str | None]]:
        zones = [{"pickup_zone": "A", "trips": 1, "total_amount": each} for each in revenues]
        series = {"daily_trips": days, "hours_of_week": hours, "monthly_zone_revenue": zones}
        marts = {name: {"data": data, "reason": "the warehouse is busy"} for name, data in series.items()}
        values = {"_": ENGLISH, "locale": tornado.locale.get("en_US"), "visible": visible, "css": "x"}
        template = Loader(str(Path(board_package.__file__).parent / "templates")).load("month_data.html")
        page = template.generate(**values, label="green 2024-03", marts=marts, rows=None, problems=[]).decode()
        return [attributes for tag, attributes in _Page(page).elements if tag == "rect"]

    hours = [[0, 4], [2, 1], *[[0, 0]] * 5]
    marks = shown([], hours, [50.0, 25.0, None])
    assert [each["fill-opacity"] for each in marks if each["class"] == "heat"][:4] == ["0.04", "1.0", "0.5", "0.25"]
    assert [each["width"] for each in marks if each["class"] == "column"] == ["100.0", "50.0", "0"]
    marks = shown([{"day": "2024-03-01", "trips": 0}], [[0]] * 7, [-3.0])
    assert {each["fill-opacity"] for each in marks if each["class"] == "heat"} == {"0.04"}
    assert [(each.get("height"), each["width"]) for each in marks if each["class"] == "column"][1:] == [("10", "0")]
    assert shown(None, None, []) == []


def test_numbers_times_and_phrases_of_the_checks_are_readable() -> None:
    assert grid.moment("2026-11-26T19:33:41+00:00") == "2026-11-26 19:33 UTC"
    assert [month_page.number(each) for each in (1234, 0.5, "N", None)] == ["1,234", "0.5", "N", ""]
    phrases = ("at least 1 and at most 0.20%", "7 of 10 (70.00%)", "3 (7 instead of 10)", "3 (row 1: fare 1e12)")
    assert [month_page.phrase_text(each, ENGLISH) for each in phrases] == [
        phrases[0].replace(" and ", ", "),
        *phrases[1:],
    ]
    korean = month_page.phrase_text("56,551 of 56,551 (100.00%)", lambda text, *_: text.replace("of", "/"))
    assert korean == "56,551 / 56,551 (100.00%)"
    assert month_page.measure_text("rows_off_published", ENGLISH) == "rows off published"
    assert month_page.measure_text("unknown_rate_code_id", ENGLISH) == "unknown codes: rate_code_id"
