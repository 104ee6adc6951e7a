"""The command that writes the pictures of the marts as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import click

from pipeline.cli.options import selection, with_settings
from pipeline.cli.output import draft_of, output_path
from pipeline.errors import all_of
from pipeline.places import inventory_of
from pipeline.runs.selection import months_of, parse_selection
from pipeline.settings import current_settings


@click.command()
@selection(required=False)
@click.option("--html", "page", metavar="FILE", required=True, help="The page to write; an existing one is replaced.")
@with_settings
def report(selection: tuple[str, ...], page: str) -> None:
    """Write a page of pictures of the marts.

    Trips, revenue, payments, congestion fees and odd rows by month; the hours of the week, the busiest zones, and the
    airports. Below each picture is a table of its numbers. The page needs no other file and no network. DATASET and
    PERIOD are as for backfill; by default all months whose marts are built are shown.

    \b
    pipeline report --html report.html
    pipeline report yellow green 2021..2024 --html taxis.html
    """  # noqa: D301
    path, months = all_of(
        lambda: output_path(page, "--html", force=True),
        lambda: months_of(*parse_selection(selection)),
    )
    write_report(months, path)
    click.echo(f"written: {page}", err=True)


def write_report(months: Mapping[str, Sequence[date]], path: Path) -> None:
    """Write the page of these months.

    Raises:
        UsageError: the library for charts is not installed, or the file cannot be written.
        WarehouseError: no month has its marts.
    """
    from pipeline.board.report import static_page
    from pipeline.report.pictures import report

    page = static_page(report(inventory_of(current_settings()), months, str))
    with draft_of(path) as file:
        file.write(page.encode())
