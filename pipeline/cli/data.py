"""The commands that show rows: the first ones of a trips file, and the answers of the warehouse."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import BinaryIO

import click
import pyarrow as pa

from pipeline import lake
from pipeline.cli.formats import draft_of, write_csv, write_json, write_parquet
from pipeline.cli.options import with_settings
from pipeline.cli.tables import print_rows
from pipeline.datasets import DATASETS, ZONES, Dataset, dataset_named
from pipeline.errors import StoreError, UsageError
from pipeline.lake import Entry
from pipeline.months import format_month, parse_month
from pipeline.places import store_of, warehouse_of
from pipeline.settings import current_settings, expand_home, suggested_command
from pipeline.tasks.base import log

_HEAD_ROWS, _TABLE_ROWS = 10, 50
#: In bytes; how much of a column is read at a time.
_PIECE = 1 << 16
_WRITERS: Mapping[str, Callable[[pa.Table, BinaryIO], None]] = {
    "csv": write_csv,
    "json": write_json,
    "parquet": write_parquet,
}


@click.command()
@click.argument("dataset", type=click.Choice([*DATASETS, ZONES.name]), metavar="DATASET")
@click.argument("month", required=False)
@click.option("--rows", type=click.IntRange(1), metavar="N", help=f"How many rows; {_HEAD_ROWS} unless said.")
@click.option("--columns", metavar="A,B", help="Only these columns, in this order.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV.")
@with_settings
def head(dataset: str, month: str | None, rows: int | None, columns: str | None, as_json: bool, as_csv: bool) -> None:
    """Show the first rows of a month in the lake.

    DATASET is yellow, green, fhv, fhvhv, or zones, which needs no month; MONTH is one month such as 2024-01.

    Only the beginning of the file is read. On a terminal that is too narrow for the columns each one is a line, and as
    many rows as fit, or as --rows says, stand side by side.

    \b
    pipeline head green 2024-01
    pipeline head green 2024-01 --rows 3 --columns pickup_datetime,total_amount
    pipeline head yellow 2024-01 --rows 1000 --csv > sample.csv
    """  # noqa: D301
    if as_json and as_csv:
        raise UsageError("--json and --csv: one of them")
    spec = dataset_named(dataset)
    found, total = first_rows(_trips(spec, _month(spec, month)), spec, columns, rows or _HEAD_ROWS)
    if as_json:
        write_json(found, sys.stdout.buffer, lines=True)
    elif as_csv:
        write_csv(found, sys.stdout.buffer)
    else:
        print_rows(found, more=total - found.num_rows, blocks=rows is not None)


def _month(spec: Dataset, text: str | None) -> date | None:
    if spec.first_month is None:
        if text is not None:
            raise UsageError(f"{spec.name} has no months; leave {text} away")
        return None
    if text is None:
        raise UsageError(f"{spec.name}: which month? For instance: pipeline head {spec.name} 2024-01")
    return parse_month(text)


def _trips(spec: Dataset, month: date | None) -> Entry:
    store, key = store_of(current_settings()), lake.trips_key(spec, month)
    if not store.exists(key):
        what = [spec.name, format_month(month)] if month else [spec.name]
        # A backfill through its last step does nothing for a month that is loaded.
        words = ["backfill", *what, "--through", "conform"] if month else ["redo", *what, "--from", "conform"]
        raise StoreError(
            f"{' '.join(what)}: no trips file in the lake {store.location}; run: {suggested_command(*words)}"
        )
    return store.entry(key)


def first_rows(entry: Entry, spec: Dataset, columns: str | None, rows: int) -> tuple[pa.Table, int]:
    """The first rows of a trips file, and how many it has; a column that was declared after it is null.

    Raises:
        UsageError: the dataset has no such column.
        StoreError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    wanted = list(dict.fromkeys(name.strip() for name in (columns or "").split(",") if name.strip()))
    if unknown := sorted(set(wanted) - set(spec.by_name)):
        raise UsageError(f"{spec.name} has no column {', '.join(unknown)}; it has {', '.join(spec.by_name)}")
    with entry.open() as file:
        try:
            # Else the whole file is fetched ahead.
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_PIECE)
            there = parquet.schema_arrow
            read = [name for name in wanted or there.names if name in there.names]
            batches, missing = [], rows
            for batch in parquet.iter_batches(batch_size=min(rows, 1 << 16), columns=read):
                batches.append(batch.slice(0, missing))
                missing -= batches[-1].num_rows
                if not missing:
                    break
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{entry.uri} cannot be read as Parquet: {error}") from error
    schema = pa.schema([there.field(name) for name in read])
    found = pa.Table.from_batches([batch.select(read) for batch in batches], schema).replace_schema_metadata()
    for place, name in enumerate(wanted):
        if name not in read:
            kind = spec.by_name[name].type
            found = found.add_column(place, pa.field(name, kind), pa.nulls(rows - missing, kind))
    return found, parquet.metadata.num_rows


