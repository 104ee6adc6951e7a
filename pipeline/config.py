"""Every setting: what it is, its default, and where a value comes from.

A value is taken from the command line (`--pipeline-lake …`), else from the environment (`PIPELINE_LAKE`), else from the
section [pipeline] of luigi.cfg, else from the default. What the parent process resolved is handed to every child with
its task (see `pipeline.tasks.base`), since under forkserver and spawn a child sees no command line.
"""

from __future__ import annotations

import configparser
import difflib
import logging
import math
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar
from urllib.parse import urlsplit

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from pipeline.errors import UsageError
from pipeline.lake import BEGINS_AS_ADDRESS, open_store
from pipeline.source.retries import RetryPolicy, can_be_asked, redact
from pipeline.source.site import FORMATS, TLC_SITE, make_source
from pipeline.warehouses import open_warehouse

_SECTION = "pipeline"
_FORMATS = ("auto", *FORMATS)
_WAREHOUSE = "duckdb:///data/warehouse.duckdb"
#: The settings that every command of `pipeline` takes as an option.
OPTIONS = ("lake", "warehouse", "source", "source_format")


class pipeline(luigi.Config):
    """The section [pipeline]; lower case because Luigi names the section after the class."""

    lake = luigi.Parameter(
        default="data/lake", description="folder that holds the Parquet lake, or gs://bucket/prefix in Cloud Storage"
    )
    warehouse = luigi.Parameter(
        default=_WAREHOUSE,
        description="URL of the warehouse: duckdb:///relative/file.duckdb, duckdb:////absolute/file.duckdb, "
        "postgresql://user@host/database, or bigquery://project/dataset?location=US",
    )
    source = luigi.Parameter(
        default=TLC_SITE,
        description="where raw files come from: an address laid out as TLC's site, one with {dataset} and {file}, "
        "one that ends in /releases/download (a mirror of TLC's old CSVs), or a folder",
    )
    source_format = luigi.ChoiceParameter(
        default="auto",
        choices=_FORMATS,
        description="ending of the raw files; auto is csv.gz for the mirror of old CSVs and parquet elsewhere",
    )
    publication_lag_months = luigi.IntParameter(
        default=4, description="months that TLC may take to publish one; absent for longer is an error"
    )
    timeout_s = luigi.FloatParameter(
        default=60.0,
        description="seconds without a byte, or with less than 1,000 bytes a second, after which a request is given up",
    )
    download_limit_gb = luigi.FloatParameter(
        default=10.0, description="GB of one raw file above which its download is given up, announced or not"
    )
    retries = luigi.IntParameter(
        default=5, description="attempts more after a failed one, counted anew after 1 MiB or a hundredth of the file"
    )
    retry_wait_s = luigi.FloatParameter(default=1.0, description="seconds before the first retry; doubled each time")
    load_memory = luigi.Parameter(default="1GB", description="memory that one load may use in DuckDB before it spills")
    load_threads = luigi.IntParameter(default=2, description="threads that one load may use in DuckDB")
    lock_timeout_s = luigi.FloatParameter(
        default=600.0,
        description="seconds to wait for what another process holds: DuckDB file, lock in Postgres, download",
    )
    scratch = luigi.Parameter(
        default="data/scratch", description="folder for work in progress, where the lake is none on this machine"
    )
    logs = luigi.Parameter(
        default="data/logs", description="folder for a log file of each step, and the history of runs"
    )
    notify_url = luigi.Parameter(
        default="", description="address to which the end of each run is posted, as Slack's webhooks take it; secret"
    )


@dataclass(frozen=True)
class Settings:
    """The values of all settings, picklable; `workers` is how many processes share the machine."""

    #: Those of them that are no options of [pipeline].
    EXTRA: ClassVar = ("workers", "oldest_first", "reports")

    lake: str
    warehouse: str
    source: str
    source_format: str
    publication_lag_months: int
    timeout_s: float
    download_limit_gb: float
    retries: int
    retry_wait_s: float
    load_memory: str
    load_threads: int
    lock_timeout_s: float
    scratch: str
    logs: str
    notify_url: str
    workers: int = 1
    #: What the `pipeline` command adds: oldest months first; where steps report to; whether they print nothing.
    oldest_first: bool = False
    reports: str = ""


_adopted: Settings | None = None
#: The last answer of `settings`, and what it was drawn from; resolving takes 0.3 ms, and thousands of tasks ask.
_last: tuple[object, Settings] | None = None


