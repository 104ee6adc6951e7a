"""Commands for regular runs: the daily job, the history of runs, the logs of steps, and completion in a shell.

The templates of the daily job are in `pipeline/cli/schedules`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import click
from rich.text import Text

from pipeline.cli.options import Workers, as_json, selection, with_settings
from pipeline.cli.output import numbers, print_json, print_line, print_section, whole
from pipeline.datasets import DATASETS
from pipeline.errors import UsageError, visible
from pipeline.runs import event_files
from pipeline.runs.event_files import StepState
from pipeline.runs.history import Failure, History, Run, causes
from pipeline.runs.selection import months_selected
from pipeline.settings import current_settings
from pipeline.state.steps import STEPS
from pipeline.tasks.logs import attempts, log_path, problem, without_tracebacks
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.units import counted, size

_KINDS = ("cron", "systemd", "kubernetes", "compose")
_HEAD = """\
# A month that is not published yet is not a failure. After a pause, all missing months are included.
# No lock is needed: a step is complete or absent, and two runs at the same time share or repeat work without harm.
# Settings must be in luigi.cfg: the job does not have the PIPELINE_... variables of your shell."""
_STYLES = {"done": "green", "failed": "red", "killed": "red", "running": "yellow"}
_COMPLETION = {
    "bash": 'eval "$(_PIPELINE_COMPLETE=bash_source pipeline)"',
    "zsh": 'eval "$(_PIPELINE_COMPLETE=zsh_source pipeline)"',
    "fish": "_PIPELINE_COMPLETE=fish_source pipeline | source",
}


@click.command()
@click.argument("kinds", nargs=-1, metavar="[KIND]...", type=click.Choice(_KINDS))
@click.option("--datasets", default="all", show_default=True, help="Datasets separated by commas, or all.")
@click.option("--workers", default=2, show_default=True, type=Workers(), help="Number of processes.")
@click.option("--scheduler", metavar="URL", help="Address of a luigid.  [default: that of luigi.cfg, or none]")
def schedule(kinds: tuple[str, ...], datasets: str, workers: int, scheduler: str | None) -> None:
    """Print a daily job that brings the latest months.

    Run it in the folder of your luigi.cfg. The text is ready to paste; nothing is installed. KIND is cron, systemd,
    kubernetes or compose; the default is all four. On most days the job only asks once per dataset. Its time is derived
    from the name of this machine and the folder, so that not all users ask at the same time.

    \b
    pipeline schedule cron
    pipeline schedule systemd --datasets green,yellow --workers 4
    """  # noqa: D301 (click needs the character itself)
    folder, names = Path.cwd(), DatasetsParameter().parse(datasets)
    arguments = ["latest", *(names if names != (*DATASETS,) else ["all"]), "--workers", str(workers)]
    arguments += ["--scheduler", scheduler] if scheduler else []
    click.echo(_HEAD)
    if not (folder / "luigi.cfg").is_file():
        click.echo(f"# There is no luigi.cfg in {folder} yet: copy the project's, or failures end with exit code 0.")
    for kind in _KINDS:
        if kind in kinds or not kinds:
            text = job_text(kind, Path(sys.executable).parent / "pipeline", folder, arguments, workers)
            click.echo(f"\n# --- {kind}\n{text}", nl=False)


def job_text(kind: str, program: Path, folder: Path, arguments: Sequence[str], workers: int) -> str:
    """The template of this kind, filled in."""
    words, in_container = [str(program), *arguments], ["pipeline", *arguments]
    cron = f"cd {shlex.quote(str(folder))} && {shlex.join([*words, '--quiet'])} > /dev/null"
    loop = f"while :; do {shlex.join(in_container)} && sleep 86400 || sleep 900; done"
    commands = {
        "cron": cron.replace("%", r"\%"),  # For cron, % is the end of the line.
        "systemd": " ".join(map(_systemd_word, words)),
        "kubernetes": json.dumps(in_container, ensure_ascii=False),
        # In Compose, $$ is a dollar sign that does not begin a variable.
        "compose": json.dumps([loop], ensure_ascii=False).replace("$", "$$"),
    }
    hour, minute = _time_of_day(f"{socket.gethostname()}:{folder}")
    template = resources.files("pipeline.cli").joinpath(f"schedules/{kind}.txt").read_text(encoding="utf-8")
    return Template(template).substitute(
        command=commands[kind],
        folder=str(folder).replace("%", "%%"),
        json_folder=json.dumps(str(folder), ensure_ascii=False).replace("$", "$$"),
        user=os.getuid(),
        group=os.getgid(),
        hour=hour,
        minute=minute,
        time=f"{hour:02}:{minute:02}:00",
        request_gb=workers,
        limit_gb=workers + 1,
    )


def _time_of_day(seed: str) -> tuple[int, int]:
    """An hour and a minute between 2 and 6 in the morning, but not a full hour, when many other jobs start."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    return 2 + number // 59 % 4, 1 + number % 59


def _systemd_word(word: str) -> str:
    """A word of ExecStart, with specifiers, variables and quotes escaped for systemd."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if set(word) & set(" '\";\\") else word


