"""The rows of a query, from Postgres to Arrow, a few at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import psycopg

#: As many rows are Python's objects at once.
_ROWS = 10_000
_NUMERIC = 1700
#: By the number of the type in Postgres (pg_type.dat), which never changes; any other becomes text.
_TYPES = {
    16: pa.bool_(),
    21: pa.int16(),
    23: pa.int32(),
    20: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    25: pa.string(),
    1042: pa.string(),
    1043: pa.string(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}


def read_rows(connection: psycopg.Connection[Any], sql: str) -> pa.Table:
    """Run one statement that cannot change anything, and return its rows; `numeric` is decimal, as wide as needed.

    A statement that gives no rows, ever, is an error of the driver.
    """
    from psycopg import RawServerCursor

    connection.execute("SET default_transaction_read_only = on")
    # One that only reads is fetched piece by piece; others (EXPLAIN, SHOW) Postgres gives as a whole only. Either way
    # goes by the extended protocol, which takes one statement only, so that none can end the transaction.
    streamed = re.match(r"\s*(SELECT|WITH|VALUES|TABLE)\b", sql, re.IGNORECASE)
    with (
        connection.transaction(),
        RawServerCursor(connection, "rows") if streamed else connection.cursor() as cursor,
    ):
        cursor.execute(sql, binary=True) if streamed else cursor.execute(sql, prepare=True)
        pieces = iter(lambda: cursor.fetchmany(_ROWS), [])
        first = next(pieces, [])
        names = [column.name for column in cursor.description or ()]
        kinds = [column.type_code for column in cursor.description or ()]
        tables = [_table(names, kinds, piece) for piece in chain([first], pieces)]
    # Decimals differ in width from piece to piece.
    return pa.concat_tables(tables, promote_options="permissive")


def _table(names: Sequence[str], kinds: Sequence[int], rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table([_column(kind, values) for kind, values in zip(kinds, columns, strict=True)], names=list(names))


def _column(kind: int, values: Sequence[Any]) -> pa.Array:
    if kind == _NUMERIC:
        finite = all(value is None or Decimal.is_finite(value) for value in values)
        known = any(value is not None for value in values)
        if finite:
            return pa.array(values) if known else pa.nulls(len(values), pa.decimal128(1, 0))
        return pa.array([value if value is None else float(value) for value in values], pa.float64())
    if kind in _TYPES:
        return pa.array(values, _TYPES[kind])
    return pa.array([value if value is None else str(value) for value in values], pa.string())
