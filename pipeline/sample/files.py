"""One month of the sample site as a file: its number of rows, and the rows in batches.

The bytes depend only on dataset, month, rows and seed (and on the versions of numpy and pyarrow).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.published import published_months
from pipeline.sample.columns import arrow_type, column
from pipeline.sample.draws import Batch, Values
from pipeline.sample.eras import ARROW_ERA, parquet_columns
from pipeline.sample.for_hire import fhv_trips, fhvhv_trips
from pipeline.sample.taxi import taxi_trips

#: Rows that are made at once; other batches give other bytes.
BATCH_ROWS = 1 << 18
#: The key of the Parquet metadata with the file's share of TLC's number of rows.
SCALE_KEY = "sample_scale"
#: A tenth of the time of Arrow's default level 9, for 2 % more bytes.
_GZIP_LEVEL = 4

_MAKERS = {"yellow": taxi_trips, "green": taxi_trips, "fhv": fhv_trips, "fhvhv": fhvhv_trips}


@dataclass(frozen=True)
class Order:
    """Which month to make, and how."""

    dataset: str
    month: date
    rows: int
    scale: str
    seed: int = 0
    row_group_rows: int = 1 << 20


def published_rows(dataset: str, month: date) -> int:
    """TLC's number of rows of the month; if unknown, that of the same month in the nearest known year."""
    known = published_months(dataset)
    nearest = min((abs(month.year - other.year), other) for other in known if other.month == month.month)
    return known[nearest[1]].rows


def order(dataset: str, month: date, *, scale: float = 1.0, rows: int | None = None) -> Order:
    """A month with TLC's number of rows times `scale`, or with this many rows."""
    published = published_rows(dataset, month)
    if rows is not None:
        return Order(dataset, month, rows, repr(rows / published))
    return Order(dataset, month, max(1, round(published * scale)), repr(float(scale)))


def batches(wanted: Order) -> Iterator[tuple[Batch, dict[str, Values]]]:
    """The month's quantities in batches of rows, in order."""
    maker = _MAKERS[wanted.dataset]
    for number, first in enumerate(range(0, wanted.rows, BATCH_ROWS)):
        entropy = [wanted.seed, *wanted.dataset.encode(), wanted.month.toordinal(), number]
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
        rows = np.arange(first, min(first + BATCH_ROWS, wanted.rows))
        batch = Batch(wanted.dataset, wanted.month, rows, wanted.rows, rng)
        yield batch, maker(batch)


def write_parquet(wanted: Order, path: Path) -> None:
    """Write the month as TLC's Parquet file of its era."""
    columns = parquet_columns(wanted.dataset, wanted.month)
    schema = pa.schema([(name, arrow_type(kind)) for name, _, kind in columns], metadata={SCALE_KEY: wanted.scale})
    with pq.ParquetWriter(path, schema, **_writing(wanted)) as writer:
        waiting: list[pa.RecordBatch] = []
        for _, values in batches(wanted):
            arrays = [column(quantity, values[quantity], kind, wanted.month) for _, quantity, kind in columns]
            waiting.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            waiting = _write_full_groups(writer, waiting, wanted.row_group_rows)
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=wanted.row_group_rows)


def _write_full_groups(
    writer: pq.ParquetWriter, waiting: list[pa.RecordBatch], group_rows: int
) -> list[pa.RecordBatch]:
    """Write whole row groups and return the remaining rows: each written table ends a row group."""
    table = pa.Table.from_batches(waiting)
    whole = table.num_rows // group_rows * group_rows
    if not whole:
        return waiting
    writer.write_table(table.slice(0, whole), row_group_size=group_rows)
    return list(table.slice(whole).to_batches())


def _writing(wanted: Order) -> dict[str, object]:
    if wanted.month >= ARROW_ERA:
        return {"compression": "zstd", "version": "2.6"}
    if wanted.dataset == "fhvhv":
        # In a survey of raw files only those of fhvhv were all ZSTD.
        return {"compression": "zstd", "version": "1.0"}
    return {"compression": "gzip", "compression_level": _GZIP_LEVEL, "version": "1.0"}
