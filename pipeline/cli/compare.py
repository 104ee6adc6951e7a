"""A month's checks compared with those of earlier months that passed, from the documents in the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from pipeline import lake
from pipeline.conform.check import Finding, findings_in
from pipeline.datasets import Dataset
from pipeline.errors import StoreError
from pipeline.lake import Entry, Store
from pipeline.months import add_months, format_month, label, parse_month
from pipeline.settings import suggested_command

#: A month is compared with those of this many months before it that passed; if none did, with the last that passed.
_COMPARED_MONTHS = 3
#: A column's share of nulls is reported when it differs from the mean by this much.
_NOTABLE_SHARE = 0.01


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
            lines.append({"measure": name, "value": value, "before": before, "change_percent": _change(value, before)})
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


def _change(value: int, before: Sequence[int | None]) -> float | None:
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
