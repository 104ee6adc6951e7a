"""The commands that show how far each month is, and what a backfill would do; neither changes anything."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pipeline.cli.grid import print_remarks, print_status
from pipeline.cli.options import as_json, selection, with_settings
from pipeline.cli.output import draft_of, numbers, output_path, print_json, print_line, print_section, whole
from pipeline.errors import all_of
from pipeline.months import parse_month, spans
from pipeline.runs.overview import Remark, document, statuses_of, with_marks
from pipeline.runs.preview import backfill_preview
from pipeline.runs.selection import months_selected
from pipeline.state.plan import DatasetPlan
from pipeline.state.steps import STEPS, step_before
from pipeline.units import counted, size
from pipeline.version import __version__

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
@click.option("--html", "page", metavar="FILE", help="Write an HTML page; an existing one is replaced.")
@with_settings
def status(selection: tuple[str, ...], as_json: bool, page: str | None) -> None:
    """Show how far each month is.

    A row is a year, a cell is a month. Totals follow, and then what was refused, failed or is out of date, with a
    command for each. DATASET and PERIOD are as for backfill; by default everything is shown. The source is not asked
    (pipeline refresh does that), so a recent month that was not downloaded counts as not published. It is expected as
    long after its end as the newest months in the lake were published after theirs.

    \b
    pipeline status
    pipeline status yellow green 2021..2024 --html months.html
    """  # noqa: D301
    path, months = all_of(
        lambda: output_path(page, "--html", force=True) if page is not None else None,
        lambda: months_selected(selection, required=False),
    )
    result = document(*statuses_of(months))
    if path:
        from pipeline.board.grid import static_page

        with draft_of(path) as file:
            file.write(static_page(with_marks(result)).encode())
        click.echo(f"written: {page}", err=True)
    if as_json:
        print_json({"version": __version__, **result})
    elif not path:
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
    preview, problems = backfill_preview(months_selected(selection), through)
    if as_json:
        print_json({"version": __version__, **preview})
    else:
        _print_plans(preview["datasets"], through, preview["zones"], preview["remarks"])
    if problems:
        click.echo(f"pipeline: {problems[0]}; it is unknown whether recent months are published", err=True)


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
