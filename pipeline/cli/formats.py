"""Rows as text, CSV, JSON and Parquet, to a pipe or to a file that appears only when it is complete.

DuckDB writes CSV and JSON, whichever warehouse the rows come from: https://duckdb.org/docs/stable/sql/statements/copy
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.disk import sync
from pipeline.errors import UsageError

#: The formats of files, and the options by which DuckDB's COPY writes them.
FORMATS = {"csv": "FORMAT csv, HEADER true", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}
_LINES = "FORMAT json"


def write_rows(rows: pa.Table, form: str, file: BinaryIO, *, lines: bool = False) -> None:
    """Write the rows as csv, json (a list of objects; with `lines` one object a line) or parquet.

    Raises:
        UsageError: the format cannot hold a column's type, or several columns of one name.
    """
    lower = [name.lower() for name in rows.column_names]  # DuckDB renames columns whose names differ only in case.
    doubled = sorted({name for name in rows.column_names if lower.count(name.lower()) > 1})
    if doubled and form != "csv":
        raise UsageError(f"more than one column is called {', '.join(doubled)}; give them different names with AS")
    import duckdb

    connection, select = _load(rows, form)
    read, write = os.pipe()  # Through a pipe, so that the file may be anything that Python can write to.

    def copy() -> None:
        try:
            connection.execute(f"COPY ({select}) TO '/dev/fd/{write}' ({_LINES if lines else FORMATS[form]})")
        finally:
            os.close(write)

    # When the file cannot be written, the pipe is closed first, which ends the COPY.
    with ThreadPoolExecutor(1) as pool, os.fdopen(read, "rb") as pieces:
        copied = pool.submit(copy)
        shutil.copyfileobj(pieces, file)
    try:
        copied.result()
    except duckdb.Error as error:
        raise UsageError(f"{form} cannot hold this: {error}; CAST the column to VARCHAR, for instance") from error


def column_texts(rows: pa.Table) -> list[list[str | None]]:
    """The values of each column as text; None for NULL."""
    connection, select = _load(rows, "text")
    return [column.to_pylist() for column in connection.sql(select).to_arrow_table().columns]


def _load(rows: pa.Table, form: str) -> tuple[Any, str]:
    """A DuckDB connection that has the rows, and a SELECT of them as this format shows them."""
    import duckdb

    # Neutral names, since a query may have two columns of one name; and DuckDB reads no decimals of over 38 digits.
    columns = [column.cast(pa.string()) if pa.types.is_decimal256(column.type) else column for column in rows.columns]
    connection = duckdb.connect()
    connection.register("rows", pa.table(columns, names=[f"c{index}" for index in range(len(columns))]))
    parts = []
    for index, field in enumerate(rows.schema):
        name = field.name.replace('"', '""')
        parts.append(f'{_expression(f"c{index}", field.type, form)} AS "{name}"')
    return connection, f"SELECT {', '.join(parts)} FROM rows"


def _expression(column: str, type_: pa.DataType, form: str) -> str:
    """The column in SQL: times in JSON, and those with a zone, as Python's isoformat() writes them, in UTC."""
    types, as_json = pa.types, form == "json"
    if form == "parquet":
        return column
    if types.is_timestamp(type_) and (type_.tz or as_json):
        value, offset = (f"timezone('UTC', {column})", "+00:00") if type_.tz else (column, "")
        return f"replace(strftime({value}, '%Y-%m-%dT%H:%M:%S.%f{offset}'), '.000000', '')"
    if types.is_binary(type_):
        return f"lower(hex({column}))"
    if as_json and types.is_floating(type_):
        return f"CASE WHEN isfinite({column}) THEN {column} END"
    if as_json and types.is_decimal256(type_):
        return f"{column}::JSON"
    if types.is_nested(type_) and not as_json:
        return f"to_json({column})"
    return f"{column}::VARCHAR" if form == "text" else column


@contextmanager
def draft_of(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside the path, which replaces it when the block ends, and is deleted when the block fails.

    The file is locked while it is written. The next writer deletes the drafts of killed processes, which hold no lock.
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
    for draft in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with suppress(OSError), draft.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()
