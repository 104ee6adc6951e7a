"""A month's checks next to those of published months before it, from the documents in the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline import lake
from pipeline.conform.check import Finding, findings_in
from pipeline.datasets import Dataset
from pipeline.errors import StoreError
from pipeline.lake import Entry, Store
from pipeline.months import add_months, format_month, parse_month
from pipeline.settings import suggested_command

#: The neighbours of a month: so many calendar months before it. Where none of them is published, the nearest that is.
_NEIGHBOURS = 3
#: From which change of a column's share of nulls on it is told.
_NOTABLE_SHARE = 0.01


@dataclass(frozen=True)
class Checked:
    """The checks of a month (of the zones, whose month is None), and those that it is compared with, oldest first."""

    dataset: Dataset
    month: date | None
    document: Mapping[str, Any]
    findings: Sequence[Finding]
    before: Mapping[str, Mapping[str, Any]]

    @property
    def apart(self) -> dict[str, int]:
        """How many months each of those before it is apart from it."""
        at = self.month or date.min
        others = {name: parse_month(name) for name in self.before}
        return {name: 12 * (at.year - of.year) + at.month - of.month for name, of in others.items()}

    @property
    def name(self) -> str:
        """What it is of, for people."""
        return name_of(self.dataset, self.month)

    def purpose(self, finding: Finding) -> str:
        """What the rule is for; of a rule that is no more, what the finding said."""
        return next((rule.doc for rule in self.dataset.rules if rule.name == finding.rule), finding.message)

    def count(self, severity: str) -> int:
        """How many of the findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def counts(self) -> list[dict[str, Any]]:
        """Each count next to those of the months before, and its change from their mean in per cent."""
        found = []
        for name, value in self.document["counts"].items():
            before = [document["counts"].get(name) for document in self.before.values()]
            # Of each column's unknown codes only what there is: their sum is always told.
            if name.removeprefix("unknown_") in self.dataset.by_name and not any([value, *before]):
                continue
            found.append({"measure": name, "value": value, "before": before, "change_percent": _change(value, before)})
        return found

    def nulls(self) -> list[dict[str, Any]]:
        """The columns whose share of nulls is notably another one than the mean of the months before."""
        found = []
        for name, column in self.document["columns"].items():
            share, before = _share(self.document, name), [_share(document, name) for document in self.before.values()]
            mean = _mean(before)
            if share is not None and mean is not None and abs(share - mean) >= _NOTABLE_SHARE:
                change = {"share": share, "before": before, "change_points": round(100 * (share - mean), 2)}
                found.append({"column": name, "nulls": column["nulls"], **change})
        return found


def checked(store: Store, dataset: Dataset, months: Sequence[date | None]) -> list[Checked]:
    """The checks of those of the months that have some, by one listing.

    Raises:
        StoreError: a file there is no checks document.
    """
    entries = store.entries(f"checks/{dataset.name}/")
    names = sorted(key.rpartition("/")[2].removesuffix(".json") for key in entries)
    known: dict[str, tuple[Mapping[str, Any], Sequence[Finding]]] = {}

    def read(key: str) -> tuple[Mapping[str, Any], Sequence[Finding]]:
        if key not in known:
            known[key] = _read(entries[key], dataset)
        return known[key]

    found = []
    for month in months:
        key = lake.checks_key(dataset, month)
        if key in entries:
            near = {format_month(add_months(month, -back)) for back in range(1, _NEIGHBOURS + 1)} if month else set()
            before: dict[str, Mapping[str, Any]] = {}
            for name in reversed([name for name in names if month and name < format_month(month)]):
                if before and name not in near:
                    break
                document, findings = read(f"checks/{dataset.name}/{name}.json")
                if all(finding.severity != "error" for finding in findings):  # Else it was never published.
                    before = {name: document, **before}
            found.append(Checked(dataset, month, *read(key), before))
    return found


def name_of(dataset: Dataset, month: date | None) -> str:
    """A month of a dataset, or the zones, for people."""
    return f"{dataset.name} {format_month(month)}" if month else dataset.name


def _read(entry: Entry, dataset: Dataset) -> tuple[Mapping[str, Any], Sequence[Finding]]:
    try:
        with entry.open() as file:
            document: dict[str, Any] = json.loads(file.read())
        if not all(isinstance(document[part], dict) for part in ("counts", "columns")):
            raise TypeError("its parts are missing")
        return document, findings_in(document)
    except (ValueError, KeyError, TypeError) as error:
        month = entry.key.rpartition("/")[2].removesuffix(".json")
        words = ["redo", dataset.name, *([month] if dataset.first_month else []), "--from", "conform"]
        raise StoreError(
            f"{entry.uri} is no checks document ({error}); to make it again, run: {suggested_command(*words)}"
        ) from error


def _change(value: int, before: Sequence[int | None]) -> float | None:
    """The change from the mean in per cent; None where there is nothing to compare with."""
    mean = _mean(before)
    if mean is None or (value and not mean):
        return None
    return round(100 * (value / mean - 1), 2) if mean else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _share(document: Mapping[str, Any], column: str) -> float | None:
    """The column's share of nulls; None in a month without rows, or from before the column was declared."""
    rows, measures = document["rows"], document["columns"].get(column)
    return measures["nulls"] / rows if rows and measures else None
