"""The rows of a query, from Postgres to Arrow, in chunks."""

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

_CHUNK_ROWS = 10_000
_NUMERIC = 1700
#: By the type's OID (pg_type.dat), which never changes; other types become text.
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
#: The first words of statements for which Postgres can open a cursor, so that it parses them as a query.
_CURSOR_STATEMENTS = ("SELECT", "WITH", "VALUES", "TABLE")
#: Functions that restore rights, open other connections, or run SQL from a text.
_EVASIONS = re.compile(
    r"set_config|dblink\w*|\w+_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table|lo_export|U&(?=[\"'])",
    re.IGNORECASE,
)
#: A superuser can write files on the server even in a read-only transaction, so the transaction gives up these rights.
#: It keeps the user's search path ("$user"). A row policy is an error, instead of fewer rows.
_DROP_SUPERUSER = """
SELECT
    set_config('search_path', array_to_string(ARRAY(SELECT quote_ident(unnest(current_schemas(false)))), ', '), true),
    set_config('row_security', 'off', true), set_config('role', 'pg_read_all_data', true)
FROM pg_roles WHERE rolname = current_user AND rolsuper
"""


def read_rows(connection: psycopg.Connection[Any], sql: str) -> pa.Table:
    """Run one statement that cannot change anything, and return its rows; `numeric` becomes a decimal.

    A statement that returns no rows is an error of the driver.
    """
    from psycopg import RawServerCursor
    from psycopg.types.string import TextLoader

    explain, statement = split_explain(sql)
    keyword = re.match(r"[(\s]*(\w*)", statement)[1].upper()  # type: ignore[index]
    if keyword not in _CURSOR_STATEMENTS and (keyword != "SHOW" or explain):
        raise query_error(f"{explain} {keyword}".strip() or "nothing")
    if evasion := _EVASIONS.search(statement):
        raise query_error(f"{evasion[0]} could act outside of the read-only transaction")
    sql = f"{explain} {statement}"
    connection.execute("SET datestyle = 'ISO'")
    known = {*_TYPES, _NUMERIC, 0}
    # EXPLAIN and SHOW have no cursor. All statements use the extended protocol, which takes a single statement, so
    # none can end the transaction.
    streamed = not explain and keyword != "SHOW"
    with (
        connection.transaction(),
        RawServerCursor(connection, "rows") if streamed else connection.cursor() as cursor,
    ):
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute(_DROP_SUPERUSER)
        if explain:
            # EXPLAIN ANALYZE SELECT … INTO creates a table even in a read-only transaction; a cursor refuses it.
            connection.execute(f"DECLARE checked CURSOR FOR {statement}", prepare=True)
            connection.execute("CLOSE checked")
        for oid in {oid for info in cursor.adapters.types for oid in (info.oid, info.array_oid)} - known:
            cursor.adapters.register_loader(oid, TextLoader)
        cursor.execute(sql) if streamed else cursor.execute(sql, prepare=True)
        chunks = iter(lambda: cursor.fetchmany(_CHUNK_ROWS), [])
        first = next(chunks, [])
        names = [column.name for column in cursor.description or ()]
        oids = [column.type_code for column in cursor.description or ()]
        tables = [_table(oids, chunk) for chunk in chain([first], chunks)]
    # The width of decimals differs between chunks; two columns may have the same name.
    return pa.concat_tables(tables, promote_options="permissive").rename_columns(names)


def _table(oids: Sequence[int], rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(oids)
    arrays = [_array(oid, values) for oid, values in zip(oids, columns, strict=True)]
    return pa.table(arrays, names=[str(number) for number in range(len(oids))])


def _array(oid: int, values: Sequence[Any]) -> pa.Array:
    if oid in _TYPES:
        return pa.array(values, _TYPES[oid])
    if oid == _NUMERIC:
        numbers = [value for value in values if value is not None]
        if not numbers:
            return pa.nulls(len(values), pa.decimal128(1, 0))
        if not all(map(Decimal.is_finite, numbers)):
            return pa.array([value if value is None else float(value) for value in values], pa.float64())
        with suppress(pa.ArrowInvalid):  # more digits than any Arrow decimal has: as text
            return pa.array(values)
    return pa.array([value if value is None else str(value) for value in values], pa.string())
