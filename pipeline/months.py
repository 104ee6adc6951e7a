"""Months, as dates that are always the first of the month, and the periods that users write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import MAXYEAR, MINYEAR, date

from pipeline.errors import UsageError

_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_ALLOWED = "a month (2024-01), a year (2024), or a range of either with both ends included (2023-11..2024-03)"


def parse_month(text: str) -> date:
    """The month that a text such as 2024-01 names; a UsageError for any other text."""
    match = _MONTH.fullmatch(text.strip())
    if match and not 1 <= int(match[2]) <= 12:
        raise UsageError(f"{text.strip()!r} is not a month: months are 01 to 12")
    if match is None or int(match[1]) < 1:
        raise UsageError(f"{text!r} is not a month; write YYYY-MM, for instance 2024-01")
    return date(int(match[1]), int(match[2]), 1)


def format_month(month: date) -> str:
    """The month as 2024-01."""
    return month.isoformat()[:7]  # strftime writes the year 1 without zeros on some systems.


def label(name: str, month: date | None) -> str:
    """A dataset with its month, as in "green 2024-01", or the name alone."""
    return f"{name} {format_month(month)}" if month else name


def add_months(month: date, count: int) -> date:
    """The month that is `count` months later (earlier when negative); a UsageError outside of the calendar."""
    year, zero_based = divmod(month.year * 12 + month.month - 1 + count, 12)
    if not MINYEAR <= year <= MAXYEAR:
        month_then = f"{abs(count):,} months {'after' if count > 0 else 'before'} {format_month(month)}"
        raise UsageError(f"{month_then} is not in the years {MINYEAR} to {MAXYEAR}; write fewer months")
    return date(year, zero_based + 1, 1)


def month_range(first: date, last: date) -> list[date]:
    """Every month from `first` to `last`, both included, oldest first; empty when `last` is before `first`."""
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    return [add_months(first, offset) for offset in range(count)]


def parse_period(text: str) -> tuple[date, date]:
    """First and last month of a period such as 2021, 2021-03 or 2021..2022-03; a UsageError for any other text."""
    start, dots, end = text.strip().partition("..")
    first, last = _ends(start, text)[0], _ends(end if dots else start, text)[1]
    if last < first:
        raise UsageError(f"period {text!r} ends before it starts; write the earlier month first")
    return first, last


def parse_months(text: str) -> list[date]:
    """The months of one or more periods, separated by commas: oldest first, each once. Raises as `parse_period`."""
    return sorted({month for part in text.split(",") for month in month_range(*parse_period(part))})


def _ends(part: str, whole: str) -> tuple[date, date]:
    if re.fullmatch(r"[0-9]{4}", part.strip()) and int(part) >= 1:
        return date(int(part), 1, 1), date(int(part), 12, 1)
    if not _MONTH.fullmatch(part.strip()):
        raise UsageError(f"{whole!r} is not a period; write {_ALLOWED}")
    month = parse_month(part)
    return month, month


def spans(months: Iterable[date]) -> list[str]:
    """The months as few periods: 2021-01..2021-03, 2022-05."""
    return ["..".join(map(format_month, span)) for span in month_ranges(months)]


def month_ranges(months: Iterable[date]) -> list[tuple[date, ...]]:
    """The months as ranges without gaps: first and last, or a single month."""
    ranges: list[tuple[date, ...]] = []
    for month in sorted(months):
        if ranges and add_months(ranges[-1][-1], 1) == month:
            ranges[-1] = (ranges[-1][0], month)
        else:
            ranges.append((month,))
    return ranges
