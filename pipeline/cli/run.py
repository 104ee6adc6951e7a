"""The commands that run steps: missing ones, those of months that you name, or those that are out of date."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from datetime import date
from pathlib import Path
from typing import Any

import click

from pipeline.cli import options
from pipeline.cli.grid import print_grid
from pipeline.cli.options import selection
from pipeline.cli.output import numbers, print_json, print_line, print_section, whole
from pipeline.cli.progress import Display, JsonLines, Summary
from pipeline.cli.report import write_report
from pipeline.cli.streams import OutputLost
from pipeline.errors import UsageError, redact
from pipeline.marts import marts_of
from pipeline.months import label, month_range, parse_month
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.runs.events import Listener
from pipeline.runs.history import by_dataset, counted_months, periods
from pipeline.runs.job import Options, Plan, execute
from pipeline.runs.overview import document, statuses_of
from pipeline.runs.preview import compare_with_source, comparison_data, deletions_preview, redo_command, space_for
from pipeline.runs.runner import configured_scheduler
from pipeline.runs.selection import months_selected, months_to_compare
from pipeline.settings import DEMO, adopt, current_settings, resolve
from pipeline.state.drift import Comparison, Finding
from pipeline.state.invalidation import DeletionPlan, Month, Months, deletion_plans, invalidate
from pipeline.state.steps import STEPS
from pipeline.tasks.base import log
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.tasks.runs import Latest
from pipeline.units import size

#: What the demo shows of its months, and the commands it ends with.
_SAMPLE = "data/sample"
_BUSIEST = """
SELECT pickup_zone AS zone, pickup_borough AS borough, SUM(trips) AS trips, SUM(total_amount) AS dollars
FROM monthly_zone_revenue
GROUP BY pickup_zone, pickup_borough
ORDER BY trips DESC, pickup_zone
LIMIT 5
"""
_TIPS = "SELECT payment, count(*) AS trips, round(avg(tip_amount), 2) AS tip FROM trips GROUP BY 1 ORDER BY 2 DESC"


@click.command()
@selection(required=True)
@click.option("--through", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step to run.")
@click.option("--oldest-first/--newest-first", show_default=True, help="The order of the months.")
@click.option("--fail-fast/--keep-going", show_default=True, help="After a failure, stop or run the other steps.")
@click.option("--no-space-check", is_flag=True, help="Start even if the disk looks too small.")
@options.as_events
@options.run_options
def backfill(selection: tuple[str, ...], through: str, no_space_check: bool, as_json: bool, **others: Any) -> None:
    """Bring months up to date. Only missing steps are run.

    DATASET is yellow, green, fhv, fhvhv or all. PERIOD is 2021, 2021-03, 2021..2022, 2021-03..2021-07, several
    with commas (2023-01,2023-03), latest (the newest published month) or all (up to that month).

    \b
    pipeline backfill green 2024-01..2024-03
    pipeline backfill yellow green 2021..2022 --workers 4 --oldest-first
    pipeline backfill fhvhv latest --through conform
    """  # noqa: D301
    months = months_selected(selection, ask=True)
    if not no_space_check:
        _validate_space(months, through)
    sys.exit(run_plan(lambda: Plan(months), Options(through=through, **others), as_json=as_json))


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...", shell_complete=options.complete_datasets)
@click.option("--months", type=click.IntRange(1), help="How many months to look back.  [default: 12]")
@click.option("--last", metavar="MONTH", help="The last of these months.  [default: this month]")
@options.as_events
@options.run_options
def latest(
    datasets: tuple[str, ...], months: int | None, last: str | None, workers: int, scheduler: str | None, as_json: bool
) -> None:
    """Bring the latest published months up to date.

    This is the command for a schedule (see pipeline schedule). A month that is not published yet is not a failure. If
    the newest loaded month of a DATASET (by default all) is older than --months, for instance after a pause, all months
    after it are included. [core] scheduler_url is used if it is set.

    \b
    pipeline latest
    pipeline latest green yellow --months 3
    """  # noqa: D301
    names = DatasetsParameter().parse(",".join(datasets) or "all")
    # Options that are not given may be set in [Latest] of luigi.cfg.
    given = {"months": months, "last": parse_month(last) if last else None}
    task = Latest(datasets=names, **{name: value for name, value in given.items() if value})
    run = Options(workers=workers, scheduler=scheduler or configured_scheduler() or None, asks_source=True)
    sys.exit(run_plan(lambda: Plan(task.published), run, as_json=as_json))


@click.command()
@selection(required=True)
@click.option("--from", "step", required=True, type=click.Choice(STEPS), help="The first step to run again.")
@click.option("--yes", is_flag=True, help="Delete without asking for confirmation.")
@options.as_events
@options.run_options
def redo(selection: tuple[str, ...], step: str, yes: bool, workers: int, scheduler: str | None, as_json: bool) -> None:
    """Delete a step and all later steps, and run them again.

    DATASET and PERIOD are as for backfill. The zones have no period: pipeline redo zones --from conform.

    First the files and rows to delete are shown. A month is deleted only after its input was verified: the new file has
    been downloaded, the raw file matches its sidecar, or the trips file is readable to its end. Otherwise the month is
    not changed. If the command is killed, run it, or a backfill, again.

    \b
    pipeline redo green 2024-01 --from load
    pipeline redo yellow green 2021..2022 --from conform --yes
    """  # noqa: D301 (click needs the character itself)
    months: Months = months_selected(selection, zones=True)
    if step == "mart":
        if not any(map(marts_of, months)):
            raise UsageError(f"{', '.join(months)} --from mart: has no marts; allowed are download, conform, load")
        months = {name: each for name, each in months.items() if marts_of(name)}
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

    run = Options(workers=workers, scheduler=scheduler, asks_source=step == "download" and bool(existing))
    sys.exit(run_plan(invalidate_and_plan, run, as_json=as_json))


@click.command()
@selection(required=False)
@click.option("--apply", "applied", is_flag=True, help="Run the stale steps again, and download new months.")
@options.as_json
@options.run_options
def refresh(selection: tuple[str, ...], applied: bool, as_json: bool, workers: int, scheduler: str | None) -> None:
    """Find months that are new, republished or out of date.

    The source is asked which months are new, republished or gone; nothing is downloaded. Without PERIOD each DATASET is
    compared from its oldest existing month to the current month. Without DATASET all datasets and the zones are
    compared. The date is when the source published its file, or when the stale result, or the newer input, was made.

    --apply runs only the steps that are out of date. Republished files are downloaded before the old ones are deleted;
    if a new file fails its checks, the month fails. A month that the source has deleted is kept.

    \b
    pipeline refresh
    pipeline refresh green yellow 2024 --apply
    """  # noqa: D301 (click needs the character itself)
    months = _pairs(wanted := months_to_compare(selection))
    if not months and not as_json:
        click.echo("There are no months to compare yet; to ask for new ones, name datasets and a period.")
        return
    log.info(f"comparing {counted_months(months)} with the source and with each other")
    compared = compare_with_source(wanted)
    findings = compared.findings
    if compared.not_counted:
        log.warning(f"the rows in the warehouse were not counted: {compared.not_counted}")
    if not as_json:
        with suppress(OutputLost) if applied else nullcontext():
            _print_comparison(compared, months, applied)
    code, errors = int(any(finding.category == "unanswered" for finding in findings)), list[str]()
    if applied:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            code = _apply(findings, errors, workers, scheduler) or code
    if as_json:
        print_json({**comparison_data(wanted, compared), "applied": applied, "errors": errors})
    sys.exit(code)


@click.command()
@options.workers_option
@click.option("--scale", default=0.1, show_default=True, type=click.FloatRange(0.0001, 1), help="Share of TLC's rows.")
@click.option("--data", default=_SAMPLE, show_default=True, metavar="FOLDER", help="Folder for all files.")
def demo(workers: int, scale: float, data: str) -> None:
    """Backfill three synthetic months, without the internet.

    A local stand-in for TLC's site serves yellow and green. The trips are stored in their own folder, so they never
    mix with real trips. The months, the busiest zones and some commands to go on with are shown. Other commands look at
    the default folder with --demo.
    """
    from pipeline.sample.process import sample_process

    places = {name: value.replace(_SAMPLE, data) for name, value in DEMO.items()}
    with sample_process("--scale", str(scale)) as url:
        adopt(resolve(source=url, source_format="parquet", **places))
        months = dict.fromkeys(("yellow", "green"), month_range(date(2024, 1, 1), date(2024, 3, 1)))
        if code := run_plan(lambda: Plan(months), Options(workers=workers)):
            sys.exit(code)
    Path(data, options.SCALE).write_text(str(scale))
    _print_sample(months)
    page = Path(data, "report.html")
    try:
        write_report(months, page)
        print_line(f"\nPictures of these months: {page}")
    except UsageError as error:
        print_line(f"\nNo pictures of these months: {error}")
    where = ["--demo"] if data == _SAMPLE else ["--lake", places["lake"], "--warehouse", places["warehouse"]]
    print_line("\nAsk the trips a question, look at the months in a browser, or load real months from TLC's site:")
    for words in (["sql", *where, _TIPS], ["board", *where], ["backfill", "green", "2024-01..2024-03"]):
        click.echo(f"    {_program()} {shlex.join(words)}")  # On one line, however long, so that it can be copied.


def _print_sample(months: Months) -> None:
    print_line("")
    print_grid(document(*statuses_of(months)))
    print_line("")
    zones = warehouse_of(current_settings()).query(_BUSIEST).to_pylist()
    rows = ((row["zone"], row["borough"], f"{row['trips']:,}", f"{row['dollars']:,}") for row in zones)
    print_section("", ("busiest pickup zones", "borough", *numbers("trips", "dollars")), rows)


def _program() -> str:
    """What starts this program from the shell that started it: its path, unless PATH leads to it."""
    program = Path(sys.argv[0])
    if program.name != "pipeline":  # python -m pipeline
        return shlex.join([sys.executable, "-m", "pipeline"])
    on_path = shutil.which("pipeline")
    if on_path and program.exists() and program.samefile(on_path):
        return "pipeline"
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


def run_plan(plan: Callable[[], Plan], options: Options, *, as_json: bool = False) -> int:
    """Run a plan, show progress and a summary (only events with `as_json`), and return the exit code."""
    quiet = as_json or log.level != logging.INFO  # -q or -v was given.
    listeners: list[Listener] = [Display(quiet=quiet), JsonLines() if as_json else Summary()]
    return execute(" ".join(["pipeline", *map(redact, sys.argv[1:])]), plan, options, listeners)


def _validate_space(months: Mapping[str, Sequence[date | None]], through: str) -> None:
    """Compare the size of the missing months with the free disk space; with another source than TLC's, only warn.

    Raises:
        UsageError: the disk is too small.
    """
    space = space_for(months, through)
    if space is None or space.is_enough:
        return
    lake = current_settings().lake
    message = f"these months take about {size(space.needed)}, and the disk of {lake} has {size(space.free)} free"
    if not space.is_reliable:
        log.warning(f"{message}, if they are as large as TLC's")
        return
    raise UsageError(f"{message}; ask for fewer months or a shorter --through, make room, or add --no-space-check")


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

    run = Options(workers=workers, scheduler=scheduler, asks_source="download" in stale)
    code = run_plan(plan, run) if stale or new else 0
    warehouse_of(current_settings()).compact()
    return code


def _invalidate(months: Mapping[str, Sequence[Month]], *, always: bool = False) -> tuple[list[Month], list[str]]:
    settings = current_settings()
    places = (store_of(settings), warehouse_of(settings), source_of(settings))
    return invalidate(*places, months, wait_s=settings.lock_timeout_s, say=log.info, redo=redo_command, always=always)


def _pairs(months: Months) -> list[Month]:
    return [(name, month) for name, each in months.items() for month in each]


def _print_deletions(plans: Sequence[DeletionPlan]) -> None:
    deleted = deletions_preview(plans)
    names = [(label(plan.dataset.name, plan.month), ", ".join(plan.files)) for plan in plans]
    counts = [(month["bytes"], month["rows"], len(month["marts"])) for month in deleted["months"]]
    total = (deleted["bytes"], deleted["rows"], deleted["marts"])
    lines = [
        (month, files, size(count) if count else "", f"{rows:,}" if rows else "", f"{marts or ''}")
        for (month, files), (count, rows, marts) in zip([*names, ("total", "")], [*counts, total], strict=True)
    ]
    print_line("These will be deleted:")
    print_section("", (*whole("month"), "files", *numbers("size", "rows", "marts")), lines)


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
    rows = []
    for finding in compared.findings:
        dated = f"{finding.dated:%Y-%m-%d}" if finding.dated else ""
        todo = "all steps" if finding.category == "new" else finding.redo_from and f"from {finding.redo_from} on"
        rows.append((label(finding.dataset, finding.month), f"{finding.category}: {finding.why}", dated, todo or ""))
    print_section("", (*whole("month"), "finding", *whole("date", "to do")), rows)
    if not applied and any(finding.redo_from for finding in compared.findings):
        print_line("Nothing was changed. To run these steps, add --apply.")
