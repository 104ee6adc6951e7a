"""The commands that run steps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date

import click

from pipeline import config
from pipeline.cli.options import parse_what, what, with_settings
from pipeline.cli.summary import print_summary
from pipeline.datasets.published import estimated_bytes
from pipeline.months import parse_period
from pipeline.tasks.base import MonthTask, log
from pipeline.tasks.outcome import Outcome, run
from pipeline.tasks.runs import Backfill


@click.command()
@what(required=True)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes side by side.")
@click.option("--scheduler", metavar="URL", help="A luigid, such as http://localhost:8082; none is needed.")
@with_settings
def backfill(what: tuple[str, ...], workers: int, scheduler: str | None) -> None:
    r"""Bring a range of months up to date, doing only what is missing.

    DATASET is yellow, green, fhv, fhvhv or all; PERIOD is 2021, 2021-03, 2021..2022 or 2021-03..2021-07.

    \b
    pipeline backfill green 2024-01..2024-03
    pipeline backfill yellow green 2021..2022 --workers 4
    """
    names, period = parse_what(what, required=True)
    first, last = parse_period(period)
    _run_backfill(names, first, last, workers=workers, scheduler=scheduler)


@click.command()
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes side by side.")
@click.option("--scale", default=0.1, show_default=True, type=click.FloatRange(0.0001, 1), help="Share of TLC's rows.")
@click.option("--data", default="data/sample", show_default=True, metavar="FOLDER", help="Where everything goes.")
def demo(workers: int, scale: float, data: str) -> None:
    """Backfill three months of yellow and green without the internet, from a stand-in for TLC's site.

    The trips are synthetic; they go to a folder of their own, so that they never mix with real ones.
    """
    from pipeline.sample.process import sample_process

    with sample_process("--scale", str(scale)) as url:
        config.adopt(
            config.resolve(
                source=url,
                source_format="parquet",
                lake=f"{data}/lake",
                warehouse=f"duckdb:///{data}/warehouse.duckdb",
                workers=workers,
            )
        )
        _run_backfill(
            ("yellow", "green"),
            date(2024, 1, 1),
            date(2024, 3, 1),
            workers=workers,
            scheduler=None,
        )
    click.echo("\nThe same from TLC's real site:\n    pipeline backfill yellow green 2024-01..2024-03")


def _run_backfill(datasets: Sequence[str], first: date, last: date, *, workers: int, scheduler: str | None) -> None:
    """Run a `Backfill`, print what it did, and exit unless all went well."""
    root = Backfill(datasets=tuple(datasets), first=first, last=last)
    _announce(root)
    outcomes = run(root, workers=workers, scheduler_url=scheduler)
    print_summary(datasets, first, last, outcomes, config.settings())
    if code := exit_code(outcomes):
        sys.exit(code)


def _announce(root: Backfill) -> None:
    """Say how much there is to do, unless it is nothing."""
    months: dict[str, list[date]] = {}
    for step in root.requires():
        if isinstance(step, MonthTask):
            months.setdefault(step.dataset, []).append(step.month)
    if months:
        count = sum(map(len, months.values()))
        size = sum(estimated_bytes(name, missing) for name, missing in months.items())
        log.info(f"{count} month{'s' * (count != 1)} to do; at TLC's site these are about {size / 1e6:,.0f} MB")


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The code for what became of the steps; see the top of this file."""
    kinds = {outcome.kind for outcome in outcomes if outcome.failed}
    if kinds - {"NotPublished"}:
        return 1
    if kinds:
        return 3
    return 4 if any(outcome.status != "DONE" for outcome in outcomes) else 0
