"""What commands have in common: options, settings, and the selection of months."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pipeline.datasets import DATASETS
from pipeline.errors import UsageError
from pipeline.settings import DEMO, FIELDS, RunContext, adopt, adopt_context, resolve
from pipeline.tasks.base import log
from pipeline.tasks.workers import default_workers

#: The file beside the lake of a sample that has the scale of its months.
SCALE = "scale"

_OPTIONS = {name: row for name, row in FIELDS.items() if row.option}

as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output instead of a table.")
as_events = click.option("--json", "as_json", is_flag=True, help="Print events to standard output, one per line.")


class Workers(click.IntRange):
    """A number of processes, or auto."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(1, 64)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; auto is one for each CPU and each GB of memory, at most four."""
        if value == "auto":
            return default_workers()
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r}: allowed are auto, and whole numbers from {self.min} to {self.max}", param, ctx)


workers_option = click.option(
    "--workers",
    default="auto",
    show_default=True,
    metavar="NUMBER",
    type=Workers(),
    help="Number of processes; auto is one for each CPU and each GB of memory, at most four.",
)


def settings_options(command: Any) -> Any:
    """Add an option for each setting that may be given on the command line."""
    for name, row in reversed(_OPTIONS.items()):
        text = f"{row.help[0].upper()}{row.help[1:]} ([pipeline] {name})."
        command = click.option(row.flag, metavar=row.option, help=text)(command)
    text = "Look at the sample that pipeline demo made; its source is the sample site."
    return click.option("--demo", is_flag=True, help=text)(command)


def settings_given(arguments: dict[str, Any]) -> dict[str, str | None]:
    """Take the values of `settings_options` out of the arguments; with --demo, start the sample site.

    The site ends with this process, also when another program takes its place.

    Raises:
        UsageError: --demo has another setting beside it, or there is no sample.
    """
    settings = {name: arguments.pop(name) for name in _OPTIONS}
    if not arguments.pop("demo"):
        return settings
    from pipeline.sample.process import sample_process  # It imports numpy.

    if others := [_OPTIONS[name].flag for name, value in settings.items() if value is not None]:
        raise UsageError(f"--demo and {', '.join(others)}: only --demo is allowed, which sets them all")
    if not (folder := Path(DEMO["lake"])).is_dir():
        raise UsageError(f"--demo: there is no sample in {folder.absolute()}; make it with: pipeline demo")
    site = sample_process("--scale", scale.read_text() if (scale := folder.with_name(SCALE)).is_file() else "0.1")
    return {**DEMO, "source": click.get_current_context().with_resource(site), "source_format": "parquet"}


def with_settings(command: Any) -> Any:
    """Add the options for settings, -q and -v to a command; they are in force before its function starts."""

    @wraps(command)
    def inner(**arguments: Any) -> Any:
        settings = settings_given(arguments)
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
