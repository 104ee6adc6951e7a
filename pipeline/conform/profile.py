"""What a month's trips are like, counted batch by batch on the way from the raw file to the trips file.

The result does not depend on how the rows were cut into batches, and holds no clock and no durations.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.base import Dataset
from pipeline.datasets.rules import LARGEST_NUMBER
from pipeline.months import add_months

FIRST_ZONE, LAST_ZONE = 1, 265
_HUGE_SHOWN = 5


@dataclass
class ColumnMeasures:
    """One column's nulls and range; no range when every value is null."""

    nulls: int = 0
    min: Any = None
    max: Any = None


@dataclass
class Measures:
    """What was counted of one month (or of the zones, whose month is None)."""

    dataset: str
    month: date | None
    rows: int = 0
    #: By name, in the dataset's order; columns that the raw file lacks are all null.
    columns: dict[str, ColumnMeasures] = field(default_factory=dict)
    #: What rules judge: rows, pickups_outside_month, dropoffs_before_pickups, huge_numbers, unknown_zones,
    #: negative_totals, unknown_codes and, for each column with codes, unknown_<column>; rows_off_published where there
    #: is a count.
    counts: dict[str, int] = field(default_factory=dict)
    #: The first numbers beyond what marts add up: row (from 1), column, value.
    huge: list[tuple[int, str, float]] = field(default_factory=list)
    #: How many rows TLC published for the month, where that is known and can be compared.
    published_rows: int | None = None
    #: What the trips file says of its origin, too.
    source_sha256: str = ""
    declaration: str = ""
    columns_in_source: tuple[str, ...] = ()


class Profiler:
    """Counts batches of trips; `measures` is what they add up to."""

    def __init__(self, measures: Measures, dataset: Dataset) -> None:
        self._measures = measures
        self._dataset = dataset
        self._columns = {name: ColumnMeasures() for name in dataset.by_name}
        self._counts: Counter[str] = Counter()
        self._rows = 0
        self._codes = {
            column.name: pa.array(list(column.codes), column.type) for column in dataset.columns if column.codes
        }

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of one batch, which has the dataset's schema."""
        self._rows += batch.num_rows
        ranges = {}
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            self._columns[name].nulls += array.null_count
            if array.null_count < len(array):
                ranges[name] = self._widen(name, array)
        self._count_times(batch, ranges)
        self._count_zones(batch, ranges)
        self._count_totals(batch, ranges)
        self._count_huge(batch, ranges)
        for name, known in self._codes.items():
            if name in ranges:
                unknown = pc.and_(pc.is_valid(batch[name]), pc.invert(pc.is_in(batch[name], known)))
                self._counts[f"unknown_{name}"] += _count(unknown)

    def finish(self) -> Measures:
        """The measures, complete."""
        measures, counts = self._measures, self._counts
        measures.rows = self._rows
        measures.columns = self._columns
        unknown = {f"unknown_{name}": counts[f"unknown_{name}"] for name in self._codes}
        measures.counts = {"rows": self._rows}
        if measures.month is not None:
            measures.counts["pickups_outside_month"] = counts["pickups_outside_month"]
            measures.counts["dropoffs_before_pickups"] = counts["dropoffs_before_pickups"]
            measures.counts["huge_numbers"] = counts["huge_numbers"]
        measures.counts["unknown_zones"] = counts["unknown_zones"]
        if self._dataset.total:
            measures.counts["negative_totals"] = counts["negative_totals"]
        if unknown:
            measures.counts |= {"unknown_codes": sum(unknown.values()), **unknown}
        if measures.published_rows is not None:
            measures.counts["rows_off_published"] = abs(self._rows - measures.published_rows)
        return measures

    def _widen(self, name: str, array: pa.Array) -> tuple[Any, Any]:
        """Widen the column's range by the batch's, which is returned."""
        found = pc.min_max(array)
        low, high = found["min"].as_py(), found["max"].as_py()
        column = self._columns[name]
        column.min = low if column.min is None else min(column.min, low)
        column.max = high if column.max is None else max(column.max, high)
        return low, high

    def _count_times(self, batch: pa.RecordBatch, ranges: dict[str, tuple[Any, Any]]) -> None:
        month, dataset = self._measures.month, self._dataset
        if month is None or dataset.pickup not in ranges:
            return
        pickups, (low, high) = batch[dataset.pickup], ranges[dataset.pickup]
        start, end = (datetime.combine(day, time()) for day in (month, add_months(month, 1)))
        if low < start or high >= end:
            outside = pc.or_(pc.less(pickups, _time(start)), pc.greater_equal(pickups, _time(end)))
            self._counts["pickups_outside_month"] += _count(outside)
        if dataset.dropoff in ranges:
            self._counts["dropoffs_before_pickups"] += _count(pc.less(batch[dataset.dropoff], pickups))

    def _count_zones(self, batch: pa.RecordBatch, ranges: dict[str, tuple[Any, Any]]) -> None:
        for name in self._dataset.zone_columns:
            low, high = ranges.get(name, (FIRST_ZONE, LAST_ZONE))
            if low < FIRST_ZONE or high > LAST_ZONE:
                outside = pc.or_(pc.less(batch[name], FIRST_ZONE), pc.greater(batch[name], LAST_ZONE))
                self._counts["unknown_zones"] += _count(outside)

    def _count_totals(self, batch: pa.RecordBatch, ranges: dict[str, tuple[Any, Any]]) -> None:
        total = self._dataset.total
        if total in ranges and ranges[total][0] < 0:
            self._counts["negative_totals"] += _count(pc.less(batch[total], 0))

    def _count_huge(self, batch: pa.RecordBatch, ranges: dict[str, tuple[Any, Any]]) -> None:
        for name, (low, high) in ranges.items():
            if isinstance(low, (int, float)) and (low < -LARGEST_NUMBER or high > LARGEST_NUMBER):
                huge = pc.or_(pc.less(batch[name], -LARGEST_NUMBER), pc.greater(batch[name], LARGEST_NUMBER))
                self._counts["huge_numbers"] += _count(huge)
                places = pc.indices_nonzero(huge)[:_HUGE_SHOWN]
                rows = pc.add(places, self._rows - batch.num_rows + 1).to_pylist()
                values = batch[name].take(places).to_pylist()
                self._measures.huge += [(row, name, value) for row, value in zip(rows, values, strict=True)]
        self._measures.huge = sorted(self._measures.huge)[:_HUGE_SHOWN]


def _count(flags: pa.Array) -> int:
    """How many are true; null is not."""
    return pc.sum(flags).as_py() or 0


def _time(moment: datetime) -> pa.Scalar:
    return pa.scalar(moment, pa.timestamp("us"))
