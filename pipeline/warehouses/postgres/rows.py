"""The rows of a query, from Postgres to Arrow, a few at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.warehouses.base import query_error, split_explain

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
#: What a statement begins with that Postgres takes for a cursor, so that it parses it as a query.
_READING = ("SELECT", "WITH", "VALUES", "TABLE")
#: What gets rights back, opens other connections, or runs SQL that was put together from texts.
_EVASIONS = re.compile(
    r"set_config|dblink\w*|\w+_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table|lo_export|U&(?=[\"'])",
    re.IGNORECASE,
)
#: A superuser may write the server's files by functions even in a read-only transaction, so the rights are given up for
#: its length. The search path stays that of the user ("$user"), and policies of rows are an error, not fewer rows.
_NO_SUPERUSER = """
SELECT
    set_config('search_path', array_to_string(ARRAY(SELECT quote_ident(unnest(current_schemas(false)))), ', '), true),
    set_config('row_security', 'off', true), set_config('role', 'pg_read_all_data', true)
FROM pg_roles WHERE rolname = current_user AND rolsuper
"""


def read_rows(connection: psycopg.Connection[Any], sql: str) -> pa.Table:
    """Run one statement that cannot change anything, and return its rows; `numeric` is decimal, as wide as needed.

    A statement that gives no rows, ever, is an error of the driver.
    """
    from psycopg import RawServerCursor
    from psycopg.types.string import TextLoader

    explain, statement = split_explain(sql)
    kind = re.match(r"[(\s]*(\w*)", statement)[1].upper()  # type: ignore[index]
    if kind not in _READING and (kind != "SHOW" or explain):
        raise query_error(f"{explain} {kind}".strip() or "nothing")
    if evasion := _EVASIONS.search(statement):
        raise query_error(f"{evasion[0]} could act outside of the read-only transaction")
    sql = f"{explain} {statement}"
    connection.execute("SET datestyle = 'ISO'")
    known = {*_TYPES, _NUMERIC, 0}
    # A query is fetched piece by piece; EXPLAIN and SHOW Postgres gives as a whole only. All go by the extended
    # protocol, which takes one statement only, so that none can end the transaction.
    streamed = not explain and kind != "SHOW"
    with (
        connection.transaction(),
        RawServerCursor(connection, "rows") if streamed else connection.cursor() as cursor,
    ):
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute(_NO_SUPERUSER)
        if explain:
            # A read-only transaction lets EXPLAIN ANALYZE SELECT … INTO make a table; no cursor can be of one.
            connection.execute(f"DECLARE checked CURSOR FOR {statement}", prepare=True)
            connection.execute("CLOSE checked")
        for kind in {oid for info in cursor.adapters.types for oid in (info.oid, info.array_oid)} - known:
            cursor.adapters.register_loader(kind, TextLoader)
        cursor.execute(sql, binary=True) if streamed else cursor.execute(sql, prepare=True)
        if streamed and {column.type_code for column in cursor.description or ()} - known:
            # As Postgres writes them; psycopg would make objects of them, or bytes.
            cursor.execute(sql, binary=False)
        pieces = iter(lambda: cursor.fetchmany(_ROWS), [])
        first = next(pieces, [])
        names = [column.name for column in cursor.description or ()]
        kinds = [column.type_code for column in cursor.description or ()]
        tables = [_table(kinds, piece) for piece in chain([first], pieces)]
    # Decimals differ in width from piece to piece; two columns may have one name.
    return pa.concat_tables(tables, promote_options="permissive").rename_columns(names)


def _table(kinds: Sequence[int], rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
    arrays = [_column(kind, values) for kind, values in zip(kinds, columns, strict=True)]
    return pa.table(arrays, names=[str(place) for place in range(len(kinds))])


def _column(kind: int, values: Sequence[Any]) -> pa.Array:
    if kind == _NUMERIC:
        finite = all(value is None or Decimal.is_finite(value) for value in values)
        known = any(value is not None for value in values)
        if finite and not known:
            return pa.nulls(len(values), pa.decimal128(1, 0))
        if finite:
            with suppress(pa.ArrowInvalid):  # of more digits than any decimal of Arrow has: as text
                return pa.array(values)
            return pa.array([value if value is None else str(value) for value in values], pa.string())
        return pa.array([value if value is None else float(value) for value in values], pa.float64())
    if kind in _TYPES:
        return pa.array(values, _TYPES[kind])
    return pa.array([value if value is None else str(value) for value in values], pa.string())
