"""What the page of all months shows, from the answer to `status` and from what is running; also as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import tornado.locale
from tornado.template import Loader

from pipeline.errors import visible
from pipeline.months import parse_months
from pipeline.units import size

Answer = Mapping[str, Any]
#: Gives a text in the language of the page: of one form, or of two forms for a count.
Translate = Callable[..., str]

_FOLDER = Path(__file__).parent
#: What a narrow page shows, and what else a wide one does.
MONTHS = ("J|an", "F|eb", "M|ar", "A|pr", "M|ay", "J|un", "J|ul", "A|ug", "S|ep", "O|ct", "N|ov", "D|ec")
_NOTHING = {"missing", "not published"}
#: States of a step, as its bar shows them.
STATES = ("done", "running", "queued", "missing", "failed", "stale")
#: The stages of remarks, the most urgent first.
_URGENT = ("failed", "refused", "stale")


class Cell(NamedTuple):
    """A month, or the zones, as the grid shows it."""

    #: Such as yellow 2024-01.
    key: str
    mark: str
    sign: str
    title: str
    #: By step: its state.
    steps: Mapping[str, str]


class Years(NamedTuple):
    """Consecutive years, of which either every one or none is empty."""

    #: Such as 2009..2014.
    text: str
    is_empty: bool
    months: int
    years: Sequence[str]


class Concern(NamedTuple):
    """Remarks with the same reason."""

    mark: str
    why: str
    total: int
    #: What a remark is about, the address of its first month, more about it, and the command that fixes it.
    items: Sequence[tuple[str, str, str, str]]


def view(answer: Answer, _: Translate, overlay: Answer | None = None) -> dict[str, Any]:
    """The variables of `grid.html`; `overlay` says of months such as yellow 2024-01 what runs do with them."""
    document, make = answer["document"], partial(_cell, answer, overlay or {}, _)
    sections = []
    for each in document["datasets"]:
        cells = {month["month"]: make(month) for month in each["months"]}
        waited = [month for month in each["months"] if month["expected"] and each["marks"].keys() - _NOTHING]
        sections.append({**each, "cells": cells, "parts": [*_parts(cells)], "waited": waited})
    return {
        **answer,
        "sections": sections,
        "zones": make(document["zones"]),
        "concerns": concerns(document["remarks"], _),
        "is_empty": document["totals"]["marks"].keys() <= _NOTHING,
    }


def changes(answer: Answer, _: Translate, overlay: Answer, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a page that shows the grid has to change in the cells of these months, by month."""
    document = answer["document"]
    months = [document["zones"], *(month for each in document["datasets"] for month in each["months"])]
    cells = [_cell(answer, overlay, _, month) for month in months if key_of(month["dataset"], month["month"]) in keys]
    return {cell.key: {**cell._asdict(), "mark": css_class(cell.mark)} for cell in cells}


def static_page(answer: Answer) -> str:
    """The grid as one HTML page that needs no other file."""
    return standalone("grid.html", view(answer, tornado.locale.get("en_US").translate))


def standalone(template: str, values: Mapping[str, Any]) -> str:
    """A page of the board in English that needs no other file."""
    english, css = tornado.locale.get("en_US"), (_FOLDER / "static" / "board.css").read_text(encoding="utf-8")
    names = {**values, "_": english.translate, "locale": english, "visible": visible}
    return Loader(str(_FOLDER / "templates")).load(template).generate(**names, css=css).decode()


def concerns(remarks: Sequence[Answer], _: Translate) -> list[Concern]:
    """The remarks by their reason."""
    groups: dict[tuple[str, str], list[tuple[Answer, str]]] = {}
    for each in remarks:
        why, detail = _reason(each, _)
        groups.setdefault((each["stage"], why), []).append((each, detail))
    found = []
    for (stage, why), group in sorted(groups.items(), key=lambda item: _URGENT.index(item[0][0])):
        total, items = 0, list[tuple[str, str, str, str]]()
        for each, detail in group:
            subject, first = (key_of(each["dataset"], months) for months in (each["months"], each["months"][:7]))
            items.append((subject, f"/months/{first.replace(' ', '/')}", visible(detail), visible(each["command"])))
            total += len(parse_months(each["months"])) if each["months"] else 1
        found.append(Concern(stage, why, total, items))
    return found


