"""What is there, and what a run would do; both without doing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pipeline import config
from pipeline.cli.cells import CELLS, grid, legend
from pipeline.cli.options import as_json, console, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.summary import counted
from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import SourceError
from pipeline.months import format_month
from pipeline.retries import redact
from pipeline.status import STEPS, MonthStatus, statuses
from pipeline.tasks.base import source_of, store_of, warehouse_of

_MOST_LINES = 20
#: How many HEADs at once.
_POLITE = 4

Statuses = Mapping[str, Sequence[MonthStatus]]


@click.command()
@what(required=False)
@as_json
@click.option("--html", "page", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="A page to send.")
@with_settings
def status(what: tuple[str, ...], as_json: bool, page: Path | None) -> None:
    """How far each month is, by the lake and the warehouse themselves.

    A row is a year, a cell a month; DATASET and PERIOD as for backfill, everything when left out. Only a few questions
    are asked, however many months there are; the source is asked nothing (pipeline refresh does that).

    \b
    pipeline status
    pipeline status yellow green 2021..2024 --html months.html
    pipeline status --json
    """  # noqa: D301
    names, period = parse_what(what)
    found = _statuses(months_of(names, period))
    zones = _statuses({ZONES.name: [None]})[ZONES.name][0]
    if as_json:
        print_json(document(found, zones))
    elif not page:
        _print_status(found, zones)
    if page:
        from pipeline.cli.page import html_page

        page.write_text(html_page(document(found, zones)), encoding="utf-8")
        click.echo(f"written: {page}", err=True)


@click.command()
@what(required=True)
@click.option("--through", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step.")
@as_json
@with_settings
def plan(what: tuple[str, ...], through: str, as_json: bool) -> None:
    """What a backfill of these months would do, and why; nothing is run.

    DATASET and PERIOD as for backfill. The source is asked for months that it may not have yet.

    \b
    pipeline plan green 2024
    pipeline plan all 2019..2024 --through conform --json
    """  # noqa: D301
    names, period = parse_what(what, required=True)
    found = _statuses(months_of(names, period))
    absent = _absent(found)
    plans = [_plan(name, of, through, absent) for name, of in found.items()]
    zones = _statuses({ZONES.name: [None]})[ZONES.name][0]
    if as_json:
        print_json({"datasets": plans, "zones": list(zones.missing_steps)})
    else:
        _print_plans(plans, zones)


def document(found: Statuses, zones: MonthStatus) -> dict[str, Any]:
    """The status as plain values."""
    settings = config.settings()
    return {
        "lake": store_of(settings).location,
        "warehouse": redact(settings.warehouse),
        "zones": _facts(zones),
        "datasets": [
            {"dataset": name, **_totals(of), "months": [_facts(each) for each in of]} for name, of in found.items()
        ],
    }


def _statuses(months: Mapping[str, Sequence[date | None]]) -> dict[str, list[MonthStatus]]:
    settings = config.settings()
    return statuses(store_of(settings), warehouse_of(settings), source_of(settings), months, date.today())


def _facts(of: MonthStatus) -> dict[str, Any]:
    return {**asdict(of), "month": format_month(of.month) if of.month else None, "stage": of.stage}


def _totals(of: Sequence[MonthStatus]) -> dict[str, Any]:
    stages = Counter(each.stage for each in of)
    return {
        "stages": {stage: stages[stage] for stage in CELLS if stages[stage]},
        "rows": sum(each.rows or 0 for each in of if each.loaded),
        "raw_bytes": sum(each.raw_bytes or 0 for each in of),
    }


def _print_status(found: Statuses, zones: MonthStatus) -> None:
    out = console()
    cells = {name: {each.month: each.stage for each in of if each.month} for name, of in found.items()}
    out.print(grid(cells))
    out.print(legend(each.stage for of in found.values() for each in of))
    out.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "months", "complete", "rows loaded", "raw MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, of in found.items():
        total = _totals(of)
        complete = total["stages"].get("complete", 0)
        table.add_row(name, f"{len(of)}", f"{complete}", f"{total['rows']:,}", f"{total['raw_bytes'] / 1e6:,.1f}")
    table.add_row("zones", "", zones.stage, f"{zones.rows or 0:,}", "")
    out.print(table)
    settings = config.settings()
    out.print(f"lake       {store_of(settings).location}", soft_wrap=True)
    out.print(f"warehouse  {redact(settings.warehouse)}", soft_wrap=True)
    lines = [line for of in found.values() for each in of if (line := _remark(each))]
    for line in lines[:_MOST_LINES]:
        out.print(Text(line, style="yellow"), soft_wrap=True)
    if len(lines) > _MOST_LINES:
        out.print(f"… and {len(lines) - _MOST_LINES} more, in --json")


def _remark(of: MonthStatus) -> str:
    """What is wrong with a month, and the command that mends it."""
    name = f"{of.dataset} {format_month(of.month)}" if of.month else of.dataset
    if of.stale:
        return f"{name}: {'; '.join(of.stale.values())}: pipeline redo {name} --from {of.stale_from}"
    if of.stage == "refused":
        return f"{name}: refused by its checks ({', '.join(of.failed)}): pipeline check {name}"
    return ""


def _absent(found: Statuses) -> set[tuple[str, date]]:
    """Young months of which nothing is here, and which the source lacks."""
    source = source_of(config.settings())
    young = [(each.dataset, each.month) for of in found.values() for each in of if each.young and each.month]

    def lacks(month: tuple[str, date]) -> bool:
        try:
            return not source.has(DATASETS[month[0]], month[1])
        except SourceError:
            return False  # The run would say what is wrong.

    with ThreadPoolExecutor(_POLITE) as pool:
        return {month for month, is_absent in zip(young, pool.map(lacks, young), strict=True) if is_absent}


def _plan(name: str, of: Sequence[MonthStatus], through: str, absent: set[tuple[str, date]]) -> dict[str, Any]:
    steps: dict[str, list[str]] = {step: [] for step in STEPS}
    to_fetch: list[date] = []
    for each in of:
        assert each.month is not None
        if (name, each.month) in absent:
            continue
        wanted = [step for step in each.missing_steps if STEPS.index(step) <= STEPS.index(through)]
        for step in wanted:
            steps[step].append(format_month(each.month))
        if "download" in wanted:
            to_fetch.append(each.month)
    return {
        "dataset": name,
        "steps": steps,
        "complete": [format_month(each.month) for each in of if each.complete and each.month],
        "not_published": [format_month(month) for dataset, month in sorted(absent) if dataset == name],
        "remarks": [line for each in of if (line := _remark(each))],
        "bytes_to_download": estimated_bytes(name, to_fetch) if to_fetch else 0,
    }


def _print_plans(plans: Sequence[dict[str, Any]], zones: MonthStatus) -> None:
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", *STEPS, "there", "not published", "MB to download"):
        table.add_column(column, justify="right" if column else "left")
    for of in plans:
        counts = [len(of["steps"][step]) for step in STEPS]
        rest = (len(of["complete"]), len(of["not_published"]), f"{of['bytes_to_download'] / 1e6:,.0f}")
        table.add_row(of["dataset"], *(f"{count}" if count else "" for count in counts), *map(str, rest))
    out.print(table)
    for of in plans:
        for step in STEPS:
            if of["steps"][step]:
                out.print(f"{step} {of['dataset']}: {_ranges(of['steps'][step])}", soft_wrap=True)
        if of["not_published"]:
            out.print(f"not published yet: {of['dataset']} {_ranges(of['not_published'])}", soft_wrap=True)
        for line in of["remarks"][:_MOST_LINES]:
            out.print(Text(f"left as it is: {line}", style="yellow"), soft_wrap=True)
    if zones.missing_steps:
        out.print(f"zones: {', '.join(zones.missing_steps)}")
    count = sum(len(set().union(*of["steps"].values())) for of in plans)
    size = sum(of["bytes_to_download"] for of in plans)
    out.print(
        f"{counted(count, 'month')} to do, about {size / 1e6:,.0f} MB to download at TLC's site, and some "
        f"{3 * size / 1e9:,.1f} GB of disk in all"
        if count
        else "Nothing to do.",
        soft_wrap=True,
    )


def _ranges(months: Sequence[str]) -> str:
    """Such as 2021-01..2021-03, 2022-05: the months in short."""
    parts: list[list[str]] = []
    for month in sorted(months):
        year, number = map(int, month.split("-"))
        before = f"{year - (number == 1)}-{number - 1 or 12:02}"
        if parts and parts[-1][-1] == before:
            parts[-1][1:] = [month]
        else:
            parts.append([month])
    return ", ".join("..".join(part) for part in parts)
