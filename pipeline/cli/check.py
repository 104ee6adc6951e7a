"""The command that shows the checks of months, compared with earlier months that passed; from documents in the lake."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from functools import cache
from typing import Any

import click
from rich.table import Column
from rich.text import Text

from pipeline import lake
from pipeline.cli.options import as_json, months_selected, selection, with_settings
from pipeline.cli.output import numbers, print_json, print_line, print_section, whole
from pipeline.conform.check import Finding, findings_in
from pipeline.datasets import Dataset, dataset_named
from pipeline.errors import StoreError
from pipeline.lake import Entry, Store
from pipeline.months import add_months, format_month, label, month_range, parse_month, spans
from pipeline.places import store_of
from pipeline.settings import current_settings, suggested_command
from pipeline.units import counted

#: The checks of a month, compared with earlier months: what `pipeline check --json` prints.
Comparison = dict[str, Any]
#: As `checks_document` writes it.
Document = Mapping[str, Any]
_STYLES = {"error": "red", "warning": "yellow"}
#: A month is compared with those of this many months before it that passed; if none did, with the last that passed.
_COMPARED_MONTHS = 3
#: A column's share of nulls is reported when it differs from the mean by this much.
_NOTABLE_SHARE = 0.01


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
    comparisons = [each for name in months for each in compare_months(store, dataset_named(name), months[name])]
    if as_json and comparisons:
        print_json(comparisons)
    elif sum(map(len, months.values())) == 1 and comparisons:
        _print_findings(comparisons[0])
        _print_changes(comparisons[0])
    elif comparisons:
        _print_months(comparisons)
    checked = {_subject(each) for each in comparisons}
    missing = {name: [month for month in each if label(name, month) not in checked] for name, each in months.items()}
    message = "" if selection[-1] == "all" and comparisons else _without_checks(store, missing)
    if any(_count(each, "error") for each in comparisons):
        if message:
            click.echo(f"pipeline: {message}", err=True)
        sys.exit(1)
    if message:
        raise StoreError(message)


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
        values = [_number(value) for value in (*line["before"], line["value"])]
        rows.append((line["measure"].replace("_", " "), *values, *([_change(line)] if before else [])))
    print_section(f"\n{title}", ("measure", *numbers(*names)), rows)
    rows = []
    for line in month["changed_nulls"]:
        shares = ["" if share is None else f"{share:.1%}" for share in (*line["before"], line["share"])]
        rows.append((line["column"], *shares, f"{line['change_points']:+.1f} points"))
    if rows:
        title = "Columns with notably more or fewer nulls: their share of the rows"
        print_section(f"\n{title}", ("column", *numbers(*names)), rows)
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
        counts = (_number(rows["value"]), change, f"{_count(month, 'error')}", f"{_count(month, 'warning')}")
        lines.append((_subject(month), *counts, before, findings))
    columns = (*whole("month"), *numbers("rows", "change", "errors", "warnings"))
    print_section("", (*columns, "compared with", "findings"), lines)


def _change(line: Mapping[str, Any]) -> str:
    percent = line["change_percent"]
    if percent is None:
        return "new" if line["value"] else ""
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
        keys = store.entries(f"trips/{name}/" if dataset.first_month else f"{name}/")
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


def compare_months(store: Store, dataset: Dataset, months: Sequence[date | None]) -> list[Comparison]:
    """Those of the months that have checks, each with the earlier months; one listing.

    Raises:
        StoreError: a file is not a checks document.
    """
    entries = store.entries(f"checks/{dataset.name}/")
    names = sorted(key.rpartition("/")[2].removesuffix(".json") for key in entries)
    read = cache(lambda key: _read(entries[key], dataset))
    comparisons = []
    for month in months:
        key = lake.checks_key(dataset, month)
        if key not in entries:
            continue
        before: dict[str, Document] = {}
        if month:
            first = format_month(add_months(month, -_COMPARED_MONTHS))
            for name in reversed([name for name in names if name < format_month(month)]):
                if before and name < first:
                    break
                document, findings = read(f"checks/{dataset.name}/{name}.json")
                if all(finding.severity != "error" for finding in findings):
                    before = {name: document, **before}
        comparisons.append(_comparison(dataset, month, *read(key), before))
    return comparisons


def _comparison(
    dataset: Dataset, month: date | None, document: Document, findings: list[Finding], before: Mapping[str, Document]
) -> Comparison:
    """The comparison of a month with the documents of earlier months, oldest first."""
    purposes, earlier = {rule.name: rule.doc for rule in dataset.rules}, before.values()
    counts = []
    for name, value in document["counts"].items():
        values = [each["counts"].get(name) for each in earlier]
        # The unknown codes of single columns are listed only if there are any; their sum always is.
        if name.removeprefix("unknown_") not in dataset.by_name or any([value, *values]):
            percent = _change_percent(value, values)
            counts.append({"measure": name, "value": value, "before": values, "change_percent": percent})
    nulls = []
    for name, column in document["columns"].items():
        share, shares = _share(document, name), [_share(each, name) for each in earlier]
        mean = _mean(shares)
        if share is not None and mean is not None and abs(share - mean) >= _NOTABLE_SHARE:
            change = {"share": share, "before": shares, "change_points": round(100 * (share - mean), 2)}
            nulls.append({"column": name, "nulls": column["nulls"], **change})
    return {
        "dataset": dataset.name,
        "month": format_month(month) if month else None,
        "rows": document["rows"],
        # A rule that no longer exists has no description.
        "findings": [{**asdict(each), "purpose": purposes.get(each.rule, each.message)} for each in findings],
        "months_before": list(before),
        "months_apart": [len(month_range(parse_month(name), month)) - 1 for name in before] if month else [],
        "counts": counts,
        "changed_nulls": nulls,
    }


def _read(entry: Entry, dataset: Dataset) -> tuple[Document, list[Finding]]:
    try:
        with entry.open() as file:
            document: dict[str, Any] = json.loads(file.read())
        if not all(isinstance(document[part], dict) for part in ("counts", "columns")):
            raise TypeError("its parts are missing")
        return document, findings_in(document)
    except (ValueError, KeyError, TypeError) as error:
        month = entry.key.rpartition("/")[2].removesuffix(".json")
        subject = [dataset.name, *([month] if dataset.first_month else [])]
        remedy = f"to create it again, run: {suggested_command('redo', *subject, '--from', 'conform')}"
        raise StoreError(f"{entry.uri} is not a checks document ({error}); {remedy}") from error


def _change_percent(value: int, before: Sequence[int | None]) -> float | None:
    """The change from the mean in per cent; None if there is nothing to compare with."""
    mean = _mean(before)
    if mean is None or (value and not mean):
        return None
    return round(100 * (value / mean - 1), 2) if mean else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(document: Document, column: str) -> float | None:
    """The column's share of nulls; None in a month without rows, or when the column was declared later."""
    rows, measures = document["rows"], document["columns"].get(column)
    return measures["nulls"] / rows if rows and measures else None
