"""The command that describes a dataset as it is declared: columns, codes, eras and rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import click
from rich.table import Column as Header

from pipeline.cli.options import as_json, print_json
from pipeline.cli.tables import numbers, print_line, print_section, whole
from pipeline.conform.check import limits_of
from pipeline.datasets import DATASETS, ZONES, Column, Dataset, dataset_named
from pipeline.months import format_month


@click.command()
@click.argument("dataset", required=False, type=click.Choice([*DATASETS, ZONES.name]), metavar="[DATASET]")
@as_json
def describe(dataset: str | None, as_json: bool) -> None:
    """Describe the datasets, or one with its columns.

    For one dataset: columns, codes, spellings, eras and rules. DATASET is yellow, green, fhv, fhvhv or zones. All of it
    comes from the declarations in the package; the lake and the warehouse are not read.

    \b
    pipeline describe
    pipeline describe green
    pipeline describe fhvhv --json
    """  # noqa: D301
    if dataset is None:
        specs = [*DATASETS.values(), ZONES]
        if as_json:
            print_json([_summary(spec) for spec in specs])
        else:
            _print_datasets(specs)
    elif as_json:
        print_json(_as_data(dataset_named(dataset)))
    else:
        _print_dataset(dataset_named(dataset))


def _print_datasets(specs: Sequence[Dataset]) -> None:
    rows = []
    for spec in specs:
        first, parquet = _month(spec.first_month), _month(spec.first_parquet_month or spec.first_month)
        rows.append((spec.name, first or "no months", parquet, str(len(spec.columns)), spec.doc))
    print_section("", (*whole("dataset", "first month", "as Parquet"), *numbers("columns"), "meaning"), rows)


def _print_dataset(spec: Dataset) -> None:
    print_line(f"{spec.name}: {spec.doc}", style="bold")
    published = "One table without months"
    if spec.first_month:
        parquet = _month(spec.first_parquet_month)
        published = f"Published since {_month(spec.first_month)}"
        published += f", as Parquet since {parquet}" if parquet not in ("", _month(spec.first_month)) else ""
    print_line(f"{published}; declared in {spec.declared_in}.")
    print_section(
        "\nColumns",
        (*whole("name", "type"), Header("unit", max_width=8), *whole("required"), "meaning"),
        (
            (each.name, str(each.type).partition("[")[0], each.unit, "yes" * each.required, each.doc)
            for each in spec.columns
        ),
    )
    if codes := [row for column in spec.columns for row in _code_rows(column)]:
        headers = (*whole("column"), *numbers("code"), Header("meaning", ratio=3), Header("words", ratio=2))
        print_section("\nCodes, and their words in older files", headers, codes)
    if spec.first_month or any(column.aliases for column in spec.columns):
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
    return column.name, ", ".join(column.aliases), required or "may lack it", parquet


def _summary(spec: Dataset) -> dict[str, Any]:
    return {
        "name": spec.name,
        "meaning": spec.doc,
        "first_month": _month(spec.first_month) or None,
        "first_parquet_month": _month(spec.first_parquet_month or spec.first_month) or None,
        "columns": len(spec.columns),
    }


def _as_data(spec: Dataset) -> dict[str, Any]:
    limits = ("at_least", "at_most", "at_most_share")
    rules = [
        {"name": rule.name, "severity": rule.severity, "measure": rule.measure, "meaning": rule.doc}
        | {name: getattr(rule, name) for name in limits}
        for rule in spec.rules
    ]
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
        "aliases": list(column.aliases),
        "codes": [{"code": code, "meaning": meaning} for code, meaning in column.codes.items()],
        "words": dict(column.words),
        **{name: _month(getattr(column, name)) or None for name in months},
    }


def _month(month: date | None) -> str:
    return format_month(month) if month else ""


def _span(first: date | None, last: date | None) -> str:
    return f"{_month(first)}..{_month(last)}" if first and last else f"{_month(first)} on" if first else ""