def _complete_run(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    return [run.id for run in History(current_settings().logs).runs() if run.id.startswith(text)]


@click.command()
@click.argument("run_id", required=False, metavar="[RUN_ID]", shell_complete=_complete_run)
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many runs, newest first.")
@click.option("--follow", is_flag=True, help="Print the run's events, one per line, until it ends.")
@as_json
@with_settings
def history(run_id: str | None, last: int, follow: bool, as_json: bool) -> None:
    """List the runs of this machine, or show one of them.

    Rows are conformed rows, bytes are downloaded bytes, and seconds are the sum over all months. A killed run has no
    end time. Runs of plain luigi are not listed.

    With RUN_ID, the steps of each month and the failures of that run are shown, and --json prints its events. The
    events of the newest 100 runs are kept.

    \b
    pipeline history
    pipeline history --last 100 --json
    pipeline history 2026-03-01T021700-4f2a9c --follow
    """  # noqa: D301
    records = History(current_settings().logs)
    if run_id:
        _show_run(records, run_id, follow, as_json)
        return
    if follow:
        raise UsageError("--follow is allowed only with a RUN_ID; pipeline history lists them")
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
    rows = (
        (
            run.id,
            Text(run.outcome, style=_STYLES.get(run.outcome, "")),
            f"{len(run.months_done)}",
            f"{len(run.failures) or ''}",
            f"{run.rows:,}" if run.rows else "",
            size(run.bytes) if run.bytes else "",
            " ".join(f"{step} {run.seconds[step]:,.1f}" for step in STEPS if step in run.seconds),
            run.asked.removeprefix("pipeline "),
        )
        for run in runs
    )
    counts = numbers("done", "failed", "rows", "bytes")
    print_section("", (*whole("run (began, UTC)"), "outcome", *counts, "seconds by step", "asked"), rows)
    _print_failures(runs[0].failures, 5)


def _print_failures(failures: Sequence[Failure], most: int | None = None) -> None:
    for failure, others in causes(failures)[:most]:
        print_line(f"{failure.subject}: {failure.kind}: {failure.error}{others}", "red")


def _show_run(records: History, run_id: str, follow: bool, as_json: bool) -> None:
    run, events = records.run(run_id), list[dict[str, Any]]()
    try:
        for event in event_files.read(records.event_file(run_id), lambda: follow and run.outcome == "running"):
            if follow:
                click.echo(json.dumps(event))
            else:
                events.append(event)
    except OSError as error:
        message = f"pipeline: no events of this run: {records.event_file(run_id)}: {error.strerror}"
        click.echo(visible(message), err=True)
    if follow:
        if records.run(run_id).outcome == "killed":
            click.echo(visible(f"pipeline: the run was killed: {run.asked}"), err=True)
    elif as_json:
        print_json(events)
    else:
        _print_run(run, events)


def _print_run(run: Run, events: Sequence[dict[str, Any]]) -> None:
    """Print the run's record, the steps of each month, and the messages."""
    lines = {"run": run.id, "command": run.asked, "began": run.began, "ended": run.ended or "", "outcome": run.outcome}
    for name, text in {**lines, "lake": run.lake, "warehouse": run.warehouse}.items():
        if text:
            print_line(f"{name:<10} {text.replace('+00:00', ' UTC')}")
    rows = [
        (
            " ".join(month).rstrip(),
            *(_step_text(steps[step]) if step in steps else "" for step in STEPS),
            f"{most:,}" if (most := max(each.rows for each in steps.values())) else "",
            size(most) if (most := max(each.bytes for each in steps.values())) else "",
        )
        for month, steps in event_files.step_states(run, events).items()
    ]
    if rows:
        print_section("", (*whole("month"), *STEPS, *numbers("rows", "bytes")), rows)
    _print_failures(event_files.failures(run, events))
    for message in (*run.errors, *run.warnings):
        print_line(message, "yellow")


def _step_text(step: StepState) -> Text:
    seconds = f" {step.seconds:,.1f} s" if step.began else ""
    return Text(f"{step.state}{seconds}", style=_STYLES.get(step.state, ""))


@click.command()
@selection(required=True)
@click.option("--step", type=click.Choice(STEPS), help="Only the log of this step.")
@click.option("--lines", default=0, type=click.IntRange(0), help="Only the last lines of each log; 0 for all.")
@click.option("--all", "all_attempts", is_flag=True, help="All attempts, with tracebacks.")
@with_settings
def logs(selection: tuple[str, ...], step: str | None, lines: int, all_attempts: bool) -> None:
    """Show the last log of each step of a month.

    A log has the messages of the step, warnings of libraries, and the error if the step failed. --all adds earlier
    attempts, newest first, and tracebacks. DATASET and PERIOD are as for backfill; zones have no PERIOD.

    \b
    pipeline logs green 2024-01
    pipeline logs green 2024-01..2024-03 --step conform --lines 5
    pipeline logs zones
    """  # noqa: D301
    months = [(name, month) for name, each in months_selected(selection, zones=True).items() for month in each]
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
        raise UsageError(f"no log of {' '.join(selection)} in {where}; only steps that ran on this machine have logs")


@click.command()
@click.argument("shell", type=click.Choice([*_COMPLETION]), metavar="SHELL")
def completion(shell: str) -> None:
    """Print the line that turns on completion in a SHELL.

    SHELL is bash, zsh or fish. Add the line to ~/.bashrc, ~/.zshrc or ~/.config/fish/completions/pipeline.fish.

    \b
    pipeline completion bash >> ~/.bashrc
    """  # noqa: D301
    click.echo(_COMPLETION[shell])
