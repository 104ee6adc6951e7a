"""The commands that show data: how a dataset is declared, the first rows of a trips file, the result of a query."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from typing import Any

import click
from rich.table import Column as Header

from pipeline import months
from pipeline.cli import output
from pipeline.cli.options import as_json, with_settings
from pipeline.cli.output import numbers, print_json, print_line, print_section, whole
from pipeline.conform.check import limits_of
from pipeline.datasets import DATASETS, ZONES, Column, Dataset, dataset_named
from pipeline.errors import UsageError
from pipeline.marts import all_marts, notes_of
from pipeline.places import store_of, warehouse_of
from pipeline.settings import current_settings, suggested_command
from pipeline.state.trips import first_rows, trips_entry
from pipeline.tasks.base import log
from pipeline.units import counted

_HEAD_ROWS, _TABLE_ROWS = 10, 50


@click.command()
@click.argument("dataset", type=click.Choice([*DATASETS, ZONES.name]), metavar="DATASET")
@click.argument("month", required=False)
@click.option("--rows", type=click.IntRange(1), metavar="N", help=f"Number of rows; {_HEAD_ROWS} by default.")
@click.option("--columns", metavar="A,B", help="Only these columns, in this order.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV.")
@with_settings
def head(dataset: str, month: str | None, rows: int | None, columns: str | None, as_json: bool, as_csv: bool) -> None:
    """Show the first rows of a month in the lake.

    DATASET is yellow, green, fhv, fhvhv, or zones, which has no MONTH. Only the beginning of the file is read. If the
    terminal is too narrow for all columns, each column is a line, with as many rows side by side as fit; --rows shows
    that many rows, in several blocks.

    \b
    pipeline head green 2024-01
    pipeline head green 2024-01 --rows 3 --columns pickup_datetime,total_amount
    pipeline head yellow 2024-01 --rows 1000 --csv > sample.csv
    """  # noqa: D301
    if as_json and as_csv:
        raise UsageError("--json and --csv: only one of them is allowed")
    spec = dataset_named(dataset)
    if spec.first_month is None and month is not None:
        raise UsageError(f"{spec.name} has no months; omit {month}")
    if spec.first_month is not None and month is None:
        raise UsageError(f"{spec.name}: a month is missing; for instance: pipeline head {spec.name} 2024-01")
    day = months.parse_month(month) if month is not None else None
    entry = trips_entry(store_of(current_settings()), spec, day, command=suggested_command)
    table, total = first_rows(entry, spec, day, columns, rows or _HEAD_ROWS, command=suggested_command)
    if as_json or as_csv:
        output.write_rows(table, "json" if as_json else "csv", sys.stdout.buffer, lines=as_json)
    else:
        output.print_rows(table, more=total - table.num_rows, all_rows=rows is not None)


@click.command()
@click.argument("statement")
@click.option("--format", "form", type=click.Choice(["table", *output.FORMATS]), help="The default is from --output.")
@click.option("--output", "name", metavar="FILE", help="Write to a file, which appears when it is complete.")
@click.option("--force", is_flag=True, help="Let --output replace a file.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help=f"Rows of a table; {_TABLE_ROWS} by default.")
@with_settings
def sql(statement: str, form: str | None, name: str | None, force: bool, limit: int | None) -> None:
    """Run one SQL statement that only reads.

    It can read the tables of the warehouse, but no other files. STATEMENT is in the SQL dialect of the warehouse; "-"
    reads it from standard input. The exit code is 2 for a statement that would write.

    In CSV, times look like 2024-01-31 23:59:59, NULL is empty and an empty text is ""; in JSON, NaN is null.

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
    path = output.output_path(name, "--output", force=force) if name is not None else None
    form = form or (path.suffix.removeprefix(".").lower() if path else "table")
    if path and form not in ("table", *output.FORMATS):
        raise UsageError(f"{path.name}: its ending names none of the formats {', '.join(output.FORMATS)}; add --format")
    if limit and form != "table":
        raise UsageError("--limit is for the table; write LIMIT into the statement")
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise UsageError("Parquet cannot be shown on a terminal; name a file with --output, or use a pipe")
    rows = warehouse_of(current_settings()).query(statement)
    if not rows.num_columns:
        raise UsageError("the result has no columns; select at least one")
    with output.draft_of(path) if path else nullcontext(sys.stdout.buffer) as file:
        if form != "table":
            output.write_rows(rows, form, file)
        else:
            text = io.StringIO() if path else None
            top = rows.slice(0, limit or _TABLE_ROWS)
            output.print_rows(top, more=rows.num_rows - top.num_rows, file=text)
            file.write(text.getvalue().encode() if text else b"")
    if path:
        log.info(f"{counted(rows.num_rows, 'row')} in {path}")


