"""What a trips file holds: its first rows, and how its trips spread over the hours of a week."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from typing import TYPE_CHECKING

from pipeline import lake
from pipeline.datasets.base import Dataset
from pipeline.errors import StoreError, UsageError
from pipeline.lake import Entry, Store
from pipeline.months import add_months, label

if TYPE_CHECKING:
    import pyarrow as pa

#: How much of a column is read at a time.
_READ_BYTES = 1 << 16


def trips_entry(store: Store, dataset: Dataset, month: date | None, *, command: Callable[..., str]) -> Entry:
    """The trips file of the month; `command` is the command line of `pipeline` with these words, for the message.

    Raises:
        StoreError: there is none.
    """
    key = lake.trips_key(dataset, month)
    if not store.exists(key):
        subject = label(dataset.name, month)
        # A backfill through its last step does nothing for a month that is loaded.
        options = ["backfill", *subject.split(), "--through"] if month else ["redo", subject, "--from"]
        remedy = command(*options, "conform")
        raise StoreError(f"{subject}: no trips file in the lake {store.location}; run: {remedy}")
    return store.entry(key)


def unreadable(
    where: str, dataset: Dataset, month: date | None, error: Exception, command: Callable[..., str]
) -> StoreError:
    """The error of a damaged trips file, with the command that makes it again."""
    again = command("redo", *label(dataset.name, month).split(), "--from", "conform")
    return StoreError(f"{where} cannot be read as Parquet: {str(error).strip()}; to conform it again, run: {again}")


def first_rows(
    entry: Entry,
    dataset: Dataset,
    month: date | None,
    columns: str | None,
    rows: int,
    *,
    command: Callable[..., str],
) -> tuple[pa.Table, int]:
    """The first rows of a trips file, and how many rows it has; a column that was declared later is null.

    Raises:
        UsageError: the dataset has no such column.
        StoreError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name.strip() for name in (columns or "").split(",") if name.strip()))
    if unknown := sorted(set(names) - set(dataset.by_name)):
        known = ", ".join(dataset.by_name)
        raise UsageError(f"{dataset.name} has no column {', '.join(unknown)}; it has {known}")
    with entry.open() as file:
        try:
            # With pre_buffer, the whole file is fetched.
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BYTES)
            schema = parquet.schema_arrow
            names = names or schema.names
            stored = [name for name in names if name in schema.names]
            batches, missing = [], rows
            for batch in parquet.iter_batches(batch_size=min(rows, 1 << 16), columns=stored):
                batches.append(batch.slice(0, missing))
                missing -= batches[-1].num_rows
                if not missing:
                    break
        except (pa.ArrowInvalid, OSError) as error:
            raise unreadable(entry.uri, dataset, month, error, command) from error
    table = pa.Table.from_batches(batches, None if batches else pa.schema([schema.field(name) for name in stored]))
    nulls = {name: pa.nulls(rows - missing, dataset.by_name[name].arrow_type) for name in names if name not in stored}
    return pa.table({name: nulls[name] if name in nulls else table[name] for name in names}), parquet.metadata.num_rows


def hours_of_week(entry: Entry, dataset: Dataset, month: date, *, command: Callable[..., str]) -> list[list[int]]:
    """The trips of each weekday, Monday first, by hour of the pickup; only pickups in the month.

    Raises:
        StoreError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    first, end = (datetime.combine(day, time()) for day in (month, add_months(month, 1)))
    counts = [0] * (7 * 24)
    with entry.open() as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(columns=[dataset.pickup]):
                moments = batch.column(0)
                moments = moments.filter(pc.and_(pc.greater_equal(moments, first), pc.less(moments, end)))
                hours = pc.add(pc.multiply(pc.day_of_week(moments), 24), pc.hour(moments))
                for hour in pc.value_counts(hours).to_pylist():
                    counts[hour["values"]] += hour["counts"]
        except (pa.ArrowException, OSError) as error:
            raise unreadable(entry.uri, dataset, month, error, command) from error
    return [counts[day * 24 : day * 24 + 24] for day in range(7)]
