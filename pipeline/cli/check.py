"""The command that tells what a month is like, next to those before it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pipeline import lake
from pipeline.cli.compare import Checked, checked
from pipeline.cli.options import as_json, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.tables import new_table, print_line, print_table
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

    A month is compared with the published months before it.

    DATASET is yellow, green, fhv, fhvhv or all, and PERIOD a month, or several such as 2024 or 2024-01..2024-03, each
    of which is a line then. `zones` alone shows those of the zones.

    All of it was measured when the month was conformed; nothing is measured anew. A change is from the mean of those of
    the three months before that passed their checks; where none did, from the nearest month that did. Which months
    these are is shown. The exit code is 1 when an error was found, for which a month is refused, and 5 when a month
    has no checks.

    \b
    pipeline check green 2024-01
    pipeline check yellow green 2024 --json
    """  # noqa: D301
    store, all_there = store_of(current_settings()), what[-1] == "all"
    months: Mapping[str, Sequence[date | None]] = (
        {ZONES.name: [None]} if what == (ZONES.name,) else months_of(*parse_what(what, required=True))
    )
    found = [month for name, wanted in months.items() for month in checked(store, dataset_named(name), wanted)]
    there = {(month.dataset.name, month.month) for month in found}
    missing = {name: [month for month in wanted if (name, month) not in there] for name, wanted in months.items()}
    if as_json and found:
        print_json([_as_data(month) for month in found])
    elif sum(map(len, months.values())) == 1 and found:
        _print_findings(found[0])
        _print_changes(found[0])
    elif found:
        _print_months(found)
    message = "" if all_there and found else _without_checks(store, missing)
    if any(month.count("error") for month in found):
        if message:
            click.echo(f"pipeline: {message}", err=True)
        sys.exit(1)
    if message:
        raise StoreError(message)


def _as_data(month: Checked) -> dict[str, Any]:
    return {
        "dataset": month.dataset.name,
        "month": format_month(month.month) if month.month else None,
        "rows": month.document["rows"],
        "findings": [{**asdict(finding), "purpose": month.purpose(finding)} for finding in month.findings],
        "months_before": list(month.before),
        "months_apart": list(month.apart.values()),
        "counts": month.counts(),
        "changed_nulls": month.nulls(),
    }


def _print_findings(month: Checked) -> None:
    if not month.findings:
        print_line(f"{month.name}: no findings; all of its {len(month.dataset.rules)} rules hold")
        return
    print_line(f"{month.name}: {len(month.findings)} finding{'s' * (len(month.findings) != 1)}", style="bold")
    table = new_table()
    table.add_column("rule", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("found", min_width=15)
    table.add_column("allowed", min_width=8)
    table.add_column("what it looks for")
    for finding in month.findings:
        severity = Text(finding.severity, style=_STYLES.get(finding.severity, ""))
        table.add_row(finding.rule, severity, finding.found, finding.allowed, month.purpose(finding))
    print_table(table)


def _print_changes(month: Checked) -> None:
    if month.before:
        apart = ", ".join(f"{name} ({counted(count, 'month')} before)" for name, count in month.apart.items())
        print_line(f"\nThe month, and its change from the mean of {apart}", style="bold")
    else:
        print_line("\nNothing to compare with: no earlier month has passed its checks", style="bold")
    table = new_table()
    table.add_column("measure")
    _add_months(table, month)
    for line in month.counts():
        numbers = [_number(value) for value in (*line["before"], line["value"])]
        change = [_change(line["value"], line["change_percent"])] if month.before else []
        table.add_row(line["measure"].replace("_", " "), *numbers, *change)
    print_table(table)
    if nulls := month.nulls():
        print_line("\nColumns with notably more or fewer nulls: their share of the rows", style="bold")
        table = new_table()
        table.add_column("column")
        _add_months(table, month)
        for line in nulls:
            shares = ["" if share is None else f"{share:.1%}" for share in (*line["before"], line["share"])]
            table.add_row(line["column"], *shares, f"{line['change_points']:+.1f} points")
        print_table(table)
    elif month.before:
        print_line("\nNo column has notably more or fewer nulls.")


def _add_months(table: Table, month: Checked) -> None:
    for name in (*month.before, format_month(month.month) if month.month else month.dataset.name):
        table.add_column(name, justify="right", no_wrap=True)
    if month.before:
        table.add_column("change", justify="right", no_wrap=True)


def _print_months(months: Sequence[Checked]) -> None:
    table = new_table()
    table.add_column("month", no_wrap=True)
    for name in ("rows", "change", "errors", "warnings"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("compared with")
    table.add_column("findings")
    for month in months:
        rows = next(line for line in month.counts() if line["measure"] == "rows")
        change = _change(rows["value"], rows["change_percent"]) if month.before else ""
        severities = (month.count("error"), month.count("warning"))
        names = ", ".join(finding.rule.replace("_", " ") for finding in month.findings)
        table.add_row(month.name, _number(rows["value"]), change, *map(str, severities), _compared_with(month), names)
    print_table(table)


def _compared_with(month: Checked) -> str:
    """The months, and how far away the nearest is where none is a neighbour."""
    apart = min(month.apart.values(), default=1)
    periods = ", ".join(spans(map(parse_month, month.before)))
    return periods if apart == 1 else f"{periods} ({counted(apart, 'month')} before)"


def _change(value: int, percent: float | None) -> str:
    if percent is None:
        return "new" if value else ""
    return f"{percent:+,.1f} %" if percent else "0.0 %"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _without_checks(store: Store, missing: Mapping[str, Sequence[date | None]]) -> str:
    """Which months have none, and what makes them; nothing when there are no such months."""
    names, commands = [], []
    for name, months in missing.items():
        if not months:
            continue
        dataset = dataset_named(name)
        there = store.entries(f"trips/{name}/" if dataset.first_month else f"{name}/")
        # A backfill does nothing for months whose trips are there.
        conformed = [month for month in months if lake.trips_key(dataset, month) in there or month is None]
        for words, of in (
            (["redo", "--from", "conform"], conformed),
            (["backfill", "--through", "conform"], [month for month in months if month not in conformed]),
        ):
            for span in spans([month for month in of if month]) or [""] * bool(of):
                names.append(f"{name} {span}".rstrip())
                commands.append(suggested_command(words[0], *names[-1].split(), *words[1:]))
    if not names:
        return ""
    return f"no checks of {', '.join(names)} in the lake {store.location}; to make them, run: {'; '.join(commands)}"
