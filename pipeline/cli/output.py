"""What commands print and write: tables for people, rows in several formats, and JSON.

Tables are folded to the width of a terminal, and have whole lines in a pipe or a file. DuckDB writes CSV and JSON,
whichever warehouse the rows come from: https://duckdb.org/docs/stable/sql/statements/copy
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.disk import sync
from pipeline.errors import UsageError, visible
from pipeline.settings import expand_home
from pipeline.units import counted

if TYPE_CHECKING:
    import pyarrow as pa

#: The formats of files, and the options by which DuckDB's COPY writes them.
FORMATS = {"csv": "FORMAT csv, HEADER true", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}
_LINES = "FORMAT json"
_GAP = 2
#: Wider than any line; a table takes only what it needs.
_NO_LIMIT = 1_000_000
_NULL = Text("NULL", style="dim")


class _Console(Console):
    """A console that prints texts as they are: without markup, emoji codes and control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def console(**options: Any) -> Console:
    """Standard output, with colours only on a terminal that allows them."""
    return _Console(highlight=False, markup=False, emoji=False, **options)


def print_json(value: Any) -> None:
    """Print a result for programs, in ASCII, which every encoding has; dates are ISO texts, dataclasses objects."""
    click.echo(json.dumps(value, indent=2, default=lambda each: str(each) if isinstance(each, date) else asdict(each)))


def new_table(*columns: str | Column) -> Table:
    """A table in the style of all commands."""
    folded = (Column(each, overflow="fold") if isinstance(each, str) else each for each in columns)
    return Table(*folded, box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")


def whole(*names: str) -> list[str | Column]:
    """Columns whose texts are never folded."""
    return [Column(name, no_wrap=True) for name in names]


def numbers(*names: str) -> list[str | Column]:
    """Columns of numbers, at the right."""
    return [Column(name, justify="right", no_wrap=True) for name in names]


def print_section(title: str, columns: Iterable[str | Column], rows: Iterable[Iterable[str | Text]]) -> None:
    """Print a bold title, unless it is empty, and a table of these rows."""
    if title:
        print_line(title, style="bold")
    table = new_table(*columns)
    for row in rows:
        table.add_row(*row)
    print_table(table)


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print a table, to standard output unless a file is given."""
    out = console()
    if file is None and out.is_terminal:
        out.print(table)
        return
    wide = console(width=_NO_LIMIT, file=file)
    with wide.capture() as captured:
        wide.print(table)
    click.echo("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()), nl=False, file=file or sys.stdout)


def print_line(text: str, style: str = "") -> None:
    """Print a line: wrapped between words on a terminal, else whole."""
    print_text(Text(visible(text), style=style))


def print_text(text: Text) -> None:
    """Print a line of several styles."""
    out = console()
    out.print(text, soft_wrap=not out.is_terminal)


def print_rows(rows: pa.Table, *, more: int = 0, all_rows: bool = True, file: TextIO | None = None) -> None:
    """Print rows as a table, and how many `more` there are.

    What is too wide for the terminal is turned: a line for each column, as many rows side by side as fit. The other
    rows follow below, unless `all_rows` is false.
    """
    from pyarrow import types

    names = [visible(name) for name in rows.column_names]
    columns = [[text if text is None else visible(text) for text in column] for column in column_texts(rows)]
    widths = [max(map(_width, [name, *column])) for name, column in zip(names, columns, strict=True)]
    out = console()
    if file is None and out.is_terminal and len(names) > 1 and rows and sum(widths) + _GAP * len(names) > out.width:
        more += rows.num_rows - _print_turned(names, columns, out, all_rows)
    elif names:
        table = new_table()
        for name, type_ in zip(names, rows.schema.types, strict=True):
            is_number = types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_)
            table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
        for row in zip(*columns, strict=True):
            table.add_row(*map(_cell, row))
        print_table(table, file)
    if not rows:
        click.echo("no rows", file=file)
    if more:
        click.echo(f"… and {counted(more, 'more row')}", file=file)


def _print_turned(names: Sequence[str], columns: Sequence[Sequence[str | None]], out: Console, all_rows: bool) -> int:
    """Print a line for each column; returns the number of rows that were printed."""
    count = len(columns[0])
    width = max(len(str(count)), *(_width(text) for column in columns for text in column)) + _GAP
    at_once = max(1, (out.width - max(map(cell_len, names))) // width)
    end = count if all_rows else min(count, at_once)
    for first in range(0, end, at_once):
        last = min(end, first + at_once)
        headers = (Column(str(row + 1), justify="right", overflow="fold") for row in range(first, last))
        table = new_table(*whole("row"), *headers)
        for name, column in zip(names, columns, strict=True):
            table.add_row(name, *map(_cell, column[first:last]))
        out.print(*([Text("")] if first else []), table)
    return end


def _cell(text: str | None) -> Text:
    return _NULL if text is None else Text(text)


def _width(text: str | None) -> int:
    return max(map(cell_len, (text or "NULL").split("\n")))


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
    import pyarrow as pa

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
    from pyarrow import types

    as_json = form == "json"
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
    if types.is_nested(type_) and as_json:  # DuckDB would write NaN, which is not JSON. Its name in a text is.
        numbers = rf"""regexp_replace(to_json({column})::VARCHAR, '"(\\.|[^"\\])*"', '', 'g')"""
        problem = "error('a list or struct has NaN or an infinity')"
        return f"CASE WHEN regexp_matches({numbers}, 'NaN|Infinity') THEN {problem} ELSE {column} END"
    if types.is_nested(type_):
        return f"to_json({column})"
    return f"{column}::VARCHAR" if form == "text" else column


def output_path(name: str, option: str, *, force: bool) -> Path:
    """The file that an option names, validated before there is something to write; of a link, the file it points to.

    Raises:
        UsageError: it cannot be written, or it exists and `force` is false.
    """
    path = Path(expand_home(name, option))
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists; --force replaces it")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    return path.resolve()


@contextmanager
def draft_of(path: Path) -> Iterator[BinaryIO]:
    """Yield a file beside the path, which replaces it when the block ends, and is deleted when the block fails.

    The file is locked while it is written. The next writer deletes the drafts of killed processes, which hold no lock.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        for old in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.part"):
            with suppress(OSError), old.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                old.unlink()
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
