"""The status of months in a terminal: as a grid (a row is a year, a character is a month), and in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.output import new_table, print_line, print_table, print_text, whole
from pipeline.months import parse_month
from pipeline.runs.overview import MARKS, Remark
from pipeline.settings import suggested_command
from pipeline.units import counted, size

_MOST_REMARKS = 20


def grid(cells: Mapping[str, Mapping[date, str]]) -> Table:
    """The marks of months, by dataset; a month without a mark is blank."""
    table = new_table("", *whole(*cells))
    for year in sorted({month.year for months in cells.values() for month in months}):
        days = [date(year, number, 1) for number in range(1, 13)]
        rows = ([months.get(day) for day in days] for months in cells.values())
        table.add_row(str(year), *(Text.assemble(*map(_cell, row)) for row in rows))
    return table


def _cell(mark: str | None) -> tuple[str, str]:
    return (MARKS[mark].character, MARKS[mark].style) if mark else (" ", "")


def legend(marks: Collection[str]) -> Text:
    """What the characters of these marks mean."""
    entries = (Text.assemble(_cell(mark), f" {MARKS[mark].meaning}") for mark in MARKS if mark in marks)
    return Text("   ").join(entries)


def print_status(document: Mapping[str, Any]) -> None:
    """Print grid, totals and remarks, at most 80 columns wide for four datasets."""
    print_grid(document)
    print_line("")
    # A line for each total and a column for each dataset, so that four datasets fit.
    names = (each["dataset"] for each in document["datasets"])
    table = new_table("months", *(Column(name, justify="right", min_width=12) for name in names))
    for name, texts in _total_rows(document).items():
        table.add_row(name, *texts)
    print_table(table)
    for line in _expected(document):
        print_line(f"expected   {line}")
    print_line(f"zones      {_zones_text(document)}")
    print_line(f"lake       {document['lake']}")
    print_line(f"warehouse  {document['warehouse']}")
    if document["remarks"]:
        print_line("")
        print_remarks(document["remarks"])


def _expected(document: Mapping[str, Any]) -> Iterator[str]:
    """When the next month of each dataset is expected, if the one before it exists."""
    for each in document["datasets"]:
        for before, month in pairwise(each["months"]):
            if month["expected"] and before["stage"] not in ("missing", "not published"):
                late = f" ({counted(month['late_days'], 'day')} late)" if month["late_days"] else ""
                yield f"{each['dataset']} {month['month']} about {month['expected']}{late}"


def print_grid(document: Mapping[str, Any]) -> None:
    """Print the grid of a status, and what its marks mean."""
    cells = {}
    for each in document["datasets"]:
        cells[each["dataset"]] = {parse_month(month["month"]): month["mark"] for month in each["months"]}
    print_table(grid(cells))
    print_text(legend(document["totals"]["marks"]))


def print_remarks(results: Sequence[Remark]) -> None:
    """Print the first remarks, each with its command on a line of its own, and how many more there are."""
    for remark in results[:_MOST_REMARKS]:
        print_line(f"{remark.subject}: {remark.why}", style=MARKS[remark.stage].style)
        print_line(f"  {remark.command}")
    if len(results) > _MOST_REMARKS:
        print_line(f"… and {len(results) - _MOST_REMARKS} more; --json lists all")
    steps = {remark.step for remark in results if remark.stage == "stale"}
    if steps - {"download"}:
        but = ", except for --from download" if "download" in steps else ""
        print_line(f"All that is out of date, at once{but}: {suggested_command('refresh', '--apply')}")


def _total_rows(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """The texts of each total, by dataset."""
    datasets, marks = document["datasets"], document["totals"]["marks"]
    rows = {mark: [f"{each['marks'][mark]:,}" if mark in each["marks"] else "" for each in datasets] for mark in marks}
    rows["rows loaded"] = [f"{each['rows']:,}" for each in datasets]
    rows["raw bytes"] = [size(each["raw_bytes"]) for each in datasets]
    return rows


def _zones_text(document: Mapping[str, Any]) -> str:
    zones = document["zones"]
    return f"{zones['mark']}, {zones['rows']:,} rows" if zones["loaded"] and zones["rows"] else f"{zones['mark']}"
