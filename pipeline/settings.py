"""The settings: one table of fields, and where their values come from.

`Settings` is the table for Luigi's section [pipeline], the options of `pipeline`, the environment variables, luigi.cfg
and docs/reference/settings.md. The command line (`--pipeline-lake`, `--lake`) overrides the environment
(`PIPELINE_LAKE`), which overrides luigi.cfg. This module opens nothing: `pipeline.places` opens and validates what the
settings name.
"""

from __future__ import annotations

import configparser
import difflib
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import UsageError, redact
from pipeline.tasks import luigi_options  # noqa: F401 - before Luigi: it reports an invalid luigi.cfg in one line.

# isort: split
import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

_SECTION = "pipeline"


@dataclass(frozen=True)
class Field:
    """A row of the table; a value has the type of the default."""

    default: Any
    help: str
    #: The placeholder of the value in the help of `pipeline`; empty for a setting without such an option.
    option: str = ""
    choices: tuple[str, ...] = ()
    #: The lowest and the highest number.
    bounds: tuple[float, float] | None = None
    is_path: bool = False
    #: Whether it may hold a password, and must be shown without it.
    is_secret: bool = False
    name: str = ""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{_SECTION}_{self.name}".upper()

    @property
    def flag(self) -> str:
        """Its option of `pipeline`; the option of `luigi` has `pipeline-` before the name."""
        return f"--{self.name.replace('_', '-')}"

    def parse(self, text: str) -> Any:
        """The value of a text; a UsageError when it is none of the choices, no number, or out of bounds."""
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
            number = "a whole number" if isinstance(self.default, int) else "a number"
            raise UsageError(f"{self.name} = {text!r}: allowed is {number} from {lowest:g} to {highest:,.0f}")
        return value


def _row(default: Any, help: str, option: str = "", **traits: Any) -> Any:
    row = Field(default, help, option, **traits)
    return field(default=default, repr=not row.is_secret, metadata={"row": row})


