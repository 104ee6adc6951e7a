"""Every setting: what it is, its default, and where a value comes from.

A value is taken from the command line (`--pipeline-lake …`), else from the environment (`PIPELINE_LAKE`), else from the
section [pipeline] of luigi.cfg, else from the default. What the parent process resolved is handed to every child with
its task (see `pipeline.tasks.base`), since under forkserver and spawn a child sees no command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from pipeline.errors import UsageError
from pipeline.source import FORMATS, TLC_SITE

_SECTION = "pipeline"

#: What Luigi itself must be told (luigi.cfg says why, line by line); the `pipeline` command falls back on these.
LUIGI_OPTIONS: dict[str, dict[str, str]] = {
    "core": {"autoload_range": "false", "no_lock": "true"},
    "worker": {
        "keep_alive": "true",
        "check_complete_on_run": "true",
        "task_process_context": "pipeline.tasks.process.TaskProcessContext",
        "wait_interval": "0.2",
        "wait_jitter": "0.2",
    },
    "scheduler": {
        "retry_count": "1",
        "retry_delay": "1",
        "disable_persist": "300",
        "stable_done_cooldown_secs": "0",
        "remove_delay": "86400",
    },
    "resources": {"tlc": "4", "cpu": "4", "warehouse": "1"},
    "retcode": {
        "task_failed": "1",
        "missing_data": "1",
        "unhandled_exception": "2",
        "not_run": "4",
        "scheduling_error": "5",
        "already_running": "6",
    },
}


class pipeline(luigi.Config):
    """The section [pipeline]; lower case because Luigi names the section after the class."""

    lake = luigi.Parameter(default="data/lake", description="folder that holds the Parquet lake")
    warehouse = luigi.Parameter(
        default="duckdb:///data/warehouse.duckdb",
        description="URL of the warehouse: duckdb:///relative/file.duckdb or duckdb:////absolute/file.duckdb",
    )
    source = luigi.Parameter(
        default=TLC_SITE,
        description="where raw files come from: an address laid out as TLC's site, one with {dataset} and {file}, "
        "one that ends in /releases/download (a mirror of TLC's old CSVs), or a folder",
    )
    source_format = luigi.ChoiceParameter(
        default="auto",
        choices=["auto", *FORMATS],
        description="ending of the raw files; auto is csv.gz for the mirror of old CSVs and parquet elsewhere",
    )
    publication_lag_months = luigi.IntParameter(
        default=4, description="months that TLC may take to publish one; absent for longer is an error"
    )
    timeout_s = luigi.FloatParameter(
        default=60.0, description="seconds without a byte after which a request is given up"
    )
    retries = luigi.IntParameter(default=5, description="attempts more after a failed one, counted anew on progress")
    retry_wait_s = luigi.FloatParameter(default=1.0, description="seconds before the first retry; doubled each time")
    load_memory = luigi.Parameter(default="1GB", description="memory that one load may use in DuckDB before it spills")
    load_threads = luigi.IntParameter(default=2, description="threads that one load may use in DuckDB")
    lock_timeout_s = luigi.FloatParameter(
        default=600.0, description="seconds to wait for a file that another process holds (the DuckDB file, a download)"
    )


@dataclass(frozen=True)
class Settings:
    """The values of all settings, picklable; `workers` is how many processes share the machine."""

    lake: str
    warehouse: str
    source: str
    source_format: str
    publication_lag_months: int
    timeout_s: float
    retries: int
    retry_wait_s: float
    load_memory: str
    load_threads: int
    lock_timeout_s: float
    workers: int = 1


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


def resolve(**overrides: str | int | None) -> Settings:
    """The settings from command line, environment and luigi.cfg, with what is given here (not None) before them all."""
    problems = _unknown_options()
    values: dict[str, object] = {}
    for name, parameter in pipeline.get_params():
        given = overrides.get(name)
        try:
            values[name] = parameter.parse(str(given)) if given is not None else _value(name, parameter)
        except Exception as error:  # Luigi's parameters raise whatever their parser does.
            problems.append(f"{name}: {error}")
            continue
        if isinstance(values[name], (int, float)) and not _reasonable(name, values[name]):
            problems.append(f"{name} = {values[name]}: too small")
    if problems:
        raise UsageError("[pipeline] " + "; ".join(problems) + ". README.md lists every setting")
    workers = overrides.get("workers") or luigi.interface.core().workers
    return Settings(**values, workers=int(workers))  # type: ignore[arg-type]


def prepare_luigi() -> None:
    """Set the options of `LUIGI_OPTIONS` that no luigi.cfg sets."""
    config = get_config()
    for section, options in LUIGI_OPTIONS.items():
        for option, value in options.items():
            if not config.has_option(section, option):
                config.set(section, option, value)


def _value(name: str, parameter: luigi.Parameter) -> object:
    parser = CmdlineParser.get_instance()
    on_command_line = parser is not None and getattr(parser.known_args, f"{_SECTION}_{name}", None)
    from_environment = os.environ.get(f"PIPELINE_{name.upper()}")
    if from_environment and not on_command_line:
        return parameter.parse(from_environment)
    return parameter.task_value(_SECTION, name)


def _unknown_options() -> list[str]:
    known = [field.name for field in fields(Settings) if field.name != "workers"]
    config = get_config()
    found = config.options(_SECTION) if config.has_section(_SECTION) else []
    unknown = sorted(set(found) - set(known) - set(config.defaults()))
    return [f"unknown option {name!r}, known are {', '.join(known)}" for name in unknown]


def _reasonable(name: str, value: object) -> bool:
    lowest = {"publication_lag_months": 0, "retries": 0, "retry_wait_s": 0, "lock_timeout_s": 0, "load_threads": 1}
    assert isinstance(value, (int, float))
    return value >= lowest.get(name, 0.001)
