"""Luigi's own configuration: the options that this package needs, and one line for a luigi.cfg that Luigi cannot use.

Luigi reads its files while it is imported, so the modules that import Luigi import this one first. Promise: a file that
cannot be read or parsed, or an option of Luigi's own with an invalid value, is a UsageError that names it; if nothing
catches it, the process ends with this one line and exit code 2. Plain `luigi` is different only for a file that cannot
be parsed: it ends before it imports any module of ours.
"""

from __future__ import annotations

import configparser
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.deprecation import warn_of_old_name
from pipeline.errors import UsageError


@cache
def default_options() -> dict[str, dict[str, str]]:
    """Luigi's own options that this package needs, by section; luigi.cfg gives the reasons."""
    from pipeline.warehouses.registry import ENGINES  # Imports pyarrow, which the settings alone do not need.

    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(resources.files("pipeline.tasks").joinpath("luigi_options.cfg").read_text(encoding="ascii"))
    options = {section: dict(parser[section]) for section in parser.sections()}
    options["resources"] |= {engine.resource: str(engine.writers) for engine in ENGINES.values()}
    return options


def _import_luigi() -> Any:
    """Luigi's `get_config`, after validating its files and its own options.

    Raises:
        UsageError: some are invalid; it names all that are known.
    """
    try:
        with warnings.catch_warnings():
            # Reported below, as an error: without that file, the defaults name another lake.
            warnings.filterwarnings("ignore", message="Config file does not exist")
            from luigi.configuration import get_config
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if not any(str(frame.f_globals.get("__name__")).startswith("luigi.configuration.") for frame in frames):
            raise
        raise _in_one_line(UsageError(_parse_error(error, [dict(frame.f_locals) for frame in frames]))) from None
    if problems := [*_unreadable(get_config()._config_paths), *_invalid_values(get_config())]:
        raise _in_one_line(UsageError("\n  ".join(problems)))
    _read_old_names(get_config())
    return get_config


def _in_one_line(error: UsageError) -> UsageError:
    """The error, which ends the process without a traceback if nothing catches it."""
    before = sys.excepthook

    def hook(error_type: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        if raised is not error:
            before(error_type, raised, trace)
            return
        sys.stderr.write(f"pipeline: {error}\n")
        raise SystemExit(2)

    sys.excepthook = hook
    return error


def _parse_error(error: Exception, variables: list[dict[str, Any]]) -> str:
    """The file and the problem, from the error and the local variables of the frames that raised it."""
    path = next((str(Path(each["filename"]).absolute()) for each in variables if "filename" in each), "luigi.cfg")
    options = [f"[{each['section']}] {each['option']}: " for each in variables if {"section", "option"} <= each.keys()]
    problem = " ".join(str(error).split())
    if isinstance(error, UnicodeDecodeError) or "\\ufeff" in problem:
        problem += "; save the file as plain ASCII, or as UTF-8 without a byte order mark"
    return f"{path}: {options[0] if options else ''}{problem}"


def _unreadable(paths: list[str]) -> Iterator[str]:
    """The files that exist, and that Luigi skips without a warning; opens none."""
    named = os.environ.get("LUIGI_CONFIG_PATH")
    if named and not Path(named).is_file():
        yield f"LUIGI_CONFIG_PATH={named}: there is no such file; name one that exists, or unset the variable"
    for path in dict.fromkeys(paths):
        # Not with `Path`, as every import does this.
        if os.path.lexists(path) and not (os.path.isfile(path) and os.access(path, os.R_OK)):  # noqa: PTH113
            reason = "is a folder" if os.path.isdir(path) else "is a broken link, or its permissions deny reading"  # noqa: PTH112
            yield f"{Path(path).absolute()}: {reason}; replace it by a file that you can read, or remove it"


def _invalid_values(config: Any) -> Iterator[str]:
    """The values in [core], [worker], [scheduler], [retcode] and [resources] that Luigi cannot parse."""
    from luigi.interface import core
    from luigi.scheduler import scheduler
    from luigi.worker import worker

    parsers = {
        (section.get_task_family(), option): parameter.parse
        for section in (core, worker, scheduler)
        for option, parameter in section.get_params()
    }
    for section in ("retcode", "resources"):
        parsers |= {(section, name): int for name in (config.options(section) if config.has_section(section) else [])}
    for (section, option), parse in parsers.items():
        try:
            if config.has_option(section, option):
                parse(config.get(section, option))
        except (ValueError, configparser.Error) as error:
            yield f"luigi.cfg: [{section}] {option}: {' '.join(str(error).split())}"


def _read_old_names(config: Any) -> None:
    """Set the options whose old names are in the file."""
    if config.has_option("resources", "warehouse"):
        warn_of_old_name("[resources] warehouse in luigi.cfg")
        for kind in ("duckdb", "postgresql", "bigquery"):
            if not config.has_option("resources", kind):
                config.set("resources", kind, config.get("resources", "warehouse"))


get_config = _import_luigi()


def prepare_luigi(options: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Set the options that no luigi.cfg sets; by default those that this package needs."""
    config = get_config()
    for section, values in (options or default_options()).items():
        for option, value in values.items():
            if not config.has_option(section, option):
                config.set(section, option, value)