@click.command()
@click.argument("statement")
@click.option(
    "--format", "form", type=click.Choice(["table", *_WRITERS]), help="table unless the ending of --output says more."
)
@click.option("--output", metavar="FILE", help="Where to write instead of standard output; all of it or nothing.")
@click.option("--force", is_flag=True, help="Let --output replace a file.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help=f"Rows of the table; {_TABLE_ROWS} unless said.")
@with_settings
def sql(statement: str, form: str | None, output: str | None, force: bool, limit: int | None) -> None:
    """Run one SQL statement that only reads.

    It reads the tables of the warehouse, not other files. STATEMENT is in the SQL of the warehouse's engine; - reads it
    from standard input.

    In CSV times are as 2024-01-31 23:59:59 and nulls are empty, while an empty text is ""; in JSON numbers that are
    none (NaN) are null.

    \b
    pipeline sql "SELECT dataset, month, rows FROM loads ORDER BY 1, 2"
    pipeline sql "SELECT * FROM daily_trips" --output daily.csv
    pipeline sql - --format json < question.sql
    """  # noqa: D301
    try:
        statement = sys.stdin.read() if statement == "-" else statement
        statement.encode()
    except (ValueError, OSError) as error:
        raise UsageError(f"the statement cannot be read as text in {sys.stdin.encoding}: {error}") from error
    if not statement.strip(" \t\r\n;"):
        raise UsageError("the statement is empty")
    path = _output(output, force) if output is not None else None
    form = form or (_form_of(path) if path else "table")
    if limit and form != "table":
        raise UsageError("--limit is for the table; write LIMIT into the statement")
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal; name a file with --output, or pipe it")
    rows = warehouse_of(current_settings()).query(statement)
    if path is None:
        _write(rows, form, None, limit)
        return
    with draft_of(path) as file:
        _write(rows, form, file, limit)
    log.info(f"{rows.num_rows:,} row{'s' * (rows.num_rows != 1)} in {path}")


def _write(rows: pa.Table, form: str, file: BinaryIO | None, limit: int | None) -> None:
    """Write to the file, or to standard output."""
    if form == "table":
        text = io.StringIO() if file else None
        few = rows.slice(0, limit or _TABLE_ROWS)
        print_rows(few, more=rows.num_rows - few.num_rows, file=text)
        if file and text:
            file.write(text.getvalue().encode())
        return
    _WRITERS[form](rows, file or sys.stdout.buffer)


def _output(name: str, force: bool) -> Path:
    """Where to write; refused before the warehouse is asked when it cannot be."""
    path = Path(expand_home(name, "--output"))
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force replaces it")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    # What a link leads to is replaced, not the link.
    return path.resolve()


def _form_of(path: Path) -> str:
    form = path.suffix.removeprefix(".").lower()
    if form in _WRITERS:
        return form
    raise UsageError(f"{path.name}: which format? Its ending does not say; add --format")