@click.command()
@click.argument("dataset", required=False, type=click.Choice([*DATASETS, ZONES.name, *all_marts()]), metavar="[NAME]")
@click.option("--contract", is_flag=True, help="A data contract (ODCS) in YAML; without NAME, one for each dataset.")
@click.option("--dbt", is_flag=True, help="The sources.yml of a dbt project on the warehouse.")
@as_json
def describe(dataset: str | None, contract: bool, dbt: bool, as_json: bool) -> None:
    """Describe the datasets, or one dataset or mart.

    NAME is yellow, green, fhv, fhvhv or zones, for columns, codes, spellings, eras and rules; or a mart, for columns
    and what it leaves out. All of it comes from the declarations in the package; the lake and the warehouse are not
    read.

    \b
    pipeline describe
    pipeline describe green
    pipeline describe fhvhv --json
    pipeline describe daily_trips
    pipeline describe green --contract > green.odcs.yaml
    pipeline describe --dbt > models/staging/sources.yml
    """  # noqa: D301
    if as_json + contract + dbt > 1:
        raise UsageError("--json, --contract, --dbt: only one of them is allowed")
    if dbt and dataset:
        raise UsageError(f"--dbt is for all datasets; omit {dataset}")
    mart = all_marts().get(dataset or "")
    if contract and mart:
        raise UsageError(
            f"--contract is for datasets, and {mart.name} is a mart; allowed: {', '.join(DATASETS)}, zones"
        )
    if contract or dbt:
        from pipeline.cli import contract as forms  # PyYAML and the views are for these alone.

        specs = (dataset_named(dataset),) if dataset else (*DATASETS.values(), ZONES)
        documents = [forms.dbt_sources()] if dbt else [forms.data_contract(spec) for spec in specs]
        click.echo(forms.as_yaml(*documents), nl=False)
    elif dataset is None:
        summaries = [_summary(spec) for spec in (*DATASETS.values(), ZONES)]
        if as_json:
            print_json(summaries)
            return
        rows = []
        for name, meaning, first, parquet, columns in map(dict.values, summaries):
            rows.append((name, first or "no months", parquet or "", f"{columns}", meaning))
        print_section("", (*whole("dataset", "first month", "as Parquet"), *numbers("columns"), "meaning"), rows)
    elif mart and as_json:
        print_json({"name": mart.name, "doc": mart.doc, "datasets": mart.datasets, "columns": {**mart.columns}})
    elif mart:
        print_line(f"{mart.name}: {mart.doc}", style="bold")
        print_line(f"Built for each month of {', '.join(mart.datasets)}; declared in pipeline/marts/{mart.name}.sql.")
        print_section("\nColumns", (*whole("name"), "meaning"), list(mart.columns.items()))
        print_line(f"\n{notes_of(mart)}")
    elif as_json:
        print_json(_as_data(dataset_named(dataset)))
    else:
        _print_dataset(dataset_named(dataset))


def _print_dataset(spec: Dataset) -> None:
    print_line(f"{spec.name}: {spec.doc}", style="bold")
    published = "One table without months"
    if spec.first_month:
        parquet = _month(spec.first_parquet_month)
        published = f"Published since {_month(spec.first_month)}"
        published += f", as Parquet since {parquet}" if parquet not in ("", _month(spec.first_month)) else ""
    print_line(f"{published}; declared in {spec.declared_in}.")
    headers = (*whole("name", "type"), Header("unit", max_width=8), *whole("required"), "meaning")
    rows = []
    for each in spec.columns:
        rows.append((each.name, str(each.type).partition("[")[0], each.unit, "yes" * each.required, each.doc))
    print_section("\nColumns", headers, rows)
    if codes := [row for column in spec.columns for row in _code_rows(column)]:
        columns = (*whole("column"), *numbers("code"), Header("meaning", ratio=3), Header("words", ratio=2))
        print_section("\nCodes, and their words in older files", columns, codes)
    if spec.first_month or any(map(_other_names, spec.columns)):
        eras = (Header(name, min_width=9) for name in ("any file", "Parquet files"))
        print_section(
            "\nSpellings besides the name, and the months whose files must have the column",
            (*whole("column"), "also published as", *eras),
            (_era_row(spec, column) for column in spec.columns),
        )
    print_section(
        "\nRules: an error stops the month, a warning is only reported",
        (*whole("rule", "severity"), Header("allowed", min_width=15), "meaning"),
        ((rule.name, rule.severity, limits_of(rule), rule.doc) for rule in spec.rules),
    )


def _code_rows(column: Column) -> Iterator[tuple[str, str, str, str]]:
    name = column.name
    for code, meaning in column.codes.items():
        words = ", ".join(word for word, stands_for in column.words.items() if stands_for == code)
        yield name, repr(code) if code == " " else str(code), meaning, words
        name = ""


def _era_row(spec: Dataset, column: Column) -> tuple[str, str, str, str]:
    required = _span(column.expected_from, column.expected_until) if spec.first_month else "all" * column.required
    parquet = _span(column.parquet_from, column.parquet_until)
    return column.name, ", ".join(_other_names(column)), required or "may lack it", parquet


def _other_names(column: Column) -> list[str]:
    return [name for name in (column.tlc, *column.aliases) if name]


def _summary(spec: Dataset) -> dict[str, Any]:
    return {
        "name": spec.name,
        "meaning": spec.doc,
        "first_month": _month(spec.first_month) or None,
        "first_parquet_month": _month(spec.first_parquet_month or spec.first_month) or None,
        "columns": len(spec.columns),
    }


def _as_data(spec: Dataset) -> dict[str, Any]:
    names = ("name", "severity", "measure", "at_least", "at_most", "at_most_share")
    rules = [{**{name: getattr(rule, name) for name in names}, "meaning": rule.doc} for rule in spec.rules]
    columns = [_column(column) for column in spec.columns]
    return {**_summary(spec), "declared_in": spec.declared_in, "columns": columns, "rules": rules}


def _column(column: Column) -> dict[str, Any]:
    months = ("expected_from", "expected_until", "parquet_from", "parquet_until")
    return {
        "name": column.name,
        "type": str(column.type),
        "unit": column.unit or None,
        "required": column.required,
        "meaning": column.doc,
        "tlc_name": column.tlc_name,
        "aliases": _other_names(column),
        "codes": [{"code": code, "meaning": meaning} for code, meaning in column.codes.items()],
        "words": dict(column.words),
        **{name: _month(getattr(column, name)) or None for name in months},
    }


def _month(month: date | None) -> str:
    return months.format_month(month) if month else ""


def _span(first: date | None, last: date | None) -> str:
    return f"{_month(first)}..{_month(last)}" if first and last else f"{_month(first)} on" if first else ""
