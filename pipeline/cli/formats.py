"""Rows for machines: CSV, JSON and Parquet, to a pipe or to a file that is whole or not there."""

from __future__ import annotations

import fcntl
import json
import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, time, timedelta
from decimal import Decimal
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.disk import sync
from pipeline.errors import UsageError

_BATCH_ROWS = 10_000


def plain(value: Any) -> Any:
    """A value as what JSON can hold; times are ISO texts, and what is no number is null."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds():g}S"
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9:.9g}S"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else str(value)


def write_json(rows: pa.Table, file: BinaryIO, *, lines: bool = False) -> None:
    """Write a list of objects, one a line; with `lines` each line is a document of its own.

    Raises:
        UsageError: an object cannot hold two columns of one name.
    """
    refuse_doubled_names(rows)
    between, first = b"\n" if lines else b",\n", True
    file.write(b"" if lines else b"[")
    for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
        texts = (
            json.dumps({name: plain(value) for name, value in record.items()}, ensure_ascii=False)
            for record in batch.to_pylist()
        )
        if found := between.join(text.encode() for text in texts):
            file.write((b"\n" if first and not lines else b"" if first else between) + found)
            first = False
    file.write((b"\n" if not first else b"") + (b"" if lines else b"]\n"))


def write_csv(rows: pa.Table, file: BinaryIO) -> None:
    """Write a line of names and one for each row: texts quoted, nulls empty, times without empty fractions."""
    import pyarrow.csv as pc

    if rows.num_columns:
        columns = [_csv_column(column) for column in rows.columns]
        pc.write_csv(pa.table(columns, names=rows.column_names), file)


def write_parquet(rows: pa.Table, file: BinaryIO) -> None:
    """Write one Parquet file.

    Raises:
        UsageError: no reader could tell two columns of one name apart.
    """
    import pyarrow.parquet as pq

    refuse_doubled_names(rows)
    # By way of memory, since a pipe cannot say where it is.
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(rows, sink)
    except pa.ArrowNotImplementedError as error:
        raise UsageError(f"Parquet cannot hold this: {error}; CAST the column to VARCHAR, for instance") from error
    file.write(sink.getvalue())


def refuse_doubled_names(rows: pa.Table) -> None:
    """Raise a UsageError when two columns have one name."""
    names = rows.column_names
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"more than one column is called {', '.join(doubled)}; name them apart with AS")


@contextmanager
def draft_of(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside the path, which takes its place when all of it is written, and else is deleted.

    It is locked while it is written, so that those of killed processes are known, and deleted by the next one.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        _sweep(path)
        try:
            with draft.open("xb") as file:
                with suppress(OSError):  # Not every file system has locks.
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file
            sync(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def _sweep(path: Path) -> None:
    """Delete the drafts of the path that no process holds."""
    for draft in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with suppress(OSError), draft.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


def _csv_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """The column as one that CSV can hold."""
    kind, types = column.type, pa.types
    if types.is_timestamp(kind) and kind.tz is None:
        return _coarsest(column, [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us")])
    if types.is_time(kind):
        return _coarsest(column, [pa.time32("s"), pa.time32("ms"), pa.time64("us")])
    if types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) or types.is_date(kind):
        return column
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return column
    values = (plain(value) for value in column.to_pylist())
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
    ]
    return pa.array(texts, pa.string())


def _coarsest(column: pa.ChunkedArray, kinds: Sequence[pa.DataType]) -> pa.ChunkedArray:
    """The column in the first of these types that loses nothing."""
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column
