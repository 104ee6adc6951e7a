"""The summary at the end of a run, month by month."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import date

import click
from rich.console import Console
from rich.text import Text

from pipeline import lake
from pipeline.cli.options import console
from pipeline.cli.streams import OutputLost
from pipeline.cli.tables import new_table
from pipeline.datasets import dataset_named
from pipeline.errors import CheckFailed, NotPublished, SchemaError, redact, visible
from pipeline.months import label, spans
from pipeline.places import source_of, store_of
from pipeline.runs.events import Event, Listener, Outcome, RunFinished, RunStarted
from pipeline.runs.history import Failure, Run, by_dataset, causes, counted_months
from pipeline.settings import current_settings, suggested_command
from pipeline.units import counted, size

_MOST_LINES = 60
_MOST_ERRORS = 10


class Summary(Listener):
    """Prints, at the end of a run, its months, its errors, and the names of lake and warehouse."""

    def __init__(self) -> None:
        self._wanted = 0

    def hear(self, event: Event) -> None:
        """Count the requested months, and print the summary at the end."""
        if isinstance(event, RunStarted):
            self._wanted += event.wanted
        # A run that was stopped or could not be planned has its own error message.
        if isinstance(event, RunFinished) and event.record.exit_code in (0, 1, 3, 4):
            with suppress(OutputLost):  # The run is done, also if its summary cannot be written.
                self._print(event.record, event.outcomes)

    def _print(self, record: Run, outcomes: Sequence[Outcome]) -> None:
        out, settings = console(soft_wrap=True), current_settings()
        if outcomes:
            _print_months(out, outcomes)
        elif self._wanted:
            out.print(f"Nothing to do: all {self._wanted} months are up to date.")
        out.print(f"lake       {store_of(settings).location}")
        out.print(f"warehouse  {redact(settings.warehouse)}")
        _print_errors(out, record.failures)
        left = [outcome for outcome in outcomes if not outcome.failed and outcome.status != "DONE"]
        why = next((outcome.why for outcome in left if outcome.why), "")
        # Steps that were not run because of a failure need no explanation.
        if left and (why or not record.failures):
            if not why and all(outcome.status == "RUNNING" for outcome in left):
                why = "another worker runs them"
            out.print(f"{counted(len(left), 'step')} not run{': ' if why else ''}{why}.", end=" ")
            out.print("Finished steps are kept; run the same command again.")
        for error in record.errors:
            click.echo(visible(error), err=True)


def _print_errors(out: Console, failures: Sequence[Failure]) -> None:
    """Print the errors, with months that are not published yet at the end."""
    failures = sorted(failures, key=lambda failure: (failure.waits, failure.dataset, failure.month))
    errors = causes(failures)
    for failure, others in errors[:_MOST_ERRORS]:
        style = "yellow" if failure.waits else "red"
        out.print(Text(visible(f"{failure.kind}: {failure.error}{others}"), style=style))
    if len(errors) > _MOST_ERRORS:
        out.print(f"… and {len(errors) - _MOST_ERRORS} more: pipeline history --last 1 --json")
    failed = [failure for failure in failures if not failure.waits]
    if failed:
        count = counted_months((failure.dataset, failure.first_day) for failure in failed)
        out.print(f"{count} failed. The same command runs only the missing steps.")
    refused = [failure for failure in failed if failure.code in (SchemaError.code, CheckFailed.code)]
    if refused:  # The same command would conform the same raw files again.
        out.print("It conforms the raw files of the lake. If the source has newer files, first run:")
    for name, months in by_dataset((failure.dataset, failure.first_day) for failure in refused).items():
        for period in spans(filter(None, months)) or [""]:
            out.print(f"    {suggested_command('redo', *f'{name} {period}'.split(), '--from', 'download')}")
    if len(failed) < len(failures):
        out.print(f"{len(failures) - len(failed)} not published yet: not a failure, come back later.")


def _print_months(out: Console, outcomes: Sequence[Outcome]) -> None:
    months: dict[tuple[str, date | None], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.dataset, outcome.month or date.min)):
        months.setdefault((outcome.dataset, outcome.month), []).append(outcome)
    table = new_table()
    for name in ("month", "rows", "raw", "seconds", "findings"):
        table.add_column(name, justify="left" if name in ("month", "findings") else "right")
    for (name, month), steps in list(months.items())[:_MOST_LINES]:
        table.add_row(*_row(name, month, steps))
    out.print(table)
    if len(months) > _MOST_LINES:
        out.print(f"… and {len(months) - _MOST_LINES} more months")


def _row(name: str, month: date | None, steps: Sequence[Outcome]) -> list[str]:
    store, dataset = store_of(current_settings()), dataset_named(name)
    raw = lake.raw_key(dataset, source_of(current_settings()).file_name(dataset, month))
    key, checks = lake.checks_key(dataset, month), {}
    if store.exists(key):
        with store.entry(key).open() as file:
            checks = json.loads(file.read())
    failed = next((step for step in steps if step.failed), None)
    remark = ", ".join(finding["rule"].replace("_", " ") for finding in checks.get("findings", []))
    if failed and failed.error:
        waits = isinstance(failed.error, NotPublished)
        remark = failed.error.meaning if waits else f"{failed.step} failed: {failed.error.meaning}"
    elif undone := [step.step for step in steps if step.status != "DONE"]:
        remark = f"{undone[0]} not run"
    return [
        label(name, month),
        f"{checks['rows']:,}" if "rows" in checks and not failed else "",
        size(store.entry(raw).bytes) if store.exists(raw) else "",
        f"{sum(step.seconds for step in steps):,.1f}",
        remark,
    ]
