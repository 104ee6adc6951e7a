"""What luigi.cfg, environment and command line say: which file was read, what cannot be, and what Luigi lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from luigi.configuration import get_config

from pipeline.cli.doctor.line import Line, failed, ok, warning
from pipeline.errors import redact
from pipeline.settings import Settings, read_settings
from pipeline.tasks.luigi_options import LUIGI_OPTIONS

#: What may be set to one's liking; the others of `LUIGI_OPTIONS` must be as they are.
_FREE = {
    ("core", "log_level"),
    ("worker", "wait_interval"),
    ("worker", "wait_jitter"),
    ("scheduler", "retry_count"),
    ("scheduler", "retry_delay"),
    ("scheduler", "disable_persist"),
    ("scheduler", "remove_delay"),
    *(("resources", name) for name in LUIGI_OPTIONS["resources"]),
}
_COPY = "copy the project's luigi.cfg into the folder that you work in"


def files() -> list[Path]:
    """The files that Luigi read its configuration from; of two, the later one counts."""
    found = [Path(path).absolute() for path in getattr(get_config(), "_config_paths", [])]
    return [path for path in found if path.is_file()]


def file() -> Iterator[Line]:
    """Which luigi.cfg was read."""
    if found := files():
        yield ok("luigi.cfg", " and then ".join(map(str, found)))
    else:
        yield warning("luigi.cfg", f"none in {Path.cwd()}, so all is as by default", _COPY)


def settings(overrides: Mapping[str, Any]) -> tuple[list[Line], Settings, set[str]]:
    """What is said of the settings, the settings, and the names of the invalid ones, which have their defaults."""
    found, problems = read_settings(**overrides)
    if problems:
        lines = [failed("settings", f"[pipeline] {problem}", _where(problem)) for problem in problems.values()]
        return lines, found, set(problems)
    told = f"lake {found.lake}, warehouse {redact(found.warehouse)}, source {redact(found.source)}"
    return [ok("settings", told)], found, set()


def luigi_options() -> Iterator[Line]:
    """Which of Luigi's own options `luigi` would miss, or has in a way that breaks what is promised."""
    # Read anew, since the command has set those that are missing for itself.
    written = type(get_config())()
    written.read([str(path) for path in files()])
    missing: list[str] = []
    other: list[str] = []
    free: list[str] = []
    for section, options in LUIGI_OPTIONS.items():
        for option, value in options.items():
            if not written.has_option(section, option):
                missing.append(f"[{section}] {option}")
            elif (found := str(written.get(section, option)).strip()).lower() != value.lower():
                kind = free if (section, option) in _FREE else other
                kind.append(f"[{section}] {option} = {found} (ours is {value})")
    if missing:
        code = "; without [retcode] it ends with 0 whatever failed" * ("[retcode] task_failed" in missing)
        yield warning("luigi options", f"`luigi` (not `pipeline`) lacks {_list(missing)}{code}", _COPY)
    if other:
        yield warning("luigi options", ", ".join(other), "set them as the project's luigi.cfg does, which says why")
    if not missing and not other:
        yield ok("luigi options", "as the package needs them" + f"; of your own: {', '.join(free)}" * bool(free))


def _list(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def _where(problem: str) -> str:
    return "mend it there" if "(from " in problem else "mend the command line or luigi.cfg"
