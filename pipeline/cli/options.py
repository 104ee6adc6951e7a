"""What commands have in common: options, settings, and the selection of months."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from functools import wraps
from typing import Any

import click

from pipeline.datasets import DATASETS
from pipeline.errors import UsageError
from pipeline.settings import FIELDS, RunContext, adopt, adopt_context, resolve
from pipeline.tasks.base import log

_OPTIONS = {name: row for name, row in FIELDS.items() if row.option}

as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output instead of a table.")
as_events = click.option("--json", "as_json", is_flag=True, help="Print events to standard output, one per line.")
workers_option = click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="Number of processes."
)


def settings_options(command: Any) -> Any:
    """Add an option for each setting that may be given on the command line."""
    for name, row in reversed(_OPTIONS.items()):
        text = f"{row.help[0].upper()}{row.help[1:]} ([pipeline] {name})."
        command = click.option(row.flag, metavar=row.option, help=text)(command)
    return command


def with_settings(command: Any) -> Any:
    """Add the options for settings, -q and -v to a command; they are in force before its function starts."""

    @wraps(command)
    def inner(**arguments: Any) -> Any:
        settings = {name: arguments.pop(name) for name in _OPTIONS}
        _set_log_level(arguments.pop("quiet"), arguments.pop("verbose"))
        adopt_context(RunContext(workers=arguments.get("workers") or 1))
        adopt(resolve(**settings))
        return command(**arguments)

    verbose = click.option("-v", "--verbose", is_flag=True, help="Print details of each step.")
    quiet = click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
    return settings_options(quiet(verbose(inner)))


def run_options(command: Any) -> Any:
    """Add --workers, --scheduler, and what `with_settings` adds."""
    text = "Address of a luigid, such as http://localhost:8082. It is optional."
    return workers_option(click.option("--scheduler", metavar="URL", help=text)(with_settings(command)))


def selection(*, required: bool) -> Callable[[Any], Any]:
    """Add the argument `selection`: datasets and a period."""
    metavar = "DATASET... PERIOD" if required else "[DATASET...] [PERIOD]"
    return click.argument("selection", nargs=-1, required=required, metavar=metavar, shell_complete=_complete)


def _set_log_level(quiet: bool, verbose: bool) -> None:
    if quiet and verbose:
        raise UsageError("-q and -v: only one of them is allowed")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if verbose:
        logging.getLogger("luigi-interface").setLevel(logging.INFO)
        log.setLevel(logging.DEBUG)


def complete_datasets(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """The names of datasets that begin with the text."""
    return [word for word in (*DATASETS, "all") if word.startswith(text)]


def _complete(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    periods = ("latest", *(str(date.today().year - back) for back in range(3)))
    return [*complete_datasets(context, parameter, text), *(word for word in periods if word.startswith(text))]
