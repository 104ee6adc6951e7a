"""What the page of a month shows: pure functions from the answers about it to the values of its templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pipeline.board.grid import Translate, bytes_text, concerns, css_class, expected_text, reasons_text, rows_text
from pipeline.board.runs import duration_text
from pipeline.errors import UsageError, visible
from pipeline.months import parse_month
from pipeline.runs.history import Run
from pipeline.tasks.logs import attempts, log_path, tracebacks, without_tracebacks

#: The end of a log that is shown.
_LOG_BYTES = 64 * 1024
#: A share of nulls that differs by this much from the mean of the months before is marked.
_NOTABLE_SHARE = 0.01
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
#: How the checks write what was found and what is allowed, and how a page does.
_PHRASES = (
    (r"at least (?P<count>\S+)", "at least %(count)s"),
    (r"at most (?P<count>\S+)", "at most %(count)s"),
    (r"(?P<count>\S+) of (?P<rows>\S+) \((?P<share>.+)\)", "%(count)s of %(rows)s (%(share)s)"),
    (
        r"(?P<count>\S+) \((?P<rows>\S+) instead of (?P<published>\S+)\)",
        "%(count)s (%(rows)s instead of %(published)s)",
    ),
)
PHRASES = tuple(phrase for _, phrase in _PHRASES)
#: Width and height of the picture of days; a step of the heat map.
_WIDTH, _HEIGHT, _CELL = 336, 110, 13


def values(
    status: Mapping[str, Any],
    answer: Mapping[str, Any],
    runs: Sequence[Run],
    logs: Path,
    live: Mapping[str, Any],
    _: Translate,
) -> dict[str, Any]:
    """The values of `month.html`, without those of the difference; `live` is what a running run does with the month."""
    dataset, month, marks = answer["dataset"], answer["month"], status["marks"]
    previous, next_month = neighbours(status["document"], dataset, month)
    steps = [step["name"] for step in answer["steps"]]
    all_logs = step_logs(str(logs), dataset, parse_month(month) if month else None, steps)
    return {
        **names_of(dataset, month, _),
        "answer": answer,
        "status": answer["status"],
        "mark": live.get("mark", answer["status"]["mark"]),
        "note": live.get("note", ""),
        "marks": marks,
        "signs": {"done": "✓", **{name: mark["sign"] for name, mark in marks.items()}},
        "previous": previous,
        "next": next_month,
        "failure": last_failure(runs, dataset, month, answer["failure"]),
        "concern": next(iter(concerns(answer["remarks"], _)), None),
        "steps": step_lines(answer, live.get("steps", {})),
        "source": source_lines(answer["source"] or {}, _),
        "columns": profile_rows(answer["columns"]),
        "others": compared_months(status["document"], dataset, month),
        "logs": all_logs,
        "logged": [log["step"] for log in all_logs],
        "commands": [command_line(dataset, month, each, _) for each in answer["commands"]],
    }


def names_of(dataset: str, month: str | None, _: Translate) -> dict[str, Any]:
    """What every template of a month can use."""
    formats = {"number": number, "share": share, "change": change, "moment": moment, "css_class": css_class}
    texts = (bytes_text, rows_text, expected_text, reasons_text, duration_text, measure_text, phrase_text)
    in_language = {text.__name__: partial(text, _=_) for text in texts}
    return {"dataset": dataset, "month": month, "label": f"{dataset} {month or ''}".rstrip(), **formats, **in_language}


def neighbours(document: Mapping[str, Any], dataset: str, month: str | None) -> tuple[str | None, str | None]:
    """The months before and after, as the status document has them; the zones have none.

    Raises:
        UsageError: the dataset or the month does not exist.
    """
    datasets = {each["dataset"]: [one["month"] for one in each["months"]] for each in document["datasets"]}
    if dataset == document["zones"]["dataset"] and month is None:
        return None, None
    months = datasets.get(dataset, [])
    if month not in months:
        if not months:
            raise UsageError(
                f"{dataset}: no such dataset; allowed are {', '.join(datasets)}, and zones without a month"
            )
        raise UsageError(f"{dataset} {month or 'without a month'}: allowed is a month from {months[0]} to {months[-1]}")
    index = months.index(month)
    return months[index - 1] if index else None, months[index + 1] if index + 1 < len(months) else None


def compared_months(document: Mapping[str, Any], dataset: str, month: str | None) -> list[str]:
    """The other months of the dataset that were conformed, newest first."""
    months = [each["months"] for each in document["datasets"] if each["dataset"] == dataset]
    return [
        each["month"] for each in (months[0] if months else [])[::-1] if each["conformed"] and each["month"] != month
    ]


def command_line(dataset: str, month: str | None, command: Mapping[str, str], _: Translate) -> dict[str, str]:
    """A command with its label, and the page that previews it where it can be run."""
    word, line = command["word"], command["command"]
    step = line.partition(" --from ")[2].partition(" ")[0]
    query = {"action": word, "dataset": dataset, "period": month or "", "step": step}
    url = f"/actions?{urlencode({name: text for name, text in query.items() if text})}"
    label = _(COMMANDS[word]) % {"step": _(step)} if step else _(COMMANDS[word])
    return {"label": label, "command": line, "url": url if word in ("backfill", "refresh", "redo") else ""}


def last_failure(runs: Sequence[Run], dataset: str, month: str | None, failure: Mapping[str, str] | None) -> Any:
    """The failure of the last run of the month, with its run and remedy; None if it did not fail."""
    if not failure:
        return None
    for run in reversed(runs):
        for each in run.failures:
            if (each.dataset, each.month, each.step) == (dataset, month or "", failure["step"]):
                return {**failure, "run": run.id, "ended": run.ended, "remedy": each.remedy}
    return {**failure, "run": "", "ended": None, "remedy": ""}


def step_lines(answer: Mapping[str, Any], live: Mapping[str, str]) -> list[dict[str, Any]]:
    """The steps, each with its state: that of a running run, else failed, stale, done or missing."""
    failure, lines = answer["failure"], []
    for step in answer["steps"]:
        name, state = step["name"], "done" if step["done"] else "missing"
        if step["stale"]:
            state = "stale"
        if (failure and failure["step"] == name) or (name == "conform" and answer["status"]["stage"] == "refused"):
            state = "failed"
        lines.append({**step, "state": live.get(name, state), "run": answer["by_run"].get(name)})
    return lines


def source_lines(source: Mapping[str, Any], _: Translate) -> list[tuple[str, str]]:
    """Name and text of what is known about the raw file."""
    texts = {
        "URL": source.get("url"),
        "ETag": source.get("etag"),
        _("Size"): bytes_text(source["bytes"], _) if source else None,
        "SHA-256": source.get("sha256"),
        "Last-Modified": source.get("last_modified"),
        _("Fetched"): moment(source["fetched_at"]) if source else None,
    }
    return [(name, visible(text)) for name, text in texts.items() if text]


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


def profile_rows(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The columns of a month, with the mean share and the whole range of the months before, and what is unusual."""
    rows = []
    for column in columns:
        # Times of later months are always later.
        is_time = str(column["type"]).startswith("timestamp")
        before = [each for each in column["before"] if each]
        shares = [each["share"] for each in before if each["share"] is not None]
        least = [each["min"] for each in before if each["min"] is not None]
        most = [each["max"] for each in before if each["max"] is not None]
        mean = sum(shares) / len(shares) if shares else None
        limits = {"min_before": min(least, default=None), "max_before": max(most, default=None)}
        has_moved = mean is not None and column["share"] is not None and abs(column["share"] - mean) >= _NOTABLE_SHARE
        is_lower = bool(least and column["min"] is not None and not is_time and column["min"] < min(least))
        is_higher = bool(most and column["max"] is not None and not is_time and column["max"] > max(most))
        moved = {"nulls_moved": has_moved, "min_moved": is_lower, "max_moved": is_higher}
        rows.append({**column, "share_before": mean, **limits, **moved})
    return rows


