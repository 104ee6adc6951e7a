"""The status of months: as a grid (a row is a year, a character is a month), in words, as JSON, and as an HTML page."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from importlib import resources
from string import Template
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.output import new_table, print_line, print_table, print_text, whole
from pipeline.errors import redact, visible
from pipeline.months import format_month, parse_month, spans
from pipeline.places import store_of
from pipeline.settings import current_settings, suggested_command
from pipeline.state.inventory import MonthStatus
from pipeline.state.steps import STEPS, TABLE
from pipeline.units import size

Statuses = Mapping[str, Sequence[MonthStatus]]

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
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: By mark, on the page: a letter for those who cannot see its colour; other characters look different in every font.
_SIGNS = {mark: character for mark, (character, _, _) in CELLS.items()} | {
    **{step.stage: step.letter for step in _EARLIER},
    "complete": _LAST.letter,
    "warned": "W",
}
_MOST_REMARKS = 20


@dataclass(frozen=True)
class Remark:
    """Something that is wrong with consecutive months, and the command that fixes it."""

    dataset: str
    #: As a period, such as 2024-01..2024-03; empty for the zones.
    months: str
    #: refused, failed, or stale.
    stage: str
    why: str
    command: str
    #: The first step to do again.
    step: str

    @property
    def subject(self) -> str:
        """Such as green 2024-01."""
        return f"{self.dataset} {self.months}".rstrip()


def grid(cells: Mapping[str, Mapping[date, str]]) -> Table:
    """The marks of months, by dataset; a month without a mark is blank."""
    table = new_table("", *whole(*cells))
    for year in sorted({month.year for months in cells.values() for month in months}):
        days = [date(year, number, 1) for number in range(1, 13)]
        rows = ([months.get(day) for day in days] for months in cells.values())
        table.add_row(str(year), *(Text.assemble(*(CELLS[mark][:2] if mark else " " for mark in row)) for row in rows))
    return table


def legend(marks: Collection[str]) -> Text:
    """What the characters of these marks mean."""
    entries = (Text.assemble((sign, style), f" {text}") for mark, (sign, style, text) in CELLS.items() if mark in marks)
    return Text("   ").join(entries)


def document(statuses: Statuses, zones: MonthStatus) -> dict[str, Any]:
    """The whole status, as JSON has it."""
    settings = current_settings()
    return {
        "as_of": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lake": store_of(settings).location,
        "warehouse": redact(settings.warehouse),
        "totals": _totals([each for months in statuses.values() for each in months]),
        "zones": _as_data(zones),
        "datasets": [
            {"dataset": name, **_totals(months), "months": [_as_data(each) for each in months]}
            for name, months in statuses.items()
        ],
        "remarks": remarks(statuses, zones),
    }


def remarks(statuses: Statuses, zones: MonthStatus) -> list[Remark]:
    """What is refused, failed or out of date; one remark for consecutive months with the same reason."""
    results = []
    for months in ([zones], *statuses.values()):
        groups: dict[tuple[str, str, str], list[MonthStatus]] = {}
        for each in months:
            if each.mark in ("refused", "failed", "stale"):
                step = each.failure[0] if each.failure and each.mark == "failed" else "download"
                groups.setdefault((each.mark, _why(each), each.stale_from or step), []).append(each)
        for (mark, why, step), group in groups.items():
            texts = {format_month(each.month) if each.month else "": each.failure[2] for each in group if each.failure}
            for span in spans(each.month for each in group if each.month) or [""]:
                subject = f"{group[0].dataset} {span}".split()
                if mark == "failed" and span and step != "conform":
                    command = suggested_command("backfill", *subject)
                else:  # Raw bytes that failed to conform may have been replaced at the source.
                    first = "download" if mark == "failed" and step == "conform" else step
                    command = suggested_command("redo", *subject, "--from", first)
                reason = f"{why}: {texts[span]}" if mark == "failed" and span in texts else why
                results.append(Remark(group[0].dataset, span, mark, reason, command, step))
    return results


def print_status(document: Mapping[str, Any]) -> None:
    """Print grid, totals and remarks, at most 80 columns wide for four datasets."""
    datasets, cells = document["datasets"], {}
    for each in datasets:
        cells[each["dataset"]] = {parse_month(month["month"]): month["mark"] for month in each["months"]}
    print_table(grid(cells))
    print_text(legend(document["totals"]["marks"]))
    print_line("")
    # A line for each total and a column for each dataset, so that four datasets fit.
    table = new_table("months", *(Column(each["dataset"], justify="right", min_width=12) for each in datasets))
    for name, texts in _total_rows(document).items():
        table.add_row(name, *texts)
    print_table(table)
    print_line(f"zones      {_zones_text(document)}")
    print_line(f"lake       {document['lake']}")
    print_line(f"warehouse  {document['warehouse']}")
    if document["remarks"]:
        print_line("")
        print_remarks(document["remarks"])


def print_remarks(results: Sequence[Remark]) -> None:
    """Print the first remarks, each with its command on a line of its own, and how many more there are."""
    for remark in results[:_MOST_REMARKS]:
        print_line(f"{remark.subject}: {remark.why}", style=CELLS[remark.stage][1])
        print_line(f"  {remark.command}")
    if len(results) > _MOST_REMARKS:
        print_line(f"… and {len(results) - _MOST_REMARKS} more; --json lists all")
    steps = {remark.step for remark in results if remark.stage == "stale"}
    if steps - {"download"}:
        but = ", except for --from download" if "download" in steps else ""
        print_line(f"All that is out of date, at once{but}: {suggested_command('refresh', '--apply')}")


def _why(status: MonthStatus) -> str:
    if status.stage == "stale":
        return "; ".join(status.stale[step] for step in STEPS if step in status.stale)
    if status.mark == "failed" and status.failure:
        return f"{status.failure[0]} failed: {status.failure[1]}"
    return f"refused by its checks: {', '.join(status.failed).replace('_', ' ')}"


def _as_data(status: MonthStatus) -> dict[str, Any]:
    values = asdict(status)
    month, done = format_month(status.month) if status.month else None, values.pop("done")
    # A dataset without marts has all of them as soon as it is loaded.
    steps = {step.stage: min(step.name, status.last_step, key=STEPS.index) in done for step in TABLE}
    return {**values, "month": month, **steps, "stage": status.stage, "mark": status.mark}


def _totals(months: Sequence[MonthStatus]) -> dict[str, Any]:
    stages, marks = Counter(each.stage for each in months), Counter(each.mark for each in months)
    return {
        "stages": {stage: stages[stage] for stage in CELLS if stages[stage]},
        "marks": {mark: marks[mark] for mark in CELLS if marks[mark]},
        "rows": sum(each.rows or 0 for each in months if "load" in each.done),
        "raw_bytes": sum(each.raw_bytes or 0 for each in months),
    }


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
    css = {step.stage: step.css for step in _EARLIER} | dict.fromkeys(("complete", "warned"), _LAST.css)
    template = resources.files("pipeline.cli").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        as_of=f"{document['as_of'][:16].replace('T', ' ')} UTC",
        stage_styles="\n".join(f".{name} {{ {style} }}" for name, style in css.items()),
        keys="".join(
            f'<li><b class="{_class(mark)}" aria-hidden="true">{_SIGNS[mark]}</b>{escape(CELLS[mark][2])}</li>'
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
    parts = [f"{name} {month['month']}: {CELLS[mark][2]}"]
    parts += [f"{month['rows']:,} rows"] if month["rows"] else []
    parts += [f"{size(month['raw_bytes'])} as published"] if month["raw_bytes"] else []
    parts += [*month["stale"].values(), *(rule.replace("_", " ") for rule in (*month["failed"], *month["warnings"]))]
    parts += ["{} failed: {}: {}".format(*month["failure"])] if mark == "failed" else []
    title = escape("; ".join(parts))
    return (
        f'<td class="{_class(mark)}" title="{title}"><span aria-hidden="true">{_SIGNS[mark]}</span>'
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
