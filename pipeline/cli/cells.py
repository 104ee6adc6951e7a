"""The grid of months: a row for each year, the datasets side by side, one character and one colour for each month."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from rich.table import Table
from rich.text import Text

from pipeline.cli.tables import new_table, whole
from pipeline.state.steps import TABLE

*_EARLIER, _LAST = TABLE
#: By mark: its character, which is clear without colours, its colour, and its meaning.
CELLS: Mapping[str, tuple[str, str, str]] = {
    "complete": (_LAST.character, _LAST.style, _LAST.meaning),
    "warned": ("*", "yellow", "complete, with warnings (pipeline check)"),
    **{step.stage: (step.character, step.style, step.meaning) for step in reversed(_EARLIER)},
    "missing": ("·", "dim", "missing"),
    "not published": ("-", "dim", "not published yet"),
    "stale": ("~", "yellow", "out of date"),
    "refused": ("!", "red", "refused by its checks"),
    "failed": ("x", "red", "failed"),
    "running": ("▸", "bold yellow", "at work"),
}


def grid(cells: Mapping[str, Mapping[date, str]]) -> Table:
    """The marks of months, by dataset; a month without a mark is blank."""
    table = new_table("", *whole(*cells))
    for year in sorted({month.year for months in cells.values() for month in months}):
        table.add_row(str(year), *(_year(months, year) for months in cells.values()))
    return table


def legend(marks: Iterable[str]) -> Text:
    """What the characters of these marks mean."""
    present = set(marks)
    entries = (
        Text.assemble((sign, style), f" {text}") for mark, (sign, style, text) in CELLS.items() if mark in present
    )
    return Text("   ").join(entries)


def _year(months: Mapping[date, str], year: int) -> Text:
    marks = (months.get(date(year, number, 1)) for number in range(1, 13))
    return Text.assemble(*(CELLS[mark][:2] if mark else " " for mark in marks))
