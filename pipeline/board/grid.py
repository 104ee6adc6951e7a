"""What the page of all months shows, from the answer to `status` and from what is running; also as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import tornado.locale
from tornado.template import Loader

from pipeline.errors import visible
from pipeline.months import parse_months
from pipeline.runs.history import Run
from pipeline.units import size

Answer = Mapping[str, Any]
#: Gives a text in the language of the page: of one form, or of two forms for a count.
Translate = Callable[..., str]

_FOLDER = Path(__file__).parent
#: What a narrow page shows, and what else a wide one does.
MONTHS = ("J|an", "F|eb", "M|ar", "A|pr", "M|ay", "J|un", "J|ul", "A|ug", "S|ep", "O|ct", "N|ov", "D|ec")
_NOTHING = ("missing", "not published")
#: States of a step, as its bar shows them.
STATES = ("done", "running", "queued", "missing", "failed", "stale")
#: The stages of remarks, the most urgent first.
_URGENT = ("failed", "refused", "stale")
#: So many groups of remarks are opened.
_MOST_OPEN = 2


class Cell(NamedTuple):
    """A month, or the zones, as the grid shows it."""

    dataset: str
    #: Such as 2024-01; empty for the zones.
    month: str
    mark: str
    sign: str
    title: str
    #: State and name of each step.
    bars: Sequence[tuple[str, str]]

    @property
    def key(self) -> str:
        """Such as yellow 2024-01."""
        return f"{self.dataset} {self.month}".rstrip()

    @property
    def css(self) -> str:
        """The class of its mark."""
        return css_class(self.mark)


class Years(NamedTuple):
    """Consecutive years, of which either every one or none is empty."""

    is_empty: bool
    total: int
    #: By year: a cell for each of its months, None for one that is not shown.
    years: Mapping[str, Sequence[Cell | None]]

    @property
    def text(self) -> str:
        """Such as 2009..2014."""
        first, *_, last = *self.years, *self.years
        return first if first == last else f"{first}..{last}"


class Section(NamedTuple):
    """A dataset."""

    dataset: str
    #: By mark: how many months have it.
    marks: Mapping[str, int]
    rows: int
    raw_bytes: int
    #: When its next month is expected; empty if that is unknown.
    next: str
    parts: Sequence[Years]


class Concern(NamedTuple):
    """Remarks with the same reason."""

    mark: str
    why: str
    total: int
    #: What a remark is about, the month that it links to, more about it, and the command that fixes it.
    items: Sequence[tuple[str, str, str, str]]
    is_open: bool


def view(answer: Answer, _: Translate, overlay: Answer | None = None) -> dict[str, Any]:
    """The variables of `grid.html`; `overlay` says of months such as yellow 2024-01 what runs do with them."""
    document = answer["document"]
    make = _Cells(answer, _, overlay or {})
    return {
        **answer,
        "names": [_(each).split("|") for each in MONTHS],
        "states": STATES,
        "sections": [_section(each, make, _) for each in document["datasets"]],
        "zones": make(document["zones"]),
        "concerns": concerns(document["remarks"], _),
        "is_empty": not any(each["marks"].keys() - {*_NOTHING} for each in document["datasets"]),
        "visible": visible,
        "css_class": css_class,
        "bytes_text": lambda count: bytes_text(count, _),
    }


def changes(answer: Answer, _: Translate, overlay: Answer, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a page that shows the grid has to change in the cells of these months, by month."""
    make, document = _Cells(answer, _, overlay), answer["document"]
    months = [document["zones"], *(month for each in document["datasets"] for month in each["months"])]
    cells = (make(month) for month in months if _key(month) in keys)
    return {
        cell.key: {"mark": cell.css, "sign": cell.sign, "title": cell.title, "steps": {b: a for a, b in cell.bars}}
        for cell in cells
    }


def static_page(answer: Answer) -> str:
    """The grid as one HTML page that needs no other file."""
    english = tornado.locale.get("en_US")
    return (
        Loader(str(_FOLDER / "templates"))
        .load("grid.html")
        .generate(
            **view(answer, english.translate),
            _=english.translate,
            locale=english,
            css=(_FOLDER / "static" / "board.css").read_text(encoding="utf-8"),
            allow_runs=False,
            last_run=None,
        )
        .decode()
    )


def css_class(mark: str) -> str:
    """The class of a mark, or of the outcome of a run."""
    return mark.replace(" ", "-")


def bytes_text(count: float | None, _: Translate) -> str:
    """A number of bytes with its unit; a dash if it is unknown."""
    return "-" if count is None else size(count).replace("bytes", _("bytes"))


def rows_text(count: int, _: Translate) -> str:
    """A number of rows."""
    return _("%(count)s row", "%(count)s rows", count) % {"count": f"{count:,}"}


def daily_job(runs: Sequence[Run]) -> Run | None:
    """The newest run that a schedule may have started."""
    return next((run for run in reversed(runs) if run.asked.startswith("pipeline latest")), None)


