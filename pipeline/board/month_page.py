"""What the page of a month shows: pure functions from the answers about it to the values of its templates."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.board.grid import Answer, Translate, concerns, key_of
from pipeline.errors import UsageError, visible
from pipeline.months import format_month, parse_month
from pipeline.runs.history import Run
from pipeline.tasks.logs import attempts, log_path, tracebacks, without_tracebacks

#: The end of a log that is shown.
_LOG_BYTES = 64 * 1024
#: By measure of a column: what it is in all of the months before, and whether that of this month has left it.
_MEASURES_OF_COLUMNS: Mapping[str, tuple[Callable[..., Any], Callable[[Any, Any], bool]]] = {
    "share": (fmean, lambda now, before: abs(now - before) >= 0.01),
    "min": (min, operator.lt),
    "max": (max, operator.gt),
}
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: What each command does, by its word.
COMMANDS = {
    "backfill": "Run the missing steps",
    "refresh": "Run what is out of date",
    "redo": "Run again from %(step)s",
    "check": "Checks",
    "diff": "Difference from the month before",
    "logs": "Logs",
    "head": "First rows",
    "sql": "Query",
    "describe": "Columns and rules",
}
#: The counts of the checks; those of single columns with codes have the column in their name.
MEASURES = (
    *("rows", "pickups outside month", "dropoffs before pickups", "huge numbers", "unknown zones", "negative totals"),
    *("unknown codes", "rows off published"),
)
SEVERITIES = ("error", "warning")
#: How the checks write what was found and what is allowed.
PHRASES = (
    *("at least %(count)s", "at most %(count)s", "%(count)s of %(rows)s (%(share)s)"),
    "%(count)s (%(rows)s instead of %(published)s)",
)
_PATTERNS = {each: re.compile(re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>\\S+)", re.escape(each))) for each in PHRASES}
#: Width and height of the picture of days.
_WIDTH, _HEIGHT = 336, 110


def values(status: Answer, answer: Answer, runs: Sequence[Run], logs: Path, _: Translate) -> dict[str, Any]:
    """The values of `month.html`, without those of the difference and of what a running run does with the month."""
    dataset, month = answer["dataset"], answer["month"]
    months = [one for each in status["document"]["datasets"] if each["dataset"] == dataset for one in each["months"]]
    steps = [step["name"] for step in answer["steps"]]
    return {
        **answer,
        "label": key_of(dataset, month),
        "marks": status["marks"],
        "around": neighbours(status["document"], dataset, month),
        "failure": last_failure(runs, dataset, month, answer["status"]["failure"]),
        "concern": next(iter(concerns(answer["remarks"], _)), None),
        "columns": profile_rows(answer["profile"]["columns"] if answer["profile"] else ()),
        "others": [each["month"] for each in reversed(months) if each["conformed"] and each["month"] != month],
        "logs": step_logs(str(logs), dataset, parse_month(month) if month else None, steps),
    }


def neighbours(document: Answer, dataset: str, month: str | None) -> tuple[str | None, str | None]:
    """The months before and after, as the status document has them; the zones have none.

    Raises:
        UsageError: the dataset or the month does not exist.
    """
    if dataset == document["zones"]["dataset"] and month is None:
        return None, None
    datasets = {each["dataset"]: [one["month"] for one in each["months"]] for each in document["datasets"]}
    months = datasets.get(dataset)
    if not months:
        raise UsageError(f"{dataset}: no such dataset; allowed are {', '.join(datasets)}, and zones without a month")
    if month not in months:
        raise UsageError(f"{dataset} {month or 'without a month'}: allowed is a month from {months[0]} to {months[-1]}")
    around = [None, *months, None]
    return around[months.index(month)], around[months.index(month) + 2]


def last_failure(runs: Sequence[Run], dataset: str, month: str | None, failure: Sequence[str] | None) -> Any:
    """The failure of the last run of the month, with its run and remedy; None if it did not fail."""
    if not failure:
        return None
    step, kind, error = failure
    shown = {"step": step, "kind": kind, "error": error, "run": "", "ended": None, "remedy": ""}
    for run in runs:
        for each in run.failures:
            if (each.dataset, each.month, each.step) == (dataset, month or "", step):
                shown |= {"run": run.id, "ended": run.ended, "remedy": each.remedy}
    return shown


def step_logs(logs: str, dataset: str, month: date | None, steps: Iterable[str]) -> list[dict[str, Any]]:
    """The logs of the steps that have one: their attempts, newest first, each without and with its tracebacks."""
    found = []
    for step in steps:
        path = log_path(logs, dataset, month, step)
        text, is_cut = _tail(path)
        parts = [{"text": without_tracebacks(each).strip(), "tracebacks": tracebacks(each)} for each in attempts(text)]
        if parts:
            found.append({"step": step, "path": str(path), "attempts": parts, "is_cut": is_cut})
    return found


def _tail(path: Path) -> tuple[str, bool]:
    """The end of a file, and whether something is before it; empty for what is not a file."""
    try:
        if not path.is_file():
            return "", False
        with path.open("rb") as file:
            skipped = max(0, path.stat().st_size - _LOG_BYTES)
            file.seek(skipped)
            text = file.read(_LOG_BYTES).decode(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}", False
    return (text.partition("\n")[2] or text) if skipped else text, bool(skipped)


def profile_rows(columns: Sequence[Answer]) -> list[dict[str, Any]]:
    """The columns of a month, with their measures in the months before it, and those that are unusual."""
    rows = []
    for column in columns:
        before, moved = dict[str, Any](), set[str]()
        # Times of later months are always later.
        is_time = str(column["type"]).startswith("timestamp")
        for name, (of_all, has_moved) in _MEASURES_OF_COLUMNS.items():
            known = [each[name] for each in column["before"] if each and each[name] is not None]
            before[name] = of_all(known) if known else None
            is_compared = known and column[name] is not None and not (is_time and name != "share")
            if is_compared and has_moved(column[name], before[name]):
                moved.add(name)
        rows.append({**column, "before": before, "moved": moved})
    return rows


def other_month(text: str, month: str) -> str:
    """The other month of a difference, as it was typed.

    Raises:
        UsageError: it is not a month, or the same one.
    """
    other = format_month(parse_month(text[:40]))
    if other == month:
        raise UsageError(f"{other} is the month of this page; choose another one")
    return other


def day_bars(days: Sequence[Answer]) -> dict[str, Any]:
    """The bars of the trips of each day, in a picture of `width` and `height`; and the highest number."""
    most = max((each["trips"] for each in days), default=0)
    wide, bars = _WIDTH / max(len(days), 1), []
    for index, each in enumerate(days):
        high = round(_HEIGHT * each["trips"] / (most or 1), 1)
        place = {"x": round(index * wide + 1, 1), "y": round(_HEIGHT - high, 1), "width": round(wide - 2, 1)}
        is_weekend = date.fromisoformat(each["day"]).weekday() >= 5
        bars.append({**each, **place, "height": high, "is_weekend": is_weekend})
    return {"bars": bars, "most": most, "width": _WIDTH, "height": _HEIGHT}


def number(value: float | str | None) -> str:
    """A number with separators; a text as it is."""
    return f"{value:,}" if isinstance(value, (int, float)) else value or ""


def share(value: float | None) -> str:
    """A share in per cent."""
    return "" if value is None else f"{value:.1%}"


def change(line: Mapping[str, Any], _: Translate) -> str:
    """The change of a share in points, or of a count in per cent."""
    if "change_points" in line:
        return _("%(points)s points") % {"points": f"{line['change_points']:+.1f}"}
    percent = line["change_percent"]
    if percent is None:
        return _("new") if line["value"] else ""
    return f"{percent:+,.1f} %" if percent else "0.0 %"


def measure_text(measure: str, _: Translate) -> str:
    """The name of a count."""
    name = measure.replace("_", " ")
    if name in MEASURES:
        return _(name)
    return _("unknown codes: %(column)s") % {"column": visible(measure.removeprefix("unknown_"))}


def phrase_text(text: str, _: Translate) -> str:
    """What was found, or what is allowed."""

    def translated(part: str) -> str:
        matches = ((phrase, pattern.fullmatch(part)) for phrase, pattern in _PATTERNS.items())
        return next((_(phrase) % match.groupdict() for phrase, match in matches if match), part)

    return visible(", ".join(map(translated, text.split(" and "))))