def step_state(month: Answer, name: str, stage: str) -> str:
    """The state of a step that is not at work."""
    failing = "conform" if month["mark"] == "refused" else (month["failure"] or [""])[0]
    if name == failing and month["stage"] != "complete":
        return "failed"
    return "stale" if name in month["stale"] else "done" if month[stage] else "missing"


def key_of(dataset: str, month: str | None) -> str:
    """A month, such as yellow 2024-01, or the zones."""
    return f"{dataset} {month or ''}".rstrip()


def css_class(mark: str) -> str:
    """The class of a mark, or of the outcome of a run."""
    return mark.replace(" ", "-")


def bytes_text(count: float | None, _: Translate) -> str:
    """A number of bytes with its unit; a dash if it is unknown."""
    return "-" if count is None else size(count).replace("bytes", _("bytes"))


def rows_text(count: int, _: Translate) -> str:
    """A number of rows."""
    return _("%(count)s row", "%(count)s rows", count) % {"count": f"{count:,}"}


def expected_text(month: Answer, _: Translate) -> str:
    """When a month that is not published yet is expected, and how late it is."""
    late = month["late_days"]
    text = _("expected about %(day)s") % {"day": month["expected"]}
    return text + (", " + _("%(days)s day late", "%(days)s days late", late) % {"days": f"{late:,}"} if late else "")


def reasons_text(text: str, _: Translate) -> str:
    """Why something is stale: reasons that are joined by semicolons and commas."""
    return visible("; ".join(", ".join(map(_, part.split(", "))) for part in text.split("; ")))


def moment(text: str) -> str:
    """A time in UTC, to the minute."""
    return f"{text[:16].replace('T', ' ')} UTC"


def _cell(answer: Answer, overlay: Answer, _: Translate, month: Answer) -> Cell:
    key = key_of(month["dataset"], month["month"])
    over = overlay.get(key, {})
    mark, states, steps = over.get("mark", month["mark"]), over.get("steps", {}), dict[str, str]()
    for step in answer["steps"]:
        steps[step["name"]] = states.get(step["name"]) or step_state(month, step["name"], step["stage"])
        if step["name"] == month["last_step"]:
            break
    about = answer["marks"][mark]
    title = "; ".join([f"{key}: {_(about['meaning'])}", *_details(month, mark, over.get("note"), _)])
    return Cell(key, mark, about["sign"], title, steps)


def _details(month: Answer, mark: str, note: str | None, _: Translate) -> Iterator[str]:
    if note:
        yield visible(note)
    if month["rows"]:
        yield rows_text(month["rows"], _)
    if month["raw_bytes"]:
        yield _("%(size)s as published") % {"size": bytes_text(month["raw_bytes"], _)}
    yield from (reasons_text(reasons, _) for reasons in month["stale"].values())
    yield from (visible(rule.replace("_", " ")) for rule in (*month["failed"], *month["warnings"]))
    if mark == "failed" and month["failure"]:
        step, kind, text = month["failure"]
        yield _("%(step)s failed") % {"step": _(step)} + visible(f": {kind}: {text}")
    if mark in _NOTHING and month["expected"]:
        yield expected_text(month, _)


def _parts(cells: Mapping[str, Cell]) -> Iterator[Years]:
    months = {year: [*group] for year, group in groupby(cells, lambda month: month[:4])}

    def is_empty(year: str) -> bool:
        return all(cells[month].mark in _NOTHING for month in months[year])

    for empty, group in groupby(months, is_empty):
        years = [*group]
        text, count = "..".join(dict.fromkeys((years[0], years[-1]))), sum(len(months[year]) for year in years)
        yield Years(text, empty, count, years)


def _reason(remark: Answer, _: Translate) -> tuple[str, str]:
    """Why, as other months may have it, too, and more about these ones."""
    if remark["stage"] == "stale":
        return reasons_text(remark["why"], _), ""
    if remark["stage"] == "refused":
        return visible(remark["why"].partition(": ")[2]), ""
    step, _failed, rest = remark["why"].partition(" failed: ")  # Such as: conform failed: SchemaError: text.
    kind, _colon, detail = rest.partition(": ")
    return _("%(step)s failed") % {"step": _(step)} + visible(f": {kind}"), detail
