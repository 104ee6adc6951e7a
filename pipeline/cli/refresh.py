"""The commands that do months anew: those that a person names, or those that are not as at the source."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from datetime import date
from typing import Any

import click
from rich.table import Table

from pipeline.cli.options import as_json, console, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.run import events_option, run_plan, scheduler_option, workers_option
from pipeline.cli.streams import OutputLost
from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.errors import UsageError
from pipeline.marts import marts_of
from pipeline.months import label, month_range, spans
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.runs.history import counted_months
from pipeline.runs.job import Options, Plan
from pipeline.settings import current_settings, suggested_command
from pipeline.state.drift import Comparison, Finding, compare
from pipeline.state.invalidation import DeletionPlan, Month, Months, deletion_plans, invalidate
from pipeline.state.steps import STEPS
from pipeline.tasks.base import log
from pipeline.tasks.runs import start_of
from pipeline.units import size
from pipeline.warehouses.base import Compacting


@click.command()
@what(required=True)
@click.option("--from", "step", required=True, type=click.Choice(STEPS), help="The first step to be done anew.")
@click.option("--yes", is_flag=True, help="Do not ask before anything is deleted.")
@workers_option
@scheduler_option
@events_option
@with_settings
def redo(what: tuple[str, ...], step: str, yes: bool, workers: int, scheduler: str | None, as_json: bool) -> None:
    """Delete a step and all after it, and run them again.

    DATASET is yellow, green, fhv, fhvhv or all; PERIOD is 2021, 2021-03, 2021..2022 or 2021-03..2021-07. The zones have
    no period: pipeline redo zones --from conform.

    What will be deleted is shown first. It is deleted only after its replacement was proved: with --from download the
    new bytes have arrived, with --from conform the raw bytes fit their sidecar, with --from load the trips file can be
    read to its end. Else the month stays as it is. After a kill the same command, or a backfill, goes on.

    \b
    pipeline redo green 2024-01 --from load
    pipeline redo yellow green 2021..2022 --from conform --yes
    """  # noqa: D301 (click wants the character itself)
    months = _named(what, step)
    plan = [found for found in deletion_plans(inventory_of(current_settings()), months, step) if found]
    if plan:
        with suppress(OutputLost), redirect_stdout(sys.stderr if as_json else sys.stdout):  # Its readers do not decide.
            _print_deletions(plan)
        if not yes and not sys.stdin.isatty():
            raise UsageError("nobody can be asked whether this may go, as this is no terminal; add --yes")
        if not yes and not click.confirm(f"Forget this, and do it anew from {step} on?"):
            click.echo("Nothing was changed.")
            return
    there = [(found.dataset.name, found.month) for found in plan]

    def invalidate_and_plan() -> Plan:
        done, errors = _invalidate({step: there}, always=True)
        every = [(name, month) for name, of in months.items() for month in of]
        return _plan([month for month in every if month in done or month not in there], errors)

    options = Options(workers=workers, scheduler=scheduler, asks_source=step == "download" and bool(there))
    sys.exit(run_plan(invalidate_and_plan, options, as_json=as_json))


@click.command()
@what(required=False)
@click.option("--apply", "applied", is_flag=True, help="Do anew what is out of date, and fetch what is new.")
@as_json
@workers_option
@scheduler_option
@with_settings
def refresh(what: tuple[str, ...], applied: bool, as_json: bool, workers: int, scheduler: str | None) -> None:
    """Find months that are new, republished or out of date.

    The source is asked what is new, republished or gone. Without PERIOD each DATASET is compared from its oldest month
    that is here up to now, without DATASET all of them, and the zones. Nothing is downloaded for it. The date is when
    the source published what it has, or when what is out of date here was made, or what it should be made of was
    fetched.

    --apply does exactly the steps that are out of date, for exactly these months. Republished bytes are fetched before
    the old ones go; if they are not believable, the month is then refused, as it would be in a first backfill. What the
    source has no more is never deleted.

    \b
    pipeline refresh
    pipeline refresh green yellow 2024 --apply
    pipeline refresh all --json
    """  # noqa: D301 (click wants the character itself)
    months = _compared(what)
    count = sum(map(len, months.values()))
    if not count and not as_json:
        click.echo("Nothing is here yet, so there is nothing to compare; name datasets and a period to ask for them.")
        return
    every = [(name, month) for name, of in months.items() for month in of]
    log.info(f"comparing {counted_months(every)} with the source and with each other")
    compared = compare(inventory_of(current_settings()), months, date.today().replace(day=1), redo=_redo_command)
    findings = compared.findings
    if not as_json:
        with suppress(OutputLost) if applied else nullcontext():
            _print_comparison(compared, every, applied)
    code, errors = 1 if any(found.category == "unanswered" for found in findings) else 0, list[str]()
    if applied:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            code = _apply(findings, errors, workers, scheduler) or code
    if as_json:
        print_json(
            {
                "compared": count,
                "as_at_source": len(compared.same),
                "absent": [label(*month) for month in compared.absent],
                "without_raw": [label(*month) for month in compared.without_raw],
                "findings": [found.plain for found in findings],
                "applied": applied,
                "errors": errors,
            }
        )
    sys.exit(code)


def _apply(findings: Sequence[Finding], errors: list[str], workers: int, scheduler: str | None) -> int:
    """Do what the findings ask for; returns the exit code, errors are added."""
    todo = [(found.dataset, found.month) for found in findings if found.category == "new"]
    wanted: dict[str, list[Month]] = {}
    for found in findings:
        if found.redo_from and found.category != "new":
            wanted.setdefault(found.redo_from, []).append((found.dataset, found.month))

    def plan() -> Plan:
        done, kept = _invalidate(wanted)
        errors.extend(kept)
        return _plan([*done, *todo], kept)

    options = Options(workers=workers, scheduler=scheduler, asks_source="download" in wanted)
    code = run_plan(plan, options) if wanted or todo else 0
    warehouse = warehouse_of(current_settings())
    if isinstance(warehouse, Compacting):
        warehouse.compact()
    return code


def _invalidate(wanted: Mapping[str, Sequence[Month]], *, always: bool = False) -> tuple[list[Month], list[str]]:
    settings = current_settings()
    places = (store_of(settings), warehouse_of(settings), source_of(settings))
    wait_s = settings.lock_timeout_s
    return invalidate(*places, wanted, wait_s=wait_s, say=log.info, redo=_redo_command, always=always)


def _redo_command(month: Month, step: str) -> str:
    return suggested_command("redo", *label(*month).split(), "--from", step)


def _plan(months: Sequence[Month], errors: Sequence[str]) -> Plan:
    """What a run is to do about these months and the zones, and what could not be done."""
    by_name: dict[str, list[date]] = {}
    for name, month in sorted((name, month) for name, month in set(months) if month):
        by_name.setdefault(name, []).append(month)
    return Plan(by_name, zones=(ZONES.name, None) in months, errors=errors)


def _named(words: Sequence[str], step: str) -> Months:
    """The months that a person named; with --from mart those of datasets that have marts."""
    if [word for word in words if word != ","] == ["zones"]:
        if step == "mart":
            raise UsageError("zones --from mart: the zones have no marts; allowed are download, conform, load")
        return {ZONES.name: [None]}
    if "zones" in words:
        raise UsageError(f"{' '.join(words)}: the zones go alone and without a period: zones --from {step}")
    names, period = parse_what(words, required=True)
    if step == "mart" and not any(map(marts_of, names)):
        raise UsageError(f"{', '.join(names)} --from mart: has no marts; allowed are download, conform, load")
    names = tuple(name for name in names if step != "mart" or marts_of(name))
    return dict(months_of(names, period))


def _compared(words: Sequence[str]) -> Months:
    """The months to be compared; what was named, or all from the oldest that is here on, and the zones."""
    parts = [part for word in words for part in word.split(",") if part]
    names, period = parse_what(words)
    if period != "all" or parts[1:][-1:] == ["all"]:
        return dict(months_of(names, period))
    today, inventory = date.today().replace(day=1), inventory_of(current_settings())

    def existing(name: str, months: Sequence[date | None]) -> list[date | None]:
        return [month for month in months if any(inventory.done(step, dataset_named(name), month) for step in STEPS)]

    months: dict[str, Sequence[date | None]] = {}
    for name in names:
        every = month_range(start_of(DATASETS[name]), today)
        here = [month for month in existing(name, every) if month]
        months |= {name: month_range(min(here), today)} if here else {}
    if names == tuple(DATASETS) and existing(ZONES.name, [None]):
        months[ZONES.name] = [None]
    return months


def _print_deletions(plan: Sequence[DeletionPlan]) -> None:
    table = _table("month", "files")
    for name in ("size", "rows", "marts"):
        table.add_column(name, justify="right")
    for found in plan:
        kept = size(sum(entry.bytes for entry in found.files.values())) if found.files else ""
        rows = f"{found.load.rows:,}" if found.load else ""
        marts = str(len(found.marts) or "")
        table.add_row(label(found.dataset.name, found.month), ", ".join(found.files), kept, rows, marts)
    files = [entry for found in plan for entry in found.files.values()]
    loaded, built = sum(found.load.rows for found in plan if found.load), sum(len(found.marts) for found in plan)
    out = _console()
    out.print("This goes:")
    out.print(table)
    told = [f"in the lake {len(files)} files of {size(sum(entry.bytes for entry in files))}"] if files else []
    told += [f"in the warehouse {loaded:,} rows"] if loaded else []
    told += [f"{built} months of marts"] if built else []
    out.print(f"together {', '.join(told)}")


def _print_comparison(compared: Comparison, every: Sequence[Month], applied: bool) -> None:
    out, findings = _console(), compared.findings
    if compared.absent:
        out.print(f"Neither at the source nor here: {_listed(compared.absent)}.")
    if compared.without_raw:
        out.print(f"Not compared, as their raw bytes are not here: {_listed(compared.without_raw)}.")
    if not findings and compared.same == every:
        out.print(f"Nothing to do: all {counted_months(every)} are as at the source, and nothing is out of date.")
    elif not findings:
        told = counted_months(compared.same)
        out.print(f"Nothing to do: {told} of {len(every)} are as at the source, and nothing is out of date.")
    if not findings:
        return
    table = _table("month", "finding", "date", "to do")
    for found in findings:
        dated = f"{found.dated:%Y-%m-%d}" if found.dated else ""
        todo = "all steps" if found.category == "new" else f"from {found.redo_from} on" if found.redo_from else ""
        table.add_row(label(found.dataset, found.month), f"{found.category}: {found.why}", dated, todo)
    out.print(table)
    if not applied and any(found.redo_from for found in findings):
        out.print("Nothing was changed; the same with --apply does what is to do.")


def _listed(months: Sequence[Month]) -> str:
    """How many they are, and which, as few periods."""
    names = dict.fromkeys(name for name, _ in months)
    told = [" ".join([name, ", ".join(spans(month for of, month in months if of == name and month))]) for name in names]
    return f"{counted_months(months)} ({', '.join(told).strip()})"


def _console() -> Any:
    """As wide as the terminal; elsewhere as wide as any line, so that each stays whole."""
    out = console()
    return out if out.is_terminal else console(width=1_000_000)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in ("month", "date", "to do"))
    return table