_URL: Any = {"option": "URL", "is_path": True, "is_secret": True}


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
        **_URL,
    )
    source: str = _row(
        "https://d37ci6vzurychx.cloudfront.net",
        "where raw files come from: an address laid out as TLC's site, one with {dataset} and {file}, one that ends in "
        "/releases/download (a mirror of TLC's old CSVs), or a folder",
        **_URL,
    )
    source_format: str = _row(
        "auto",
        "ending of the raw files, and of those that count in the lake; auto is csv.gz for a mirror of old CSVs and "
        "parquet elsewhere",
        "ENDING",
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


#: What `pipeline demo` fills, and --demo looks at.
DEMO = {
    "lake": "data/sample/lake",
    "warehouse": "duckdb:///data/sample/warehouse.duckdb",
    "logs": "data/sample/logs",
}

#: The table by name.
FIELDS: dict[str, Field] = {each.name: replace(each.metadata["row"], name=each.name) for each in fields(Settings)}


class pipeline(luigi.Config):
    """The section [pipeline], which Luigi names after the class. Values are parsed by `Field`."""

    locals().update(
        {name: luigi.Parameter(default=str(row.default), description=row.help) for name, row in FIELDS.items()}
    )


@dataclass(frozen=True)
class RunContext:
    """Options of one run, on which no store, warehouse or source depends."""

    workers: int = 1
    oldest_first: bool = False
    #: The socket to which steps send their events; empty for none.
    reports: str = ""


_adopted: Settings | None = None
_context: RunContext | None = None
#: Called with the settings and the names of invalid ones; return further problems by name. Filled by `pipeline.places`.
VALIDATORS: list[Callable[[Settings, Collection[str]], dict[str, str]]] = []


def current_settings() -> Settings:
    """The adopted settings of this process, else those of `resolve`, which may raise a UsageError."""
    if _adopted is not None:
        return _adopted
    config = get_config()
    environment = ((name, value) for name, value in os.environ.items() if name.startswith("PIPELINE_"))
    options = config.items(_SECTION, raw=True) if config.has_section(_SECTION) else ()
    return _resolved(CmdlineParser.get_instance(), tuple(environment), tuple(options))


@lru_cache(maxsize=1)
def _resolved(*inputs: object) -> Settings:  # Resolving takes 0.3 ms, and thousands of tasks ask.
    return resolve()


def adopt(settings: Settings | None) -> None:
    """Make these the settings of this process, in place of its command line and files; None undoes it."""
    global _adopted
    _adopted = settings


def run_context() -> RunContext:
    """The adopted context of this process, else that of Luigi's command line."""
    return _context or RunContext(workers=luigi.interface.core().workers)


def adopt_context(context: RunContext | None) -> None:
    """Make this the context of this process; None undoes it."""
    global _context
    _context = context


def resolve(**overrides: str | None) -> Settings:
    """The settings from command line, environment and luigi.cfg; `overrides` that are not None override all of them.

    One UsageError has all invalid values and unknown options.
    """
    settings, problems = read_settings(**overrides)
    if problems:
        raise UsageError(f"[{_SECTION}] " + "\n  ".join(problems.values()))
    return settings


def read_settings(**overrides: str | None) -> tuple[Settings, dict[str, str]]:
    """As `resolve`, but returns the problems by name, and the default in place of each invalid value."""
    config = get_config()
    options = config.options(_SECTION) if config.has_section(_SECTION) else []
    unknown = sorted(set(options) - set(FIELDS) - set(config.defaults()))
    problems = {name: f"unknown option {name!r}, known are {', '.join(FIELDS)}" for name in unknown}
    _warn_of_misspelt_variables()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    invalid: dict[str, str] = {}
    for name, row in FIELDS.items():
        try:
            text, origins[name] = _written(row, overrides.get(name))
            if text is not None:
                values[name] = row.parse(_plain(row, text))
        except (UsageError, configparser.Error) as error:
            invalid[name] = str(error)
    settings = Settings(**values)
    for validate in VALIDATORS:
        invalid |= validate(settings, invalid.keys())
    for name in sorted(invalid, key=list(FIELDS).index):
        problem = invalid[name] if name in invalid[name] else f"{name}: {invalid[name]}"
        problems[name] = problem + origins.get(name, "")
    if (workers := run_context().workers) < 1:  # With none, Luigi would wait for ever for another worker.
        problems["workers"] = f"--workers {workers}: allowed is a whole number from 1 upwards"
    return replace(settings, **{name: FIELDS[name].default for name in invalid}), problems


def suggested_command(*words: str, settings: Settings | None = None) -> str:
    """The `pipeline` command line with these words and these settings, by default those of this process.

    Settings from luigi.cfg and environment need no option; those of the sample are --demo. A secret is shown as an
    ellipsis.
    """
    settings = settings or current_settings()
    if is_demo(settings):
        return shlex.join(["pipeline", *words[:1], "--demo", *words[1:]])
    needed = _options_needed(settings)
    options = [part for row, value in needed for part in (row.flag, "…" if _is_secret(row, value) else value)]
    return shlex.join(["pipeline", *words, *options])


def child_command(*words: str) -> tuple[list[str], dict[str, str]]:
    """The same command for a child process: its arguments, and its environment, which has the secrets."""
    arguments, environment = [sys.executable, "-m", "pipeline", *words], dict(os.environ)
    if is_demo(current_settings()):
        return [*arguments, "--demo"], environment
    for row, value in _options_needed(current_settings()):
        if _is_secret(row, value):
            environment[row.variable] = value
        else:
            arguments += [row.flag, value]
    return arguments, environment


def _options_needed(settings: Settings) -> list[tuple[Field, str]]:
    """Those of the settings that luigi.cfg and the environment would not give to a command."""
    needed = []
    for name, row in FIELDS.items():
        if row.option:
            text, _ = _written(row, None, with_options=False)
            usual = row.default if text is None else row.parse(_plain(row, text))
            value = getattr(settings, name)
            needed += [(row, str(value))] if value != usual else []
    return needed


def _is_secret(row: Field, value: str) -> bool:
    return row.is_secret and _without_secret(value) != value


def is_demo(settings: Settings) -> bool:
    """Whether these settings are those of --demo; its source has another address each time."""
    return all(getattr(settings, name) == value for name, value in DEMO.items())


def _without_secret(value: str) -> str:
    try:
        url = urlsplit(value)
        safe = url.scheme not in ("http", "https") and url.password is None and "password" not in url.query.lower()
    except ValueError:
        safe = False
    return value if safe or redact(value) == value else "…"


def _written(row: Field, override: str | None, *, with_options: bool = True) -> tuple[str | None, str]:
    """The text of a setting, None where none is written, and where it was written if not in luigi.cfg.

    An empty environment variable or option of `luigi` counts as none.
    """
    if override is not None:
        return str(override), ""
    parser = CmdlineParser.get_instance() if with_options else None
    if parser is not None and (text := getattr(parser.known_args, f"{_SECTION}_{row.name}", None)):
        return text, f" (from --{_SECTION}-{row.flag.removeprefix('--')})"
    if text := os.environ.get(row.variable):
        return text, f" (from {row.variable} in the environment)"
    text = get_config().get(_SECTION, row.name, None)
    if text and (comment := re.search(r"\s[#;]", text.strip())):
        raise UsageError(
            f"{row.name}: {comment[0]!r} does not begin a comment here and would be part of the value; allowed are "
            "comments on lines of their own (a path with it can be given in the environment or on the command line)"
        )
    return text, ""


def _plain(row: Field, text: str) -> str:
    """The text without outer spaces; a path has the home folder in place of `~`."""
    text = text.strip()
    # The error does not show the text, which may be a secret.
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise UsageError(f"{row.name}: the quotes would be part of the value; allowed is the value without them")
    if not row.is_path:
        return text
    url = "duckdb:///" if text.startswith("duckdb:///") else ""
    return url + expand_home(text.removeprefix(url), row.name)


def expand_home(path: str, name: str) -> str:
    """The path with the home folder in place of a leading `~` or `~user`; a UsageError for an unknown one."""
    full = os.path.expanduser(path)  # noqa: PTH111 - where Path raises
    if path.startswith("~") and (full.startswith("~") or os.environ.get("HOME") == ""):
        raise UsageError(f"{name} = {path!r}: the home folder for its ~ is unknown; allowed is a full path")
    return full


@cache
def _warn_of_misspelt_variables() -> None:
    """Warn, once in a process, of each environment variable that looks like a setting and is none."""
    known = {row.variable for row in FIELDS.values()}
    for variable in sorted(set(os.environ) - known):
        similar = difflib.get_close_matches(variable[9:].lower(), FIELDS, 1, 0.7)
        if variable[:9].upper() == "PIPELINE_" and similar:
            logging.getLogger("luigi-interface.pipeline").warning(
                f"{variable} in the environment is not a setting and has no effect; "
                f"did you mean {FIELDS[similar[0]].variable}?"
            )
