"""The commands that run steps."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import click

from pipeline.cli.options import complete_datasets, months_of, parse_what, quiet_now, verbose_now, what, with_settings
from pipeline.cli.progress import Display, JsonLines
from pipeline.cli.summary import Summary
from pipeline.datasets import DATASETS
from pipeline.errors import UsageError, redact
from pipeline.lake import local_folder
from pipeline.months import month_range, parse_month
from pipeline.places import inventory_of
from pipeline.runs.events import Listener
from pipeline.runs.job import Options, Plan, execute
from pipeline.runs.runner import configured_scheduler
from pipeline.settings import Settings, adopt, current_settings, resolve
from pipeline.state.steps import STEPS, bytes_to_keep
from pipeline.tasks.base import log
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.tasks.runs import Latest
from pipeline.units import size

workers_option = click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Number of processes."
)
scheduler_option = click.option(
    "--scheduler", metavar="URL", help="Address of a luigid, such as http://localhost:8082. It is optional."
)
events_option = click.option("--json", "as_json", is_flag=True, help="Print events to standard output, one per line.")


@click.command()
@what(required=True)
@workers_option
@click.option("--through", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step to run.")
@click.option("--newest-first/--oldest-first", default=True, show_default=True, help="The order of the months.")
@click.option(
    "--keep-going/--fail-fast", default=True, show_default=True, help="After a failure, run the other steps or stop."
)
@click.option("--no-space-check", is_flag=True, help="Start even if the disk looks too small.")
@scheduler_option
@events_option
@with_settings
def backfill(
    what: tuple[str, ...],
    workers: int,
    through: str,
    newest_first: bool,
    keep_going: bool,
    no_space_check: bool,
    scheduler: str | None,
    as_json: bool,
) -> None:
    """Bring months up to date. Only missing steps are run.

    DATASET is yellow, green, fhv, fhvhv or all. PERIOD is 2021, 2021-03, 2021..2022, 2021-03..2021-07, several
    with commas (2023-01,2023-03), latest (the newest published month) or all (up to that month).

    \b
    pipeline backfill green 2024-01..2024-03
    pipeline backfill yellow green 2021..2022 --workers 4 --oldest-first
    pipeline backfill fhvhv latest --through conform
    """  # noqa: D301
    names, period = parse_what(what, required=True)
    months = months_of(names, period, ask=True)
    if not no_space_check:
        _validate_space(months, through)
    options = Options(
        through=through, workers=workers, scheduler=scheduler, oldest_first=not newest_first, fail_fast=not keep_going
    )
    sys.exit(run_plan(lambda: Plan(months), options, as_json=as_json))


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...", shell_complete=complete_datasets)
@click.option("--months", type=click.IntRange(1), help="How many months to look back.  [default: 12]")
@click.option("--last", metavar="MONTH", help="The last of these months.  [default: this month]")
@workers_option
@scheduler_option
@events_option
@with_settings
def latest(
    datasets: tuple[str, ...], months: int | None, last: str | None, workers: int, scheduler: str | None, as_json: bool
) -> None:
    """Bring the latest published months up to date.

    This is the command for a schedule (see pipeline schedule). A month that is not published yet is not a failure.
    DATASET is yellow, green, fhv, fhvhv or all (the default). If the newest loaded month of a dataset is older than
    --months, for instance after a pause, all months after it are included. [core] scheduler_url is used if it is set.

    \b
    pipeline latest
    pipeline latest green yellow --months 3
    """  # noqa: D301
    names = DatasetsParameter().parse(",".join(datasets) or "all")
    # Options that are not given may be set in [Latest] of luigi.cfg.
    given = {"months": months, "last": parse_month(last) if last else None}
    task = Latest(datasets=names, **{name: value for name, value in given.items() if value})
    options = Options(workers=workers, scheduler=scheduler or configured_scheduler() or None, asks_source=True)
    sys.exit(run_plan(lambda: Plan(task.published), options, as_json=as_json))


@click.command()
@workers_option
@click.option("--scale", default=0.1, show_default=True, type=click.FloatRange(0.0001, 1), help="Share of TLC's rows.")
@click.option("--data", default="data/sample", show_default=True, metavar="FOLDER", help="Folder for all files.")
def demo(workers: int, scale: float, data: str) -> None:
    """Backfill three synthetic months, without the internet.

    A local stand-in for TLC's site serves yellow and green. The trips are stored in their own folder, so they never
    mix with real trips.
    """
    from pipeline.sample.process import sample_process

    places = {"lake": f"{data}/lake", "warehouse": f"duckdb:///{data}/warehouse.duckdb"}
    with sample_process("--scale", str(scale)) as url:
        adopt(resolve(source=url, source_format="parquet", logs=f"{data}/logs", **places))
        months = month_range(date(2024, 1, 1), date(2024, 3, 1))
        code = run_plan(lambda: Plan({"yellow": months, "green": months}), Options(workers=workers))
    click.echo(
        f"\nShow its months:\n    pipeline status yellow green 2024 --lake {places['lake']} --warehouse "
        f"{places['warehouse']}\nRun the same from TLC's real site:\n"
        "    pipeline backfill yellow green 2024-01..2024-03"
    )
    sys.exit(code)


def run_plan(plan: Callable[[], Plan], options: Options, *, as_json: bool = False) -> int:
    """Run a plan, show progress and a summary (only events with `as_json`), and return the exit code."""
    quiet = as_json or quiet_now() or verbose_now()
    listeners: list[Listener] = [Display(quiet=quiet), JsonLines() if as_json else Summary()]
    return execute(" ".join(["pipeline", *map(redact, sys.argv[1:])]), plan, options, listeners)


def bytes_of_missing(settings: Settings, months: Mapping[str, Sequence[date]], through: str) -> list[int]:
    """About how many bytes each missing month adds to lake and warehouse."""
    inventory = inventory_of(settings, through)
    return [
        bytes_to_keep(name, month, inventory.left(DATASETS[name], month, through))
        for name, wanted in months.items()
        for month in inventory.missing(DATASETS[name], wanted, through)
    ]


def nearest_folder(path: str | Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    absolute = Path(path).absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def _validate_space(months: Mapping[str, Sequence[date]], through: str) -> None:
    """Compare the size of the missing months with the free disk space; with another source than TLC's, only warn.

    Raises:
        UsageError: the disk is too small.
    """
    settings = current_settings()
    if (folder := local_folder(settings.lake)) is None:
        return
    need = sum(bytes_of_missing(settings, months, through))
    free = shutil.disk_usage(nearest_folder(folder)).free
    if need <= free:
        return
    message = f"these months take about {size(need)}, and the disk of {settings.lake} has {size(free)} free"
    if settings.source != Settings.source:
        log.warning(f"{message}, if they are as large as TLC's")
        return
    raise UsageError(f"{message}; ask for fewer months or a shorter --through, make room, or add --no-space-check")
