"""Months, as dates that are always the first of the month, and the ranges that people type.

Nothing here knows what TLC has published; see `pipeline.datasets` for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import MAXYEAR, MINYEAR, date

from pipeline.errors import UsageError

_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_ALLOWED = "a month (2024-01), a year (2024), or a range of either with both ends included (2023-11..2024-03)"
_MONTHS = "months are 01 to 12"


def parse_month(text: str) -> date:
    """The month that a text such as 2024-01 names.

    Raises:
        UsageError: the text is not a year, a dash and a month from 01 to 12.
    """
    found = _MONTH.fullmatch(text.strip())
    if found and not 1 <= int(found[2]) <= 12:
        raise UsageError(f"{text.strip()!r} is not a month: {_MONTHS}")
    if found is None or int(found[1]) < 1:
        raise UsageError(f"{text!r} is not a month; write YYYY-MM, for instance 2024-01")
    return date(int(found[1]), int(found[2]), 1)


def format_month(month: date) -> str:
    """The month as 2024-01."""
    return month.isoformat()[:7]  # strftime leaves the zeros of the year 1 away on some systems, not on others.


def label(name: str, month: date | None) -> str:
    """A month of a dataset as people write it, such as green 2024-01; only the name for the zones."""
    return f"{name} {format_month(month)}" if month else name


def add_months(month: date, count: int) -> date:
    """The month that lies `count` months later (earlier when negative).

    Raises:
        UsageError: the calendar has no such month.
    """
    year, zero_based = divmod(month.year * 12 + month.month - 1 + count, 12)
    if not MINYEAR <= year <= MAXYEAR:
        where = f"{abs(count):,} months {'after' if count > 0 else 'before'} {format_month(month)}"
        raise UsageError(
            f"{where} is not in the years {MINYEAR} to {MAXYEAR}, which is all there is; write fewer months"
        )
    return date(year, zero_based + 1, 1)


def month_range(first: date, last: date) -> list[date]:
    """Every month from `first` to `last`, both included, oldest first; empty when `last` is before `first`."""
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    return [add_months(first, offset) for offset in range(count)]


def parse_period(text: str) -> tuple[date, date]:
    """The first and the last month of a single period such as 2021, 2021-03, 2021..2022 or 2021-03..2021-07.

    Raises:
        UsageError: the text is none of these, or its end lies before its start.
    """
    start, dots, end = text.strip().partition("..")
    first, last = _ends(start, text)[0], _ends(end if dots else start, text)[1]
    if last < first:
        raise UsageError(f"period {text!r} ends before it starts; write the earlier month first")
    return first, last


def parse_months(text: str) -> list[date]:
    """Every month of a period, or of several with commas between them, oldest first and each once.

    Raises:
        UsageError: one of them is not a period, or ends before it starts.
    """
    return sorted({month for part in text.split(",") for month in month_range(*parse_period(part))})


def _ends(part: str, whole: str) -> tuple[date, date]:
    if re.fullmatch(r"[0-9]{4}", part.strip()) and int(part) >= 1:
        return date(int(part), 1, 1), date(int(part), 12, 1)
    try:
        month = parse_month(part)
    except UsageError as error:
        if str(error).endswith(_MONTHS):
            raise
        raise UsageError(f"{whole!r} is not a period; write {_ALLOWED}") from error
    return month, month


def spans(months: Iterable[date]) -> list[str]:
    """The months as few periods: 2021-01..2021-03, 2022-05."""
    return ["..".join(map(format_month, span)) for span in month_ranges(months)]


def month_ranges(months: Iterable[date]) -> Iterator[tuple[date, ...]]:
    """The months as ranges without gaps: first and last, or a single one."""
    span: tuple[date, ...] = ()
    for month in sorted(months):
        if span and add_months(span[-1], 1) == month:
            span = (span[0], month)
            continue
        if span:
            yield span
        span = (month,)
    if span:
        yield span
