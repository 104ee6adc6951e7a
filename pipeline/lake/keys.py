"""Where things lie in the lake: the keys that every part agrees on.

raw/yellow/yellow_tripdata_2024-01.parquet            TLC's bytes
raw/yellow/yellow_tripdata_2024-01.parquet.json       where they came from (the sidecar)
trips/yellow/month=2024-01-01/yellow_2024-01.parquet  conformed and checked; anyone may read these
checks/yellow/2024-01.json                            what was measured, what was found
raw/zones/…, zones/zones.parquet, checks/zones/zones.json   the zones, treated alike, without a month
"""

from __future__ import annotations

import re
from datetime import date

from pipeline.datasets.base import Dataset
from pipeline.months import format_month

_TRIPS = re.compile(r"trips/(?P<dataset>\w+)/month=(?P<month>\d{4}-\d{2}-01)/(?P=dataset)_\d{4}-\d{2}\.parquet")


def raw_key(dataset: Dataset, file_name: str) -> str:
    """Where TLC's bytes lie."""
    return f"raw/{dataset.name}/{file_name}"


def sidecar_key(raw_key: str) -> str:
    """Where it is written where they came from."""
    return f"{raw_key}.json"


def trips_key(dataset: Dataset, month: date | None) -> str:
    """Where the conformed rows lie; the month is the Hive key that query engines understand."""
    if month is None:
        return f"{dataset.name}/{dataset.name}.parquet"
    return f"trips/{dataset.name}/month={month:%Y-%m-%d}/{dataset.name}_{format_month(month)}.parquet"


def checks_key(dataset: Dataset, month: date | None) -> str:
    """Where the measures and findings lie."""
    return f"checks/{dataset.name}/{format_month(month) if month else dataset.name}.json"


def folder_of(key: str) -> str:
    """What is listed at once, such as raw/green/ for raw/green/green_tripdata_2024-01.parquet."""
    *folders, _ = key.split("/")
    return "/".join(folders[:2]) + "/"


def trips_month(key: str) -> date | None:
    """The month of a trips key; None for any other key."""
    found = _TRIPS.fullmatch(key)
    return date.fromisoformat(found["month"]) if found else None
