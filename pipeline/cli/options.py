"""What commands have in common: options, settings, and the selection of months."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pipeline.datasets import DATASETS, ZONES
from pipeline.errors import UsageError
from pipeline.months import add_months, format_month, month_range, parse_months
from pipeline.places import source_of
from pipeline.settings import DEMO, FIELDS, RunContext, adopt, adopt_context, current_settings, resolve
from pipeline.source.site import Source
from pipeline.state.invalidation import Months
from pipeline.tasks.base import log
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.tasks.runs import start_of

#: The file beside the lake of a sample that has the scale of its months.
SCALE = "scale"

_OPTIONS = {name: row for name, row in FIELDS.items() if row.option}
#: How many months back the newest published month is looked for.
_LATEST_MONTHS = 12

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


def months_selected(words: Sequence[str], *, required: bool = True, zones: bool = False, ask: bool = False) -> Months:
    """The months of the datasets and the period that were typed; with `zones`, the word zones alone selects the zones.

    Raises:
        UsageError: the selection is invalid, or none of its months exists.
    """
    if zones and ZONES.name in words:
        if len(words) > 1:
            raise UsageError(f"{' '.join(words)}: zones is allowed only alone and without a period")
        return {ZONES.name: [None]}
    return dict(months_of(*parse_selection(words, required=required), ask=ask))


def parse_selection(words: Sequence[str], *, required: bool = False) -> tuple[tuple[str, ...], str]:
    """The datasets and the period (or several, with commas) that were typed, in any order; by default all and `all`.

    A word is a period when it looks like one; `all` is a period after another word.

    Raises:
        UsageError: a dataset is unknown, or one of the two is required and missing.
    """
    parts = [part.strip() for word in words for part in word.split(",") if part.strip()]
    periods = [part for part in parts if part == "latest" or part[0].isdigit() or ".." in part]
    names = [part for part in parts if part not in periods]
    if parts[1:] and parts[-1] == "all":
        periods.append(names.pop())
    if periods[1:] and {"latest", "all"} & set(periods):
        raise UsageError(f"{' '.join(words)}: latest and all are allowed only without another period")
    datasets = DatasetsParameter().parse(",".join(names) or "all")
    if required and not (periods and names):
        raise UsageError(f"{' '.join(words)}: a dataset and a period are needed, for instance: green 2024-01..2024-03")
    return datasets, ",".join(periods) or "all"


def months_of(names: Sequence[str], period: str, *, ask: bool = False) -> dict[str, list[date]]:
    """The months of each dataset, oldest first, without those before its first month.

    `latest` is the newest month that the source has, which needs requests. `all` ends with this month, or, with `ask`,
    with the newest month that the source has.

    Raises:
        UsageError: the period is invalid, or none of its months exists.
    """
    source, today = source_of(current_settings()), date.today().replace(day=1)
    months: dict[str, list[date]] = {}
    for name in names:
        start = start_of(DATASETS[name])
        if period == "latest":
            newest = _newest(source, name, today)
            months[name] = [newest] if newest else []
        elif period == "all":
            months[name] = month_range(start, (_newest(source, name, today) if ask else today) or today)
        else:
            months[name] = [month for month in parse_months(period) if month >= start]
    if not any(months.values()):
        starts = ", ".join(f"{name} starts in {format_month(start_of(DATASETS[name]))}" for name in names)
        raise UsageError(f"no month of {period!r} exists: {starts}")
    return months


def _newest(source: Source, name: str, today: date) -> date | None:
    months = (add_months(today, -back) for back in range(_LATEST_MONTHS))
    return next((month for month in months if source.version(DATASETS[name], month)), None)


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
