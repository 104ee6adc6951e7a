"""The status as one HTML page that needs nothing else: to be sent around, opened anywhere, and read by anyone."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from pipeline.cli.cells import CELLS
from pipeline.errors import visible
from pipeline.state.steps import TABLE
from pipeline.units import size

*_EARLIER, _LAST = TABLE
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: What tells the stages apart without their colours; letters, as fonts differ in all else.
_SIGNS = {
    **{step.stage: step.letter for step in _EARLIER},
    "complete": _LAST.letter,
    "warned": "W",
    "missing": "·",
    "not published": "-",
    "stale": "~",
    "refused": "!",
    "failed": "x",
}
_STYLE = """
:root { color-scheme: light dark; --soft: #5a5a5a; --none: #e4e4e4; --line: #999; --warn: #8a5a00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #b0b0b0; --none: #3a3a3a; --line: #777; --warn: #f0c45c; --bad: #ff8a80; }
}
html { font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 46rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; } .soft, footer, th { color: var(--soft); font-size: .875rem; }
th { font-weight: 600; }
table.grid { border-collapse: separate; border-spacing: 2px; table-layout: fixed; width: 100%; }
.grid th[scope=row] { text-align: left; width: 2.6rem; } .grid thead th:first-child { width: 2.6rem; }
.grid td { height: 1.6rem; padding: 0; text-align: center; border-radius: 4px; font-size: .875rem; }
ul.keys { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
.keys b { display: inline-block; width: 1.7rem; text-align: center; border-radius: 4px; margin-right: .4rem; }
.keys b, .grid td { font-weight: 600; }
.missing { background: var(--none); } .not-published { outline: 1px dashed var(--line); outline-offset: -1px; }
.stale { background: #efc04a; color: #3d2600; } .refused, .failed { background: #b3261e; color: #fff; }
.warned { outline: 3px solid #efc04a; outline-offset: -3px; }
table.totals { border-collapse: collapse; }
.totals th, .totals td { padding: .15rem .9rem .15rem 0; text-align: right; }
.totals th:first-child { text-align: left; } .scroll { overflow-x: auto; }
dt { margin-top: .7rem; } dt.refused, dt.failed, dt.stale { background: none; }
dt.refused, dt.failed { color: var(--bad); }
dt.stale { color: var(--warn); } dd { margin: 0; } code { overflow-wrap: anywhere; }
.said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 36rem) { .grid .rest { display: none; } .grid td { height: 1.5rem; font-size: .8rem; } }
""" + "".join(
    f".{name} {{ {step.css} }}\n"
    for name, step in (*((step.stage, step) for step in _EARLIER), ("complete", _LAST), ("warned", _LAST))
)


def html_page(document: Mapping[str, Any]) -> str:
    """The page of a status document."""
    made = f"{document['as_of'][:16].replace('T', ' ')} UTC"
    datasets, stages = document["datasets"], document["totals"]["marks"]
    keys = "".join(
        f'<li><b class="{_class(stage)}" aria-hidden="true">{_SIGNS[stage]}</b>{escape(CELLS[stage][2])}</li>'
        for stage in stages
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Taxi months, {made}</title><style>{_STYLE}</style></head><body>\n"
        f'<header><h1>Months of New York taxi trips</h1>\n<p class="soft">As of {made}</p></header>\n<main>\n'
        f'<ul class="keys">{keys}</ul>\n{"".join(map(_grid, datasets))}{_totals(document)}{_remarks(document)}</main>\n'
        f"<footer><p>Lake {escape(document['lake'])}</p><p>Warehouse {escape(document['warehouse'])}</p>"
        "<p>Made by <code>pipeline status --html</code></p></footer></body></html>\n"
    )


def _grid(of: Mapping[str, Any]) -> str:
    name, months = of["dataset"], {month["month"]: month for month in of["months"]}
    head = "".join(f'<th scope="col">{month[0]}<span class="rest">{month[1:]}</span></th>' for month in _NAMES)
    rows = "".join(
        f'<tr><th scope="row">{year}</th>'
        + "".join(_cell(name, months.get(f"{year}-{number:02}")) for number in range(1, 13))
        + "</tr>\n"
        for year in sorted({month[:4] for month in months})
    )
    return (
        f'<section><h2>{escape(name)}</h2>\n<table class="grid"><thead><tr><th scope="col">'
        f'<span class="said">year</span></th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></section>\n'
    )


def _cell(name: str, month: Mapping[str, Any] | None) -> str:
    if month is None:
        return "<td></td>"
    stage = month["mark"]
    words = [f"{name} {month['month']}: {CELLS[stage][2]}"]
    words += [f"{month['rows']:,} rows"] if month["rows"] else []
    words += [f"{size(month['raw_bytes'])} as published"] if month["raw_bytes"] else []
    words += [*month["stale"].values(), *(rule.replace("_", " ") for rule in (*month["failed"], *month["warnings"]))]
    words += ["{} failed: {}: {}".format(*month["failure"])] if stage == "failed" else []
    title = escape("; ".join(words))
    return (
        f'<td class="{_class(stage)}" title="{title}"><span aria-hidden="true">{_SIGNS[stage]}</span>'
        f'<span class="said">{title}</span></td>'
    )


def _totals(document: Mapping[str, Any]) -> str:
    datasets, stages = document["datasets"], document["totals"]["marks"]
    lines = {stage: [f"{of['marks'].get(stage, 0) or ''}" for of in datasets] for stage in stages}
    lines |= {"rows loaded": [f"{of['rows']:,}" for of in datasets]}
    lines |= {"as published": [size(of["raw_bytes"]) for of in datasets]}
    head = "".join(f'<th scope="col">{escape(of["dataset"])}</th>' for of in datasets)
    body = "".join(
        f'<tr><th scope="row">{label}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>\n'
        for label, texts in lines.items()
    )
    zones = document["zones"]
    rows = f", {zones['rows']:,} rows" if zones["loaded"] and zones["rows"] else ""
    return (
        '<section><h2>Totals</h2>\n<div class="scroll"><table class="totals">'
        f'<thead><tr><th scope="col">months</th>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'
        f"<p>Zones: {escape(zones['mark'])}{rows}</p></section>\n"
    )


def _remarks(document: Mapping[str, Any]) -> str:
    found = ""
    for of in document["remarks"]:
        subject = " ".join(filter(None, (of["dataset"], of["months"])))
        found += f'<dt class="{_class(of["stage"])}">{escape(subject)}: {escape(of["why"])}</dt>'
        found += f"<dd><code>{escape(of['command'])}</code></dd>\n"
    return f"<section><h2>What wants a person</h2>\n<dl>{found}</dl></section>\n" if found else ""


def escape(text: str) -> str:
    """Text from elsewhere as HTML that shows it."""
    return html.escape(visible(text))


def _class(stage: str) -> str:
    return stage.replace(" ", "-")
