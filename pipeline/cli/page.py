"""The status as one HTML page that needs no other file: `page.html` is its template."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

from pipeline.cli.cells import CELLS
from pipeline.errors import visible
from pipeline.state.steps import TABLE
from pipeline.units import size

*_EARLIER, _LAST = TABLE
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: By mark: a letter for those who cannot see its colour; other characters look different in every font.
_SIGNS = {mark: character for mark, (character, _, _) in CELLS.items()} | {
    **{step.stage: step.letter for step in _EARLIER},
    "complete": _LAST.letter,
    "warned": "W",
}


def html_page(document: Mapping[str, Any]) -> str:
    """The page of a status document."""
    datasets, marks = document["datasets"], document["totals"]["marks"]
    css = {step.stage: step.css for step in _EARLIER} | dict.fromkeys(("complete", "warned"), _LAST.css)
    totals = {mark: [str(each["marks"].get(mark) or "") for each in datasets] for mark in marks}
    totals["rows loaded"] = [f"{each['rows']:,}" for each in datasets]
    totals["as published"] = [size(each["raw_bytes"]) for each in datasets]
    zones = document["zones"]
    template = resources.files("pipeline.cli").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        as_of=f"{document['as_of'][:16].replace('T', ' ')} UTC",
        stage_styles="\n".join(f".{name} {{ {style} }}" for name, style in css.items()),
        keys="".join(
            f'<li><b class="{_class(mark)}" aria-hidden="true">{_SIGNS[mark]}</b>{escape(CELLS[mark][2])}</li>'
            for mark in marks
        ),
        datasets="\n".join(map(_grid, datasets)),
        names="".join(f'<th scope="col">{escape(each["dataset"])}</th>' for each in datasets),
        totals="\n".join(
            f'<tr><th scope="row">{label}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>'
            for label, texts in totals.items()
        ),
        zones=escape(zones["mark"]) + (f", {zones['rows']:,} rows" if zones["loaded"] and zones["rows"] else ""),
        remarks=_remarks(document["remarks"]),
        lake=escape(document["lake"]),
        warehouse=escape(document["warehouse"]),
    )


def _grid(dataset: Mapping[str, Any]) -> str:
    name, months = dataset["dataset"], {month["month"]: month for month in dataset["months"]}
    head = "".join(f'<th scope="col">{month[0]}<span class="rest">{month[1:]}</span></th>' for month in _MONTHS)
    rows = ""
    for year in sorted({month[:4] for month in months}):
        cells = (_cell(name, months.get(f"{year}-{number:02}")) for number in range(1, 13))
        rows += f'<tr><th scope="row">{year}</th>{"".join(cells)}</tr>\n'
    return (
        f'<section><h2>{escape(name)}</h2>\n<table class="grid"><thead><tr><th scope="col">'
        f'<span class="said">year</span></th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></section>'
    )


def _cell(name: str, month: Mapping[str, Any] | None) -> str:
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


def _remarks(remarks: list[Mapping[str, Any]]) -> str:
    items = ""
    for each in remarks:
        subject = f"{each['dataset']} {each['months']}".rstrip()
        items += f'<dt class="{_class(each["stage"])}">{escape(subject)}: {escape(each["why"])}</dt>'
        items += f"<dd><code>{escape(each['command'])}</code></dd>\n"
    return f"<section><h2>What needs attention</h2>\n<dl>{items}</dl></section>" if items else ""


def escape(text: str) -> str:
    """Any text as HTML that shows it."""
    return html.escape(visible(text))


def _class(mark: str) -> str:
    return mark.replace(" ", "-")
