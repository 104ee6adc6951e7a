"""Tables and rows for people: folded to the width of a terminal, in whole lines for a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click
import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.cli.formats import column_texts
from pipeline.cli.options import console
from pipeline.errors import visible
from pipeline.units import counted

_GAP = 2
#: Wider than any line; a table takes only what it needs.
_NO_LIMIT = 1_000_000
_NULL = Text("NULL", style="dim")


def new_table(*columns: str | Column, **options: Any) -> Table:
    """A table in the style of all commands."""
    return Table(*columns, box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", **options)


def whole(*names: str) -> list[Column]:
    """Columns whose texts are never folded."""
    return [Column(name, no_wrap=True) for name in names]


def numbers(*names: str) -> list[Column]:
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
    names = [visible(name) for name in rows.column_names]
    columns = [[text if text is None else visible(text) for text in column] for column in column_texts(rows)]
    widths = [max(map(_width, [name, *column])) for name, column in zip(names, columns, strict=True)]
    out = console()
    if file is None and out.is_terminal and len(names) > 1 and rows and sum(widths) + _GAP * len(names) > out.width:
        more += rows.num_rows - _print_turned(names, columns, out, all_rows)
    elif names:
        sides = [_side(column.type) for column in rows.columns]
        headers = (Column(Text(name), justify=side, overflow="fold") for name, side in zip(names, sides, strict=True))
        table = new_table(*headers)
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


def _side(type_: pa.DataType) -> Any:
    types = pa.types
    return "right" if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_) else "left"


def _cell(text: str | None) -> Text:
    return _NULL if text is None else Text(text)


def _width(text: str | None) -> int:
    return max(map(cell_len, (text or "NULL").split("\n")))
