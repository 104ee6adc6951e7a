"""The commands that show how far each month is, and what a backfill would do; neither changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import click

from pipeline.cli.grid import Remark, document, html_page, print_remarks, print_status, remarks
from pipeline.cli.options import as_json, months_selected, selection, with_settings
from pipeline.cli.output import draft_of, numbers, print_json, print_line, print_section, whole
from pipeline.datasets import ZONES, need_zones
from pipeline.errors import redact
from pipeline.months import label, parse_month, spans
from pipeline.places import inventory_of, source_of, store_of
from pipeline.runs.history import History
from pipeline.settings import Settings, current_settings, expand_home
from pipeline.state.invalidation import Months
from pipeline.state.inventory import MonthStatus
from pipeline.state.plan import DatasetPlan, plan_backfill
from pipeline.state.steps import STEPS, step_before
from pipeline.units import counted, size

#: By the first step of a month in a plan: why it is the first.
_WHY = {step: before.leaves if (before := step_before(step)) else "nothing is here" for step in STEPS}
#: By mark: what a backfill does about such months.
_BACKFILL = {
    "stale": "leaves what is out of date",
    "refused": "tries again what was refused",
    "failed": "tries again what failed",
}


@click.command()
@selection(required=False)
@as_json
@click.option("--html", "page", metavar="FILE", type=click.Path(dir_okay=False), help="Write an HTML page.")
@with_settings
def status(selection: tuple[str, ...], as_json: bool, page: str | None) -> None:
    """Show how far each month is.

    A row is a year, a cell is a month. Totals follow, and then what was refused, failed or is out of date, with a
    command for each. DATASET and PERIOD are as for backfill; by default everything is shown. The source is not asked
    (pipeline refresh does that), so a recent month that was not downloaded counts as not published.

    \b
    pipeline status
    pipeline status yellow green 2021..2024 --html months.html
    """  # noqa: D301
    result = document(*_statuses(months_selected(selection, required=False)))
    if page:
        page = expand_home(page, "--html")
        with draft_of(Path(page)) as file:
            file.write(html_page(result).encode())
        click.echo(f"written: {page}", err=True)
    if as_json:
        print_json(result)
    elif not page:
        print_status(result)


@click.command()
@selection(required=True)
@click.option("--through", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step.")
@as_json
@with_settings
def plan(selection: tuple[str, ...], through: str, as_json: bool) -> None:
    """Show what a backfill would do, and why.

    Nothing is run and nothing is written. DATASET and PERIOD are as for backfill. The source is asked (HEAD requests)
    about recent months that were not downloaded. Numbers of bytes are published by TLC, or estimated from those.

    \b
    pipeline plan green 2024
    pipeline plan all 2019..2024 --through conform --json
    """  # noqa: D301
    statuses, zones = _statuses(months_selected(selection))
    plans, problems = plan_backfill(source_of(current_settings()), statuses, through, date.today())
    # No remark about what is out of date but will be done again.
    for name, each in statuses.items():
        statuses[name] = [status for status in each if status.stale_from not in status.missing_steps()]
    findings, zone_steps = remarks(statuses, zones), zones.missing_steps(through) if need_zones(statuses) else ()
    if as_json:
        print_json({"through": through, "datasets": plans, "zones": zone_steps, "remarks": findings})
    else:
        _print_plans(plans, through, zone_steps, findings)
    if problems:
        click.echo(f"pipeline: {problems[0]}; it is unknown whether recent months are published", err=True)


def _statuses(months: Months) -> tuple[dict[str, list[MonthStatus]], MonthStatus]:
    """By dataset: its months; and the zones."""
    statuses = inventory_of(current_settings()).statuses({**months, ZONES.name: [None]}, date.today())
    failures = _failures(current_settings())
    for name, each in statuses.items():
        statuses[name] = [replace(status, failure=failures.get(label(name, status.month))) for status in each]
    (zones,) = statuses.pop(ZONES.name)
    return statuses, zones


def _failures(settings: Settings) -> dict[str, tuple[str, str, str]]:
    """By month, such as green 2024-01: step, kind and text of the error, if its last run on this machine failed.

    Only runs into this lake and this warehouse count, and those of old versions, which did not record the two.
    """
    targets = (store_of(settings).location, redact(settings.warehouse))
    failures: dict[str, tuple[str, str, str]] = {}
    for run in History(settings.logs).runs():
        if (run.lake or targets[0], run.warehouse or targets[1]) == targets:
            for month in run.months_done:
                failures.pop(month, None)
            failed = [failure for failure in run.failures if not failure.waits]
            failures |= {f"{each.dataset} {each.month}".rstrip(): (each.step, each.kind, each.error) for each in failed}
    return failures


def _print_plans(
    plans: Sequence[DatasetPlan], through: str, zone_steps: Sequence[str], findings: Sequence[Remark]
) -> None:
    rows = []
    for step, why in _WHY.items():
        rows += [(f"from {step}", each, each.begins[step], why) for each in plans]
    rows += [("not published", each, each.not_published, "the source does not have it yet") for each in plans]
    rows += [("nothing to do", each, each.there, "") for each in plans]
    lines = [
        (action, each.dataset, ", ".join(spans(map(parse_month, months))), f"{len(months):,}", why)
        for action, each, months, why in rows
        if months
    ]
    lines += [("zones", "", ", ".join(zone_steps), "", "")] if zone_steps else []
    print_section("", ("step", *whole("dataset"), "months", *numbers("count"), "reason"), lines)
    for mark, action in _BACKFILL.items():
        if group := [remark for remark in findings if remark.stage == mark]:
            print_line(f"\nA backfill {action}:")
            print_remarks(group)
    count = sum(len(months) for each in plans for months in each.begins.values())
    fetched, kept = sum(each.bytes_to_download for each in plans), sum(each.bytes_to_keep for each in plans)
    sizes = f"about {size(fetched)} to download" if fetched else "nothing to download"
    sizes += f", about {size(kept)} to store in all" if kept else ""
    print_line(f"{counted(count, 'month')} to do through {through}: {sizes}." if count else "Nothing to do.")
