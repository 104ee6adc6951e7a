"""From a month's measures to findings: pure, no files.

A broken rule is a finding; a finding of severity error stops the month. The checks document holds measures and
findings, without clock or durations, so that the same month always gives the same document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from pipeline.datasets.base import VERSION_KEY, Dataset, Rule
from pipeline.errors import CheckFailed, cut
from pipeline.months import format_month, label
from pipeline.version import __version__

if TYPE_CHECKING:  # It imports pyarrow, which those who only read findings do not need.
    from pipeline.conform.profile import Measures


@dataclass(frozen=True)
class Finding:
    """One broken rule: the count, the limit, and a sentence with both."""

    rule: str
    severity: str
    found: str
    allowed: str
    message: str


def check(dataset: Dataset, month: date | None, measures: Measures) -> list[Finding]:
    """The rules of the dataset that the month breaks, in declared order; a rule whose count is missing is skipped."""
    findings = []
    for rule in dataset.rules:
        count = measures.counts.get(rule.measure)
        if count is not None and not _holds(rule, count, measures.rows):
            found, allowed = _found(rule, count, measures), limits_of(rule)
            message = f"{label(dataset.name, month)}: {rule.doc}: found {found}, allowed {allowed}"
            findings.append(Finding(rule.name, rule.severity, found, allowed, message))
    return findings


def enforce(dataset: Dataset, month: date | None, findings: Sequence[Finding]) -> None:
    """Stop a month that has a finding of severity error.

    Raises:
        CheckFailed: with all such findings in its message.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        listed = "; ".join(f"{finding.rule}: {finding.message.partition(': ')[2]}" for finding in errors)
        raise CheckFailed(
            f"{label(dataset.name, month)}: failed its checks, so not published: {listed}; "
            f"the limits are in {dataset.declared_in or 'its declaration'} and pipeline/datasets/rules.py"
        )


def checks_document(measures: Measures, findings: Sequence[Finding]) -> dict[str, Any]:
    """Measures and findings as JSON values; times are ISO texts, and long texts are cut."""
    document = asdict(measures)
    del document["huge"]
    document["month"] = format_month(measures.month) if measures.month else None
    document["columns_in_source"] = list(measures.columns_in_source)
    for column in document["columns"].values():
        column["min"], column["max"] = _plain(column["min"]), _plain(column["max"])
    found = [asdict(finding) for finding in findings]
    return {**document, "findings": found, VERSION_KEY: __version__}


def findings_in(document: Mapping[str, Any]) -> list[Finding]:
    """The findings of a checks document."""
    return [Finding(**finding) for finding in document["findings"]]


def limits_of(rule: Rule) -> str:
    """What a rule allows, in words."""
    limits = [
        f"at least {rule.at_least:,}" if rule.at_least is not None else "",
        f"at most {rule.at_most:,}" if rule.at_most is not None else "",
        f"at most {rule.at_most_share:.2%}" if rule.at_most_share is not None else "",
    ]
    return " and ".join(filter(None, limits))


def _holds(rule: Rule, count: int, rows: int) -> bool:
    return (
        (rule.at_least is None or count >= rule.at_least)
        and (rule.at_most is None or count <= rule.at_most)
        and (rule.at_most_share is None or count <= rule.at_most_share * rows)
    )


def _found(rule: Rule, count: int, measures: Measures) -> str:
    if rule.at_most_share is not None:
        return f"{count:,} of {measures.rows:,} ({count / max(measures.rows, 1):.2%})"
    if rule.measure == "rows_off_published":
        return f"{count:,} ({measures.rows:,} instead of {measures.published_rows:,})"
    if rule.measure == "huge_numbers":
        shown = [f"row {row:,}: {name} {value:,}" for row, name, value in measures.huge]
        return f"{count:,} ({'; '.join(shown)}{'; ...' if count > len(shown) else ''})"
    return f"{count:,}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return cut(value) if isinstance(value, str) else value
