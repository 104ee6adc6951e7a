"""Arrow record batches in the binary form of Postgres's COPY, encoded by numpy a column at a time.

A row is the number of its fields (2 bytes), then each field: its length (4 bytes, -1 for null) and its value, all of it
big-endian and without padding. Source: https://www.postgresql.org/docs/current/sql-copy.html (File Formats)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: The signature, no flags, and no header extension.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_LENGTH, _NULL = ">i4", -1
#: Postgres counts days and microseconds from 2000-01-01 on, Arrow from 1970-01-01.
_DAYS = 10_957
#: By type: how Postgres writes a value, and how far its zero is from Arrow's.
_FORMS = {
    pa.bool_(): ("?", 0),
    pa.int32(): (">i4", 0),
    pa.int64(): (">i8", 0),
    pa.float64(): (">f8", 0),
    pa.date32(): (">i4", _DAYS),
    pa.timestamp("us"): (">i8", _DAYS * 86_400_000_000),
}

_Array = npt.NDArray[Any]


def encode(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """What `COPY … FROM STDIN (FORMAT binary)` reads, in a piece for each batch."""
    yield _HEADER
    for batch in batches:
        if batch.num_rows:
            yield _rows(batch)
    yield _TRAILER


def _rows(batch: pa.RecordBatch) -> bytes:
    rows, columns = batch.num_rows, [_Column(column) for column in batch.columns]
    sizes = np.full(rows, 2) + sum(column.widths for column in columns)
    data = np.empty(int(sizes.sum()), np.uint8)
    places = np.cumsum(sizes) - sizes
    # Neighbours without nulls, each of one width, are written at once.
    together: list[_Array] = [np.full(rows, len(columns), ">i2")]
    for column in columns:
        if column.filled is None and column.fields is not None:
            together.append(column.fields)
            continue
        places = _put_together(data, places, together)
        together = []
        column.put(data, places)
        places = places + column.widths
    _put_together(data, places, together)
    return data.tobytes()


class _Column:
    """The fields of a column: which rows have a value (None: all), and how many bytes each row takes."""

    def __init__(self, column: pa.Array) -> None:
        self.filled: _Array | None = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
        values = column.drop_null()
        #: Length and value of every field that is not null; None for texts of different lengths.
        self.fields: _Array | None = None
        if pa.types.is_string(values.type):
            self._read_texts(values)
        else:
            self._read_numbers(values)
        self.widths: Any = self.fields.itemsize if self.fields is not None else 4 + self._lengths
        if self.filled is not None:
            widths = np.full(len(column), 4)
            widths[self.filled] = self.widths
            self.widths = widths

    def put(self, data: _Array, places: _Array) -> None:
        """Write the fields to these places, one for each row."""
        if self.filled is not None:
            empty = places[~self.filled]
            _put(data, empty, np.full(len(empty), _NULL, _LENGTH))
            places = places[self.filled]
        if self.fields is not None:
            _put(data, places, self.fields)
            return
        _put(data, places, self._lengths.astype(_LENGTH))
        for length in np.unique(self._lengths[self._lengths > 0]):
            alike = self._lengths == length
            _pieces(data, length)[places[alike] + 4] = _pieces(self._text, length)[self._starts[alike]]

    def _read_numbers(self, values: pa.Array) -> None:
        form, zero = _FORMS[values.type]
        numbers = values.to_numpy(zero_copy_only=False)
        if zero:
            # What is before the first value of the type becomes one that Postgres refuses, not one that it takes.
            numbers = np.maximum(numbers.astype(np.int64), np.iinfo(form).min + 1 + zero) - zero
        self.fields = _fields(form, numbers)

    def _read_texts(self, values: pa.Array) -> None:
        _, offsets, text = values.buffers()
        ends = np.frombuffer(offsets or bytes(4), np.int32)[values.offset :][: len(values) + 1].astype(np.int64)
        self._text = np.frombuffer(text or b"", np.uint8)
        self._starts, self._lengths = ends[:-1], np.diff(ends)
        if len(values) and self._lengths[0] and (self._lengths == self._lengths[0]).all():
            self.fields = _fields(f"V{self._lengths[0]}", _pieces(self._text, self._lengths[0])[self._starts])


def _fields(form: str, values: _Array) -> _Array:
    fields = np.empty(len(values), [("length", _LENGTH), ("value", form)])
    fields["length"], fields["value"] = np.dtype(form).itemsize, values
    return fields


def _put_together(data: _Array, places: _Array, columns: list[_Array]) -> _Array:
    """Write the columns side by side; returns the places behind them."""
    fields = np.empty(len(places), [(str(number), column.dtype) for number, column in enumerate(columns)])
    for number, column in enumerate(columns):
        fields[str(number)] = column
    _put(data, places, fields)
    return places + fields.itemsize


def _put(data: _Array, places: _Array, fields: _Array) -> None:
    if len(fields) and fields.itemsize:
        _pieces(data, fields.itemsize)[places] = fields.view(f"V{fields.itemsize}")


def _pieces(data: _Array, size: int) -> _Array:
    """The bytes as pieces of this size, one from every byte on; they overlap, and share the memory of `data`."""
    pieces: _Array = np.ndarray(len(data) - size + 1, f"V{size}", data, strides=1)
    return pieces
