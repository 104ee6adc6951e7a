"""When a month that is not published yet is expected: as long after its end as the months before it were.

The distances are those between the end of a month and the Last-Modified in its sidecar. TLC also publishes files again:
all of them in bulk on 2022-06-30, and later some groups, each on one day (docs/surprises.md). Of the months with the
same day only the newest counts, and only within a year after its end, so that such files say nothing about the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from statistics import median

from pipeline import lake
from pipeline.datasets.base import Dataset
from pipeline.errors import SourceError
from pipeline.months import add_months, month_range
from pipeline.state.inventory import Inventory, sidecar_of

#: From the 12 months 2023-06 … 2024-05 of all datasets in `pipeline/datasets/published.csv`: their median is 50.5 days,
#: and all but one took 48 to 63.
DEFAULT_DAYS = 51
#: Fewer distances than these say nothing; of more, only the newest count.
_LEAST, _MOST = 3, 6
#: How many sidecars of one dataset are read at most.
_MOST_SIDECARS = 24
_LONGEST_DAYS = 366


def usual_days(published: Iterable[tuple[date, date]]) -> int:
    """Median days from the end of a month to its publication; from months and days of publication, newest first."""
    distances, days = list[int](), set[date]()
    for month, day in published:
        distance = (day - last_day(month)).days
        if 0 < distance <= _LONGEST_DAYS and day not in days:
            distances.append(distance)
        days.add(day)
        if len(distances) == _MOST:
            break
    return round(median(distances)) if len(distances) >= _LEAST else DEFAULT_DAYS


def expected_days(inventory: Inventory, dataset: Dataset, months: Iterable[date]) -> dict[date | None, date]:
    """By month: the day on which it is expected. Reads the sidecars of the dataset's newest raw files."""
    days = usual_days(_published(inventory, dataset))
    return {month: last_day(month) + timedelta(days) for month in months}


def last_day(month: date) -> date:
    """The last day of the month."""
    return add_months(month, 1) - timedelta(1)


def _published(inventory: Inventory, dataset: Dataset) -> Iterable[tuple[date, date]]:
    """The newest months in the lake whose sidecars say when the source published them, with that day."""
    assert dataset.first_month is not None
    months = reversed(month_range(dataset.first_month, date.today()))
    keys = {month: inventory.files("download", dataset, month)["raw"] for month in months}
    raw = [month for month, key in keys.items() if inventory.entry(key)]
    sidecars = {month: entry for month in raw if (entry := inventory.entry(lake.sidecar_key(keys[month])))}
    for month, entry in islice(sidecars.items(), _MOST_SIDECARS):
        with suppress(SourceError):
            if moment := http_time(sidecar_of(inventory.store, keys[month], entry).last_modified):
                yield month, moment.date()


def http_time(text: str | None) -> datetime | None:
    """A time as in a Last-Modified header; None for any other text."""
    with suppress(TypeError, ValueError):
        return parsedate_to_datetime(text or "").astimezone(timezone.utc)
    return None
