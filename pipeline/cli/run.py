"""The commands that run steps, and the run itself: what it shows, keeps and tells."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

import click

from pipeline import config
from pipeline.cli.notify import notify
from pipeline.cli.options import months_of, parse_what, quiet_now, verbose_now, what, with_settings
from pipeline.cli.progress import Progress
from pipeline.cli.streams import OutputLost
from pipeline.cli.summary import counted, print_summary
from pipeline.datasets import DATASETS
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import NotPublished, PipelineError, UnexpectedError, UsageError
from pipeline.months import add_months, format_month, month_range
from pipeline.runs.history import Failure, History, Run
from pipeline.runs.runner import Outcome, Stopped, run
from pipeline.source.retries import redact
from pipeline.source.site import TLC_SITE
from pipeline.state.status import STEPS, statuses
from pipeline.tasks import logs
from pipeline.tasks.base import log, source_of, store_of, warehouse_of
from pipeline.tasks.runs import Backfill, missing_months
from pipeline.units import size

#: By last step: raw and trips files and the tables of a month take about so many times its raw bytes.
_ROOM = {"download": 1.0, "conform": 2.0, "load": 3.0, "mart": 3.0}

workers_option = click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes side by side."
)
scheduler_option = click.option(
    "--scheduler", metavar="URL", help="A luigid, such as http://localhost:8082; none is needed."
)


@click.command()
@what(required=True)
@workers_option
@click.option("--through", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step to do.")
@click.option("--newest-first/--oldest-first", default=True, show_default=True, help="Which months come first.")
@click.option(
    "--keep-going/--fail-fast", default=True, show_default=True, help="After a failure: the others, or nothing more."
)
@click.option("--no-space-check", is_flag=True, help="Begin although the disk looks too small.")
@scheduler_option
@with_settings
def backfill(
    what: tuple[str, ...],
    workers: int,
    through: str,
    newest_first: bool,
    keep_going: bool,
    no_space_check: bool,
    scheduler: str | None,
) -> None:
    """Bring months up to date, doing only what is missing.

    DATASET is yellow, green, fhv, fhvhv or all; PERIOD is 2021, 2021-03, 2021..2022, 2021-03..2021-07, several
    with commas (2023-01,2023-03), latest (the newest month that is published) or all (up to that one).

    \b
    pipeline backfill green 2024-01..2024-03
    pipeline backfill yellow green 2021..2022 --workers 4 --oldest-first
    pipeline backfill fhvhv latest --through conform
    """  # noqa: D301
    names, period = parse_what(what, required=True)
    months = months_of(names, period, ask=True)
    if not no_space_check:
        _refuse_without_room(months, through)
    code = run_months(
        months,
        through=through,
        workers=workers,
        scheduler=scheduler,
        oldest_first=not newest_first,
        fail_fast=not keep_going,
    )
    sys.exit(code)


@click.command()
@workers_option
@click.option("--scale", default=0.1, show_default=True, type=click.FloatRange(0.0001, 1), help="Share of TLC's rows.")
@click.option("--data", default="data/sample", show_default=True, metavar="FOLDER", help="Where everything goes.")
def demo(workers: int, scale: float, data: str) -> None:
    """Backfill three synthetic months, without the internet.

    A stand-in for TLC's site has yellow and green. The trips go to a folder of their own, so that they never mix with
    real ones.
    """
    from pipeline.sample.process import sample_process

    with sample_process("--scale", str(scale)) as url:
        config.adopt(
            config.resolve(
                source=url,
                source_format="parquet",
                lake=f"{data}/lake",
                warehouse=f"duckdb:///{data}/warehouse.duckdb",
                logs=f"{data}/logs",
                workers=workers,
            )
        )
        months = month_range(date(2024, 1, 1), date(2024, 3, 1))
        code = run_months({"yellow": months, "green": months}, workers=workers, scheduler=None)
    click.echo(
        f"\nIts grid:\n    pipeline status yellow green 2024 --lake {data}/lake --warehouse "
        f"duckdb:///{data}/warehouse.duckdb\nThe same from TLC's real site:\n"
        "    pipeline backfill yellow green 2024-01..2024-03"
    )
    sys.exit(code)


def run_months(
    months: Mapping[str, Sequence[date]],
    *,
    through: str = STEPS[-1],
    workers: int,
    scheduler: str | None,
    oldest_first: bool = False,
    fail_fast: bool = False,
) -> int:
    """Bring these months of each dataset up to date, show it, note it, tell of it; returns the exit code."""
    config.adopt(replace(config.settings(), oldest_first=oldest_first))
    settings, today = config.settings(), date.today()
    roots = [
        Backfill(datasets=(name,), first=first, last=last, through=through)
        for name, of in months.items()
        for first, last in _ranges(of)
    ]
    if problem := logs.problem(Path(settings.logs), make=True):
        log.warning(f"no logs and no history: {problem}")
    history = History(settings.logs, silent=bool(problem))
    # A URL may have a password in it.
    noted = history.begin(
        " ".join(["pipeline", *map(redact, sys.argv[1:])]),
        lake=store_of(settings).location,
        warehouse=redact(settings.warehouse),
    )
    code = 2
    try:
        missing = {name: missing_months(DATASETS[name], list(of), through) for name, of in months.items()}
        _announce(missing)
        known = statuses(
            store_of(settings),
            # Not needed for steps that end in the lake, and perhaps not at hand.
            warehouse_of(settings) if through in ("load", "mart") else None,
            source_of(settings),
            {name: of for name, of in missing.items() if of},
            today,
        )
        progress = Progress(known, through, quiet=quiet_now() or verbose_now())
        try:
            with progress:
                outcomes = run(roots, workers=workers, scheduler_url=scheduler, look=progress.look, fail_fast=fail_fast)
        finally:  # Of a run that is stopped this is all that is known.
            noted.months_done = progress.months_done
            noted.rows, noted.bytes, noted.warnings = progress.rows, progress.bytes, progress.warnings
        code = exit_code(outcomes)
        _note(noted, outcomes)
        with suppress(OutputLost):  # Whoever reads it or not, the run is done and told of.
            print_summary(sum(map(len, months.values())), outcomes, noted.failures, settings)
        notify(noted, settings.notify_url)
    except Stopped as stopped:
        code = 128 + stopped.number
        raise
    except PipelineError as error:
        code = 2 if isinstance(error, UsageError) else 5
        raise
    finally:
        history.end(noted, code)
    return code


def _note(noted: Run, outcomes: Sequence[Outcome]) -> None:
    """Write into the run's record what became of its steps."""
    noted.months_done = []
    undone = {(outcome.dataset, outcome.month) for outcome in outcomes if outcome.status != "DONE"}
    for outcome in outcomes:
        name = f"{outcome.dataset} {format_month(outcome.month)}" if outcome.month else outcome.dataset
        key = (outcome.dataset, outcome.month)
        if outcome.month and key not in undone and name not in noted.months_done:
            noted.months_done.append(name)
        if outcome.failed:
            month = format_month(outcome.month) if outcome.month else ""
            error = (outcome.error or UnexpectedError()).to_dict()
            names = {"step": outcome.step, "dataset": outcome.dataset, "month": month, "error": error.pop("message")}
            noted.failures.append(Failure(**names, **error))
        noted.seconds[outcome.step] = round(noted.seconds.get(outcome.step, 0) + outcome.seconds, 3)


