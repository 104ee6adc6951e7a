"""What a run did, month by month, as a short table for people."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import config, lake
from pipeline.cli.grid import spans
from pipeline.config import Settings
from pipeline.datasets import DATASETS, ZONES
from pipeline.months import format_month
from pipeline.retries import redact
from pipeline.storage import Store
from pipeline.tasks.base import source_of, store_of
from pipeline.tasks.outcome import Outcome

_MOST_LINES = 60
_MOST_ERRORS = 10


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


def counted(count: int, noun: str) -> str:
    """Such as 1 month, 2 months."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def counted_months(months: Iterable[tuple[str, object]]) -> str:
    """Such as 3 months and the zones."""
    distinct = set(months)
    count = sum(month is not None for _, month in distinct)
    zones = "the zones" if len(distinct) > count else ""
    return " and ".join(filter(None, [counted(count, "month") if count or not zones else "", zones]))


def _print_errors(console: Console, failed: Sequence[Outcome]) -> None:
    """The errors, those that want a person first, each of which was in the log already when it happened."""
    failed = sorted(failed, key=_waits)
    for outcome in failed[:_MOST_ERRORS]:
        console.print(Text(f"{outcome.kind}: {outcome.error}", style="yellow" if _waits(outcome) else "red"))
    if len(failed) > _MOST_ERRORS:
        console.print(f"… and {len(failed) - _MOST_ERRORS} more, above")
    failures = [outcome for outcome in failed if not _waits(outcome)]
    if failures:
        months = counted_months((outcome.dataset, outcome.month) for outcome in failures)
        console.print(f"{months} failed. The same command tries only what is missing.")
    if refused := [outcome for outcome in failures if outcome.kind in ("SchemaError", "CheckFailed")]:
        _print_remedy(console, refused)
    if len(failures) < len(failed):
        console.print(f"{len(failed) - len(failures)} not published yet: not a failure, come back later.")


def _print_remedy(console: Console, refused: Sequence[Outcome]) -> None:
    """What to run once the source has other bytes: the same command would conform those that are in the lake."""
    console.print("It conforms the raw files that are in the lake. Where the source has others by now, first run:")
    names = dict.fromkeys(outcome.dataset for outcome in refused)
    for name in names:
        months = [outcome.month for outcome in refused if outcome.dataset == name and outcome.month]
        for period in spans(months) or [""]:
            command = config.command("redo", *f"{name} {period}".split(), "--from", "download")
            console.print(Text(f"    {command}"))


def _waits(outcome: Outcome) -> bool:
    return outcome.kind == "NotPublished"


def _print_months(console: Console, outcomes: Sequence[Outcome], settings: Settings) -> None:
    months: dict[tuple[str, date | None], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        months[outcome.dataset, outcome.month].append(outcome)
    store = store_of(settings)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("month")
    for name in ("rows", "raw MB", "seconds"):
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
    size = f"{store.entry(raw).bytes / 1e6:,.1f}" if store.exists(raw) else ""
    failed = next((step for step in steps if step.failed), None)
    return [
        f"{name} {format_month(month)}" if month else name,
        f"{checks['rows']:,}" if "rows" in checks and not failed else "",
        size,
        f"{sum(step.seconds for step in steps):,.1f}",
        _remark(failed, steps, checks),
    ]


def _remark(failed: Outcome | None, steps: Sequence[Outcome], checks: Mapping[str, Any]) -> str:
    if failed is not None:
        return "not published yet" if _waits(failed) else f"{failed.step} failed: {failed.kind}"
    undone = next((step.step for step in steps if step.status != "DONE"), None)
    found = [str(finding["rule"]).replace("_", " ") for finding in checks.get("findings", [])]
    return f"{undone} not run" if undone else ", ".join(found)


def _checks(store: Store, key: str) -> dict[str, Any]:
    if not store.exists(key):
        return {}
    with store.entry(key).open_local() as path:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