def settings() -> Settings:
    """The settings of this process: those it adopted, else what command line, environment and luigi.cfg say now.

    Raises:
        UsageError: a value that cannot be, or an unknown option in [pipeline]; all of them at once.
    """
    global _last
    if _adopted is not None:
        return _adopted
    config = get_config()
    environment = [(name, value) for name, value in os.environ.items() if name.startswith("PIPELINE_")]
    options = config.items(_SECTION, raw=True) if config.has_section(_SECTION) else []
    drawn_from = (CmdlineParser.get_instance(), environment, options)
    if _last is None or _last[0] != drawn_from:
        _last = (drawn_from, resolve())
    return _last[1]


def adopt(values: Settings | None) -> None:
    """Make these the settings of this process, whatever its command line and files say; None ends that."""
    global _adopted
    _adopted = values


def oldest_first() -> bool:
    """Whether this process is to begin with the oldest months; never an error, since no setting is read for it."""
    return _adopted is not None and _adopted.oldest_first


def resolve(**overrides: str | int | None) -> Settings:
    """The settings from command line, environment and luigi.cfg, with what is given here (not None) before them all.

    Raises:
        UsageError: as for `settings`.
    """
    problems = _unknown_options()
    _warn_of_misspelt_variables()
    values: dict[str, Any] = {}
    for name, parameter in pipeline.get_params():
        origin = ""
        try:
            text, origin = _written(name, overrides.get(name))
            text = text if text is None else _plain(name, text, of_file=not origin and overrides.get(name) is None)
            values[name] = parameter.task_value(_SECTION, name) if text is None else _parse(name, parameter, text)
            if name in _TRIALS:
                _TRIALS[name](values[name])
        except (UsageError, configparser.Error) as error:
            # The parts name themselves; which setting it was, and where it stands, is known here.
            message = str(error).removeprefix(f"[{_SECTION}] ")
            problems.append((message if name in message else f"{name}: {message}") + origin)
    lake, warehouse = str(values.get("lake", "gs://")), str(values.get("warehouse", ""))
    if warehouse.startswith("bigquery://") and not lake.startswith("gs://"):
        problems.append(
            f"warehouse = {warehouse!r}: BigQuery loads from a lake in Cloud Storage only; allowed is lake = "
            f"gs://bucket/prefix, not {lake!r}"
        )
    workers = overrides.get("workers") or luigi.interface.core().workers
    if int(workers) < 1:  # With none, Luigi waits for ever for somebody else.
        problems.append(f"--workers {workers}: allowed is a whole number from 1 upwards")
    if problems:
        raise UsageError(f"[{_SECTION}] " + "\n  ".join(problems))
    return Settings(**values, workers=int(workers))


def command(*words: str) -> str:
    """The command line of `pipeline` with these words, for people to type: it has the settings of this process.

    Those that luigi.cfg and environment give need no option. In place of a secret there is an ellipsis.
    """
    given, options = settings(), list[str]()
    for name, parameter in pipeline.get_params():
        if name in OPTIONS:
            text, _ = _written(name, None, typed=False)
            usual = parameter.task_value(_SECTION, name)
            if text is not None:
                usual = parameter.parse(_plain(name, text, of_file=False))
            value = str(getattr(given, name))
            options += [f"--{name.replace('_', '-')}", _without_secret(value)] if value != usual else []
    return shlex.join(["pipeline", *words, *options])


def _without_secret(value: str) -> str:
    try:
        url = urlsplit(value)
        named = url.scheme not in ("http", "https") and url.password is None and "password" not in url.query.lower()
    except ValueError:
        named = False
    return value if named or redact(value) == value else "…"


def _written(name: str, override: str | int | None, *, typed: bool = True) -> tuple[str | None, str]:
    """The text that counts for a setting, None where nobody wrote one, and where that was when it was not luigi.cfg.

    An empty environment variable, or option of `luigi`, is as good as none. With `typed` false, options do not count.
    """
    if override is not None:
        return str(override), ""
    parser, variable = CmdlineParser.get_instance() if typed else None, f"PIPELINE_{name.upper()}"
    if parser is not None and (text := getattr(parser.known_args, f"{_SECTION}_{name}", None)):
        return text, f" (from --{_SECTION}-{name.replace('_', '-')})"
    if text := os.environ.get(variable):
        return text, f" (from {variable} in the environment)"
    return (get_config().get(_SECTION, name) if get_config().has_option(_SECTION, name) else None), ""


