"""What was: the history of runs, and the logs of steps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from pipeline.cli.options import as_json, parse_what, print_json, what, with_settings
from pipeline.cli.tables import print_line, print_table
from pipeline.datasets import DATASETS, ZONES
from pipeline.errors import UsageError, visible
from pipeline.months import parse_months
from pipeline.runs.history import History, Run, causes, last_runs
from pipeline.settings import current_settings
from pipeline.state.steps import STEPS
from pipeline.tasks.logs import attempts, log_path, problem, without_tracebacks
from pipeline.units import counted, size

_STYLES = {"done": "green", "failed": "red", "killed": "red", "running": "yellow"}


@click.command()
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many runs, newest first.")
@as_json
@with_settings
def history(last: int, as_json: bool) -> None:
    """List the runs of this machine and their outcomes.

    Rows are those conformed, bytes those downloaded, seconds those of each step of all months together. A run that was
    killed has an end that nobody wrote down. Runs of plain luigi are not in here.

    \b
    pipeline history
    pipeline history --last 100 --json
    """  # noqa: D301
    found = History(current_settings().logs)
    runs = last_runs(found.runs(), last)
    if as_json:
        print_json([{**asdict(run), "outcome": run.outcome} for run in runs])
    elif not runs:
        click.echo(f"No run yet in {found.path}.")
    else:
        _print_runs(runs)
    if wrong := problem(Path(current_settings().logs)):
        click.echo(visible(f"pipeline: no further run is written down: {wrong}"), err=True)


def _print_runs(runs: list[Run]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("began (UTC)", "outcome", "done", "failed", "rows", "bytes", "seconds by step", "asked"):
        right = name in ("done", "failed", "rows", "bytes")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for run in runs:
        table.add_row(
            run.began[:16].replace("T", " "),
            Text(run.outcome, style=_STYLES.get(run.outcome, "")),
            f"{len(run.months_done)}",
            f"{len(run.failures)}" if run.failures else "",
            f"{run.rows:,}" if run.rows else "",
            size(run.bytes) if run.bytes else "",
            " ".join(f"{step} {run.seconds[step]:,.1f}" for step in STEPS if step in run.seconds),
            run.asked.removeprefix("pipeline "),
        )
    print_table(table)
    for failure, same in causes(runs[0].failures)[:5]:
        print_line(f"{failure.step} {failure.dataset} {failure.month}: {failure.kind}: {failure.error}{same}", "red")


@click.command()
@what(required=True)
@click.option("--step", type=click.Choice(STEPS), help="Only this step's.")
@click.option("--lines", default=0, type=click.IntRange(0), help="Only so many last lines of each; 0 for all.")
@click.option("--all", "every", is_flag=True, help="All attempts, and tracebacks.")
@with_settings
def logs(what: tuple[str, ...], step: str | None, lines: int, every: bool) -> None:
    """Show what each step of a month logged last.

    It has what the step said, libraries' warnings, and why it failed. --all adds earlier attempts, newest first, and
    tracebacks. Each begins with a line that names its lake. DATASET is yellow, green, fhv, fhvhv, or zones (which have
    no PERIOD); PERIOD is a month or a range.

    \b
    pipeline logs green 2024-01
    pipeline logs green 2024-01..2024-03 --step conform --lines 5
    pipeline logs zones
    """  # noqa: D301
    folder, found = current_settings().logs, 0
    if what == (ZONES.name,):
        wanted = [(ZONES.name, None)]
    else:
        names, period = parse_what(what, required=True)
        months = parse_months(period)
        wanted = [(name, month) for name in names for month in months if name in DATASETS]  # type: ignore[misc]
    for name, month in wanted:
        for each in [step] if step else STEPS:
            path = log_path(folder, name, month, each)
            if not path.exists():
                continue
            found += 1
            parts = attempts(path.read_text(encoding="utf-8", errors="replace"))
            text = "\n".join(parts if every else map(without_tracebacks, parts[:1])).split("\n")
            more = f"; {counted(len(parts) - 1, 'earlier attempt')}: --all" if parts[1:] and not every else ""
            click.echo(visible("\n".join([f"==> {path} <=={more}", *(text[-lines:] if lines else text), ""])))
    if not found:
        name, month = wanted[0]
        where = log_path(folder, name, month, step or STEPS[0]).parent
        raise UsageError(
            f"no log of {' '.join(what)} in {where}{' and its neighbours' * (len(wanted) > 1)}; steps that run on this "
            "machine write them there"
        )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
def completion(shell: str) -> None:
    """Print the script that completes commands in a SHELL.

    SHELL is bash, zsh or fish. Commands, options, datasets and periods are completed.

    \b
    eval "$(pipeline completion bash)"        # in ~/.bashrc
    pipeline completion fish > ~/.config/fish/completions/pipeline.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    group = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "pipeline", "_PIPELINE_COMPLETE").source())