class _Cells:
    """Makes the cells of one page."""

    def __init__(self, answer: Answer, translate: Translate, overlay: Answer) -> None:
        self._translate, self._overlay, self._marks = translate, overlay, answer["marks"]
        self._steps = [(step["name"], step["stage"]) for step in answer["steps"]]
        self._meanings = {mark: translate(each["meaning"]) for mark, each in self._marks.items()}

    def __call__(self, month: Answer) -> Cell:
        key = _key(month)
        over = self._overlay.get(key, {})
        mark = over.get("mark", month["mark"])
        title = "; ".join([f"{key}: {self._meanings[mark]}", *self._details(month, mark, over.get("note"))])
        bars = [(over.get("steps", {}).get(name) or _state(month, name, stage), name) for name, stage in self._steps]
        return Cell(month["dataset"], month["month"] or "", mark, self._marks[mark]["sign"], title, bars)

    def _details(self, month: Answer, mark: str, note: str | None) -> Iterator[str]:
        _ = self._translate
        if note:
            yield visible(note)
        if month["rows"]:
            yield rows_text(month["rows"], _)
        if month["raw_bytes"]:
            yield _("%(size)s as published") % {"size": bytes_text(month["raw_bytes"], _)}
        if month["stale"]:
            yield from (reasons_text(reasons, _) for reasons in month["stale"].values())
        yield from (visible(rule.replace("_", " ")) for rule in (*month["failed"], *month["warnings"]))
        if mark == "failed" and month["failure"]:
            step, kind, text = month["failure"]
            yield _("%(step)s failed") % {"step": _(step)} + visible(f": {kind}: {text}")
        if mark in _NOTHING and month["expected"]:
            yield expected_text(month, _)


def expected_text(month: Answer, _: Translate) -> str:
    """When a month that is not published yet is expected, and how late it is."""
    late = month["late_days"]
    text = _("expected about %(day)s") % {"day": month["expected"]}
    return text + (", " + _("%(days)s day late", "%(days)s days late", late) % {"days": f"{late:,}"} if late else "")


def reasons_text(text: str, _: Translate) -> str:
    """Why something is stale: reasons that are joined by semicolons and commas."""
    return visible("; ".join(", ".join(map(_, part.split(", "))) for part in text.split("; ")))


def _key(month: Answer) -> str:
    return f"{month['dataset']} {month['month'] or ''}".rstrip()


def _state(month: Answer, name: str, stage: str) -> str:
    """The state of a step that is not at work."""
    if name in month["stale"]:
        return "stale"
    if month[stage]:
        return "done"
    refused = month["mark"] == "refused" and name == "conform"
    return "failed" if refused or (month["mark"] == "failed" and month["failure"][0] == name) else "missing"


def _section(each: Answer, make: Callable[[Answer], Cell], _: Translate) -> Section:
    waited = next((month for month in each["months"] if month["expected"]), None)
    years: dict[str, list[Cell | None]] = {}
    for month in each["months"]:
        cells = years.setdefault(month["month"][:4], [None] * 12)
        cells[int(month["month"][5:]) - 1] = make(month)

    def is_empty(year: str) -> bool:
        return all(cell is None or cell.mark in _NOTHING for cell in years[year])

    parts = []
    for empty, group in groupby(years, is_empty):
        part = {year: years[year] for year in group}
        parts.append(Years(empty, sum(cell is not None for cells in part.values() for cell in cells), part))
    exists = each["marks"].keys() - {*_NOTHING}
    following = f"{waited['month']}, {expected_text(waited, _)}" if waited and exists else ""
    return Section(each["dataset"], each["marks"], each["rows"], each["raw_bytes"], following, parts)


def concerns(remarks: Sequence[Answer], _: Translate) -> list[Concern]:
    """The remarks by their reason."""
    groups: dict[tuple[str, str], list[tuple[str, str, str, str]]] = {}
    count: dict[tuple[str, str], int] = {}
    for each in remarks:
        why, detail = each["why"], ""
        if each["stage"] == "failed":  # Such as: conform failed: SchemaError: text.
            step, _failed, rest = why.partition(" failed: ")
            kind, _colon, detail = rest.partition(": ")
            why = _("%(step)s failed") % {"step": _(step)} + visible(f": {kind}")
        elif each["stage"] == "refused":
            why = visible(why.partition(": ")[2])
        else:
            why = reasons_text(why, _)
        key = (each["stage"], why)
        subject = f"{each['dataset']} {each['months']}".rstrip()
        link = f"/months/{each['dataset']}/{each['months'][:7]}".rstrip("/")
        groups.setdefault(key, []).append((subject, link, visible(detail), visible(each["command"])))
        count[key] = count.get(key, 0) + (len(parse_months(each["months"])) if each["months"] else 1)
    return [
        Concern(mark, why, count[mark, why], items, len(groups) <= _MOST_OPEN and len(items) <= _MOST_OPEN)
        for (mark, why), items in sorted(groups.items(), key=lambda group: _URGENT.index(group[0][0]))
    ]
