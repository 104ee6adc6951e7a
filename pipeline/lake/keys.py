"""The keys of the lake's files.

raw/yellow/yellow_tripdata_2024-01.parquet            TLC's bytes
raw/yellow/yellow_tripdata_2024-01.parquet.json       where they came from (the sidecar)
trips/yellow/month=2024-01-01/yellow_2024-01.parquet  conformed and checked; anyone may read these
checks/yellow/2024-01.json                            the profile and the findings
raw/zones/…, zones/zones.parquet, checks/zones/zones.json   the zones, without a month
"""

from __future__ import annotations

from datetime import date

from pipeline.datasets.base import Dataset
from pipeline.months import format_month


def raw_key(dataset: Dataset, file_name: str) -> str:
    """The key of TLC's bytes."""
    return f"raw/{dataset.name}/{file_name}"


def sidecar_key(raw_key: str) -> str:
    """The key of the sidecar of a raw file."""
    return f"{raw_key}.json"


def trips_key(dataset: Dataset, month: date | None) -> str:
    """The key of the conformed rows; the month is a Hive partition, which query engines understand."""
    if month is None:
        return f"{dataset.name}/{dataset.name}.parquet"
    return f"trips/{dataset.name}/month={month:%Y-%m-%d}/{dataset.name}_{format_month(month)}.parquet"


def checks_key(dataset: Dataset, month: date | None) -> str:
    """The key of the profile and the findings."""
    return f"checks/{dataset.name}/{format_month(month) if month else dataset.name}.json"


def folder_of(key: str) -> str:
    """The prefix to list, for instance raw/green/ for raw/green/green_tripdata_2024-01.parquet."""
    *folders, _ = key.split("/")
    return "/".join(folders[:2]) + "/"
