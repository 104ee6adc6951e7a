"""What commands take alike: settings, datasets and periods, how much is said, and JSON instead of words."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.text import Text

from pipeline.datasets import DATASETS
from pipeline.errors import UsageError, visible
from pipeline.months import add_months, month_range, parse_months
from pipeline.places import source_of
from pipeline.settings import FIELDS, RunContext, adopt, adopt_context, current_settings, resolve
from pipeline.source.site import Source
from pipeline.tasks.base import log
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.tasks.runs import start_of

_OPTIONS = {name: row for name, row in FIELDS.items() if row.option}
#: How far back the newest published month is looked for.
_LATEST_MONTHS = 12

as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output instead of a table.")


def settings_options(command: Any) -> Any:
    """The settings that are options of commands, as the table of settings describes them."""
    for name, row in reversed(_OPTIONS.items()):
        text = f"{row.help[0].upper()}{row.help[1:]} ([pipeline] {name})."
        command = click.option(row.flag, metavar=row.option, help=text)(command)
    return command


def with_settings(command: Any) -> Any:
    """Let a command take settings, and -q and -v; the settings are in force before its function begins."""

    @click.pass_context
    def inner(context: click.Context, /, **arguments: Any) -> Any:
        settings = {name: arguments.pop(name) for name in _OPTIONS}
        _say(arguments.pop("quiet"), arguments.pop("verbose"))
        adopt_context(RunContext(workers=arguments.get("workers") or 1))
        adopt(resolve(**settings))
        return context.invoke(command, **arguments)

    inner.__doc__, inner.__name__ = command.__doc__, command.__name__
    inner.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    verbose = click.option("-v", "--verbose", is_flag=True, help="Say more: what each part does.")
    quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
    return settings_options(quiet(verbose(inner)))


def what(*, required: bool) -> Callable[[Any], Any]:
    """The argument of datasets and a period."""
    metavar = "DATASET... PERIOD" if required else "[DATASET...] [PERIOD]"
    return click.argument("what", nargs=-1, required=required, metavar=metavar, shell_complete=_complete)


def parse_what(words: Sequence[str], *, required: bool = False) -> tuple[tuple[str, ...], str]:
    """Datasets and a period, or several with commas, out of what was typed; all and `all` where nothing was.

    A word is a period when it looks like one; `all` is one after another word.

    Raises:
        UsageError: there is neither, or an unknown dataset.
    """
    parts = [part.strip() for word in words for part in word.split(",") if part.strip()]
    kinds = [part == "latest" or part[0].isdigit() or ".." in part for part in parts]
    if parts[1:] and parts[-1] == "all":
        kinds[-1] = True
    names = [part for part, is_period in zip(parts, kinds, strict=True) if not is_period]
    periods = [part for part, is_period in zip(parts, kinds, strict=True) if is_period]
    if periods[1:] and {"latest", "all"} & set(periods):
        raise UsageError(f"{' '.join(words)}: latest and all are allowed only without another period")
    if required and not (periods and names):
        # Said first, since the word was perhaps meant to be either.
        DatasetsParameter().parse(",".join(names) or "all")
        raise UsageError(f"{' '.join(words)}: a dataset and a period are needed, for instance: green 2024-01..2024-03")
    return DatasetsParameter().parse(",".join(names) or "all"), ",".join(periods) or "all"


def months_of(names: Sequence[str], period: str, *, ask: bool = False) -> dict[str, list[date]]:
    """The months of each dataset, oldest first; those before its start are left out.

    `latest` is the newest month that the source has, which it is asked for; so is, with `ask`, where `all` ends, which
    else ends with this month.

    Raises:
        UsageError: the period cannot be, or none of its months exists.
    """
    source, today, found = source_of(current_settings()), date.today().replace(day=1), {}
    for name in names:
        start = start_of(DATASETS[name])
        if period == "latest":
            newest = _newest(source, name, today)
            found[name] = [newest] if newest else []
        elif period == "all":
            found[name] = month_range(start, (_newest(source, name, today) if ask else today) or today)
        else:
            found[name] = [month for month in parse_months(period) if month >= start]
    if not any(found.values()):
        starts = ", ".join(f"{name} starts in {start_of(DATASETS[name]):%Y-%m}" for name in names)
        raise UsageError(f"no month of {period!r} exists: {starts}")
    return found


class _Console(Console):
    """One to which a text is a text: no markup, no emoji codes, no control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def console(**options: Any) -> Console:
    """Where results go: standard output; colours only for a terminal that wants them."""
    return _Console(highlight=False, markup=False, emoji=False, **options)


def print_json(found: Any) -> None:
    """A result for machines, in ASCII, which any encoding has; dates as ISO texts."""
    click.echo(json.dumps(found, indent=2, default=str))


def quiet_now() -> bool:
    """Whether -q was given."""
    return log.level >= logging.WARNING


def verbose_now() -> bool:
    """Whether -v was given."""
    return log.level == logging.DEBUG


def _say(quiet: bool, verbose: bool) -> None:
    if quiet and verbose:
        raise UsageError("-q and -v: one of them")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    if verbose:
        logging.getLogger("luigi-interface").setLevel(logging.INFO)
        log.setLevel(logging.DEBUG)


def _newest(source: Source, name: str, today: date) -> date | None:
    months = (add_months(today, -back) for back in range(_LATEST_MONTHS))
    return next((month for month in months if source.has(DATASETS[name], month)), None)


def complete_datasets(context: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Names of datasets that begin with the text."""
    return [CompletionItem(word) for word in (*DATASETS, "all") if word.startswith(text)]


def _complete(context: click.Context, parameter: click.Parameter, text: str) -> list[CompletionItem]:
    year = date.today().year
    words = [*DATASETS, "all", "latest", *(str(year - back) for back in range(3))]
    return [CompletionItem(word) for word in words if word.startswith(text)]
