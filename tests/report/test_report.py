"""The page of pictures: its numbers are those of the marts, and it needs nothing but itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest
from boards import Elements, Opener, running_board
from cloud import Cloud
from conftest import ROOT, Folder, make_folder
from postgres import Database

from pipeline.report import charts, pictures
from pipeline.report.questions import Facts
from pipeline.sample import SampleSite
from pipeline.version import __version__

TRIPS, REVENUE = "How many trips are there each month?", "How much do passengers pay each month?"
FEES, HOURS = "How much are the congestion fees each month?", "When in the week do trips begin?"
PAYMENTS, ODD = "How are taxis paid?", "How many rows are odd?"
ZONES, PAID = "Where do most trips begin?", "Where do passengers pay most?"
AIRPORTS = "How many trips go to and from the airports?"
TITLES = [TRIPS, REVENUE, FEES, HOURS, PAYMENTS, ODD, ZONES, PAID, AIRPORTS]
#: Runs the command in a Python that has no library for charts.
WITHOUT = "import sys; sys.modules['altair'] = None; from pipeline.cli import main; main(sys.argv[1:])"


class Shown(HTMLParser):
    """The pictures of a page, by title: text before the table, and the rows of the table, its header first."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.notes: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.drawn: set[str] = set()
        self._title, self._inside = "", list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        if tag == "figure":
            self._title = ""
        elif tag == "svg":
            self.drawn.add(self._title)
        elif tag == "tr" and self._title:
            self.tables.setdefault(self._title, []).append([])
        elif tag in ("td", "th") and self._title:
            self.tables[self._title][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while tag in self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "figure" not in self._inside or "svg" in self._inside:
            return
        if "h2" in self._inside:
            self._title = data
        elif "td" in self._inside or "th" in self._inside:
            self.tables[self._title][-1][-1] += data
        elif self._title:
            self.notes[self._title] = self.notes.get(self._title, "") + data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    """A folder with months of all datasets, and a report of them."""
    folder = make_folder(tmp_path_factory.mktemp("report"), shared_site.url)
    for words in (("green", "2024-01..2024-02"), ("yellow", "fhv", "fhvhv", "2024-01")):
        ended = folder.pipeline("backfill", *words)
        assert ended.returncode == 0, ended.stderr
    ended = folder.pipeline("report", "--html", "report.html")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "written: report.html\n")
    assert f"taxi-pipeline {__version__}" in (folder.path / "report.html").read_text(encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(made: Folder) -> str:
    return (made.path / "report.html").read_text(encoding="utf-8")


def _rows(folder: Folder, sql: str) -> list[list[str]]:
    """The rows of a query, as the page writes them."""
    with duckdb.connect(str(folder.database), read_only=True) as connection:
        return [["-" if value is None else str(value) for value in row] for row in connection.sql(sql).fetchall()]


def _figures(page: str) -> list[str]:
    return re.findall("<figure.*?</figure>", page, re.DOTALL)


def _refused(folder: Folder, *words: str, code: int) -> str:
    """The one line in which the command says why it wrote nothing."""
    before = sorted(folder.path.iterdir())
    ended = folder.pipeline("report", *words)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert sorted(folder.path.iterdir()) == before
    assert ended.stderr.startswith("pipeline: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


# --- the numbers


@pytest.mark.parametrize(
    ("title", "sql"),
    [
        (
            TRIPS,
            """
            PIVOT (SELECT strftime(month, '%Y-%m') AS month, dataset, format('{:,}', trips) AS n FROM monthly_summary)
            ON dataset IN ('yellow', 'green', 'fhv', 'fhvhv') USING any_value(n) ORDER BY month
            """,
        ),
        (
            REVENUE,
            """
            PIVOT (
                SELECT strftime(month, '%Y-%m') AS month, dataset, format('{:,}', round(total_amount)::BIGINT) AS n
                FROM monthly_summary
            ) ON dataset IN ('yellow', 'green', 'fhvhv') USING any_value(n) ORDER BY month
            """,
        ),
        (
            FEES,
            """
            PIVOT (
                SELECT strftime(month, '%Y-%m') AS month, dataset, format('{:,}', round(congestion_fees)::BIGINT) AS n
                FROM monthly_summary
            ) ON dataset IN ('yellow', 'green', 'fhvhv') USING any_value(n) ORDER BY month
            """,
        ),
        (
            PAYMENTS,
            """
            SELECT dataset, strftime(month, '%Y-%m'), format('{:,}', sum(trips)::BIGINT),
                format('{:.1f} %', 100 * sum(trips) FILTER (payment = 'credit card') / sum(trips))
            FROM payment_mix GROUP BY dataset, month ORDER BY dataset = 'green', month
            """,
        ),
        (
            ODD,
            """
            SELECT dataset, strftime(month, '%Y-%m'), format('{:,}', rows),
                format('{:.3f} %', 100 * negative_minutes / rows), format('{:.3f} %', 100 * strays / rows),
                format('{:.3f} %', 100 * unknown_zones / rows), format('{:.3f} %', 100 * unknown_codes / rows)
            FROM monthly_summary JOIN loads USING (dataset, month)
            ORDER BY list_position(['yellow', 'green', 'fhv', 'fhvhv'], dataset), month
            """,
        ),
        (
            HOURS,
            """
            SELECT dataset, hour || ':00', format('{:,}', coalesce(sum(trips) FILTER (weekday = 1), 0)::BIGINT)
            FROM (SELECT unnest(range(24)) AS hour) CROSS JOIN (SELECT DISTINCT dataset FROM hourly_zone_trips)
            LEFT JOIN hourly_zone_trips USING (dataset, hour) GROUP BY dataset, hour
            ORDER BY list_position(['yellow', 'green', 'fhv', 'fhvhv'], dataset), hour
            """,
        ),
        (
            AIRPORTS,
            """
            SELECT direction || ' ' || airport, dataset, format('{:,}', sum(trips)::BIGINT),
                coalesce(format('{:,}', round(sum(airport_fee))::BIGINT), '-'),
                coalesce(format('{:,}', round(sum(total_amount))::BIGINT), '-')
            FROM airport_trips GROUP BY airport, direction, dataset
            ORDER BY airport, direction, list_position(['yellow', 'green', 'fhv', 'fhvhv'], dataset)
            """,
        ),
    ],
)
def test_the_numbers_of_a_table_are_those_of_the_marts(made: Folder, page: str, title: str, sql: str) -> None:
    expected = _rows(made, sql)
    shown = Shown(page).tables[title][1:]
    assert [row[: len(expected[0])] for row in shown] == expected


@pytest.mark.parametrize(("title", "column"), [(ZONES, "trips"), (PAID, "total_amount")])
def test_the_zones_are_the_ten_with_the_most(made: Folder, page: str, title: str, column: str) -> None:
    expected = _rows(
        made,
        f"SELECT pickup_location_id, coalesce(any_value(pickup_zone), 'no zone'), "
        f"format('{{:,}}', round(sum({column}))::BIGINT) FROM hourly_zone_trips GROUP BY 1 "
        f"HAVING sum({column}) IS NOT NULL ORDER BY sum({column}) DESC, 2 LIMIT 10",
    )
    shown = Shown(page).tables[title]
    assert [[re.sub(r" \(\d+\)$", "", row[0]), row[-1]] for row in shown[1:]] == [row[1:] for row in expected]


def test_every_picture_asks_a_question_has_a_drawing_with_a_name_and_says_what_it_leaves_out(page: str) -> None:
    shown = Shown(page)
    assert list(shown.notes) == TITLES
    assert shown.drawn == {*TITLES}
    assert all(len(note.strip()) > 20 for note in shown.notes.values())
    images = [attributes for _, attributes in Elements(page).elements if attributes.get("role") == "img"]
    assert [each["aria-label"] for each in images] == TITLES


def test_a_dataset_without_amounts_is_named_and_not_drawn_as_0(page: str) -> None:
    shown = Shown(page)
    assert "no such values for fhv " in shown.notes[REVENUE]
    assert "no such values for fhv, fhvhv " in shown.notes[PAYMENTS]
    assert shown.tables[REVENUE][0] == ["Month", "yellow", "green", "fhvhv"]


def test_the_page_says_what_it_covers(page: str) -> None:
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "green 2024-01..2024-02 2 months" in text
    assert "fhv 2024-01 1 month " in text
    assert "duckdb:///data/warehouse.duckdb" in text
    assert re.search(r"As of \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)


def test_fhv_alone_has_no_pictures_of_money(made: Folder) -> None:
    assert made.pipeline("report", "fhv", "2024", "--html", "fhv.html").returncode == 0
    shown = Shown((made.path / "fhv.html").read_text(encoding="utf-8"))
    assert shown.drawn == {TRIPS, HOURS, ODD, ZONES, AIRPORTS}
    assert all("There is nothing to draw." in shown.notes[title] for title in {*TITLES} - shown.drawn)


def test_the_same_marts_give_the_same_page_and_replace_the_old_one(made: Folder, page: str) -> None:
    path = made.path / "again.html"
    path.write_text("old")
    assert made.pipeline("report", "--html", str(path), "all").returncode == 0
    assert path.read_text(encoding="utf-8") == page


def test_loaded_months_without_marts_are_named_and_the_command_builds_them(
    tmp_path: Path, shared_site: SampleSite
) -> None:
    folder = make_folder(tmp_path / "work", shared_site.url)
    assert folder.pipeline("backfill", "green", "2024-01..2024-02", "--through", "load").returncode == 0
    message = _refused(folder, "green", "--html", "report.html", code=5)
    (command,) = re.findall(r"run: (pipeline .*)\n", message)
    assert command == "pipeline backfill green 2024-01..2024-02"
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    assert folder.pipeline("report", "--html", "report.html").returncode == 0
    (command,) = re.findall(r"<code>(pipeline backfill [^<]*)</code>", (folder.path / "report.html").read_text())
    assert folder.run(*command.split()).returncode == 0
    assert folder.pipeline("report", "--html", "report.html").returncode == 0
    page = (folder.path / "report.html").read_text()
    assert "pipeline backfill" not in page
    assert [row[0] for row in Shown(page).tables[TRIPS][1:]] == ["2024-01", "2024-02"]


def test_postgres_has_the_same_pictures(made: Folder, page: str, database: Database) -> None:
    made.environment["PIPELINE_WAREHOUSE"] = database.url
    try:
        for words in (("green", "2024-01..2024-02"), ("yellow", "fhv", "fhvhv", "2024-01")):
            assert made.pipeline("backfill", *words).returncode == 0
        assert made.pipeline("report", "--html", "postgres.html").returncode == 0
    finally:
        del made.environment["PIPELINE_WAREHOUSE"]
    other = (made.path / "postgres.html").read_text(encoding="utf-8")
    assert _figures(other) == _figures(page)
    assert "postgresql://" in other


def test_bigquery_has_the_same_pictures(made: Folder, tmp_path: Path, cloud: Cloud) -> None:
    folder = cloud.use(make_folder(tmp_path / "cloud", made.source))
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    pages = []
    for each in (folder, made):
        ended = each.pipeline("report", "green", "2024-01", "--html", "green.html")
        assert ended.returncode == 0, ended.stderr
        pages.append((each.path / "green.html").read_text(encoding="utf-8"))
    assert _figures(pages[0]) == _figures(pages[1])
    assert "bigquery://" in pages[0]


# --- the drawings


def _facts(months: list[date], trips: list[int], zone: str = "Corona") -> Facts:
    summary = dict.fromkeys(["total_amount", "congestion_fees", *pictures.ODD])
    return Facts(
        months={"green": months},
        rows={("green", month): count for month, count in zip(months, trips, strict=True)},
        answers={
            "summary": [
                {"dataset": "green", "month": month, "trips": count, **summary}
                for month, count in zip(months, trips, strict=True)
            ],
            "zones": [
                {"dataset": "green", "pickup_location_id": number, "pickup_zone": zone, "trips": 9, "total_amount": 1}
                for number in (56, 57)
            ],
        },
        commands=[],
        built_at=datetime(2024, 1, 1),
    )


def test_a_line_is_interrupted_where_months_are_missing() -> None:
    months = [date(year, month, 1) for year in (2019, 2020, 2022) for month in range(1, 13)]
    drawing = pictures.trips_per_month(_facts(months, [1_000_000] * len(months)), str).svg
    (line,) = re.findall(r'<path[^>]* d="(M[^"]*L[^"]*)"[^>]*stroke="var\(--dataset-green', drawing)
    assert line.count("M") == 2
    assert re.findall(r">(\d{4})</text>", drawing) == ["2019", "2020", "2021", "2022"]
    assert ">1M<" in drawing


def test_a_single_month_is_a_point_with_its_month_below() -> None:
    drawing = pictures.trips_per_month(_facts([date(2024, 1, 1)], [7]), str).svg
    assert ">2024-01<" in drawing
    assert "mark-symbol" in drawing


def test_zones_with_the_same_name_stay_apart_and_names_are_text() -> None:
    picture = pictures.zones_by_trips(_facts([date(2024, 1, 1)], [18], "<script>alert(1)</script>"), str)
    assert [row[0] for row in picture.rows] == ["<script>alert(1)</script> (56)", "<script>alert(1)</script> (57)"]
    assert "<script" not in picture.svg
    assert "&lt;script&gt;" in picture.svg


def test_more_types_of_payment_than_colours_are_drawn_together() -> None:
    names = [f"type {number}" for number in range(len(charts.COLOURS) + 2)]
    month = date(2024, 1, 1)
    payments = [
        {"dataset": "green", "month": month, "payment": name, "trips": 100 - place} for place, name in enumerate(names)
    ]
    facts = _facts([month], [1])
    picture = pictures.payment_mix(Facts(facts.months, facts.rows, {"payments": payments}, [], facts.built_at), str)
    assert len(picture.columns) == 3 + len(names)
    assert "type 6" in picture.svg
    assert "type 7" not in picture.svg
    assert ">other<" in picture.svg


def test_a_drawing_has_no_style_no_script_and_no_identifier(page: str) -> None:
    elements = Elements(page).elements
    assert not any({"style", "id"} & {*attributes} for tag, attributes in elements if tag not in ("main", "html"))
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
    assert not {"script", "img", "link", "iframe", "object", "image", "use"} & {tag for tag, _ in elements}
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/)", page)


# --- in a browser


@pytest.fixture
def window(browser: Any, made: Folder) -> Iterator[Any]:
    """Opens the page; nothing else was requested, and the console has no error."""
    requests, errors, contexts = list[str](), list[str](), list[Any]()

    def _open(width: int = 1280, **traits: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **traits))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.goto((made.path / "report.html").as_uri())
        return page

    try:
        yield _open
    finally:
        for context in contexts:
            context.close()
    assert {*requests} == {(made.path / "report.html").as_uri()}
    assert errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_legible_in_light_and_dark(window: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = window(color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    # Each colour of a drawing has the contrast that graphics need with the page.
    low = page.evaluate(
        """() => {
            const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            const luminance = text => {
                canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(
                    each => (each /= 255) <= .04045 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4);
                return .2126 * r + .7152 * g + .0722 * b;
            };
            const page = luminance(getComputedStyle(document.body).backgroundColor);
            const colours = new Set();
            document.querySelectorAll(".legend path, svg text, .mark-line path, .mark-symbol path").forEach(each => {
                const style = getComputedStyle(each);
                colours.add(each.getAttribute("fill") in {none: 1, transparent: 1} ? style.stroke : style.fill);
            });
            return [...colours].filter(colour => colour != "none").map(colour => {
                const [low, high] = [luminance(colour), page].sort((a, b) => a - b);
                return [colour, (high + .05) / (low + .05)];
            }).filter(([, contrast]) => contrast < 3);
        }"""
    )
    assert low == []


@pytest.mark.parametrize("width", [360, 768, 2560])
def test_the_page_never_scrolls_sideways_and_labels_stay_inside(window: Any, width: int) -> None:
    page = window(width)
    page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """() => [...document.querySelectorAll("figure")].flatMap(figure => {
            const box = figure.getBoundingClientRect();
            return [...figure.querySelectorAll("svg text")].filter(each => {
                const text = each.getBoundingClientRect();
                return text.width && (text.left < box.left || text.right > box.right);
            }).map(each => each.textContent);
        })"""
    )
    assert outside == []


def test_the_page_prints_in_light_colours_with_whole_pictures(window: Any) -> None:
    page = window(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert {*page.locator("figure").evaluate_all("all => all.map(each => getComputedStyle(each).breakInside)")} == {
        "avoid"
    }
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_the_board_has_the_same_pictures_of_what_is_chosen(made: Folder, page: str, open_page: Opener) -> None:
    with running_board(made) as board:
        with open_page(board) as shown:
            shown.get_by_role("link", name="Pictures").click()
            shown.wait_for_url("**/report")
            assert Shown(shown.content()).tables == Shown(page).tables
            shown.get_by_role("checkbox", name="green").check()
            shown.get_by_label("Period").fill("2024-02")
            shown.get_by_role("button", name="Show").click()
            shown.wait_for_url("**/report?*")
            assert Shown(shown.content()).tables[TRIPS] == [["Month", "green"], *_second_month(page)]
            assert shown.get_by_role("checkbox", name="green").is_checked()
            shown.goto(f"{board.url}/report?dataset=gren&period=2024-13")
            alert = shown.get_by_role("alert")
            assert "gren" in alert.inner_text()
        with open_page(board, "/report?dataset=green", locale="ko-KR") as shown:
            assert shown.locator("figure").count() == len(TITLES)
            assert re.search("[\uac00-\ud7a3]", shown.locator("svg text", has_text="카드").first.text_content() or "")
            text = re.sub(r"<(table|title).*?</\1>", "", shown.locator("main").inner_html(), flags=re.DOTALL)
            assert not re.search(r">[^<>]*\b(the|trips|month)\b", text)


def _second_month(page: str) -> list[list[str]]:
    head, *rows = Shown(page).tables[TRIPS]
    return [[row[0], row[head.index("green")]] for row in rows if row[0] == "2024-02"]


# --- what is wrong


def test_all_problems_of_a_command_are_in_one_message(folder: Folder) -> None:
    message = _refused(folder, "gren", "2024-13", "--html", "none/report.html", code=2)
    for problem in ("no folder none", "unknown datasets ['gren']", "did you mean green", "'2024-13' is not a month"):
        assert problem in message


def test_a_page_needs_the_name_of_a_file(folder: Folder) -> None:
    assert "--html" in _refused(folder, code=2)
    assert "is not a file" in _refused(folder, "--html", ".", code=2)


def test_without_a_warehouse_the_message_names_a_command_and_nothing_is_made(folder: Folder) -> None:
    message = _refused(folder, "--html", "report.html", code=5)
    assert message.endswith("run: pipeline backfill green 2024-01\n")
    message = _refused(folder, "fhv", "2023", "--html", "report.html", code=5)
    assert message.endswith("run: pipeline backfill fhv 2023-01\n")


def test_without_the_library_the_message_says_what_to_install_and_nothing_is_written(made: Folder) -> None:
    ended = made.run("python", "-c", WITHOUT, "report", "--html", "none.html")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "pip install 'taxi-pipeline[report]'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (made.path / "none.html").exists()


def test_without_the_library_the_board_gets_the_same_message(made: Folder) -> None:
    program = "import sys; sys.modules['altair'] = None; from pipeline.board.answers import main; main()"
    question = {"id": 1, "question": "report", "datasets": [], "period": "", "language": "en"}
    # It ends when its input does.
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=made.path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{json.dumps({'settings': {}})}\n{json.dumps(question)}\n")
        process.stdin.flush()
        error = json.loads(process.stdout.readline())["error"]
        process.stdin.close()
    assert error["code"] == "usage"
    assert "pip install 'taxi-pipeline[report]'" in error["message"]


def test_without_the_library_the_demo_says_how_to_get_pictures(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, "demo", "--scale", "0.001"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("No pictures of these months: ")]
    assert "pip install 'taxi-pipeline[report]'" in line
    assert not (tmp_path / "data" / "sample" / "report.html").exists()
