"""The settings: one table of fields, and where a value comes from.

`Settings` is the table. From it come the section [pipeline] of Luigi, the options of `pipeline`, the variables of the
environment, and what README and luigi.cfg say. The command line (`--pipeline-lake`, `--lake`) overrides the environment
(`PIPELINE_LAKE`), which overrides luigi.cfg. A step takes the settings and the run context of its process along to the
process in which it is run (`pipeline.tasks.base`), since under forkserver and spawn a child has no command line.

This module opens nothing: `pipeline.places` opens and validates what the settings name.
"""

from __future__ import annotations

import configparser
import difflib
import logging
import math
import os
import re
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from pipeline.errors import UsageError, redact

_SECTION = "pipeline"


@dataclass(frozen=True)
class Field:
    """A row of the table; the type of its value is that of the default."""

    default: Any
    help: str
    #: What stands for the value in the help of its option of `pipeline`; empty where it has no such option.
    option: str = ""
    choices: tuple[str, ...] = ()
    #: The lowest and the highest number.
    bounds: tuple[float, float] | None = None
    is_path: bool = False
    #: Whether it may hold a password; it is then shown only without it.
    is_secret: bool = False
    name: str = ""

    @property
    def variable(self) -> str:
        """Its variable of the environment."""
        return f"{_SECTION}_{self.name}".upper()

    @property
    def flag(self) -> str:
        """Its option of `pipeline`; that of `luigi` has `pipeline-` before the name."""
        return f"--{self.name.replace('_', '-')}"

    def parse(self, text: str) -> Any:
        """The value of a text.

        Raises:
            UsageError: it is none of the choices, no number, or out of bounds.
        """
        if self.choices and text not in self.choices:
            raise UsageError(f"{self.name} = {text!r}: allowed are {', '.join(self.choices)}")
        if self.bounds is None:
            return text
        lowest, highest = self.bounds
        try:
            value = type(self.default)(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:  # True of nan, too.
            kind = "a whole number" if isinstance(self.default, int) else "a number"
            raise UsageError(f"{self.name} = {text!r}: allowed is {kind} from {lowest:g} to {highest:,.0f}")
        return value

    def parameter(self) -> luigi.Parameter:
        """It as a parameter of Luigi."""
        if self.choices:
            return luigi.ChoiceParameter(default=self.default, choices=self.choices, description=self.help)
        kinds = {int: luigi.IntParameter, float: luigi.FloatParameter, str: luigi.Parameter}
        return kinds[type(self.default)](default=self.default, description=self.help)


def _row(default: Any, help: str, option: str = "", **traits: Any) -> Any:
    row = Field(default, help, option, **traits)
    return field(default=default, repr=not row.is_secret, metadata={"row": row})


@dataclass(frozen=True)
class Settings:
    """The values of all settings, picklable; `Settings()` has the defaults."""

    lake: str = _row(
        "data/lake", "folder of the Parquet lake, or gs://bucket/prefix in Google Cloud Storage", "FOLDER", is_path=True
    )
    warehouse: str = _row(
        "duckdb:///data/warehouse.duckdb",
        "URL of the warehouse: duckdb:///relative/path, duckdb:////absolute/path, postgresql://user@host/database, or "
        "bigquery://project/dataset?location=US",
        option="URL",
        is_path=True,
        is_secret=True,
    )
    source: str = _row(
        "https://d37ci6vzurychx.cloudfront.net",
        "where raw files come from: an address laid out as TLC's site, one with {dataset} and {file}, one that ends in "
        "/releases/download (a mirror of TLC's old CSVs), or a folder",
        option="URL",
        is_path=True,
        is_secret=True,
    )
    source_format: str = _row(
        "auto",
        "ending of the raw files, and of those that count in the lake; auto is csv.gz for a mirror of old CSVs and "
        "parquet elsewhere",
        option="ENDING",
        choices=("auto", "parquet", "csv", "csv.gz"),
    )
    publication_lag_months: int = _row(
        4, "months that TLC may take to publish one; a month absent for longer is an error", bounds=(0, 1_200)
    )
    timeout_s: float = _row(
        60.0, "seconds with less than 1,000 bytes a second after which a request is aborted", bounds=(0.001, 1_000_000)
    )
    download_limit_gb: float = _row(
        10.0, "GB of one raw file above which its download is aborted", bounds=(0.001, 1_000_000)
    )
    retries: int = _row(
        5, "retries after a failed request; reset after each 1 MiB or hundredth of the file", bounds=(0, 1_000_000)
    )
    retry_wait_s: float = _row(1.0, "seconds before the first retry; doubled each time", bounds=(0, 1_000_000))
    load_memory: str = _row("1GB", "memory that one load may use in DuckDB before it spills to disk")
    load_threads: int = _row(2, "threads that one load may use in DuckDB", bounds=(1, 1_000))
    lock_timeout_s: float = _row(
        600.0, "seconds to wait for another process's lock: DuckDB file, Postgres, download", bounds=(0, 1_000_000)
    )
    scratch: str = _row(
        "data/scratch", "local folder for work in progress, used when the lake is not on this machine", is_path=True
    )
    logs: str = _row("data/logs", "local folder for the log of each step and the history of runs", is_path=True)
    notify_url: str = _row(
        "", "secret address to which the end of each run is posted, in the form of Slack's webhooks", is_secret=True
    )


#: The table by name.
FIELDS: dict[str, Field] = {each.name: replace(each.metadata["row"], name=each.name) for each in fields(Settings)}


class pipeline(luigi.Config):
    """The section [pipeline]; lower case because Luigi names the section after the class."""

    locals().update({name: row.parameter() for name, row in FIELDS.items()})


@dataclass(frozen=True)
class RunContext:
    """How this run is done, which no store, warehouse or source depends on."""

    #: How many processes share the machine.
    workers: int = 1
    oldest_first: bool = False
    #: The socket to which steps send their progress; empty for none.
    reports: str = ""


_adopted: Settings | None = None
_context: RunContext | None = None
#: The last answer of `current_settings`, and what it was made from; resolving takes 0.3 ms, and thousands of tasks ask.
_last: tuple[object, Settings] | None = None
_validate: Callable[[Settings, Collection[str]], dict[str, str]] | None = None


def validate_with(validate: Callable[[Settings, Collection[str]], dict[str, str]]) -> None:
    """Let this function validate what the settings name; `pipeline.places`, which can open it, calls this.

    It gets the settings and the names of those that are invalid already, and returns what else is wrong, by name.
    """
    global _validate
    _validate = validate


def current_settings() -> Settings:
    """The settings of this process: those it adopted, else what command line, environment and luigi.cfg say now.

    Raises:
        UsageError: as for `resolve`.
    """
    global _last
    if _adopted is not None:
        return _adopted
    config = get_config()
    environment = [(name, value) for name, value in os.environ.items() if name.startswith("PIPELINE_")]
    options = config.items(_SECTION, raw=True) if config.has_section(_SECTION) else []
    made_from = (CmdlineParser.get_instance(), environment, options)
    if _last is None or _last[0] != made_from:
        _last = (made_from, resolve())
    return _last[1]


def adopt(settings: Settings | None) -> None:
    """Make these the settings of this process, whatever its command line and files say; None ends that."""
    global _adopted
    _adopted = settings


def run_context() -> RunContext:
    """The context of this process's run: the adopted one, else that of Luigi's command line."""
    return _context or RunContext(workers=luigi.interface.core().workers)


def adopt_context(context: RunContext | None) -> None:
    """Make this the context of this process's run; None ends that."""
    global _context
    _context = context


def resolve(**overrides: str | None) -> Settings:
    """The settings from command line, environment and luigi.cfg, all overridden by what is given here (not None).

    Raises:
        UsageError: an invalid value, or an unknown option in [pipeline]; all of them at once.
    """
    settings, problems = read_settings(**overrides)
    if problems:
        raise UsageError(f"[{_SECTION}] " + "\n  ".join(problems.values()))
    return settings


def read_settings(**overrides: str | None) -> tuple[Settings, dict[str, str]]:
    """As `resolve`, but with the default in place of each invalid value, and what is wrong, by name."""
    problems = _unknown_options()
    _warn_of_misspelt_variables()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, row in FIELDS.items():
        try:
            text, origins[name] = _written(row, overrides.get(name))
            if text is not None:
                of_file = not origins[name] and overrides.get(name) is None
                values[name] = row.parse(_plain(row, text, of_file=of_file))
        except (UsageError, configparser.Error) as error:
            wrong[name] = str(error)
    settings = Settings(**values)
    if _validate is not None:
        wrong |= _validate(settings, wrong.keys())
    for name in [name for name in FIELDS if name in wrong]:
        # Which setting it was, and where it is written, is known here.
        problems[name] = (wrong[name] if name in wrong[name] else f"{name}: {wrong[name]}") + origins.get(name, "")
    if (workers := run_context().workers) < 1:  # With none, Luigi waits for ever for another worker.
        problems["workers"] = f"--workers {workers}: allowed is a whole number from 1 upwards"
    return replace(settings, **{name: FIELDS[name].default for name in wrong}), problems


def suggested_command(*words: str) -> str:
    """The command line of `pipeline` with these words, for people to type: it has the settings of this process.

    Those that luigi.cfg and environment give need no option. In place of a secret there is an ellipsis.
    """
    settings, options = current_settings(), list[str]()
    for name, row in FIELDS.items():
        if row.option:
            text, _ = _written(row, None, typed=False)
            usual = row.default if text is None else row.parse(_plain(row, text, of_file=False))
            value = getattr(settings, name)
            options += [row.flag, _without_secret(value) if row.is_secret else value] if value != usual else []
    return shlex.join(["pipeline", *words, *options])


def _without_secret(value: str) -> str:
    try:
        url = urlsplit(value)
        named = url.scheme not in ("http", "https") and url.password is None and "password" not in url.query.lower()
    except ValueError:
        named = False
    return value if named or redact(value) == value else "…"


def _written(row: Field, override: str | None, *, typed: bool = True) -> tuple[str | None, str]:
    """The text that counts for a setting, None where none is written, and where that was when it was not luigi.cfg.

    An empty environment variable, or option of `luigi`, counts as none. With `typed` false, options do not count.
    """
    if override is not None:
        return str(override), ""
    parser = CmdlineParser.get_instance() if typed else None
    if parser is not None and (text := getattr(parser.known_args, f"{_SECTION}_{row.name}", None)):
        return text, f" (from --{_SECTION}-{row.flag.removeprefix('--')})"
    if text := os.environ.get(row.variable):
        return text, f" (from {row.variable} in the environment)"
    return (get_config().get(_SECTION, row.name) if get_config().has_option(_SECTION, row.name) else None), ""


def _plain(row: Field, text: str, *, of_file: bool) -> str:
    """The text of a setting without outer spaces, and of a path with the home folder in place of `~`."""
    text = text.strip()
    # Not with the text, which may be a secret.
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise UsageError(f"{row.name}: the quotes would be part of it; allowed is the same without them")
    if of_file and (comment := re.search(r"\s[#;]", text)):
        raise UsageError(
            f"{row.name}: {comment[0]!r} begins no comment here and would be part of it; allowed are comments on lines "
            "of their own (a path with it can be given in the environment or on the command line)"
        )
    if not row.is_path:
        return text
    url = "duckdb:///" if text.startswith("duckdb:///") else ""
    return url + expand_home(text.removeprefix(url), row.name)


def expand_home(path: str, name: str) -> str:
    """The path with the home folder in place of a leading `~` or `~user`; `name` is the setting's or option's.

    Raises:
        UsageError: that folder is not known.
    """
    full = os.path.expanduser(path)  # noqa: PTH111 - where Path raises
    if path.startswith("~") and (full.startswith("~") or os.environ.get("HOME") == ""):
        raise UsageError(f"{name} = {path!r}: no home folder is known for its ~; allowed is the path written in full")
    return full


def _unknown_options() -> dict[str, str]:
    config = get_config()
    options = config.options(_SECTION) if config.has_section(_SECTION) else []
    unknown = sorted(set(options) - set(FIELDS) - set(config.defaults()))
    return {name: f"unknown option {name!r}, known are {', '.join(FIELDS)}" for name in unknown}


_noticed: set[str] = set()


def _warn_of_misspelt_variables() -> None:
    """Name, once in a process, each variable of the environment that looks like one of ours and is none."""
    known = {row.variable for row in FIELDS.values()}
    for variable in sorted(os.environ):
        start, name = variable[:9], variable[9:]
        if start.upper() != "PIPELINE_" or variable in _noticed or variable in known:
            continue
        if nearest := difflib.get_close_matches(name.lower(), FIELDS, 1, 0.7):
            _noticed.add(variable)
            logging.getLogger("luigi-interface.pipeline").warning(
                f"{variable} in the environment is no setting and has no effect; "
                f"did you mean {FIELDS[nearest[0]].variable}?"
            )
