"""Measures a month's trips, batch by batch on the way from the raw file to the trips file.

The result does not depend on the sizes of the batches, and contains no clock and no durations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conform.constants import constant, constants
from pipeline.datasets.base import Dataset
from pipeline.datasets.rules import LARGEST_NUMBER
from pipeline.months import add_months

_HUGE_SHOWN = 5

#: The smallest and the largest value of a batch's columns, without those that are all null.
_Ranges = dict[str, tuple[Any, Any]]


@dataclass
class ColumnMeasures:
    """One column's nulls and range; no range when every value is null."""

    nulls: int = 0
    min: Any = None
    max: Any = None


@dataclass
class Measures:
    """What was measured in one month (or in the zones, whose month is None), in the order of the checks document."""

    dataset: str
    month: date | None
    #: The provenance, as in the metadata of the trips file.
    source_sha256: str = ""
    declaration: str = ""
    columns_in_source: tuple[str, ...] = ()
    #: The Arrow types of these columns in a Parquet file; a CSV has none.
    types_in_source: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    #: How many rows TLC published for the month, if that is known and can be compared.
    published_rows: int | None = None
    #: What rules judge: rows, pickups_outside_month, dropoffs_before_pickups, huge_numbers, unknown_zones,
    #: negative_totals, unknown_codes and, for each column with codes, unknown_<column>; rows_off_published if there
    #: is a published count. Only those for which the dataset declares the columns.
    counts: dict[str, int] = field(default_factory=dict)
    #: By name, in the dataset's order; columns that the raw file lacks are all null.
    columns: dict[str, ColumnMeasures] = field(default_factory=dict)
    #: By column with a code list: how many rows have each code of the list, as text.
    codes: dict[str, dict[str, int]] = field(default_factory=dict)
    #: The first numbers beyond what marts add up: row (from 1), column, value. Not in the checks document.
    huge: list[tuple[int, str, float]] = field(default_factory=list)


class Profiler:
    """Adds what it counts in batches of trips to `measures`."""

    def __init__(self, measures: Measures, dataset: Dataset) -> None:
        self._measures, self._dataset = measures, dataset
        self._codes = {
            column.name: constants(list(column.codes), column.arrow_type) for column in dataset.columns if column.codes
        }
        self._zones = [name for name in dataset.zone_columns if name in dataset.by_name]
        counted = {
            "rows": True,
            "pickups_outside_month": measures.month and dataset.pickup in dataset.by_name,
            "dropoffs_before_pickups": measures.month and {dataset.pickup, dataset.dropoff} <= dataset.by_name.keys(),
            "huge_numbers": measures.month,
            "unknown_zones": self._zones,
            "negative_totals": dataset.total,
            "unknown_codes": self._codes,
            **{f"unknown_{name}": True for name in self._codes},
        }
        measures.counts = {name: 0 for name, needed in counted.items() if needed}
        if measures.published_rows is not None:
            measures.counts["rows_off_published"] = measures.published_rows
        measures.columns = {name: ColumnMeasures() for name in dataset.by_name}
        measures.codes = {name: {str(code): 0 for code in dataset.by_name[name].codes} for name in self._codes}

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of one batch, which has the dataset's schema."""
        counts, dataset, month = self._measures.counts, self._dataset, self._measures.month
        ranges: _Ranges = {}
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            self._measures.columns[name].nulls += array.null_count
            if array.null_count < len(array):
                ranges[name] = self._widen(name, array)
        if month and dataset.pickup in ranges:
            start, end = (datetime.combine(day, time()) for day in (month, add_months(month, 1)))
            outside = _outside(batch, ranges, dataset.pickup, start, end - datetime.resolution)
            counts["pickups_outside_month"] += _count(outside)
            if dataset.dropoff in ranges:
                counts["dropoffs_before_pickups"] += _count(pc.less(batch[dataset.dropoff], batch[dataset.pickup]))
        for name in self._zones:
            counts["unknown_zones"] += _count(_outside(batch, ranges, name, *dataset.zone_ids))
        if dataset.total:
            counts["negative_totals"] += _count(_outside(batch, ranges, dataset.total, 0, float("inf")))
        if month:
            self._count_huge(batch, ranges)
        for name, known in self._codes.items():
            if name in ranges:
                values, rows = pc.value_counts(batch[name]).flatten()
                is_known = pc.is_in(values, known)
                unknown = len(batch[name]) - batch[name].null_count
                for code, count in zip(
                    values.filter(is_known).to_pylist(), rows.filter(is_known).to_pylist(), strict=True
                ):
                    self._measures.codes[name][str(code)] += count
                    unknown -= count
                counts[f"unknown_{name}"] += unknown
                counts["unknown_codes"] += unknown
        counts["rows"] = self._measures.rows = self._measures.rows + batch.num_rows
        if self._measures.published_rows is not None:
            counts["rows_off_published"] = abs(self._measures.rows - self._measures.published_rows)

    def _widen(self, name: str, array: pa.Array) -> tuple[Any, Any]:
        """Widen the column's range by the batch's, which is returned."""
        low, high = pc.min_max(array).as_py().values()
        column = self._measures.columns[name]
        column.min = low if column.min is None else min(column.min, low)
        column.max = high if column.max is None else max(column.max, high)
        return low, high

    def _count_huge(self, batch: pa.RecordBatch, ranges: _Ranges) -> None:
        measures = self._measures
        numbers = {name: limits for name, limits in ranges.items() if isinstance(limits[0], (int, float))}
        for name in numbers:
            huge = _outside(batch, numbers, name, -LARGEST_NUMBER, LARGEST_NUMBER)
            if huge is not None:
                measures.counts["huge_numbers"] += _count(huge)
                indices = pc.indices_nonzero(huge)[:_HUGE_SHOWN]
                rows, values = pc.add(indices, measures.rows + 1).to_pylist(), batch[name].take(indices).to_pylist()
                measures.huge += [(row, name, value) for row, value in zip(rows, values, strict=True)]
        measures.huge = sorted(measures.huge)[:_HUGE_SHOWN]


def _outside(batch: pa.RecordBatch, ranges: _Ranges, name: str, low: Any, high: Any) -> pa.Array | None:
    """Which values of a column are less than `low` or greater than `high`; None when its range says that none is."""
    smallest, largest = ranges.get(name, (low, high))
    if smallest >= low and largest <= high:
        return None
    low, high = (constant(limit, batch[name].type) for limit in (low, high))
    return pc.or_(pc.less(batch[name], low), pc.greater(batch[name], high))


def _count(flags: pa.Array | None) -> int:
    """How many are true; nulls are not."""
    return 0 if flags is None else pc.sum(flags).as_py() or 0
