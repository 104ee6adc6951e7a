"""Turns quantities into the columns of a published file: Arrow arrays of the month's types, or texts of a CSV."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sample.draws import Floats, Ints, Values
from pipeline.sample.eras import ARROW_ERA, WORDS, since

_MICRO = 1_000_000
_ARROW = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "double": pa.float64(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
    "null": pa.null(),
}


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type for a type name of `eras.py`."""
    return _ARROW[kind]


def column(quantity: str, values: Values, kind: str, month: date) -> pa.Array:
    """The values as one column of a month's Parquet file."""
    if kind == "null":
        return pa.nulls(len(values.numbers))
    if kind == "time":
        return pa.array((values.numbers * _MICRO).astype("datetime64[us]"), mask=values.null)
    if kind == "text":
        return time_text(values)
    if kind.endswith("string"):
        return word_text(quantity, values, month).cast(_ARROW[kind])
    # pandas has no null for whole numbers, so such a column has no gaps.
    null = None if kind == "int64" and month < ARROW_ERA else values.null
    return pa.array(values.numbers.astype(_ARROW[kind].to_pandas_dtype(), copy=False), mask=null)


def time_text(values: Values) -> pa.Array:
    """Times as 2009-01-04 02:52:00."""
    return pa.array(values.numbers, mask=values.null).cast(pa.timestamp("s")).cast(pa.string())


def word_text(quantity: str, values: Values, month: date) -> pa.Array:
    """Codes as the words of that month; the spellings of one word alternate."""
    if values.words is not None:
        return _spelled(values.numbers, values, values.words)
    words = since(WORDS[quantity], month)
    spellings = 4
    table = [words[code][turn % len(words[code])] for code in words for turn in range(spellings)]
    first_index = np.zeros(max(words) + 1, np.int64)
    first_index[list(words)] = np.arange(len(words)) * spellings
    turns = (np.arange(len(values.numbers)) * 2_654_435_761 >> 11) % spellings
    return _spelled(first_index[values.numbers.astype(np.int64)] + turns, values, tuple(table))


def _spelled(indices: Ints | Floats, values: Values, words: tuple[str, ...]) -> pa.Array:
    codes = pa.array(indices.astype(np.int32), mask=values.null)
    return pc.take(pa.array(words), codes)
