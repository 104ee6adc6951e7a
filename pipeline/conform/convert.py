"""Converts published values of any type to a column's declared type; a value that does not fit is noted, never dropped.

Integers may be published as doubles, strings or words, times as strings, anything as Arrow's null type. Blank text is
null where numbers or times are declared (as in a CSV), and stays as it is where text is declared. Text that some
warehouse cannot hold, or that only damage explains, does not fit: not UTF-8, with a NUL or a line break, very long.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.base import FLOAT64, INT64, TEXT, TIME, Column, fold
from pipeline.errors import cut

#: A longer run of digits is read as a decimal, since Python limits the digits of an integer.
_INTEGER = re.compile(r"[+-]?\d{1,1000}")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: The first and the last microsecond of the years 1 to 9999.
_FIRST_TICK, _LAST_TICK = -62_135_596_800_000_000, 253_402_300_799_999_999
_VALUES_KEPT = 1_000
_VALUES_SHOWN = 10
#: TLC's longest text has 45 characters, the name of a zone.
_TEXT_BYTES = 10_000
_NOT_IN_TEXT = ("\0", "\n", "\r")

#: The result of parsing a value that does not fit; that of a null is None.
_MISFIT = object()


@dataclass
class Problem:
    """Something wrong in one column: in how many rows, and with which values."""

    title: str
    rows: int = 0
    values: Counter[str] = field(default_factory=Counter)

    def add(self, values: pa.Array) -> None:
        """Note these published values."""
        self.rows += len(values)
        quote = repr if pa.types.is_string(values.type) else str
        counted = values.cast(pa.string()).value_counts()
        for value, count in zip(_to_python(counted.field("values")), counted.field("counts").to_pylist(), strict=True):
            text = cut(value, quote=quote)
            if text in self.values or len(self.values) < _VALUES_KEPT:
                self.values[text] += count

    def __str__(self) -> str:
        shown = sorted(self.values.items(), key=lambda pair: (-pair[1], pair[0]))[:_VALUES_SHOWN]
        listed = ", ".join(f"{text} ({count:,})" for text, count in shown)
        more = ", ..." if len(self.values) > len(shown) else ""
        return f"{self.title}: {self.rows:,}" + (f", namely {listed}{more}" if listed else "")


def misfits(column: Column) -> Problem:
    """The problem to which `convert` adds the values that do not fit the column."""
    if column.type == TEXT:
        fit = f"text in UTF-8 without NUL and line breaks, of at most {_TEXT_BYTES:,} bytes"
    else:
        years = " of the years 1 to 9999" if column.type == TIME else ""
        fit = f"{'a known word or ' if column.words else ''}{column.type}{years}"
    return Problem(f"{column.name}: values that are not {fit}")


def convertible(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether any era, or an exact rewrite of its files, may store a column of type `target` as type `source`."""
    if pa.types.is_dictionary(source):
        source = source.value_type
    if pa.types.is_null(source) or _is_text(source):
        return True
    if pa.types.is_timestamp(target):
        return bool(pa.types.is_timestamp(source) and source.tz is None)
    return bool(pa.types.is_integer(source) or pa.types.is_floating(source))


