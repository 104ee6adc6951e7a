"""Luigi's own configuration: the options that this package needs, and one line for a luigi.cfg that Luigi cannot use.

Luigi reads its files while it is imported, so this module is the first that `pipeline` imports. Promise: a file that
cannot be read or parsed, or an option of Luigi's own with an invalid value, is a UsageError that names it; where
nobody catches that, the process ends with this one line and exit code 2. Under plain `luigi` a file that cannot be
parsed ends the process before any module of ours is imported; everything else is the same there.
"""

from __future__ import annotations

import configparser
import os
import stat
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import UsageError
from pipeline.warehouses.registry import ENGINES

#: What Luigi itself must be told (luigi.cfg says why, line by line); the `pipeline` command falls back on these.
LUIGI_OPTIONS: dict[str, dict[str, str]] = {
    "core": {"autoload_range": "false", "no_lock": "true", "log_level": "INFO"},
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
    "resources": {"tlc": "4", "cpu": "4", **{engine.resource: str(engine.writers) for engine in ENGINES.values()}},
    "retcode": {
        "task_failed": "1",
        "missing_data": "1",
        "unhandled_exception": "2",
        "not_run": "4",
        "scheduling_error": "5",
        "already_running": "6",
    },
}


def _import_luigi() -> Any:
    """Luigi's `get_config`, after its files and its own options were found to be usable.

    Raises:
        UsageError: they are not; all that is known is said.
    """
    try:
        with warnings.catch_warnings():
            # Said below, as an error: the lake of the defaults is not the one that the missing file names.
            warnings.filterwarnings("ignore", message="Config file does not exist")
            from luigi.configuration import get_config
    except Exception as error:
        if not (problem := _explained(error)):
            raise
        # A later import in this process must read the files again: Luigi would keep what it has of them.
        for name in [name for name in sys.modules if name.partition(".")[0] == "luigi"]:
            del sys.modules[name]
        raise _said_in_one_line(UsageError(problem)) from None
    if problems := [*_unreadable(get_config()._config_paths), *_invalid_values(get_config())]:
        raise _said_in_one_line(UsageError("\n  ".join(problems)))
    return get_config


def _said_in_one_line(error: UsageError) -> UsageError:
    """The error, which from now on ends the process without a traceback if nobody catches it."""
    before = sys.excepthook

    def hook(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        if raised is not error:
            before(kind, raised, trace)
            return
        sys.stderr.write(f"pipeline: {error}\n")
        raise SystemExit(2)

    sys.excepthook = hook
    return error


def _explained(error: Exception) -> str:
    """What is wrong with which file; empty for an error that is none of the configuration."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__")) for frame in frames]
    if not any(name.startswith("luigi.configuration.") for name in modules):
        return ""
    files = [frame.f_locals.get("filename") for frame in frames if frame.f_code.co_name == "read"]
    path = next((Path(file).absolute() for file in files if isinstance(file, str)), None)
    problem = " ".join(str(error).split())
    if path and path.read_bytes().startswith(b"\xef\xbb\xbf"):
        problem = "begins with a byte order mark; save it as UTF-8 without one"
    elif path and isinstance(error, UnicodeDecodeError):
        byte, line = _first_undecodable(path, error.encoding)
        problem = f"line {line}: byte {byte:#x} is not valid in {error.encoding}, the encoding of this locale; "
        problem += "save the file in it, or in plain ASCII"
    elif isinstance(error, configparser.DuplicateOptionError):
        problem = f"line {error.lineno}: option {error.option} of section [{error.section}] for the second time"
    elif isinstance(error, configparser.DuplicateSectionError):
        problem = f"line {error.lineno}: section [{error.section}] for the second time; put its options under the first"
    elif isinstance(error, configparser.MissingSectionHeaderError):
        problem = f"line {error.lineno}: {error.line.strip()[:100]!r} stands before any [section]"
    elif isinstance(error, configparser.ParsingError):
        lines = ", ".join(f"line {number}: {str(line)[:100]}" for number, line in error.errors[:3])
        problem = f"{lines}: neither [section] nor option = value"
    elif options := [frame.f_locals for frame in frames if {"section", "option"} <= frame.f_locals.keys()]:
        problem = f"[{options[0]['section']}] {options[0]['option']}: {problem}"
    return f"{path or 'luigi.cfg'}: {problem}"


def _first_undecodable(path: Path, encoding: str) -> tuple[int, int]:
    """The first byte that is not valid, and its line."""
    content = path.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return content[error.start], content.count(b"\n", 0, error.start) + 1
    return 0, 1  # Somebody has repaired it meanwhile.


def _unreadable(paths: list[str]) -> list[str]:
    """The files that exist and that Luigi has skipped without a word; opens none."""
    named, found = os.environ.get("LUIGI_CONFIG_PATH"), []
    if named and not Path(named).is_file():
        found.append(f"LUIGI_CONFIG_PATH={named}: there is no such file; name one that exists, or unset the variable")
    for path in dict.fromkeys(paths):
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - no object for each import
            reason = "is a folder" if stat.S_ISDIR(mode) else "" if os.access(path, os.R_OK) else "permission denied"
        except (FileNotFoundError, NotADirectoryError):
            reason = "is a link to no file" if Path(path).is_symlink() else ""
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            found.append(f"{Path(path).absolute()}: cannot be read: {reason}; make it readable for you, or remove it")
    return found


def _invalid_values(config: Any) -> list[str]:
    """What [core], [worker], [scheduler], [retcode] and [resources] have in a way that Luigi cannot read."""
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
    found = []
    for (section, option), parse in parsers.items():
        try:
            if config.has_option(section, option):
                parse(config.get(section, option))
        except (ValueError, configparser.Error) as error:
            found.append(f"luigi.cfg: [{section}] {option}: {' '.join(str(error).split())}")
    return found


get_config = _import_luigi()


def prepare_luigi() -> None:
    """Set the options of `LUIGI_OPTIONS` that no luigi.cfg sets."""
    config = get_config()
    for section, options in LUIGI_OPTIONS.items():
        for option, value in options.items():
            if not config.has_option(section, option):
                config.set(section, option, value)
