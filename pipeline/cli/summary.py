"""What a run did, month by month, as a short table for people."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import lake
from pipeline.cli.options import console
from pipeline.cli.streams import OutputLost
from pipeline.datasets import DATASETS, ZONES
from pipeline.errors import CheckFailed, NotPublished, SchemaError, redact, visible
from pipeline.lake import Store
from pipeline.months import format_month, parse_month, spans
from pipeline.places import source_of, store_of
from pipeline.runs.events import Event, Listener, Outcome, RunFinished, RunStarted
from pipeline.runs.history import Failure, Run, causes, counted_months
from pipeline.settings import Settings, current_settings, suggested_command
from pipeline.units import counted, size

_MOST_LINES = 60
_MOST_ERRORS = 10


class Summary(Listener):
    """Prints, at the end of a run, what became of its months, the errors, and where everything is."""

    def __init__(self) -> None:
        self._wanted = 0

    def hear(self, event: Event) -> None:
        """Take in how many months were asked for, and the end."""
        if isinstance(event, RunStarted):
            self._wanted += event.wanted
        # A run that was stopped or could not be planned has an error message of its own.
        if isinstance(event, RunFinished) and event.record.exit_code in (0, 1, 3, 4):
            with suppress(OutputLost):  # Whether it can be read or not, the run is done.
                self._print(event.record, event.outcomes)

    def _print(self, record: Run, outcomes: Sequence[Outcome]) -> None:
        out, settings = console(soft_wrap=True), current_settings()
        if outcomes:
            _print_months(out, outcomes, settings)
        elif self._wanted:
            out.print(f"Nothing to do: all {self._wanted} months are there.")
        out.print(f"lake       {store_of(settings).location}")
        out.print(f"warehouse  {redact(settings.warehouse)}")
        _print_errors(out, record.failures)
        left = [outcome for outcome in outcomes if not outcome.failed and outcome.status != "DONE"]
        # What follows from a failure needs no words of its own.
        if left and (not record.failures or any(outcome.why for outcome in left)):
            _print_left(out, left)
        for error in record.errors:
            click.echo(visible(error), err=True)


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
            command = suggested_command("redo", *f"{name} {period}".split(), "--from", "download")
            console.print(Text(visible(f"    {command}")))


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
