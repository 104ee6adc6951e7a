"""What a run did, month by month, as a short table for people."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import lake
from pipeline.config import Settings
from pipeline.datasets import DATASETS, ZONES
from pipeline.months import format_month
from pipeline.retries import redact
from pipeline.storage import Store
from pipeline.tasks.base import source_of, store_of
from pipeline.tasks.outcome import Outcome
from pipeline.units import size

_MOST_LINES = 60
_MOST_ERRORS = 10
#: What an error of each class means, for a table.
_MEANINGS = {
    "NotPublished": "not published yet",
    "CheckFailed": "refused by its checks",
    "SchemaError": "unknown columns or values",
    "SourceError": "the source failed",
    "StoreError": "the lake failed",
    "Overtaken": "changed by another process",
    "WarehouseError": "the warehouse failed",
    "UsageError": "a setting is invalid",
}


def print_summary(wanted: int, outcomes: Sequence[Outcome], settings: Settings) -> None:
    """Print what became of so many months, the errors, and where everything lies."""
    console = Console(highlight=False, soft_wrap=True)
    if not outcomes:
        console.print(f"Nothing to do: all {wanted} months are there.")
    else:
        _print_months(console, outcomes, settings)
    console.print(f"lake       {store_of(settings).location}")
    console.print(f"warehouse  {redact(settings.warehouse)}")
    _print_errors(console, [outcome for outcome in outcomes if outcome.failed])


def words_for(kind: str) -> str:
    """What an error of this class means, in a few words; the error itself says more."""
    return _MEANINGS.get(kind, "unexpected error")


def counted(count: int, noun: str) -> str:
    """Such as 1 month, 2 months."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _print_errors(console: Console, failed: Sequence[Outcome]) -> None:
    """The errors, those that want a person first, each of which was in the log already when it happened."""
    failed = sorted(failed, key=_waits)
    for outcome in failed[:_MOST_ERRORS]:
        console.print(Text(f"{outcome.kind}: {outcome.error}", style="yellow" if _waits(outcome) else "red"))
    if len(failed) > _MOST_ERRORS:
        console.print(f"… and {len(failed) - _MOST_ERRORS} more, above")
    count = sum(not _waits(outcome) for outcome in failed)
    if count:
        console.print(f"{counted(count, 'month')} failed. The same command tries only what is missing.")
    if count < len(failed):
        console.print(f"{len(failed) - count} not published yet: not a failure, come back later.")


def _waits(outcome: Outcome) -> bool:
    return outcome.kind == "NotPublished"


def _print_months(console: Console, outcomes: Sequence[Outcome], settings: Settings) -> None:
    months: dict[tuple[str, date | None], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        months[outcome.dataset, outcome.month].append(outcome)
    store = store_of(settings)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("month")
    for name in ("rows", "raw", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("findings")
    for (name, month), steps in sorted(months.items(), key=lambda item: (item[0][0], item[0][1] or date.min))[
        :_MOST_LINES
    ]:
        table.add_row(*_line(store, settings, name, month, steps))
    console.print(table)
    if len(months) > _MOST_LINES:
        console.print(f"… and {len(months) - _MOST_LINES} months more")


def _line(store: Store, settings: Settings, name: str, month: date | None, steps: list[Outcome]) -> list[str]:
    spec = DATASETS.get(name, ZONES)
    raw = lake.raw_key(spec, source_of(settings).file_name(spec, month))
    checks = _checks(store, lake.checks_key(spec, month))
    kept = size(store.entry(raw).bytes) if store.exists(raw) else ""
    failed = next((step for step in steps if step.failed), None)
    return [
        f"{name} {format_month(month)}" if month else name,
        f"{checks['rows']:,}" if "rows" in checks and not failed else "",
        kept,
        f"{sum(step.seconds for step in steps):,.1f}",
        _remark(failed, steps, checks),
    ]


def _remark(failed: Outcome | None, steps: Sequence[Outcome], checks: Mapping[str, Any]) -> str:
    if failed is not None:
        return words_for(failed.kind) if _waits(failed) else f"{failed.step} failed: {words_for(failed.kind)}"
    undone = next((step.step for step in steps if step.status != "DONE"), None)
    found = [str(finding["rule"]).replace("_", " ") for finding in checks.get("findings", [])]
    return f"{undone} not run" if undone else ", ".join(found)


def _checks(store: Store, key: str) -> dict[str, Any]:
    if not store.exists(key):
        return {}
    with store.entry(key).open_local() as path:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