def convert(array: pa.Array, column: Column, problem: Problem) -> pa.Array:
    """The values as `column.type`, one for one; a value that does not fit is null and added to `problem`."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), column.arrow_type)
    if _is_text(array.type):
        array = array.cast(pa.string())
    is_text = pa.types.is_string(array.type)
    if column.type == TEXT:
        return array if is_text and not column.words and _all_fit(array) else _by_value(array, column, problem)
    if is_text and column.type == INT64:
        # Ids, codes and counts have few distinct values.
        return _by_value(array, column, problem)
    try:
        converted = array.cast(column.arrow_type)
        refused = _out_of_range(converted)
    except pa.ArrowInvalid:
        if is_text:
            return _by_value(array, column, problem)
        converted = array.cast(column.arrow_type, safe=False)
        refused, beyond = _changed(array, converted), _out_of_range(converted)
        refused = refused if beyond is None else pc.or_(refused, beyond)
    if refused is None or not pc.any(refused).as_py():
        return converted
    problem.add(array.filter(refused))
    return pc.if_else(pc.fill_null(refused, False), pa.scalar(None, converted.type), converted)


def _changed(array: pa.Array, converted: pa.Array) -> pa.Array:
    """Which numbers or times are not the same when converted back: fractions, and what is too large or too precise."""
    changed = pc.not_equal(converted.cast(array.type, safe=False), array)
    # The upper half of uint64 becomes negative and would come back unchanged.
    return pc.or_(changed, pc.less(converted, 0)) if pa.types.is_unsigned_integer(array.type) else changed


def _out_of_range(converted: pa.Array) -> pa.Array | None:
    """Which numbers are not finite, and which times are of years that Python and BigQuery do not support.

    None when there are none, which a sum and a range show faster.
    """
    if pa.types.is_floating(converted.type) and not math.isfinite(pc.sum(converted).as_py() or 0):
        return pc.invert(pc.is_finite(converted))
    if pa.types.is_timestamp(converted.type):
        ticks = converted.cast(pa.int64())
        low, high = pc.min_max(ticks).as_py().values()
        if low is not None and not _FIRST_TICK <= low <= high <= _LAST_TICK:
            return pc.or_(pc.less(ticks, _FIRST_TICK), pc.greater(ticks, _LAST_TICK))
    return None


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or str(type_) == "string_view")


def _all_fit(array: pa.Array) -> bool:
    """Whether all texts surely fit; searches all their bytes at once."""
    buffer = array.buffers()[2]
    texts = buffer.to_pybytes() if buffer is not None else b""
    plain = texts.isascii() and not any(sign.encode() in texts for sign in _NOT_IN_TEXT)
    return plain and (pc.max(pc.binary_length(array)).as_py() or 0) <= _TEXT_BYTES


def _by_value(array: pa.Array, column: Column, problem: Problem) -> pa.Array:
    """Parse each distinct value once; nulls stay null."""
    encoded = array.dictionary_encode()
    published = _to_python(encoded.dictionary)
    parsed = [_parse(value, column) for value in published]
    if array.type == column.arrow_type and parsed == published:
        return array
    values = pa.array([None if value is _MISFIT else value for value in parsed], column.arrow_type)
    if _MISFIT in parsed:
        refused = pa.array([value is _MISFIT for value in parsed]).take(encoded.indices)
        problem.add(array.filter(refused))
    return values.take(encoded.indices)


def _parse(value: Any, column: Column) -> object:
    """The value as the column's type; None for a blank number or time, `_MISFIT` for what does not fit."""
    if isinstance(value, bytes):
        return _MISFIT
    if column.type == TEXT:
        # A code that was published as a double, such as 1.0, is the code.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        fits = len(text.encode()) <= _TEXT_BYTES and not any(sign in text for sign in _NOT_IN_TEXT)
        return column.folded_words.get(fold(text), text if fits else _MISFIT)
    text = value.strip()
    if not text:
        return None
    if column.type == INT64:
        return _integer(text, column)
    if column.type == FLOAT64:
        return float(text) if _DECIMAL.fullmatch(text) and math.isfinite(float(text)) else _MISFIT
    try:
        return pa.scalar(text).cast(pa.timestamp("us")).as_py()
    except (pa.ArrowInvalid, OverflowError):  # The latter for the year 0.
        return _MISFIT


def _integer(text: str, column: Column) -> object:
    if (code := column.folded_words.get(fold(text))) is not None:
        return code
    if _INTEGER.fullmatch(text):
        number = int(text)
    elif _DECIMAL.fullmatch(text) and float(text).is_integer():
        number = int(float(text))
    else:
        return _MISFIT
    return number if -(2**63) <= number < 2**63 else _MISFIT


def _to_python(array: pa.Array) -> list[Any]:
    """The values as Python objects; texts that are not UTF-8, which Arrow reads from Parquet unchecked, as bytes."""
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        return [_text_or_bytes(value) for value in array.cast(pa.binary()).to_pylist()]


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