def _ranges(months: Sequence[date]) -> list[tuple[date, date]]:
    """The months as ranges without gaps."""
    ranges: list[tuple[date, date]] = []
    for month in sorted(months):
        if ranges and add_months(ranges[-1][1], 1) == month:
            ranges[-1] = ranges[-1][0], month
        else:
            ranges.append((month, month))
    return ranges


def _announce(missing: Mapping[str, Sequence[date]]) -> None:
    """Say how much there is to do, unless it is nothing."""
    count = sum(map(len, missing.values()))
    if count:
        total = sum(estimated_bytes(name, months) for name, months in missing.items() if months)
        log.info(f"{counted(count, 'month')} to do; at TLC's site these are about {size(total)}")


def _refuse_without_room(months: Mapping[str, Sequence[date]], through: str) -> None:
    """Compare what the missing months take with what the disk has; at another source than TLC's, only a warning.

    Raises:
        UsageError: they will not fit.
    """
    settings = config.settings()
    if "://" in settings.lake:
        return
    missing = {name: missing_months(DATASETS[name], list(of), through) for name, of in months.items()}
    need = _ROOM[through] * sum(estimated_bytes(name, of) for name, of in missing.items() if of)
    folder = Path(settings.lake).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need <= free:
        return
    words = f"these months take about {size(need)}, and the disk of {settings.lake} has {size(free)} free"
    if settings.source != TLC_SITE:
        log.warning(f"{words}, if they are as large as TLC's")
        return
    raise UsageError(f"{words}; ask for fewer months or a shorter --through, make room, or add --no-space-check")


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The code for what became of the steps; see the top of `pipeline/cli/__init__.py`."""
    failed = [outcome for outcome in outcomes if outcome.failed]
    if any(not isinstance(outcome.error, NotPublished) for outcome in failed):
        return 1
    if failed:
        return 3
    return 4 if any(outcome.status != "DONE" for outcome in outcomes) else 0
