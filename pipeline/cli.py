"""The `pipeline` command.

Exit codes, here and (but for 3 and 128 + n) under plain `luigi` with our luigi.cfg:

    0  everything asked for is there
    1  some months failed; the others are done
    2  usage: an option, a setting or an argument that cannot be
    3  nothing failed, but some months are not published yet
    4  some steps were not run, because another worker has them or the scheduler went away
    5  the run could not be planned: the lake or the warehouse cannot be asked
    6  this run is already under way
    128 + n  stopped by signal n (130: Ctrl-C, 143: SIGTERM); everything finished so far is kept
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any, NoReturn

import click

from pipeline import config, luigi_options
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import PipelineError, UsageError
from pipeline.months import parse_period
from pipeline.summary import print_summary
from pipeline.tasks.base import MonthTask, log
from pipeline.tasks.outcome import Outcome, Stopped, run
from pipeline.tasks.runs import Backfill, DatasetsParameter
from pipeline.version import __version__

_STOPPED = "stopped; every finished step is kept, and the same command goes on from there"

_SETTINGS = [
    click.option("--lake", metavar="FOLDER", help="Where the lake is ([pipeline] lake)."),
    click.option("--warehouse", metavar="URL", help="Where the warehouse is ([pipeline] warehouse)."),
    click.option("--source", metavar="URL", help="Where raw files come from ([pipeline] source)."),
    click.option("--source-format", metavar="ENDING", help="auto, parquet, csv or csv.gz ([pipeline] source_format)."),
]


def _with_settings(command: Any) -> Any:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pipeline")
def cli() -> None:
    """Months of New York taxi trips, from TLC's site to a Parquet lake and a warehouse.

    Settings come from these options, the environment (PIPELINE_LAKE …), luigi.cfg, in this order.

    Exit codes: 0 done, 1 some months failed, 2 usage, 3 not published yet, 4 not run, 5 not planned, 6 already running.
    """


@cli.command()
@click.argument("what", nargs=-1, required=True, metavar="DATASET... PERIOD")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes side by side.")
@click.option("--scheduler", metavar="URL", help="A luigid, such as http://localhost:8082; none is needed.")
@_with_settings
def backfill(what: tuple[str, ...], workers: int, scheduler: str | None, **settings: str | None) -> None:
    r"""Bring a range of months up to date, doing only what is missing.

    DATASET is yellow, green, fhv, fhvhv or all; PERIOD is 2021, 2021-03, 2021..2022 or 2021-03..2021-07.

    \b
    pipeline backfill green 2024-01..2024-03
    pipeline backfill yellow green 2021..2022 --workers 4
    """
    if len(what) < 2:
        raise UsageError(f"{' '.join(what)}: a dataset and a period are needed, for instance: green 2024-01..2024-03")
    datasets = DatasetsParameter().parse(",".join(what[:-1]))
    first, last = parse_period(what[-1])
    _run_backfill(datasets, first, last, workers=workers, scheduler=scheduler, **settings)


@cli.command()
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes side by side.")
@click.option("--scale", default=0.1, show_default=True, type=click.FloatRange(0.0001, 1), help="Share of TLC's rows.")
@click.option("--data", default="data/sample", show_default=True, metavar="FOLDER", help="Where everything goes.")
def demo(workers: int, scale: float, data: str) -> None:
    """Backfill three months of yellow and green without the internet, from a stand-in for TLC's site.

    The trips are synthetic; they go to a folder of their own, so that they never mix with real ones.
    """
    from pipeline.sample.process import sample_process

    with sample_process("--scale", str(scale)) as url:
        _run_backfill(
            ("yellow", "green"),
            date(2024, 1, 1),
            date(2024, 3, 1),
            workers=workers,
            scheduler=None,
            source=url,
            source_format="parquet",
            lake=f"{data}/lake",
            warehouse=f"duckdb:///{data}/warehouse.duckdb",
        )
    click.echo("\nThe same from TLC's real site:\n    pipeline backfill yellow green 2024-01..2024-03")


def _run_backfill(
    datasets: Sequence[str], first: date, last: date, *, workers: int, scheduler: str | None, **settings: str | None
) -> None:
    """Run a `Backfill`, print what it did, and exit unless all went well."""
    config.adopt(config.resolve(**settings, workers=workers))
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


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; a mistake of the user gets one message, never a traceback."""
    luigi_options.prepare_luigi()
    _log_steps()
    try:
        cli.main(args=arguments, prog_name="pipeline", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        _fail(_STOPPED, 130)
    except Stopped as stopped:
        _fail(_STOPPED, 128 + stopped.number)
    except UsageError as error:
        _fail(str(error), 2)
    except PipelineError as error:
        _fail(f"{type(error).__name__}: {error}", 5)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"pipeline: {message}", err=True)
    sys.exit(code)


def _log_steps() -> None:
    """A line for each finished step; Luigi's own lines only from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [handler]
