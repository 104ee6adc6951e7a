"""The commands that show the checks of months, compared with those of other months; from documents in the lake."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import click
from rich.table import Column
from rich.text import Text

from pipeline.cli.options import as_json, selection, with_settings
from pipeline.cli.output import numbers, print_json, print_line, print_section, whole
from pipeline.datasets import DATASETS, dataset_named
from pipeline.errors import StoreError, UsageError
from pipeline.months import format_month, label, parse_month, spans
from pipeline.places import store_of
from pipeline.runs.selection import months_of, months_selected
from pipeline.settings import current_settings, suggested_command
from pipeline.state.checks import Comparison, Difference, compare_months, diff_months, message_without_checks
from pipeline.units import counted

_STYLES = {"error": "red", "warning": "yellow"}
_NULLS_TITLE = "Columns with notably more or fewer nulls: their share of the rows"
_CODES_TITLE = "Codes that are notably more or less frequent: their share of the rows"


@click.command()
@selection(required=True)
@as_json
@with_settings
def check(selection: tuple[str, ...], as_json: bool) -> None:
    """Show what the checks of months found, and what changed.

    DATASET and PERIOD are as for backfill. One month is shown in detail, several in one line each. `zones` alone shows
    the checks of the zones.

    The numbers were measured when the month was conformed. A change is relative to the mean of the three months before,
    without those that failed their checks; if all of them failed, to the last month that passed. The exit code is 1 if
    a month failed its checks, and 5 if a month has no checks.

    \b
    pipeline check green 2024-01
    pipeline check yellow green 2024 --json
    """  # noqa: D301
    store, months = store_of(current_settings()), months_selected(selection, zones=True)
    comparisons = []
    for name, wanted in months.items():
        comparisons += compare_months(store, dataset_named(name), wanted, command=suggested_command)
    if as_json and comparisons:
        print_json(comparisons)
    elif sum(map(len, months.values())) == 1 and comparisons:
        _print_findings(comparisons[0])
        _print_changes(comparisons[0])
    elif comparisons:
        _print_months(comparisons)
    checked = {_subject(each) for each in comparisons}
    missing = {name: [month for month in each if label(name, month) not in checked] for name, each in months.items()}
    message = ""
    if selection[-1] != "all" or not comparisons:
        message = message_without_checks(store, missing, suggested_command)
    if any(_count(each, "error") for each in comparisons):
        if message:
            click.echo(f"pipeline: {message}", err=True)
        sys.exit(1)
    if message:
        raise StoreError(message)


@click.command()
@click.argument("dataset", type=click.Choice(list(DATASETS)), metavar="DATASET")
@click.argument("month", metavar="MONTH")
@click.option("--against", metavar="MONTH", default="previous", show_default=True, help="The month to compare with.")
@as_json
@with_settings
def diff(dataset: str, month: str, against: str, as_json: bool) -> None:
    """Show what differs between two months of a dataset.

    DATASET is yellow, green, fhv or fhvhv, MONTH a month such as 2024-03. `previous` is the nearest earlier month that
    passed its checks. Only what differs is shown: counts with their change in per cent, columns that only one of the
    files has, types of columns in Parquet files, notable changes of the shares of nulls and of codes, and smallest and
    largest values. All of it was measured when the months were conformed; months that an older version conformed have
    no types and codes. The exit code is 5 if a month has no checks.

    The JSON object has dataset, month, against, counts (measure, value, against, change_percent; null when it was 0),
    columns_only_in_month, columns_only_in_against, changed_types (column, value, against), changed_nulls (column,
    nulls, share, against, change_points), changed_codes (column, code, meaning, rows, share, against, change_points)
    and changed_ranges (column, limit: min or max, value, against).

    \b
    pipeline diff yellow 2024-03
    pipeline diff yellow 2024-03 --against 2023-03 --json
    """  # noqa: D301
    months = (_month(dataset, month), None if against == "previous" else _month(dataset, against))
    if months[0] == months[1]:
        raise UsageError(f"{dataset} {month}: --against must be another month")
    store = store_of(current_settings())
    difference = diff_months(store, dataset_named(dataset), *months, command=suggested_command)
    if as_json:
        print_json(difference)
    else:
        _print_difference(difference)


def _month(dataset: str, text: str) -> date:
    return months_of([dataset], format_month(parse_month(text)))[dataset][0]


def _print_difference(months: Difference) -> None:
    against, month = names = months["against"], months["month"]
    counts = [_count_cells(line, [line["against"]]) for line in months["counts"]]
    columns = [(name, "", "yes") for name in months["columns_only_in_month"]]
    columns += [(name, "yes", "") for name in months["columns_only_in_against"]]
    nulls = [_null_cells(line, [line["against"]]) for line in months["changed_nulls"]]
    types = [(line["column"], line["against"], line["value"]) for line in months["changed_types"]]
    codes = [_code_cells(line) for line in months["changed_codes"]]
    ranges = []
    for line in months["changed_ranges"]:
        ranges.append((line["column"], line["limit"], _value(line["against"]), _value(line["value"])))
    values = (Column(name, justify="right", overflow="fold") for name in names)
    sections = (
        ("Counts", ("measure", *numbers(*names, "change")), counts),
        ("Columns that only one of the files has", ("column", *whole(*names)), columns),
        ("Types of columns in the files", ("column", *whole(*names)), types),
        (_NULLS_TITLE, ("column", *numbers(*names, "change")), nulls),
        (_CODES_TITLE, ("column", "code", *numbers(*names, "change")), codes),
        ("Smallest and largest values", (*whole("column", "limit"), *values), ranges),
    )
    subject = f"{months['dataset']} {month} and {against}"
    print_line(f"{subject}: {'what' if any(rows for _, _, rows in sections) else 'nothing'} differs")
    for title, headers, rows in sections:
        if rows:
            print_section(f"\n{title}", headers, rows)


def _subject(month: Comparison) -> str:
    return f"{month['dataset']} {month['month'] or ''}".rstrip()


def _count(month: Comparison, severity: str) -> int:
    return sum(finding["severity"] == severity for finding in month["findings"])


def _print_findings(month: Comparison) -> None:
    if not month["findings"]:
        rules = dataset_named(month["dataset"]).rules
        print_line(f"{_subject(month)}: no findings; all of its {len(rules)} rules hold")
        return
    rows = []
    for each in month["findings"]:
        severity = Text(each["severity"], style=_STYLES.get(each["severity"], ""))
        rows.append((each["rule"], severity, each["found"], each["allowed"], each["purpose"]))
    columns = (*whole("rule", "severity"), Column("found", min_width=15), Column("allowed", min_width=8))
    print_section(f"{_subject(month)}: {counted(len(rows), 'finding')}", (*columns, "what the rule counts"), rows)


def _print_changes(month: Comparison) -> None:
    before, names = month["months_before"], [*month["months_before"], month["month"] or month["dataset"]]
    title = "Nothing to compare with: no earlier month has passed its checks"
    if before:
        apart = zip(before, month["months_apart"], strict=True)
        apart_texts = ", ".join(f"{name} ({counted(count, 'month')} before)" for name, count in apart)
        title, names = f"The month, and its change from the mean of {apart_texts}", [*names, "change"]
    rows = []
    for line in month["counts"]:
        cells = _count_cells(line, line["before"])
        rows.append(cells if before else cells[:-1])
    print_section(f"\n{title}", ("measure", *numbers(*names)), rows)
    rows = [_null_cells(line, line["before"]) for line in month["changed_nulls"]]
    if rows:
        print_section(f"\n{_NULLS_TITLE}", ("column", *numbers(*names)), rows)
    elif before:
        print_line("\nNo column has notably more or fewer nulls.")


def _print_months(months: Sequence[Comparison]) -> None:
    lines = []
    for month in months:
        rows = next(line for line in month["counts"] if line["measure"] == "rows")
        change = _change(rows) if month["months_before"] else ""
        before, nearest = ", ".join(spans(map(parse_month, month["months_before"]))), min(month["months_apart"] or [1])
        before += f" ({counted(nearest, 'month')} before)" if nearest > 1 else ""
        findings = ", ".join(finding["rule"].replace("_", " ") for finding in month["findings"])
        counts = (_value(rows["value"]), change, f"{_count(month, 'error')}", f"{_count(month, 'warning')}")
        lines.append((_subject(month), *counts, before, findings))
    columns = (*whole("month"), *numbers("rows", "change", "errors", "warnings"))
    print_section("", (*columns, "compared with", "findings"), lines)


def _count_cells(line: Mapping[str, Any], others: Sequence[int | None]) -> list[str]:
    return [line["measure"].replace("_", " "), *map(_value, (*others, line["value"])), _change(line)]


def _null_cells(line: Mapping[str, Any], others: Sequence[float | None]) -> list[str]:
    shares = ["" if share is None else f"{share:.1%}" for share in (*others, line["share"])]
    return [line["column"], *shares, f"{line['change_points']:+.1f} points"]


def _code_cells(line: Mapping[str, Any]) -> list[str]:
    shares = [f"{share:.1%}" for share in (line["against"], line["share"])]
    code = f"{line['code']} {line['meaning']}".strip()
    return [line["column"], code, *shares, f"{line['change_points']:+.1f} points"]


def _change(line: Mapping[str, Any]) -> str:
    percent = line["change_percent"]
    if percent is None:
        return "new" if line["value"] else ""
    return f"{percent:+,.1f} %" if percent else "0.0 %"


def _value(value: float | str | None) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else value or ""
