"""The page of all months: what a cell shows, which years fold, and what it says about what needs attention."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
import tornado.locale
from boards import running_board
from conftest import Folder

from pipeline.board import grid
from pipeline.datasets import DATASETS
from pipeline.months import parse_month
from pipeline.runs.overview import as_data, remarks, with_marks
from pipeline.settings import Settings, adopt
from pipeline.state.inventory import MonthStatus
from pipeline.state.steps import STEPS

ENGLISH = tornado.locale.get("en_US").translate
HOSTILE = '<b onclick="x">\x1b[2J'


@pytest.fixture(autouse=True)
def _usual_settings() -> Any:
    adopt(Settings())
    yield
    adopt(None)


def month(name: str, steps: int = 0, dataset: str = "green", **others: Any) -> MonthStatus:
    """A month of which so many steps are done."""
    return MonthStatus(dataset, parse_month(name), STEPS[-1], frozenset(STEPS[:steps]), **others)


def answer_of(months: Sequence[MonthStatus]) -> dict[str, Any]:
    """What the answering process says about these months, as JSON."""
    zones = MonthStatus("zones", None, "load", frozenset(STEPS[:3]), rows=265)
    by_dataset: dict[str, list[MonthStatus]] = {}
    for each in months:
        by_dataset.setdefault(each.dataset, []).append(each)

    def totals(all_months: Sequence[MonthStatus]) -> dict[str, Any]:
        marks = [each.mark for each in all_months]
        sums = {"rows": sum(each.rows or 0 for each in all_months), "raw_bytes": 0, "trips_bytes": 0}
        return {"marks": {mark: marks.count(mark) for mark in marks}, "warehouse_bytes": None, **sums}

    document = {
        "as_of": "2026-01-02T03:04:05+00:00",
        "lake": "data/lake",
        "warehouse": "duckdb:///data/warehouse.duckdb",
        "zones": as_data(zones),
        "totals": totals(months),
        "datasets": [
            {"dataset": name, **totals(each), "months": [as_data(one) for one in each]}
            for name, each in by_dataset.items()
        ],
        "remarks": remarks(by_dataset, zones),
    }
    answer: dict[str, Any] = json.loads(json.dumps(with_marks(document), default=asdict))
    return answer


def cells_of(*months: MonthStatus, overlay: Mapping[str, Any] | None = None) -> dict[str, grid.Cell]:
    (section,) = grid.view(answer_of(months), ENGLISH, overlay)["sections"]
    cells: dict[str, grid.Cell] = section["cells"]
    return cells


def states(cell: grid.Cell) -> str:
    return " ".join(cell.steps.values())


class Shown(HTMLParser):
    """The text of a page, without that of its style sheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self._is_style = "", list[str](), False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self._is_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._is_style else data


def test_a_cell_shows_each_step_of_its_month() -> None:
    failure = ("load", "WarehouseError", "no space")
    cells = cells_of(
        month("2024-01", 4, rows=1_234_567, raw_bytes=50_000_000),
        month("2024-02", 2),
        month("2024-03", 2, failure=failure),
        month("2024-04", 1, failed=("row_count",)),
        month("2024-05", 4, stale={"conform": "conformed from older raw bytes"}),
        month("2024-06", 4, warnings=("stray_pickups",)),
        month("2024-07"),
    )
    assert [states(cell) for cell in cells.values()] == [
        "done done done done",
        "done done missing missing",
        "done done failed missing",
        "done failed missing missing",
        "done stale done done",
        "done done done done",
        "missing missing missing missing",
    ]
    assert [cell.sign for cell in cells.values()] == ["✓", "C", "x", "!", "~", "W", "·"]
    assert [cell.title for cell in cells.values()] == [
        "green 2024-01: complete; 1,234,567 rows; 50.0 MB as published",
        "green 2024-02: conformed, not loaded",
        "green 2024-03: failed; load failed: WarehouseError: no space",
        "green 2024-04: refused by its checks; row count",
        "green 2024-05: out of date; conformed from older raw bytes",
        "green 2024-06: complete, with warnings (pipeline check); stray pickups",
        "green 2024-07: missing",
    ]
    assert [*cells["2024-01"].steps] == [*STEPS]


@pytest.mark.parametrize(
    ("steps", "others", "state"),
    [
        (4, {}, "done"),
        (1, {}, "missing"),
        (4, {"stale": {"conform": "older"}}, "stale"),
        (4, {"stale": {"conform": "older"}, "failure": ("conform", "E", "e")}, "failed"),
        (1, {"failed": ("row_count",)}, "failed"),
        (1, {"failure": ("conform", "E", "e")}, "failed"),
        (4, {"failure": ("conform", "E", "e")}, "done"),
    ],
)
def test_the_state_of_a_step_is_what_failed_or_exists(steps: int, others: dict[str, Any], state: str) -> None:
    assert grid.step_state(as_data(month("2024-01", steps, **others)), "conform", "conformed") == state


