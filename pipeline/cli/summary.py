"""What a run did, month by month, as a short table for people."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import config, lake
from pipeline.cli.grid import spans
from pipeline.cli.options import console
from pipeline.config import Settings
from pipeline.datasets import DATASETS, ZONES
from pipeline.errors import CheckFailed, NotPublished, SchemaError, visible
from pipeline.lake import Store
from pipeline.months import format_month, parse_month
from pipeline.runs.history import Failure
from pipeline.runs.runner import Outcome
from pipeline.source.retries import redact
from pipeline.tasks.base import source_of, store_of
from pipeline.units import size

_MOST_LINES = 60
_MOST_ERRORS = 10


def print_summary(wanted: int, outcomes: Sequence[Outcome], failures: Sequence[Failure], settings: Settings) -> None:
    """Print what became of so many months, the errors, and where everything lies."""
    out = console(soft_wrap=True)
    if not outcomes:
        out.print(f"Nothing to do: all {wanted} months are there.")
    else:
        _print_months(out, outcomes, settings)
    out.print(f"lake       {store_of(settings).location}")
    out.print(f"warehouse  {redact(settings.warehouse)}")
    _print_errors(out, failures)
    left = [outcome for outcome in outcomes if not outcome.failed and outcome.status != "DONE"]
    # What follows from a failure needs no words of its own.
    if left and (not failures or any(outcome.why for outcome in left)):
        _print_left(out, left)


def counted(count: int, noun: str) -> str:
    """Such as 1 month, 2 months."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def causes(failures: Sequence[Failure]) -> list[tuple[Failure, str]]:
    """The first failure of each cause, and for which others it is the same, such as ` (same for 2 others: …)`."""
    alike: dict[tuple[str, ...], list[Failure]] = {}
    for of in failures:
        # What differs between months of one cause: their names, and addresses of objects.
        cause = re.sub(rf"{of.dataset}|{of.month or of.dataset}|0x[0-9a-f]+", "", of.error)
        alike.setdefault((of.step, of.kind, cause), []).append(of)
    return [(first, _same(others)) for first, *others in alike.values()]


def _same(others: Sequence[Failure]) -> str:
    months: dict[str, list[date]] = defaultdict(list)
    for of in others:
        months[of.dataset] += [parse_month(of.month)] if of.month else []
    names = ", ".join(" ".join([name, ", ".join(spans(found))]).rstrip() for name, found in months.items())
    return f" (same for {counted(len(others), 'other')}: {names})" if others else ""


def _print_errors(console: Console, failures: Sequence[Failure]) -> None:
    """The errors, those that want a person first."""
    failures = sorted(failures, key=lambda failure: (failure.waits, failure.dataset, failure.month))
    found = causes(failures)
    for failure, others in found[:_MOST_ERRORS]:
        style = "yellow" if failure.waits else "red"
        console.print(Text(visible(f"{failure.kind}: {failure.error}{others}"), style=style))
    if len(found) > _MOST_ERRORS:
        console.print(f"… and {len(found) - _MOST_ERRORS} more, which pipeline history --last 1 --json has")
    failed = [failure for failure in failures if not failure.waits]
    if failed:
        months = counted_months((failure.dataset, failure.month or None) for failure in failed)
        console.print(f"{months} failed. The same command tries only what is missing.")
    if refused := [failure for failure in failed if failure.code in (SchemaError.code, CheckFailed.code)]:
        _print_remedy(console, refused)
    if len(failed) < len(failures):
        console.print(f"{len(failures) - len(failed)} not published yet: not a failure, come back later.")


def _print_remedy(console: Console, refused: Sequence[Failure]) -> None:
    """What to run once the source has other bytes: the same command would conform those that are in the lake."""
    console.print("It conforms the raw files that are in the lake. Where the source has others by now, first run:")
    for name in dict.fromkeys(failure.dataset for failure in refused):
        months = [parse_month(failure.month) for failure in refused if failure.dataset == name and failure.month]
        for period in spans(months) or [""]:
            command = config.command("redo", *f"{name} {period}".split(), "--from", "download")
            console.print(Text(visible(f"    {command}")))


def counted_months(months: Iterable[tuple[str, object]]) -> str:
    """Such as 3 months and the zones."""
    distinct = set(months)
    count = sum(month is not None for _, month in distinct)
    zones = "the zones" if len(distinct) > count else ""
    return " and ".join(filter(None, [counted(count, "month") if count or not zones else "", zones]))


def _print_left(console: Console, left: Sequence[Outcome]) -> None:
    """Why some steps were not run, and what to do about it."""
    why = next((outcome.why for outcome in left if outcome.why), "")
    if not why and all(outcome.status == "RUNNING" for outcome in left):
        why = "another worker is busy with them"
    words = f"{counted(len(left), 'step')} not run{why and f': {why}'}"
    console.print(Text(visible(f"{words}. What is done is kept; run the same command again.")))


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
    if failed is not None and failed.error is not None:
        waits, meaning = isinstance(failed.error, NotPublished), failed.error.meaning
        return meaning if waits else f"{failed.step} failed: {meaning}"
    undone = next((step.step for step in steps if step.status != "DONE"), None)
    found = [str(finding["rule"]).replace("_", " ") for finding in checks.get("findings", [])]
    return f"{undone} not run" if undone else ", ".join(found)


def _checks(store: Store, key: str) -> dict[str, Any]:
    if not store.exists(key):
        return {}
    with store.entry(key).open_local() as path:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
