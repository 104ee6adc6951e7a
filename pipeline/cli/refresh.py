"""The commands that run steps again: of the months that you name, or of those that differ from the source."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from datetime import date

import click

from pipeline.cli.options import as_json, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.run import events_option, run_plan, scheduler_option, workers_option
from pipeline.cli.streams import OutputLost
from pipeline.cli.tables import new_table, print_line, print_table
from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.errors import UsageError
from pipeline.marts import marts_of
from pipeline.months import label, month_range
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.runs.history import by_dataset, counted_months, periods
from pipeline.runs.job import Options, Plan
from pipeline.settings import current_settings, suggested_command
from pipeline.state.drift import Comparison, Finding, compare
from pipeline.state.invalidation import DeletionPlan, Month, Months, deletion_plans, invalidate
from pipeline.state.steps import STEPS
from pipeline.tasks.base import log
from pipeline.tasks.runs import start_of
from pipeline.units import size


@click.command()
@what(required=True)
@click.option("--from", "step", required=True, type=click.Choice(STEPS), help="The first step to run again.")
@click.option("--yes", is_flag=True, help="Delete without asking for confirmation.")
@workers_option
@scheduler_option
@events_option
@with_settings
def redo(what: tuple[str, ...], step: str, yes: bool, workers: int, scheduler: str | None, as_json: bool) -> None:
    """Delete a step and all later steps, and run them again.

    DATASET is yellow, green, fhv, fhvhv or all. PERIOD is 2021, 2021-03, 2021..2022 or 2021-03..2021-07. The zones have
    no period: pipeline redo zones --from conform.

    First the files and rows to delete are shown. A month is deleted only after its input was verified. With --from
    download the new file has been downloaded. With --from conform the raw file matches its sidecar. With --from load
    the trips file is readable to its end. If the input is not valid, the month is not changed. If the command is
    killed, run it, or a backfill, again.

    \b
    pipeline redo green 2024-01 --from load
    pipeline redo yellow green 2021..2022 --from conform --yes
    """  # noqa: D301 (click needs the character itself)
    months = _months_to_redo(what, step)
    plans = [plan for plan in deletion_plans(inventory_of(current_settings()), months, step) if plan]
    if plans:
        with suppress(OutputLost), redirect_stdout(sys.stderr if as_json else sys.stdout):
            _print_deletions(plans)
        if not yes and not sys.stdin.isatty():
            raise UsageError("deleting needs a confirmation, and standard input is not a terminal; add --yes")
        if not yes and not click.confirm(f"Delete these, and run {step} and all later steps again?"):
            click.echo("Nothing was changed.")
            return
    existing = [(plan.dataset.name, plan.month) for plan in plans]

    def invalidate_and_plan() -> Plan:
        invalidated, errors = _invalidate({step: existing}, always=True)
        todo = [month for month in _pairs(months) if month in invalidated or month not in existing]
        return Plan(by_dataset(todo), errors)

    options = Options(workers=workers, scheduler=scheduler, asks_source=step == "download" and bool(existing))
    sys.exit(run_plan(invalidate_and_plan, options, as_json=as_json))


@click.command()
@what(required=False)
@click.option("--apply", "applied", is_flag=True, help="Run the stale steps again, and download new months.")
@as_json
@workers_option
@scheduler_option
@with_settings
def refresh(what: tuple[str, ...], applied: bool, as_json: bool, workers: int, scheduler: str | None) -> None:
    """Find months that are new, republished or out of date.

    The source is asked which months are new, republished or gone; nothing is downloaded. Without PERIOD each DATASET is
    compared from its oldest existing month to the current month. Without DATASET all datasets and the zones are
    compared. The date is when the source published its file, or when the stale result, or the newer input, was made.

    --apply runs only the steps that are out of date, and only for these months. Republished files are downloaded before
    the old ones are deleted; if a new file fails its checks, the month fails, as in a first backfill. A month that the
    source has deleted is kept.

    \b
    pipeline refresh
    pipeline refresh green yellow 2024 --apply
    pipeline refresh all --json
    """  # noqa: D301 (click needs the character itself)
    months = _pairs(wanted := _months_to_compare(what))
    if not months and not as_json:
        click.echo("There are no months to compare yet; to ask for new ones, name datasets and a period.")
        return
    log.info(f"comparing {counted_months(months)} with the source and with each other")
    compared = compare(inventory_of(current_settings()), wanted, date.today().replace(day=1), redo=_redo_command)
    findings = compared.findings
    if not as_json:
        with suppress(OutputLost) if applied else nullcontext():
            _print_comparison(compared, months, applied)
    code, errors = 1 if any(finding.category == "unanswered" for finding in findings) else 0, list[str]()
    if applied:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            code = _apply(findings, errors, workers, scheduler) or code
    if as_json:
        print_json(
            {
                "compared": len(months),
                "as_at_source": len(compared.same),
                "absent": [label(*month) for month in compared.absent],
                "without_raw": [label(*month) for month in compared.without_raw],
                "findings": [finding.plain for finding in findings],
                "applied": applied,
                "errors": errors,
            }
        )
    sys.exit(code)


def _apply(findings: Sequence[Finding], errors: list[str], workers: int, scheduler: str | None) -> int:
    """Run what the findings ask for; returns the exit code and adds to `errors`."""
    new = [(finding.dataset, finding.month) for finding in findings if finding.category == "new"]
    stale: dict[str, list[Month]] = {}
    for finding in findings:
        if finding.redo_from and finding.category != "new":
            stale.setdefault(finding.redo_from, []).append((finding.dataset, finding.month))

    def plan() -> Plan:
        invalidated, problems = _invalidate(stale)
        errors.extend(problems)
        return Plan(by_dataset([*invalidated, *new]), problems)

    options = Options(workers=workers, scheduler=scheduler, asks_source="download" in stale)
    code = run_plan(plan, options) if stale or new else 0
    warehouse_of(current_settings()).compact()
    return code


def _invalidate(months: Mapping[str, Sequence[Month]], *, always: bool = False) -> tuple[list[Month], list[str]]:
    settings = current_settings()
    places = (store_of(settings), warehouse_of(settings), source_of(settings))
    wait_s = settings.lock_timeout_s
    return invalidate(*places, months, wait_s=wait_s, say=log.info, redo=_redo_command, always=always)


def _redo_command(month: Month, step: str) -> str:
    return suggested_command("redo", *label(*month).split(), "--from", step)


def _pairs(months: Months) -> list[Month]:
    return [(name, month) for name, each in months.items() for month in each]


def _months_to_redo(words: Sequence[str], step: str) -> Months:
    """The named months; with --from mart only those of datasets that have marts."""
    if [word for word in words if word != ","] == ["zones"]:
        if step == "mart":
            raise UsageError("zones --from mart: the zones have no marts; allowed are download, conform, load")
        return {ZONES.name: [None]}
    if "zones" in words:
        raise UsageError(f"{' '.join(words)}: zones is allowed only alone and without a period: zones --from {step}")
    names, period = parse_what(words, required=True)
    if step == "mart":
        if not any(map(marts_of, names)):
            raise UsageError(f"{', '.join(names)} --from mart: has no marts; allowed are download, conform, load")
        names = tuple(filter(marts_of, names))
    return dict(months_of(names, period))


def _months_to_compare(words: Sequence[str]) -> Months:
    """The named months; without a period all from the oldest existing one, and the zones."""
    names, period = parse_what(words)
    parts = [part for word in words for part in word.split(",") if part]
    if period != "all" or (parts[1:] and parts[-1] == "all"):
        return dict(months_of(names, period))
    today, inventory = date.today().replace(day=1), inventory_of(current_settings())

    def exists(name: str, month: date | None) -> bool:
        return any(inventory.done(step, dataset_named(name), month) for step in STEPS)

    months: dict[str, Sequence[date | None]] = {}
    for name in names:
        possible = month_range(start_of(DATASETS[name]), today)
        first = next((index for index, month in enumerate(possible) if exists(name, month)), None)
        months |= {name: possible[first:]} if first is not None else {}
    if names == tuple(DATASETS) and exists(ZONES.name, None):
        months[ZONES.name] = [None]
    return months


def _print_deletions(plans: Sequence[DeletionPlan]) -> None:
    table = new_table()
    for name in ("month", "files", "size", "rows", "marts"):
        table.add_column(name, justify="left" if name in ("month", "files") else "right", no_wrap=name == "month")
    counts = [
        (sum(file.bytes for file in plan.files.values()), plan.load.rows if plan.load else 0, len(plan.marts))
        for plan in plans
    ]
    names = [(label(plan.dataset.name, plan.month), ", ".join(plan.files)) for plan in plans]
    total = tuple(map(sum, zip(*counts, strict=True)))
    for (month, files), (deleted, rows, marts) in zip([*names, ("total", "")], [*counts, total], strict=True):
        table.add_row(month, files, size(deleted) if deleted else "", f"{rows:,}" if rows else "", f"{marts or ''}")
    print_line("These will be deleted:")
    print_table(table)


def _print_comparison(compared: Comparison, months: Sequence[Month], applied: bool) -> None:
    for reason, group in (
        ("Neither at the source nor in the lake", compared.absent),
        ("Not compared, because the raw file is missing", compared.without_raw),
    ):
        if group:
            print_line(f"{reason}: {counted_months(group)} ({periods(group)}).")
    if not compared.findings:
        share = f"{len(compared.same)} of {counted_months(months)} match the source"
        print_line(f"Nothing to do: {share}, and nothing is out of date.")
        return
    table = new_table()
    for name in ("month", "finding", "date", "to do"):
        table.add_column(name, overflow="fold", no_wrap=name != "finding")
    for finding in compared.findings:
        dated = f"{finding.dated:%Y-%m-%d}" if finding.dated else ""
        todo = "all steps" if finding.category == "new" else finding.redo_from and f"from {finding.redo_from} on"
        table.add_row(label(finding.dataset, finding.month), f"{finding.category}: {finding.why}", dated, todo or "")
    print_table(table)
    if not applied and any(finding.redo_from for finding in compared.findings):
        print_line("Nothing was changed. To run these steps, add --apply.")
