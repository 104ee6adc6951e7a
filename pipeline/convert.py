"""Published values, of whatever type, as values of a column's declared type; what does not fit is noted, never dropped.

Integers may come as doubles, strings or words, times as strings, anything as Arrow's null type. Blank text stands for
null where numbers or times are declared (as in a CSV), and stays as it is where text is declared. Text that not every
warehouse can hold, or that only damage explains, does not fit: not UTF-8, with a NUL or a line break, very long.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.base import TIME, Column, fold
from pipeline.errors import cut

_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
#: The first and the last microsecond of the years 1 to 9999.
_FIRST_TICK, _LAST_TICK = -62_135_596_800_000_000, 253_402_300_799_999_999
_VALUES_KEPT = 1_000
_VALUES_SHOWN = 10
#: The longest text of TLC's has 45 characters, a zone's name.
_TEXT_BYTES = 10_000
_NOT_IN_TEXT = ("\0", "\n", "\r")

#: A declared value, or that there is none: None for null, `_MISFIT` for what does not fit.
_MISFIT = object()


@dataclass
class Problem:
    """Something wrong with rows of one column: how many, and with which values."""

    title: str
    rows: int = 0
    values: Counter[str] = field(default_factory=Counter)

    def add(self, values: pa.Array) -> None:
        """Note these published values."""
        self.rows += len(values)
        quote = repr if pa.types.is_string(values.type) else str
        counted = values.cast(pa.string()).value_counts()
        for value, count in zip(_listed(counted.field("values")), counted.field("counts").to_pylist(), strict=True):
            text = cut(value, quote=quote)
            if text in self.values or len(self.values) < _VALUES_KEPT:
                self.values[text] += count

    def __str__(self) -> str:
        shown = sorted(self.values.items(), key=lambda pair: (-pair[1], pair[0]))[:_VALUES_SHOWN]
        listed = ", ".join(f"{text} ({count:,})" for text, count in shown)
        more = ", ..." if len(self.values) > len(shown) else ""
        return f"{self.title}: {self.rows:,}" + (f", namely {listed}{more}" if listed else "")


def misfits(column: Column) -> Problem:
    """The problem to which `convert` adds what does not fit the column."""
    if pa.types.is_string(column.type):
        fit = f"text in UTF-8 without NUL and line breaks, of at most {_TEXT_BYTES:,} bytes"
    else:
        years = " of the years 1 to 9999" if pa.types.is_timestamp(column.type) else ""
        fit = f"{'a known word or ' if column.words else ''}{column.type}{years}"
    return Problem(f"{column.name}: values that are not {fit}")


def convertible(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether any era, or a faithful rewrite of one, could hold a column of type `target` in the type `source`."""
    if pa.types.is_dictionary(source):
        source = source.value_type
    if pa.types.is_null(source) or _is_text(source):
        return True
    if pa.types.is_timestamp(target):
        return bool(pa.types.is_timestamp(source) and source.tz is None)
    return bool(pa.types.is_integer(source) or pa.types.is_floating(source))


