"""The command that shows the checks of months, compared with earlier months that passed; from documents in the lake."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from typing import Any

import click
from rich.table import Column
from rich.text import Text

from pipeline import lake
from pipeline.cli.options import as_json, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.tables import numbers, print_line, print_section, whole
from pipeline.conform.check import Finding, findings_in
from pipeline.datasets import ZONES, Dataset, dataset_named
from pipeline.errors import StoreError
from pipeline.lake import Entry, Store
from pipeline.months import add_months, format_month, label, parse_month, spans
from pipeline.places import store_of
from pipeline.settings import current_settings, suggested_command
from pipeline.units import counted

_STYLES = {"error": "red", "warning": "yellow"}
#: A month is compared with those of this many months before it that passed; if none did, with the last that passed.
_COMPARED_MONTHS = 3
#: A column's share of nulls is reported when it differs from the mean by this much.
_NOTABLE_SHARE = 0.01


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
    rows = []
    for finding in month.findings:
        severity = Text(finding.severity, style=_STYLES.get(finding.severity, ""))
        rows.append((finding.rule, severity, finding.found, finding.allowed, month.purpose(finding)))
    columns = (*whole("rule", "severity"), Column("found", min_width=15), Column("allowed", min_width=8))
    print_section(f"{month.label}: {counted(len(rows), 'finding')}", (*columns, "what the rule counts"), rows)


def _print_changes(month: MonthComparison) -> None:
    names = [*month.before, format_month(month.month) if month.month else month.dataset.name]
    title = "Nothing to compare with: no earlier month has passed its checks"
    if month.before:
        apart = ", ".join(f"{name} ({counted(count, 'month')} before)" for name, count in month.months_apart.items())
        title, names = f"The month, and its change from the mean of {apart}", [*names, "change"]
    rows = []
    for line in month.counts():
        values = [_number(value) for value in (*line["before"], line["value"])]
        change = _change(line["value"], line["change_percent"]) if month.before else ""
        rows.append((line["measure"].replace("_", " "), *[*values, change][: len(names)]))
    print_section(f"\n{title}", ("measure", *numbers(*names)), rows)
    rows = []
    for line in month.nulls():
        shares = ["" if share is None else f"{share:.1%}" for share in (*line["before"], line["share"])]
        rows.append((line["column"], *shares, f"{line['change_points']:+.1f} points"))
    if rows:
        title = "Columns with notably more or fewer nulls: their share of the rows"
        print_section(f"\n{title}", ("column", *numbers(*names)), rows)
    elif month.before:
        print_line("\nNo column has notably more or fewer nulls.")


def _print_months(months: Sequence[MonthComparison]) -> None:
    lines = []
    for month in months:
        rows = next(line for line in month.counts() if line["measure"] == "rows")
        change = _change(rows["value"], rows["change_percent"]) if month.before else ""
        severities = map(str, (month.count("error"), month.count("warning")))
        before, nearest = ", ".join(spans(map(parse_month, month.before))), min(month.months_apart.values(), default=1)
        before += f" ({counted(nearest, 'month')} before)" if nearest > 1 else ""
        names = ", ".join(finding.rule.replace("_", " ") for finding in month.findings)
        lines.append((month.label, _number(rows["value"]), change, *severities, before, names))
    columns = (*whole("month"), *numbers("rows", "change", "errors", "warnings"))
    print_section("", (*columns, "compared with", "findings"), lines)


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


@dataclass(frozen=True)
class MonthComparison:
    """The checks of a month (None: of the zones), and the documents of the earlier months, oldest first."""

    dataset: Dataset
    month: date | None
    document: Mapping[str, Any]
    findings: Sequence[Finding]
    before: Mapping[str, Mapping[str, Any]]

    @property
    def months_apart(self) -> dict[str, int]:
        """By earlier month: how many months it is before this one."""
        end = self.month or date.min
        months = {name: parse_month(name) for name in self.before}
        return {name: 12 * (end.year - month.year) + end.month - month.month for name, month in months.items()}

    @property
    def label(self) -> str:
        """Such as green 2024-01."""
        return label(self.dataset.name, self.month)

    def purpose(self, finding: Finding) -> str:
        """The rule's description; of a rule that no longer exists, the finding's message."""
        return next((rule.doc for rule in self.dataset.rules if rule.name == finding.rule), finding.message)

    def count(self, severity: str) -> int:
        """The number of findings of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def counts(self) -> list[dict[str, Any]]:
        """Each count, those of the earlier months, and its change from their mean in per cent."""
        lines = []
        for name, value in self.document["counts"].items():
            before = [document["counts"].get(name) for document in self.before.values()]
            # The unknown codes of single columns are listed only if there are any; their sum always is.
            if name.removeprefix("unknown_") in self.dataset.by_name and not any([value, *before]):
                continue
            lines.append(
                {"measure": name, "value": value, "before": before, "change_percent": _change_percent(value, before)}
            )
        return lines

    def nulls(self) -> list[dict[str, Any]]:
        """The columns whose share of nulls differs notably from the mean of the earlier months."""
        lines = []
        for name, column in self.document["columns"].items():
            share, before = _share(self.document, name), [_share(document, name) for document in self.before.values()]
            mean = _mean(before)
            if share is not None and mean is not None and abs(share - mean) >= _NOTABLE_SHARE:
                change = {"share": share, "before": before, "change_points": round(100 * (share - mean), 2)}
                lines.append({"column": name, "nulls": column["nulls"], **change})
        return lines


def compare_months(store: Store, dataset: Dataset, months: Sequence[date | None]) -> list[MonthComparison]:
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
        before: dict[str, Mapping[str, Any]] = {}
        if month:
            first = format_month(add_months(month, -_COMPARED_MONTHS))
            for name in reversed([name for name in names if name < format_month(month)]):
                if before and name < first:
                    break
                document, findings = read(f"checks/{dataset.name}/{name}.json")
                if all(finding.severity != "error" for finding in findings):
                    before = {name: document, **before}
        comparisons.append(MonthComparison(dataset, month, *read(key), before))
    return comparisons


def _read(entry: Entry, dataset: Dataset) -> tuple[Mapping[str, Any], Sequence[Finding]]:
    try:
        with entry.open() as file:
            document: dict[str, Any] = json.loads(file.read())
        if not all(isinstance(document[part], dict) for part in ("counts", "columns")):
            raise TypeError("its parts are missing")
        return document, findings_in(document)
    except (ValueError, KeyError, TypeError) as error:
        month = entry.key.rpartition("/")[2].removesuffix(".json")
        command = suggested_command(
            "redo", dataset.name, *([month] if dataset.first_month else []), "--from", "conform"
        )
        raise StoreError(
            f"{entry.uri} is not a checks document ({error}); to create it again, run: {command}"
        ) from error


def _change_percent(value: int, before: Sequence[int | None]) -> float | None:
    """The change from the mean in per cent; None if there is nothing to compare with."""
    mean = _mean(before)
    if mean is None or (value and not mean):
        return None
    return round(100 * (value / mean - 1), 2) if mean else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(document: Mapping[str, Any], column: str) -> float | None:
    """The column's share of nulls; None in a month without rows, or when the column was declared later."""
    rows, measures = document["rows"], document["columns"].get(column)
    return measures["nulls"] / rows if rows and measures else None
