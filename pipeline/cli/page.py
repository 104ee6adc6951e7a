"""The status as one HTML page that needs nothing else: to be sent around, opened anywhere, and read by anyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from pipeline.cli.cells import CELLS

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STYLE = """
:root { color-scheme: light dark; --line: #8884; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.scroll { overflow-x: auto; } table { border-collapse: separate; border-spacing: 3px; }
th { font-weight: 600; font-size: .8rem; text-align: left; color: #888; }
td { width: 2.1rem; height: 1.7rem; text-align: center; border-radius: 4px; font-size: .9rem; }
td.none { background: none; } p.small, footer { color: #888; font-size: .85rem; }
.complete { background: #2e8b57; color: #fff; } .loaded { background: #7cc49a; color: #063; }
.conformed { background: #6fc3cf; color: #034; } .raw { background: #9db7e8; color: #024; }
.missing { background: var(--line); } .not-published { border: 1px dashed #8888; }
.stale { background: #e8b93c; color: #420; } .refused { background: #c0392b; color: #fff; }
span.key { display: inline-block; min-width: 1.6rem; text-align: center; border-radius: 4px; margin: 0 .3rem 0 1rem; }
"""


def html_page(document: Mapping[str, Any]) -> str:
    """The page of a status document."""
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    stages = {stage for of in document["datasets"] for stage in of["stages"]}
    keys = "".join(
        f'<span class="key {_class(stage)}">{_sign(stage)}</span>{escape(meaning)}'
        for stage, (_, _, meaning) in CELLS.items()
        if stage in stages
    )
    parts = [_dataset(of) for of in document["datasets"]]
    places = f"lake {document['lake']}, warehouse {document['warehouse']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Taxi months, {made}</title><style>{_STYLE}</style></head><body>\n"
        "<h1>Months of New York taxi trips</h1>\n"
        f'<p class="small">{escape(places)}</p>\n<p>{keys}</p>\n{"".join(parts)}'
        f"<footer>As of {made}, made by pipeline status.</footer></body></html>\n"
    )


def _dataset(of: Mapping[str, Any]) -> str:
    months = {month["month"]: month for month in of["months"]}
    years = sorted({month[:4] for month in months})
    head = "".join(f'<th scope="col">{name}</th>' for name in _NAMES)
    rows = "".join(
        f'<tr><th scope="row">{year}</th>'
        + "".join(_cell(of["dataset"], months.get(f"{year}-{number:02}")) for number in range(1, 13))
        + "</tr>\n"
        for year in years
    )
    counts = ", ".join(f"{count} {stage}" for stage, count in of["stages"].items())
    return (
        f'<h2>{escape(of["dataset"])}</h2>\n<p class="small">{counts}; {of["rows"]:,} rows loaded, '
        f"{of['raw_bytes'] / 1e6:,.1f} MB as published</p>\n"
        f'<div class="scroll"><table><tr><td class="none"></td>{head}</tr>\n{rows}</table></div>\n'
        + _remarks(of["months"])
    )


def _cell(name: str, month: Mapping[str, Any] | None) -> str:
    if month is None:
        return '<td class="none"></td>'
    stage = month["stage"]
    words = [f"{name} {month['month']}: {CELLS[stage][2]}"]
    words += [f"{month['rows']:,} rows"] if month["rows"] else []
    words += [*month["stale"].values(), *month["failed"]]
    title = escape("; ".join(words), quote=True)
    return f'<td class="{_class(stage)}" title="{title}" aria-label="{title}">{_sign(stage)}</td>'


def _remarks(months: Sequence[Mapping[str, Any]]) -> str:
    found = [
        f"<li>{escape(month['month'])}: {escape('; '.join([*month['stale'].values(), *month['failed']]))}</li>"
        for month in months
        if month["stale"] or month["failed"]
    ]
    return f"<ul>{''.join(found)}</ul>\n" if found else ""


def _sign(stage: str) -> str:
    return "✓" if stage == "complete" else escape(CELLS[stage][0])


def _class(stage: str) -> str:
    return stage.replace(" ", "-")