def convert(array: pa.Array, column: Column, problem: Problem) -> pa.Array:
    """The values as `column.type`, one for one; a value that does not fit is added to `problem` and null here."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), column.type)
    if _is_text(array.type):
        array = array.cast(pa.string())
    if pa.types.is_string(column.type):
        return _to_text(array, column, problem)
    if pa.types.is_string(array.type) and pa.types.is_int64(column.type):
        return _text_to_value(array, column, problem)
    try:
        converted = array.cast(column.type)
        refused = _beyond(converted)
    except pa.ArrowInvalid:
        if pa.types.is_string(array.type):
            return _text_to_value(array, column, problem)
        converted = array.cast(column.type, safe=False)
        refused = pc.or_(_lossy(array, converted), _beyond(converted))
    return _without(refused, array, converted, problem) if pc.any(refused).as_py() else converted


def _lossy(array: pa.Array, converted: pa.Array) -> pa.Array:
    """Which numbers or times are fractional, too large or too fine: whatever does not survive the way back."""
    lossy = pc.not_equal(converted.cast(array.type, safe=False), array)
    # The upper half of uint64 survives, as negative numbers.
    return pc.or_(lossy, pc.less(converted, 0)) if pa.types.is_unsigned_integer(array.type) else lossy


def _beyond(converted: pa.Array) -> pa.Array:
    """Which numbers are not finite, and which times are of years that Python and BigQuery do not have."""
    if pa.types.is_floating(converted.type):
        return pc.invert(pc.is_finite(converted))
    if pa.types.is_timestamp(converted.type):
        ticks = converted.cast(pa.int64())
        return pc.or_(pc.less(ticks, _FIRST_TICK), pc.greater(ticks, _LAST_TICK))
    return pa.repeat(False, len(converted))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")


def _to_text(array: pa.Array, column: Column, problem: Problem) -> pa.Array:
    if pa.types.is_string(array.type) and not column.words and _all_fit(array):
        return array

    def parse(value: object) -> object:
        # A code that came as a double, such as 1.0, is the code.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        fits = len(text.encode()) <= _TEXT_BYTES and not any(sign in text for sign in _NOT_IN_TEXT)
        return column.folded_words.get(fold(text), text if fits else _MISFIT)

    return _by_value(array, column, problem, parse)


def _all_fit(array: pa.Array) -> bool:
    """Whether one look at all bytes of the texts finds nothing that might not fit, as nearly always."""
    buffer = array.buffers()[2]
    texts = buffer.to_pybytes() if buffer is not None else b""
    plain = texts.isascii() and not any(sign.encode() in texts for sign in _NOT_IN_TEXT)
    return plain and (pc.max(pc.binary_length(array)).as_py() or 0) <= _TEXT_BYTES


def _text_to_value(array: pa.Array, column: Column, problem: Problem) -> pa.Array:
    """As `convert`, for text that is not plain numbers or times, or is to become an integer."""
    if pa.types.is_int64(column.type):
        # Ids, codes and counts have few distinct values.
        return _by_value(array, column, problem, lambda value: _integer(str(value).strip(), column))
    parse = _number if pa.types.is_floating(column.type) else _time

    def parse_trimmed(value: object) -> object:
        text = str(value).strip()
        return parse(text) if text else None

    return _by_value(array, column, problem, parse_trimmed)


def _integer(text: str, column: Column) -> object:
    if not text:
        return None
    if (code := column.folded_words.get(fold(text))) is not None:
        return code
    try:
        number = int(text) if _INTEGER.fullmatch(text) else _integral(float(text) if _DECIMAL.fullmatch(text) else None)
    except ValueError:
        return _MISFIT
    return number if -(2**63) <= number < 2**63 else _MISFIT


def _integral(number: float | None) -> int:
    if number is None or not number.is_integer():
        raise ValueError
    return int(number)


def _number(text: str) -> object:
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else _MISFIT


def _time(text: str) -> object:
    try:
        return pa.scalar(text).cast(TIME).as_py()
    except (pa.ArrowInvalid, OverflowError):
        # The latter for the year 0.
        return _MISFIT


def _by_value(array: pa.Array, column: Column, problem: Problem, parse: Callable[[object], object]) -> pa.Array:
    """Every distinct value parsed once; `parse` is not asked about nulls, nor about what is not UTF-8."""
    encoded = array.dictionary_encode()
    parsed = [_MISFIT if isinstance(value, bytes) else parse(value) for value in _listed(encoded.dictionary)]
    values = pa.array([None if value is _MISFIT else value for value in parsed], column.type)
    if _MISFIT in parsed:
        refused = pa.array([value is _MISFIT for value in parsed]).take(encoded.indices)
        problem.add(array.filter(refused))
    return values.take(encoded.indices)


def _listed(array: pa.Array) -> list[Any]:
    """The values as Python has them; texts that are not UTF-8, which Arrow takes from Parquet unseen, as bytes."""
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        return [_text_or_bytes(value) for value in array.cast(pa.binary()).to_pylist()]


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _without(refused: pa.Array, array: pa.Array, converted: pa.Array, problem: Problem) -> pa.Array:
    """`converted` with nulls where `refused` is true; the published values in `array` are noted."""
    problem.add(array.filter(refused))
    return pc.if_else(pc.fill_null(refused, False), pa.scalar(None, converted.type), converted)
