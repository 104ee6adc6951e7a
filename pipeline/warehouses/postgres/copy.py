"""Encodes Arrow record batches in the binary format of Postgres's COPY.

A row is the number of its fields (2 bytes), then for each field its length (4 bytes, -1 for null) and its value, in
big-endian order and without padding. Source: https://www.postgresql.org/docs/current/sql-copy.html (File Formats)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: The signature, no flags, no header extension.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_LENGTH = ">i4"
#: Days from 1970-01-01, where Arrow starts to count, to 2000-01-01, where Postgres does.
_EPOCH_DAYS = 10_957
#: The numpy format of a value, and the difference of the epochs.
_FORMATS = {
    pa.bool_(): ("?", 0),
    pa.int32(): (">i4", 0),
    pa.int64(): (">i8", 0),
    pa.float64(): (">f8", 0),
    pa.date32(): (">i4", _EPOCH_DAYS),
    pa.timestamp("us"): (">i8", _EPOCH_DAYS * 86_400_000_000),
}


def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The input of `COPY … FROM STDIN (FORMAT binary)`, one piece for each batch."""
    yield _HEADER
    for batch in batches:
        if batch.num_rows:
            yield _rows(batch)
    yield _TRAILER


def _rows(batch: pa.RecordBatch) -> bytes:
    count = pa.scalar(batch.num_columns.to_bytes(2, "big"), pa.binary())
    fields = [_texts(column) if pa.types.is_string(column.type) else _numbers(column) for column in batch.columns]
    separator = pa.scalar(b"", pa.binary())
    rows = pc.binary_join_element_wise(count, *fields, separator, null_handling="replace", null_replacement=_NULL)
    # The rows without their offsets.
    data: bytes = rows.buffers()[2].to_pybytes()
    return data


def _texts(column: pa.Array) -> pa.Array:
    values = column.cast(pa.binary())
    lengths = pc.binary_length(values).fill_null(0).to_numpy().astype(_LENGTH)
    return pc.binary_join_element_wise(_binary(lengths), values, pa.scalar(b"", pa.binary()))


def _numbers(column: pa.Array) -> pa.Array:
    value_format, epoch = _FORMATS[column.type]
    numbers = column.drop_null().to_numpy(zero_copy_only=False)
    if epoch:
        # A value that would underflow becomes one that Postgres refuses, never another valid time.
        numbers = np.maximum(numbers.astype(np.int64), np.iinfo(value_format).min + 1 + epoch) - epoch
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    fields = np.zeros(len(column), [("length", _LENGTH), ("value", value_format)])
    fields["length"] = np.dtype(value_format).itemsize
    fields["value"][... if valid is None else valid] = numbers
    return _binary(fields, valid)


def _binary(values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """The bytes of each value, null where it is not valid."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.itemsize
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little")) if valid is not None else None
    return pa.Array.from_buffers(pa.binary(), len(values), [bitmap, pa.py_buffer(offsets), pa.py_buffer(values)])
