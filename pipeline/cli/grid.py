"""The status of months: as a grid (a row is a year, a character is a month), in words, as JSON, and as an HTML page."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from importlib import resources
from string import Template
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.output import new_table, print_line, print_table, print_text, whole
from pipeline.errors import visible
from pipeline.months import parse_month
from pipeline.runs.overview import MARKS, Remark
from pipeline.settings import suggested_command
from pipeline.state.steps import TABLE
from pipeline.units import size

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
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
    print_line(f"zones      {_zones_text(document)}")
    print_line(f"lake       {document['lake']}")
    print_line(f"warehouse  {document['warehouse']}")
    if document["remarks"]:
        print_line("")
        print_remarks(document["remarks"])


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


def html_page(document: Mapping[str, Any]) -> str:
    """The status as one HTML page that needs no other file: `page.html` is its template."""
    datasets = document["datasets"]
    css = {step.stage: step.css for step in TABLE[:-1]} | dict.fromkeys(("complete", "warned"), TABLE[-1].css)
    template = resources.files("pipeline.cli").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        as_of=f"{document['as_of'][:16].replace('T', ' ')} UTC",
        stage_styles="\n".join(f".{name} {{ {style} }}" for name, style in css.items()),
        keys="".join(
            f'<li><b class="{_class(mark)}" aria-hidden="true">{MARKS[mark].sign}</b>{escape(MARKS[mark].meaning)}</li>'
            for mark in document["totals"]["marks"]
        ),
        datasets="\n".join(map(_page_grid, datasets)),
        names="".join(f'<th scope="col">{escape(each["dataset"])}</th>' for each in datasets),
        totals="\n".join(
            f'<tr><th scope="row">{label}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>'
            for label, texts in _total_rows(document).items()
        ),
        zones=escape(_zones_text(document)),
        remarks=_page_remarks(document["remarks"]),
        lake=escape(document["lake"]),
        warehouse=escape(document["warehouse"]),
    )


def _page_grid(dataset: Mapping[str, Any]) -> str:
    name, months = dataset["dataset"], {month["month"]: month for month in dataset["months"]}
    head = "".join(f'<th scope="col">{month[0]}<span class="rest">{month[1:]}</span></th>' for month in _MONTHS)
    rows = ""
    for year in sorted({month[:4] for month in months}):
        cells = (_page_cell(name, months.get(f"{year}-{number:02}")) for number in range(1, 13))
        rows += f'<tr><th scope="row">{year}</th>{"".join(cells)}</tr>\n'
    return (
        f'<section><h2>{escape(name)}</h2>\n<table class="grid"><thead><tr><th scope="col">'
        f'<span class="said">year</span></th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></section>'
    )


def _page_cell(name: str, month: Mapping[str, Any] | None) -> str:
    if month is None:
        return "<td></td>"
    mark = month["mark"]
    parts = [f"{name} {month['month']}: {MARKS[mark].meaning}"]
    parts += [f"{month['rows']:,} rows"] if month["rows"] else []
    parts += [f"{size(month['raw_bytes'])} as published"] if month["raw_bytes"] else []
    parts += [*month["stale"].values(), *(rule.replace("_", " ") for rule in (*month["failed"], *month["warnings"]))]
    parts += ["{} failed: {}: {}".format(*month["failure"])] if mark == "failed" else []
    title = escape("; ".join(parts))
    return (
        f'<td class="{_class(mark)}" title="{title}"><span aria-hidden="true">{MARKS[mark].sign}</span>'
        f'<span class="said">{title}</span></td>'
    )


def _page_remarks(remarks: Sequence[Remark]) -> str:
    items = ""
    for each in remarks:
        items += f'<dt class="{_class(each.stage)}">{escape(each.subject)}: {escape(each.why)}</dt>'
        items += f"<dd><code>{escape(each.command)}</code></dd>\n"
    return f"<section><h2>What needs attention</h2>\n<dl>{items}</dl></section>" if items else ""


def escape(text: str) -> str:
    """Any text as HTML that shows it."""
    return html.escape(visible(text))


def _class(mark: str) -> str:
    return mark.replace(" ", "-")
