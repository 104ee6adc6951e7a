"""The history of runs, the logs of steps, and the line that turns on completion in a shell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import click
from rich.text import Text

from pipeline.cli.options import as_json, parse_what, print_json, what, with_settings
from pipeline.cli.tables import new_table, print_line, print_table
from pipeline.datasets import ZONES
from pipeline.errors import UsageError, visible
from pipeline.months import parse_months
from pipeline.runs.history import History, Run, causes
from pipeline.settings import current_settings
from pipeline.state.steps import STEPS
from pipeline.tasks.logs import attempts, log_path, problem, without_tracebacks
from pipeline.units import counted, size

_STYLES = {"done": "green", "failed": "red", "killed": "red", "running": "yellow"}
_COMPLETION = {
    "bash": 'eval "$(_PIPELINE_COMPLETE=bash_source pipeline)"',
    "zsh": 'eval "$(_PIPELINE_COMPLETE=zsh_source pipeline)"',
    "fish": "_PIPELINE_COMPLETE=fish_source pipeline | source",
}


@click.command()
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many runs, newest first.")
@as_json
@with_settings
def history(last: int, as_json: bool) -> None:
    """List the runs of this machine and their outcomes.

    Rows are conformed rows, bytes are downloaded bytes, and seconds are the sum over all months. A killed run has no
    end time. Runs of plain luigi are not listed.

    \b
    pipeline history
    pipeline history --last 100 --json
    """  # noqa: D301
    records = History(current_settings().logs)
    runs = records.runs()[: -last - 1 : -1]
    if as_json:
        print_json([{**asdict(run), "outcome": run.outcome} for run in runs])
    elif runs:
        _print_runs(runs)
    else:
        click.echo(f"No run yet in {records.path}.")
    if reason := problem(Path(current_settings().logs)):
        click.echo(visible(f"pipeline: further runs cannot be recorded: {reason}"), err=True)


def _print_runs(runs: Sequence[Run]) -> None:
    table = new_table()
    for name in ("began (UTC)", "outcome", "done", "failed", "rows", "bytes", "seconds by step", "asked"):
        right = name in ("done", "failed", "rows", "bytes")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for run in runs:
        table.add_row(
            run.began[:16].replace("T", " "),
            Text(run.outcome, style=_STYLES.get(run.outcome, "")),
            f"{len(run.months_done)}",
            f"{len(run.failures) or ''}",
            f"{run.rows:,}" if run.rows else "",
            size(run.bytes) if run.bytes else "",
            " ".join(f"{step} {run.seconds[step]:,.1f}" for step in STEPS if step in run.seconds),
            run.asked.removeprefix("pipeline "),
        )
    print_table(table)
    for failure, others in causes(runs[0].failures)[:5]:
        print_line(f"{failure.subject}: {failure.kind}: {failure.error}{others}", "red")


@click.command()
@what(required=True)
@click.option("--step", type=click.Choice(STEPS), help="Only the log of this step.")
@click.option("--lines", default=0, type=click.IntRange(0), help="Only the last lines of each log; 0 for all.")
@click.option("--all", "all_attempts", is_flag=True, help="All attempts, with tracebacks.")
@with_settings
def logs(what: tuple[str, ...], step: str | None, lines: int, all_attempts: bool) -> None:
    """Show the last log of each step of a month.

    A log has the messages of the step, warnings of libraries, and the error if the step failed. --all adds earlier
    attempts, newest first, and tracebacks. The first line of an attempt names its lake. DATASET is yellow, green, fhv,
    fhvhv, or zones (without PERIOD). PERIOD is a month or a range.

    \b
    pipeline logs green 2024-01
    pipeline logs green 2024-01..2024-03 --step conform --lines 5
    pipeline logs zones
    """  # noqa: D301
    months: list[tuple[str, date | None]] = [(ZONES.name, None)]
    if what != (ZONES.name,):
        names, period = parse_what(what, required=True)
        months = [(name, month) for name in names for month in parse_months(period)]
    steps, folder = [step] if step else STEPS, current_settings().logs
    paths = [log_path(folder, name, month, each) for name, month in months for each in steps]
    existing = [path for path in paths if path.exists()]
    for path in existing:
        parts = attempts(path.read_text(encoding="utf-8", errors="replace"))
        text = "\n".join(parts if all_attempts else map(without_tracebacks, parts[:1])).split("\n")
        earlier = f"; {counted(len(parts) - 1, 'earlier attempt')}: --all" if parts[1:] and not all_attempts else ""
        click.echo(visible("\n".join([f"==> {path} <=={earlier}", *(text[-lines:] if lines else text), ""])))
    if not existing:
        where = f"{paths[0].parent}{' and the folders beside it' * (len(months) > 1)}"
        raise UsageError(f"no log of {' '.join(what)} in {where}; only steps that ran on this machine have logs")


@click.command()
@click.argument("shell", type=click.Choice([*_COMPLETION]), metavar="SHELL")
def completion(shell: str) -> None:
    """Print the line that turns on completion in a SHELL.

    SHELL is bash, zsh or fish. Add the line to ~/.bashrc, ~/.zshrc or ~/.config/fish/completions/pipeline.fish.

    \b
    pipeline completion bash >> ~/.bashrc
    """  # noqa: D301
    click.echo(_COMPLETION[shell])
