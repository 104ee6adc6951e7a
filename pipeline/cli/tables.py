"""Tables and rows for people.

A table for a terminal fits into it; one for a pipe or a file has whole lines, whatever their length.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TextIO

import click
import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.formats import plain
from pipeline.cli.options import console
from pipeline.errors import visible

_GAP = 2
#: Wider than any line; a table takes what it needs.
_NO_LIMIT = 1_000_000


def new_table(**options: Any) -> Table:
    """A table in the style of all commands."""
    return Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", **options)


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print it: folded to the width of a terminal, else in whole lines."""
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
    out = console()
    out.print(Text(visible(text), style=style), soft_wrap=not out.is_terminal)


def print_rows(rows: pa.Table, *, more: int = 0, blocks: bool = True, file: TextIO | None = None) -> None:
    """Print rows as a table, and that there are more.

    What is too wide for the terminal is turned: a line for each column, some rows side by side and the next ones below;
    without `blocks` there are no next ones.
    """
    texts = [[shown(value) for value in column.to_pylist()] for column in rows.columns]
    widths = [
        max(_width(text) for text in (name, *column)) for name, column in zip(rows.column_names, texts, strict=True)
    ]
    out = console()
    if file is None and out.is_terminal and len(widths) > 1 and rows and sum(widths) + _GAP * len(widths) > out.width:
        more += rows.num_rows - _print_turned(rows, texts, out, blocks=blocks)
    elif rows.num_columns:
        table = new_table()
        for field in rows.schema:
            table.add_column(Text(visible(field.name)), justify=_side(field.type), overflow="fold")
        for line in zip(*texts, strict=True):
            table.add_row(*map(_text, line))
        print_table(table, file)
    if not rows:
        click.echo("no rows", file=file)
    if more:
        click.echo(f"… and {more:,} more row{'s' * (more != 1)}", file=file)


def _print_turned(rows: pa.Table, texts: Sequence[Sequence[str | None]], out: Console, *, blocks: bool) -> int:
    """Print a line for each column; returns for how many rows."""
    names = [visible(name) for name in rows.column_names]
    room = out.width - max(map(cell_len, names)) - _GAP
    done = 0
    while done < rows.num_rows and (blocks or not done):
        table = new_table()
        table.add_column("row", no_wrap=True)
        left, first = room, done
        while done < rows.num_rows:
            widest = max(len(str(done + 1)), *(_width(column[done]) for column in texts))
            if widest > left and done > first:
                break
            table.add_column(str(done + 1), justify="right", overflow="fold")
            left, done = left - widest - _GAP, done + 1
        for name, column in zip(names, texts, strict=True):
            table.add_row(name, *map(_text, column[first:done]))
        out.print(*([Text("")] if first else []), table)
    return done


def shown(value: Any) -> str | None:
    """A value for people; None for none."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    found = plain(value)
    if found is None and value is not None:
        return str(value)
    if found is None or isinstance(found, str):
        return None if found is None else visible(found)
    return str(value) if isinstance(value, Decimal) else visible(json.dumps(found, ensure_ascii=False))


def _side(kind: pa.DataType) -> Any:
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "right" if numbers else "left"


def _text(text: str | None) -> Text:
    return Text("NULL", style="dim") if text is None else Text(text)


def _width(text: str | None) -> int:
    return max(map(cell_len, (text or "NULL").split("\n")))
