"""The checks of months, compared with those of other months; read from the checks documents in the lake alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from pipeline import lake
from pipeline.conform.check import Finding, findings_in
from pipeline.datasets import Dataset, dataset_named
from pipeline.errors import StoreError
from pipeline.lake import Store
from pipeline.months import add_months, format_month, label, month_range, parse_month, spans

#: The checks of a month, compared with earlier months: what `pipeline check --json` prints.
Comparison = dict[str, Any]
#: What differs between two months: what `pipeline diff --json` prints.
Difference = dict[str, Any]
#: As `checks_document` writes it.
Document = Mapping[str, Any]
#: The command line of `pipeline` with these words, for messages.
Command = Callable[..., str]
#: A month is compared with those of this many months before it that passed; if none did, with the last that passed.
_COMPARED_MONTHS = 3
#: A share of nulls is reported when it differs from the mean by this much, that of a code from the other month's.
_NOTABLE_SHARE = 0.01


class _Documents:
    """The checks documents of one dataset: one listing, and each document is read once.

    Raises:
        StoreError: a file that is read is not a checks document.
    """

    def __init__(self, store: Store, dataset: Dataset, command: Command) -> None:
        self._dataset, self._command = dataset, command
        self._entries = store.entries(f"checks/{dataset.name}/")
        self._read: dict[str, tuple[Document, list[Finding]]] = {}

    def __contains__(self, month: date | None) -> bool:
        return lake.checks_key(self._dataset, month) in self._entries

    def passed_before(self, month: date, count: int) -> dict[str, Document]:
        """Those of the `count` months before that passed, oldest first; if none did, the last that passed."""
        names = sorted(key.rpartition("/")[2].removesuffix(".json") for key in self._entries)
        first, before = format_month(add_months(month, -count)), dict[str, Document]()
        for name in reversed([name for name in names if name < format_month(month)]):
            if before and name < first:
                break
            document, findings = self.read(parse_month(name))
            if all(finding.severity != "error" for finding in findings):
                before = {name: document, **before}
        return before

    def read(self, month: date | None) -> tuple[Document, list[Finding]]:
        """The document of a month that has one, and its findings."""
        key = lake.checks_key(self._dataset, month)
        if key not in self._read:
            entry = self._entries[key]
            try:
                with entry.open() as file:
                    document: dict[str, Any] = json.loads(file.read())
                if not all(isinstance(document[part], dict) for part in ("counts", "columns")):
                    raise TypeError("its parts are missing")
                self._read[key] = document, findings_in(document)
            except (ValueError, KeyError, TypeError) as error:
                subject = label(self._dataset.name, month).split()
                remedy = f"to create it again, run: {self._command('redo', *subject, '--from', 'conform')}"
                raise StoreError(f"{entry.uri} is not a checks document ({error}); {remedy}") from error
        return self._read[key]


def compare_months(
    store: Store, dataset: Dataset, months: Sequence[date | None], *, command: Command
) -> list[Comparison]:
    """Those of the months that have checks, each with the earlier months; one listing.

    Raises:
        StoreError: a file is not a checks document.
    """
    documents = _Documents(store, dataset, command)
    comparisons = []
    for month in months:
        if month in documents:
            before = documents.passed_before(month, _COMPARED_MONTHS) if month else {}
            comparisons.append(_comparison(dataset, month, *documents.read(month), before))
    return comparisons


def diff_months(
    store: Store, dataset: Dataset, month: date, against: date | None = None, *, command: Command
) -> Difference:
    """What differs between a month and another one; by default the nearest earlier month that passed its checks.

    Raises:
        StoreError: one of them has no checks, no earlier month passed, or a file is not a checks document.
    """
    documents = _Documents(store, dataset, command)
    missing = [each for each in (month, against) if each and each not in documents]
    if missing:
        raise StoreError(message_without_checks(store, {dataset.name: missing}, command))
    if against is None:
        nearest = documents.passed_before(month, 1)
        if not nearest:
            advice = f"to see which months --against can name, run: {command('check', dataset.name, 'all')}"
            raise StoreError(f"{label(dataset.name, month)}: no earlier month has passed its checks; {advice}")
        against = parse_month(*nearest)
    document, other = documents.read(month)[0], documents.read(against)[0]
    columns, other_columns = document["columns_in_source"], other["columns_in_source"]
    in_one = {*columns} ^ {*other_columns}
    counts = [line for line in _counts(dataset, document, [other]) if line["before"] not in ([None], [line["value"]])]
    nulls = [line for line in _changed_nulls(document, [other]) if line["column"] not in in_one]
    ranges = []
    for name, measures in document["columns"].items():
        if name in other["columns"] and name not in in_one:
            for limit in ("min", "max"):
                value, before = measures[limit], other["columns"][name][limit]
                if value != before:
                    ranges.append({"column": name, "limit": limit, "value": value, "against": before})
    # Documents of older versions have neither types nor codes.
    types, other_types = (each.get("types_in_source", {}) for each in (document, other))
    return {
        "dataset": dataset.name,
        "month": format_month(month),
        "against": format_month(against),
        "counts": [_with_against(line) for line in counts],
        "columns_only_in_month": [name for name in columns if name not in other_columns],
        "columns_only_in_against": [name for name in other_columns if name not in columns],
        "changed_types": [
            {"column": name, "value": type_, "against": other_types[name]}
            for name, type_ in types.items()
            if other_types.get(name, type_) != type_
        ],
        "changed_nulls": [_with_against(line) for line in nulls],
        "changed_codes": [line for line in _changed_codes(dataset, document, other) if line["column"] not in in_one],
        "changed_ranges": ranges,
    }


def profile(store: Store, dataset: Dataset, month: date | None, *, command: Command) -> Difference:
    """The columns of a month: nulls, their share, smallest and largest value, with those of the months before it.

    Raises:
        StoreError: a file is not a checks document.
    """
    documents = _Documents(store, dataset, command)
    document = documents.read(month)[0]
    before = documents.passed_before(month, _COMPARED_MONTHS) if month else {}
    present = set(document["columns_in_source"])
    return {
        "published_rows": document.get("published_rows"),
        "months_before": list(before),
        "columns": [
            {
                "column": name,
                "type": str(dataset.by_name[name].type) if name in dataset.by_name else None,
                "unit": dataset.by_name[name].unit if name in dataset.by_name else "",
                "in_source": name in present,
                **measures,
                "share": _share(document, name),
                "before": [
                    {**each["columns"][name], "share": _share(each, name)} if name in each["columns"] else None
                    for each in before.values()
                ],
            }
            for name, measures in document["columns"].items()
        ],
    }


def message_without_checks(store: Store, missing: Mapping[str, Sequence[date | None]], command: Command) -> str:
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
        for group, word, option in ((conformed, "redo", "--from"), (others, "backfill", "--through")):
            for span in spans(filter(None, group)) or [""] * bool(group):
                names.append(f"{name} {span}".rstrip())
                commands.append(command(word, *names[-1].split(), option, "conform"))
    if not names:
        return ""
    return f"no checks of {', '.join(names)} in the lake {store.location}; to create them, run: {'; '.join(commands)}"


def _comparison(
    dataset: Dataset, month: date | None, document: Document, findings: list[Finding], before: Mapping[str, Document]
) -> Comparison:
    """The comparison of a month with the documents of earlier months, oldest first."""
    purposes, earlier = {rule.name: rule.doc for rule in dataset.rules}, before.values()
    return {
        "dataset": dataset.name,
        "month": format_month(month) if month else None,
        "rows": document["rows"],
        # A rule that no longer exists has no description.
        "findings": [{**asdict(each), "purpose": purposes.get(each.rule, each.message)} for each in findings],
        "months_before": list(before),
        "months_apart": [len(month_range(parse_month(name), month)) - 1 for name in before] if month else [],
        "counts": _counts(dataset, document, earlier),
        "changed_nulls": _changed_nulls(document, earlier),
    }


def _counts(dataset: Dataset, document: Document, earlier: Collection[Document]) -> list[dict[str, Any]]:
    """Each count with those of the earlier documents, and its change in per cent of their mean."""
    counts = []
    for name, value in document["counts"].items():
        values = [each["counts"].get(name) for each in earlier]
        # The unknown codes of single columns are listed only if there are any; their sum always is.
        if name.removeprefix("unknown_") not in dataset.by_name or any([value, *values]):
            percent = _change_percent(value, values)
            counts.append({"measure": name, "value": value, "before": values, "change_percent": percent})
    return counts


def _changed_nulls(document: Document, earlier: Collection[Document]) -> list[dict[str, Any]]:
    """The columns whose share of nulls differs notably from the mean of the earlier documents."""
    nulls = []
    for name, column in document["columns"].items():
        share, shares = _share(document, name), [_share(each, name) for each in earlier]
        mean = _mean(shares)
        if share is not None and mean is not None and abs(share - mean) >= _NOTABLE_SHARE:
            change = {"share": share, "before": shares, "change_points": round(100 * (share - mean), 2)}
            nulls.append({"column": name, "nulls": column["nulls"], **change})
    return nulls


def _changed_codes(dataset: Dataset, document: Document, other: Document) -> list[dict[str, Any]]:
    """The codes whose share of the rows differs notably between the two documents."""
    lines = []
    for name, codes in document.get("codes", {}).items():
        meanings = {str(code): meaning for code, meaning in dataset.by_name[name].codes.items()}
        for code, rows in codes.items():
            before = other.get("codes", {}).get(name, {}).get(code)
            if before is not None and document["rows"] and other["rows"]:
                share, against = rows / document["rows"], before / other["rows"]
                if abs(share - against) >= _NOTABLE_SHARE:
                    change = {"rows": rows, "share": share, "against": against}
                    points = round(100 * (share - against), 2)
                    line = {"column": name, "code": code, "meaning": meanings.get(code, "")}
                    lines.append({**line, **change, "change_points": points})
    return lines


def _with_against(line: dict[str, Any]) -> dict[str, Any]:
    """The line of a single earlier document, with its value as `against`."""
    (against,) = line.pop("before")
    return {**line, "against": against}


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
