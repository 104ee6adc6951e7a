"""The command that shows the checks of months, compared with the months before them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import click
from rich.table import Column
from rich.text import Text

from pipeline import lake
from pipeline.cli.compare import MonthComparison, compare_months
from pipeline.cli.options import as_json, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.tables import new_table, numbers, print_line, print_table, whole
from pipeline.datasets import ZONES, dataset_named
from pipeline.errors import StoreError
from pipeline.lake import Store
from pipeline.months import format_month, parse_month, spans
from pipeline.places import store_of
from pipeline.settings import current_settings, suggested_command
from pipeline.units import counted

_STYLES = {"error": "red", "warning": "yellow"}


@click.command()
@what(required=True)
@as_json
@with_settings
def check(what: tuple[str, ...], as_json: bool) -> None:
    """Show what the checks of months found, and what changed.

    DATASET is yellow, green, fhv, fhvhv or all. PERIOD is one month, which is shown in detail, or several such as 2024
    or 2024-01..2024-03, which are shown in one line each. `zones` alone shows the checks of the zones.

    Everything was measured when the month was conformed; nothing is measured again. A change is relative to the mean of
    the three months before, without those that failed their checks; if all of them failed, to the last month that
    passed. These months are named. The exit code is 1 if a month failed its checks, and 5 if a month has no checks.

    \b
    pipeline check green 2024-01
    pipeline check yellow green 2024 --json
    """  # noqa: D301
    store, all_months = store_of(current_settings()), what[-1] == "all"
    months: Mapping[str, Sequence[date | None]] = (
        {ZONES.name: [None]} if what == (ZONES.name,) else months_of(*parse_what(what, required=True))
    )
    comparisons = [each for name in months for each in compare_months(store, dataset_named(name), months[name])]
    checked = {(each.dataset.name, each.month) for each in comparisons}
    missing = {name: [month for month in months[name] if (name, month) not in checked] for name in months}
    if as_json and comparisons:
        print_json([_as_data(each) for each in comparisons])
    elif sum(map(len, months.values())) == 1 and comparisons:
        _print_findings(comparisons[0])
        _print_changes(comparisons[0])
    elif comparisons:
        _print_months(comparisons)
    message = "" if all_months and comparisons else _without_checks(store, missing)
    if any(each.count("error") for each in comparisons):
        if message:
            click.echo(f"pipeline: {message}", err=True)
        sys.exit(1)
    if message:
        raise StoreError(message)


def _as_data(month: MonthComparison) -> dict[str, Any]:
    return {
        "dataset": month.dataset.name,
        "month": format_month(month.month) if month.month else None,
        "rows": month.document["rows"],
        "findings": [{**asdict(finding), "purpose": month.purpose(finding)} for finding in month.findings],
        "months_before": list(month.before),
        "months_apart": list(month.months_apart.values()),
        "counts": month.counts(),
        "changed_nulls": month.nulls(),
    }


def _print_findings(month: MonthComparison) -> None:
    if not month.findings:
        print_line(f"{month.label}: no findings; all of its {len(month.dataset.rules)} rules hold")
        return
    print_line(f"{month.label}: {counted(len(month.findings), 'finding')}", style="bold")
    widths = (Column("found", min_width=15), Column("allowed", min_width=8))
    table = new_table(*whole("rule", "severity"), *widths, "what the rule counts")
    for finding in month.findings:
        severity = Text(finding.severity, style=_STYLES.get(finding.severity, ""))
        table.add_row(finding.rule, severity, finding.found, finding.allowed, month.purpose(finding))
    print_table(table)


def _print_changes(month: MonthComparison) -> None:
    columns = [*month.before, format_month(month.month) if month.month else month.dataset.name]
    if month.before:
        columns.append("change")
        apart = ", ".join(f"{name} ({counted(count, 'month')} before)" for name, count in month.months_apart.items())
        print_line(f"\nThe month, and its change from the mean of {apart}", style="bold")
    else:
        print_line("\nNothing to compare with: no earlier month has passed its checks", style="bold")
    table = new_table("measure", *numbers(*columns))
    for line in month.counts():
        values = [_number(value) for value in (*line["before"], line["value"])]
        change = [_change(line["value"], line["change_percent"])] if month.before else []
        table.add_row(line["measure"].replace("_", " "), *values, *change)
    print_table(table)
    if nulls := month.nulls():
        print_line("\nColumns with notably more or fewer nulls: their share of the rows", style="bold")
        table = new_table("column", *numbers(*columns))
        for line in nulls:
            shares = ["" if share is None else f"{share:.1%}" for share in (*line["before"], line["share"])]
            table.add_row(line["column"], *shares, f"{line['change_points']:+.1f} points")
        print_table(table)
    elif month.before:
        print_line("\nNo column has notably more or fewer nulls.")


def _print_months(months: Sequence[MonthComparison]) -> None:
    columns = (*whole("month"), *numbers("rows", "change", "errors", "warnings"))
    table = new_table(*columns, "compared with", "findings")
    for month in months:
        rows = next(line for line in month.counts() if line["measure"] == "rows")
        change = _change(rows["value"], rows["change_percent"]) if month.before else ""
        severities = map(str, (month.count("error"), month.count("warning")))
        before, nearest = ", ".join(spans(map(parse_month, month.before))), min(month.months_apart.values(), default=1)
        before += f" ({counted(nearest, 'month')} before)" if nearest > 1 else ""
        names = ", ".join(finding.rule.replace("_", " ") for finding in month.findings)
        table.add_row(month.label, _number(rows["value"]), change, *severities, before, names)
    print_table(table)


def _change(value: int, percent: float | None) -> str:
    if percent is None:
        return "new" if value else ""
    return f"{percent:+,.1f} %" if percent else "0.0 %"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _without_checks(store: Store, missing: Mapping[str, Sequence[date | None]]) -> str:
    """A message that names the months, and the commands that create their checks; empty without such months."""
    names, commands = [], []
    for name, months in missing.items():
        if not months:
            continue
        dataset = dataset_named(name)
        keys = store.keys(f"trips/{name}/" if dataset.first_month else f"{name}/")
        # A backfill does nothing for months that have trips.
        conformed = [month for month in months if lake.trips_key(dataset, month) in keys or month is None]
        others = [month for month in months if month not in conformed]
        for group, command, option in ((conformed, "redo", "--from"), (others, "backfill", "--through")):
            for span in spans(filter(None, group)) or [""] * bool(group):
                names.append(f"{name} {span}".rstrip())
                commands.append(suggested_command(command, *names[-1].split(), option, "conform"))
    if not names:
        return ""
    return f"no checks of {', '.join(names)} in the lake {store.location}; to create them, run: {'; '.join(commands)}"