def test_what_runs_do_is_laid_over_the_status_and_told_to_open_pages_alike() -> None:
    steps = {"download": "done", "conform": "running", "load": "queued", "mart": "queued"}
    overlay = {"green 2024-01": {"mark": "running", "steps": steps, "note": "conform 40%"}}
    months = (month("2024-01"), month("2024-02"))
    cell = cells_of(*months, overlay=overlay)["2024-01"]
    assert (cell.mark, states(cell)) == ("running", "done running queued queued")
    assert cell.title == "green 2024-01: at work; conform 40%"
    changed = grid.changes(answer_of(months), ENGLISH, overlay, ["green 2024-01", "zones"])
    assert [*changed] == ["zones", "green 2024-01"]
    assert changed["green 2024-01"] == {**cell._asdict(), "steps": steps}
    assert [*changed["zones"]["steps"]] == ["download", "conform", "load"], "the zones have no marts"


def test_a_month_that_is_not_published_says_when_it_is_expected_and_how_late_it_is() -> None:
    today = date.today()
    due, late = today + timedelta(5), today - timedelta(3)
    months = [
        month("2024-01", 4),
        month("2024-02", young=True, expected=late),
        month("2024-03", young=True, expected=due),
    ]
    titles = [cell.title for cell in cells_of(*months).values()]
    assert titles[1:] == [
        f"green 2024-02: not published yet; expected about {late}, 3 days late",
        f"green 2024-03: not published yet; expected about {due}",
    ]
    assert f"2024-02, expected about {late}, 3 days late" in Shown(grid.static_page(answer_of(months))).text


def test_years_without_anything_fold_into_one_line() -> None:
    names = [f"{year}-{number:02}" for year in range(2018, 2025) for number in range(1, 13)]
    has = {"2020-03", "2021-01", "2024-12"}
    answer = answer_of([month(name, 4 if name in has else 0) for name in names])
    (section,) = grid.view(answer, ENGLISH)["sections"]
    assert [(part.text, part.is_empty, part.months) for part in section["parts"]] == [
        ("2018..2019", True, 24),
        ("2020..2021", False, 24),
        ("2022..2023", True, 24),
        ("2024", False, 12),
    ]
    assert "2018..2019: 24 months, nothing yet" in Shown(grid.static_page(answer)).text


def test_remarks_with_the_same_reason_are_one_group_with_the_command_for_each() -> None:
    error = ("conform", "SchemaError", "unknown column tip_2")
    months = [month("2024-01", 1, failure=error), month("2024-03", 1, failure=error), month("2024-04", 4)]
    months += [month(f"2024-0{number}", 4, stale={"mart": "built from an older load"}) for number in (5, 6)]
    failed, stale = grid.view(answer_of(months), ENGLISH)["concerns"]
    assert (failed.mark, failed.why, failed.total) == ("failed", "conform failed: SchemaError", 2)
    assert failed.items == [
        (f"green {name}", f"/months/green/{name}", error[2], f"pipeline redo green {name} --from download")
        for name in ("2024-01", "2024-03")
    ]
    assert (stale.mark, stale.why, stale.total) == ("stale", "built from an older load", 2)
    assert stale.items == [
        ("green 2024-05..2024-06", "/months/green/2024-05", "", "pipeline redo green 2024-05..2024-06 --from mart")
    ]


def test_hostile_texts_are_shown_and_are_not_part_of_the_page() -> None:
    answer = answer_of(
        [
            month("2024-01", 1, failure=("conform", HOSTILE, HOSTILE)),
            month("2024-02", 1, failed=(HOSTILE,)),
            month("2024-03", 4, warnings=(HOSTILE,)),
            month("2024-04", 4, stale={"load": HOSTILE}),
        ]
    )
    answer["document"] |= {"lake": HOSTILE, "warehouse": HOSTILE}
    page = grid.static_page(answer)
    assert "<b onclick" not in page
    assert "\x1b" not in page
    assert page.count(r"\x1b[2J") >= 9


def test_a_page_in_a_file_has_every_part_of_the_grid_but_nothing_to_press() -> None:
    page = grid.static_page(answer_of([month("2024-01", 4), month("2024-02", 1, failed=("row_count",))]))
    shown = Shown(page)
    assert not {*shown.tags} & {"a", "nav", "button", "form", "script", "link", "img"}
    assert "pipeline redo green 2024-02 --from download" in re.sub(r"\s+", " ", shown.text)
    assert [shown.tags.count(tag) for tag in ("html", "table", "h1")] == [1, 1, 1]


def test_with_nothing_in_the_lake_the_page_names_the_first_command(folder: Folder) -> None:
    with running_board(folder) as board:
        page = board.get("/").body
        assert "Nothing is in the lake yet" in page
        for command in ("pipeline backfill green latest", "pipeline demo"):
            assert f'data-copy="{command}"' in page
        assert page.count("months, nothing yet") == len(DATASETS)
        korean = board.ask("/", headers={"Accept-Language": "ko"}).body
        assert '<html lang="ko">' in korean
        assert "레이크가 아직 비어 있습니다" in korean
