"""The grid of months: a row for each year, the datasets side by side, one character and one colour for each month."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from rich.table import Table
from rich.text import Text

from pipeline.state.steps import TABLE

*_EARLIER, _LAST = TABLE
#: By stage: its character, which tells without colour, its colour, and what it means.
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
    """The stages of months, by dataset; a month that is not in there is blank."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
    table.add_column("")
    for name in cells:
        table.add_column(name, no_wrap=True)
    for year in sorted({month.year for of in cells.values() for month in of}):
        table.add_row(str(year), *(_year(of, year) for of in cells.values()))
    return table


def legend(stages: Iterable[str]) -> Text:
    """What the characters mean, of those that occur."""
    present = set(stages)
    line = Text()
    for stage, (character, style, meaning) in CELLS.items():
        if stage in present:
            line.append("   " if line else "")
            line.append(character, style)
            line.append(f" {meaning}")
    return line


def _year(of: Mapping[date, str], year: int) -> Text:
    line = Text()
    for month in range(1, 13):
        stage = of.get(date(year, month, 1))
        character, style, _ = CELLS[stage] if stage else (" ", "", "")
        line.append(character, style)
    return line
