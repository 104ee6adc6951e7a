"""The command that says what a dataset is: columns, codes, eras and rules, as they are declared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import click

from pipeline.check import limits_of as limits_of
from pipeline.cli.options import as_json, print_json
from pipeline.cli.tables import new_table, print_line, print_table
from pipeline.datasets import DATASETS, ZONES, Column, Dataset, Rule, dataset_named
from pipeline.months import format_month


@click.command()
@click.argument("dataset", required=False, type=click.Choice([*DATASETS, ZONES.name]), metavar="[DATASET]")
@as_json
def describe(dataset: str | None, as_json: bool) -> None:
    """Describe the datasets, or one with its columns.

    Of one: columns, codes, spellings, eras and rules. DATASET is yellow, green, fhv, fhvhv or zones. All of it is from
    the declarations; lake and warehouse are not asked.

    \b
    pipeline describe
    pipeline describe green
    pipeline describe fhvhv --json
    """  # noqa: D301
    if dataset is None:
        every = [*DATASETS.values(), ZONES]
        if as_json:
            print_json([_summary(spec) for spec in every])
        else:
            _print_datasets(every)
    elif as_json:
        print_json(_as_data(dataset_named(dataset)))
    else:
        _print_dataset(dataset_named(dataset))


def _print_datasets(every: list[Dataset]) -> None:
    table = new_table()
    table.add_column("dataset", no_wrap=True)
    table.add_column("first month", no_wrap=True)
    table.add_column("as Parquet", no_wrap=True)
    table.add_column("columns", justify="right", no_wrap=True)
    table.add_column("what")
    for spec in every:
        first, parquet = _month(spec.first_month), _month(spec.first_parquet_month or spec.first_month)
        table.add_row(spec.name, first or "no months", parquet, str(len(spec.columns)), spec.doc)
    print_table(table)


def _print_dataset(spec: Dataset) -> None:
    print_line(f"{spec.name}: {spec.doc}", style="bold")
    if spec.first_month:
        later = spec.first_parquet_month if spec.first_parquet_month != spec.first_month else None
        parquet = f", as Parquet from {_month(later)}" if later else ""
        print_line(f"From {_month(spec.first_month)} on{parquet}; declared in {spec.declared_in}.")
    else:
        print_line(f"One table without months; declared in {spec.declared_in}.")
    _print_columns(spec)
    _print_codes(spec)
    _print_eras(spec)
    _print_rules(spec)


def _print_columns(spec: Dataset) -> None:
    print_line("\nColumns", style="bold")
    table = new_table()
    for name in ("name", "type"):
        table.add_column(name, no_wrap=True)
    table.add_column("unit", max_width=8)
    table.add_column("required", no_wrap=True)
    table.add_column("meaning")
    for column in spec.columns:
        kind = str(column.type).partition("[")[0]
        table.add_row(column.name, kind, column.unit, "yes" * column.required, column.doc)
    print_table(table)


def _print_codes(spec: Dataset) -> None:
    coded = [column for column in spec.columns if column.codes]
    if not coded:
        return
    print_line("\nCodes, and the words of older files that stand for them", style="bold")
    table = new_table()
    table.add_column("column", no_wrap=True)
    table.add_column("code", justify="right", no_wrap=True)
    table.add_column("meaning", ratio=3)
    table.add_column("words", ratio=2)
    for column in coded:
        for place, (code, meaning) in enumerate(column.codes.items()):
            words = ", ".join(word for word, stands_for in column.words.items() if stands_for == code)
            table.add_row(column.name if not place else "", repr(code) if code == " " else str(code), meaning, words)
    print_table(table)


def _print_eras(spec: Dataset) -> None:
    """Other spellings, and in which months a file must have the column."""
    if not spec.first_month and not any(column.aliases for column in spec.columns):
        return
    print_line("\nSpellings besides the name, and the months whose files must have the column", style="bold")
    table = new_table()
    table.add_column("column", no_wrap=True)
    table.add_column("also published as")
    for name in ("every file", "also Parquet"):
        table.add_column(name, min_width=9)
    for column in spec.columns:
        every = _span(column.expected_from, column.expected_until) if spec.first_month else "all" * column.required
        parquet = _span(column.parquet_from, column.parquet_until)
        table.add_row(column.name, ", ".join(column.aliases), every or "may lack it", parquet)
    print_table(table)


def _print_rules(spec: Dataset) -> None:
    print_line("\nRules: an error stops the month, a warning is kept and shown", style="bold")
    table = new_table()
    table.add_column("rule", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("allowed", min_width=15)
    table.add_column("of what")
    for rule in spec.rules:
        table.add_row(rule.name, rule.severity, limits_of(rule), rule.doc)
    print_table(table)


def _summary(spec: Dataset) -> dict[str, Any]:
    return {
        "name": spec.name,
        "meaning": spec.doc,
        "first_month": _month(spec.first_month) or None,
        "first_parquet_month": _month(spec.first_parquet_month or spec.first_month) or None,
        "columns": len(spec.columns),
    }


def _as_data(spec: Dataset) -> dict[str, Any]:
    columns, rules = [_column(column) for column in spec.columns], [_rule(rule) for rule in spec.rules]
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


def _rule(rule: Rule) -> dict[str, Any]:
    limits: Mapping[str, Any] = {name: getattr(rule, name) for name in ("at_least", "at_most", "at_most_share")}
    return {"name": rule.name, "severity": rule.severity, "measure": rule.measure, "meaning": rule.doc, **limits}


def _month(month: date | None) -> str:
    return format_month(month) if month else ""


def _span(first: date | None, last: date | None) -> str:
    return f"{_month(first)}..{_month(last)}" if first and last else f"{_month(first)} on" if first else ""
