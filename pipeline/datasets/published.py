"""How many rows and bytes TLC has published for each month; for warnings, estimates and the sample site.

`published.csv` covers 2009-01 to 2025-12 (bytes and Last-Modified to 2024-05). Its sources are public:
S1 the repository lykmapipo/NYC-TLC-Trip-Data (footers and HTTP headers of 487 files, 2024-08);
S4 a cleaning log of 356 raw files (2026-08), of which four totals were reproduced to the row;
S6 a student project's index of the green files 2014-01 to 2024-12;
S7 the repository FlyOn21/BIGDATA-PROCESSING-AND-ANALYTICS_COURSE_2025.
The counts are of the Parquet files; the CSVs of the same months differ by a few rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources

from pipeline.months import parse_month


@dataclass(frozen=True)
class Published:
    """The rows of one month's file, and its bytes if known."""

    rows: int
    bytes: int | None


@cache
def published_months(dataset: str) -> dict[date, Published]:
    """The months of one dataset whose published counts are known, oldest first."""
    text = resources.files("pipeline.datasets").joinpath("published.csv").read_text(encoding="utf-8")
    return {
        parse_month(row["month"]): Published(int(row["rows"]), int(row["bytes"]) if row["bytes"] else None)
        for row in csv.DictReader(text.splitlines())
        if row["dataset"] == dataset
    }


def estimated_bytes(dataset: str, months: Iterable[date]) -> int:
    """About how many bytes TLC's Parquet files of these months have: the published bytes if they are known.

    Otherwise rows times the bytes per row of the last month for which both are known; the rows are the published ones,
    or those of the last known month. 0 for a dataset without published counts.
    """
    known = published_months(dataset)
    sized = [published for _, published in sorted(known.items()) if published.bytes and published.rows]
    row_bytes = (sized[-1].bytes or 0) / sized[-1].rows if sized else 0
    last = known[max(known)] if known else Published(0, None)
    estimates = (known.get(month, last) for month in months)
    return round(sum(published.bytes or published.rows * row_bytes for published in estimates))