def month_named(text: str, month: str) -> str:
    """The other month of a difference, as it was typed.

    Raises:
        UsageError: it is not a month, or the same one.
    """
    other = text.strip()
    if not re.fullmatch(r"\d{4}-\d\d", other, re.ASCII):
        raise UsageError(f"{other[:40]!r} is not a month; write YYYY-MM, for instance 2024-01")
    parse_month(other)
    if other == month:
        raise UsageError(f"{other} is the month of this page; choose another one")
    return other


def day_bars(days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The bars of the trips of each day, in a picture of `width` and `height`; and the highest number."""
    most = max((each["trips"] for each in days), default=0)
    wide, bars = _WIDTH / max(len(days), 1), []
    for index, each in enumerate(days):
        high = round(_HEIGHT * each["trips"] / most, 1) if most else 0
        is_weekend = date.fromisoformat(each["day"]).weekday() >= 5
        place = {"x": round(index * wide + 1, 1), "y": round(_HEIGHT - high, 1), "width": round(wide - 2, 1)}
        bars.append({**each, **place, "height": high, "is_weekend": is_weekend})
    return {"bars": bars, "most": most, "width": _WIDTH, "height": _HEIGHT}


def zone_bars(zones: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The zones with the most revenue, each with its share of the largest in per cent."""
    revenues = [max(zone["total_amount"] or 0, 0) for zone in zones]
    most = max(revenues, default=0) or 1
    return [{**zone, "percent": round(100 * value / most, 1)} for zone, value in zip(zones, revenues, strict=True)]


def data_values(rows: Mapping[str, Any] | None, marts: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `month_data.html`; a picture whose numbers are missing is None, and its answer has the reason."""
    data = {name: part["data"] for name, part in marts.items() if part["data"]}
    columns = [
        {**each, "is_number": each["type"].startswith(("int", "double"))} for each in (rows or {}).get("columns", ())
    ]
    return {
        "rows": {**rows, "columns": columns} if rows else None,
        "marts": marts,
        "days": day_bars(data["daily_trips"]) if "daily_trips" in data else None,
        "zones": zone_bars(data["monthly_zone_revenue"]) if "monthly_zone_revenue" in data else None,
        "hours": heat_cells(data["hours_of_week"]) if "hours_of_week" in data else None,
        "weekdays": WEEKDAYS,
    }


def heat_cells(hours: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The cells of the hours of the week, each with its strength of 0.04 to 1, and the highest number."""
    most = max((count for day in hours for count in day), default=0)
    cells = [
        {"day": day, "hour": hour, "count": count, "x": hour * _CELL, "y": day * _CELL}
        | {"strength": round(max(0.04, count / most), 2) if most else 0.04}
        for day, counts in enumerate(hours)
        for hour, count in enumerate(counts)
    ]
    return {"cells": cells, "most": most, "cell": _CELL}


def number(value: float | str | None) -> str:
    """A number with separators; a text as it is."""
    return f"{value:,}" if isinstance(value, (int, float)) else value or ""


def share(value: float | None) -> str:
    """A share in per cent."""
    return "" if value is None else f"{value:.1%}"


def change(line: Mapping[str, Any]) -> str:
    """The change of a count in per cent; empty when it was 0."""
    percent = line["change_percent"]
    return "" if percent is None else f"{percent:+,.1f} %" if percent else "0.0 %"


def measure_text(measure: str, _: Translate) -> str:
    """The name of a count."""
    name = measure.replace("_", " ")
    if name in MEASURES:
        return _(name)
    return _("unknown codes: %(column)s") % {"column": visible(measure.removeprefix("unknown_"))}


def phrase_text(text: str, _: Translate) -> str:
    """What was found, or what is allowed."""
    parts = []
    for part in text.split(" and "):
        matches = ((re.fullmatch(pattern, part), phrase) for pattern, phrase in _PHRASES)
        parts.append(next((_(phrase) % match.groupdict() for match, phrase in matches if match), part))
    return visible(", ".join(parts))


def moment(text: str) -> str:
    """A time in UTC, to the minute."""
    return f"{text[:16].replace('T', ' ')} UTC"