def _plain(name: str, text: str, *, of_file: bool) -> str:
    """The text of a setting without outer spaces, and of a path with the home folder in place of `~`."""
    text = text.strip()
    # Not with the text, which may be a secret.
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise UsageError(f"{name}: the quotes would be part of it; allowed is the same without them")
    if of_file and (comment := re.search(r"\s[#;]", text)):
        raise UsageError(
            f"{name}: {comment[0]!r} begins no comment here and would be part of it; allowed are comments on lines of "
            "their own (a path with it can be given in the environment or on the command line)"
        )
    return _at_home(name, text) if name in _PATHS else text


def _at_home(name: str, text: str) -> str:
    url = "duckdb:///" if text.startswith("duckdb:///") else ""
    return url + expand_home(text.removeprefix(url), name)


def expand_home(path: str, name: str) -> str:
    """The path with the home folder in place of a leading `~` or `~user`; `name` is the setting's or option's.

    Raises:
        UsageError: that folder is not known.
    """
    full = os.path.expanduser(path)  # noqa: PTH111 - where Path raises
    if path.startswith("~") and (full.startswith("~") or os.environ.get("HOME") == ""):
        raise UsageError(f"{name} = {path!r}: no home folder is known for its ~; allowed is the path written in full")
    return full


def _parse(name: str, parameter: luigi.Parameter, text: str) -> object:
    if isinstance(parameter, luigi.ChoiceParameter) and text not in _FORMATS:
        raise UsageError(f"{name} = {text!r}: allowed are {', '.join(_FORMATS)}")
    if name not in _BOUNDS:
        return parameter.parse(text)
    kind, lowest, highest = _BOUNDS[name]
    try:
        value = parameter.parse(text)
    except ValueError:
        value = math.nan
    if not lowest <= value <= highest:  # True of nan, too.
        raise UsageError(f"{name} = {text!r}: allowed is {kind} from {lowest:g} to {highest:,.0f}")
    return value


#: What numbers may be: their kind, and the lowest and the highest that mean anything.
_BOUNDS = {
    "publication_lag_months": ("a whole number", 0, 1_200),
    "timeout_s": ("a number", 0.001, 1_000_000),
    "download_limit_gb": ("a number", 0.001, 1_000_000),
    "retries": ("a whole number", 0, 1_000_000),
    "retry_wait_s": ("a number", 0, 1_000_000),
    "load_threads": ("a whole number", 1, 1_000),
    "lock_timeout_s": ("a number", 0, 1_000_000),
}


#: Settings that are a path, or may be one.
_PATHS = ("lake", "warehouse", "source", "scratch", "logs")


def _refuse_no_folder(folder: str) -> None:
    if not folder or BEGINS_AS_ADDRESS.match(folder):
        raise UsageError(f"{folder!r}: allowed is a folder of this machine")


def _refuse_no_address(url: str) -> None:
    # Not with the address, which is a secret.
    if url and not (url.lower().startswith(("http://", "https://")) and can_be_asked(url)):
        raise UsageError("is no address; allowed is nothing, or https://host/path")


#: Who knows whether a text will do: the part that is opened with it. Opening writes nothing.
_TRIALS: dict[str, Callable[[Any], object]] = {
    "lake": open_store,
    "scratch": _refuse_no_folder,
    "logs": _refuse_no_folder,
    "notify_url": _refuse_no_address,
    "warehouse": open_warehouse,
    "source": lambda base: make_source(base, "auto", 0, RetryPolicy(1, 0, 0)),
    "load_memory": lambda amount: open_warehouse(_WAREHOUSE, memory_limit=amount),
}


def _unknown_options() -> list[str]:
    known = [field.name for field in fields(Settings) if field.name not in Settings.EXTRA]
    config = get_config()
    found = config.options(_SECTION) if config.has_section(_SECTION) else []
    unknown = sorted(set(found) - set(known) - set(config.defaults()))
    return [f"unknown option {name!r}, known are {', '.join(known)}" for name in unknown]


_noticed: set[str] = set()


def _warn_of_misspelt_variables() -> None:
    """Name, once in a process, each variable of the environment that looks as one of ours and is none."""
    known = [field.name for field in fields(Settings) if field.name not in Settings.EXTRA]
    for variable in sorted(os.environ):
        start, name = variable[:9], variable[9:]
        if start.upper() != "PIPELINE_" or variable in _noticed or (start.isupper() and name in map(str.upper, known)):
            continue
        if nearest := difflib.get_close_matches(name.lower(), known, 1, 0.7):
            _noticed.add(variable)
            logging.getLogger("luigi-interface.pipeline").warning(
                f"{variable} in the environment is no setting and has no effect; "
                f"did you mean PIPELINE_{nearest[0].upper()}?"
            )
