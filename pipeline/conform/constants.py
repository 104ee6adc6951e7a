"""Arrow constants without pandas: pyarrow imports it (0.15 s, 40 MB) when it converts the first Python value.

A step has no other use for pandas, so the constants that it compares columns with are made from their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime, timezone

import pyarrow as pa

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def constants(values: Sequence[float | str], type_: pa.DataType) -> pa.Array:
    """An array of int64, double or text with these values."""
    if pa.types.is_string(type_):
        texts = [str(value).encode() for value in values]
        ends = [sum(map(len, texts[:count])) for count in range(len(texts) + 1)]
        buffers = [None, pa.py_buffer(struct.pack(f"<{len(ends)}i", *ends)), pa.py_buffer(b"".join(texts))]
        return pa.Array.from_buffers(type_, len(values), buffers)
    sign = "d" if pa.types.is_floating(type_) else "q"
    return pa.Array.from_buffers(
        type_, len(values), [None, pa.py_buffer(struct.pack(f"<{len(values)}{sign}", *values))]
    )


def constant(value: float | datetime, type_: pa.DataType) -> pa.Scalar:
    """A scalar of int64, double or timestamp[us] with this value."""
    if isinstance(value, datetime):
        value = (value.replace(tzinfo=timezone.utc) - _EPOCH) // datetime.resolution
    return constants([value], type_)[0]
