"""`pipeline doctor`: does this machine have what a run needs? One line for each check, with a remedy.

Nothing is changed: the file that is written to the lake is deleted again, and a missing lake or warehouse is not
created. A check that hangs or breaks does not stop the others, and no secret is shown.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import requests
from luigi.configuration import get_config
from rich.text import Text

from pipeline.cli.options import as_json, settings_given, settings_options, workers_option
from pipeline.cli.output import print_json, print_text
from pipeline.datasets import DATASETS
from pipeline.disk import nearest_folder
from pipeline.errors import PipelineError, SourceError, redact, visible
from pipeline.months import add_months, format_month, month_range, parse_month
from pipeline.places import inventory_of, source_of, store_of, warehouse_of
from pipeline.runs.runner import configured_scheduler, luigid_resources
from pipeline.settings import Settings, read_settings
from pipeline.state.plan import bytes_of_missing
from pipeline.tasks.logs import problem
from pipeline.tasks.luigi_options import default_options
from pipeline.tasks.workers import usable_cpus
from pipeline.units import counted, size
from pipeline.version import __version__
from pipeline.warehouses.base import Locked
from pipeline.warehouses.registry import engine_of
from pipeline.warehouses.views import not_ours

#: ok, warning (runs work, with a limitation) or failed (runs will fail); the message; the remedy, which is empty for
#: ok. As `Engine.judge` gives them.
Answer = tuple[str, str, str]

_PACKAGE = "taxi-pipeline"
_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}
#: For a check (Postgres retries a refused connection for 10 s), for a request, and for a DuckDB file in use.
_CHECK_S, _REQUEST_S, _LOCK_S = 15.0, 5.0, 2.0
#: The memory that a step may take while it conforms a month.
_WORKER_BYTES = 700_000_000
#: The options of `default_options()` that may differ, besides [resources]; the others keep a promise of this package.
_FREE = {"log_level", "wait_interval", "wait_jitter", "retry_count", "retry_delay", "disable_persist", "remove_delay"}
_COPY = "copy the project's luigi.cfg into your working folder"


@click.command()
@settings_options
@workers_option
@click.option("--scheduler", metavar="URL", help="The luigid to check.  [default: that of luigi.cfg]")
@click.option("--offline", is_flag=True, help="Do not ask the source.")
@as_json
def doctor(workers: int, scheduler: str | None, offline: bool, as_json: bool, **settings: Any) -> None:
    """Check what a run needs, and say what is missing.

    The checks are: Python and packages, luigi.cfg, CPUs, lake, warehouse, logs, source, disk, luigid and
    notification. Each problem has a remedy. Nothing is changed, and no secret is shown. The exit code is 1 if a check
    failed, else 0, also with warnings.

    \b
    pipeline doctor
    pipeline doctor --warehouse postgresql://taxi@localhost/ny_taxi --workers 4
    """  # noqa: D301 (click needs the character itself)
    lines, settings = [], settings_given(settings)
    for name, (status, message, remedy) in _checks(settings, workers, scheduler, offline):
        lines.append({"check": name, "status": status, "message": message, "remedy": remedy})
        if not as_json:
            text = visible("; ".join(filter(None, (message, remedy))))
            print_text(Text.assemble((status.ljust(9), _STYLES[status]), name.ljust(15), text))
    failures, warnings = (sum(line["status"] == status for line in lines) for status in ("failed", "warning"))
    if as_json:
        print_json({"failed": failures, "warnings": warnings, "checks": lines})
    sys.exit(1 if failures else 0)


def _checks(
    overrides: Mapping[str, Any], workers: int, scheduler: str | None, offline: bool
) -> Iterator[tuple[str, Answer]]:
    """Each check and its answers, as soon as they are known; `overrides` are settings of the command line."""
    settings, problems = read_settings(**overrides)
    checks: dict[str, Callable[[], Iterable[Answer]]] = {
        # The package cannot be installed for a Python that it does not support.
        "python": lambda: [("ok", f"{platform.python_version()} at {sys.executable}", "")],
        "packages": lambda: _packages(settings.warehouse),
        "luigi.cfg": _luigi_cfg,
        "settings": lambda: _settings(settings, problems),
        "luigi options": _luigi_options,
        "machine": lambda: _machine(workers),
        "lake": lambda: _lake(settings),
        "warehouse": lambda: _warehouse(settings),
        "logs": lambda: logs(settings),
        "source": lambda: _source(settings),
        "disk": lambda: disk(settings),
        "scheduler": lambda: _scheduler(scheduler or configured_scheduler()),
        "notification": lambda: _notification(settings),
    }
    for name, check in checks.items():
        if name in problems:
            yield name, ("warning", "not checked, because the setting is invalid", "correct the setting")
        elif name != "source" or not offline:
            yield from ((name, answer) for answer in within(_CHECK_S, name, check))


def within(seconds: float, name: str, check: Callable[[], Iterable[Answer]]) -> list[Answer]:
    """The answers of a check; an error is an answer too, and so is none within these seconds.

    The check runs in a thread, which is abandoned after that time: what it waits for may have no time limit.
    """
    answers: list[Answer] = []

    def run() -> None:
        try:
            answers.extend(check())
        except PipelineError as error:
            message, _, remedy = str(error).partition("; ")
            answers.append(("failed", message, remedy or f"check [pipeline] {name}"))
        except Exception as error:  # An unexpected one must not hide the other checks.
            answers.append(("failed", f"{type(error).__name__}: {error}", "this is a bug: report it"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [("failed", f"no answer within {seconds:g} s", "check the network, and the server")]
    return answers


def _packages(warehouse: str) -> Iterator[Answer]:
    """Check the versions that our own metadata requires, with the extra of the warehouse."""
    from packaging.requirements import Requirement

    present = [f"{_PACKAGE} {__version__}"]  # Of the code that runs; its metadata may be of an older installation.
    problems: list[Answer] = []
    for requirement in map(Requirement, metadata.requires(_PACKAGE) or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": engine_of(warehouse).extra}):
            continue
        name, version, requirement.marker = requirement.name, "", None
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
        if version and requirement.specifier.contains(version, prereleases=True):
            present.append(f"{name} {version}")
        else:
            message = f"{name} {version} is installed" if version else f"{name} is not installed"
            needed = f"{message}; needed is {requirement.specifier or 'any version'}"
            problems.append(("failed", needed, f"pip install '{requirement}'"))
    yield from problems or [("ok", ", ".join(present), "")]
    yield from _namesakes()


def _namesakes() -> Iterator[Answer]:
    """Warn of others that are called `pipeline`: in the working folder, and in this environment."""
    ours = Path(__file__).parents[1] / "__init__.py"
    for path in (Path("pipeline.py"), Path("pipeline", "__init__.py")):
        if path.is_file() and not path.samefile(ours):
            message = f"{path.absolute()} hides this package from python and notebooks in this folder"
            yield "warning", message, "rename it, or work in another folder"
    for name in sorted({*metadata.packages_distributions().get("pipeline", ())} - {_PACKAGE}):
        remedy = f"install {_PACKAGE} in an environment without {name}"
        yield "warning", f"{name} in this environment has a package called pipeline, too", remedy


def _luigi_cfg() -> Iterator[Answer]:
    # The last one has precedence.
    files = [str(Path(path).absolute()) for path in get_config()._config_paths if Path(path).is_file()]
    missing = f"none in {Path.cwd()}, so all settings have their defaults"
    yield ("ok", " and then ".join(files), "") if files else ("warning", missing, _COPY)


def _settings(settings: Settings, problems: Mapping[str, str]) -> Iterator[Answer]:
    for text in problems.values():
        yield "failed", f"[pipeline] {text}", "correct the setting"
    if not problems:
        names = {"lake": settings.lake, "warehouse": settings.warehouse, "source": settings.source}
        yield "ok", ", ".join(f"{name} {redact(value)}" for name, value in names.items()), ""


def _luigi_options() -> Iterator[Answer]:
    """Check the options of Luigi itself, which plain `luigi` has from luigi.cfg alone."""
    # Read again, because this command has set the missing ones for itself.
    config = type(get_config())()
    config.read(get_config()._config_paths)
    missing, different = [], []
    for section, options in default_options().items():
        for option, value in options.items():
            configured = str(config.get(section, option, "")).strip()
            if not configured:
                missing.append(f"[{section}] {option}")
            elif configured.lower() != value.lower() and section != "resources" and option not in _FREE:
                different.append(f"[{section}] {option} = {configured} (ours is {value})")
    if missing:
        names = ", ".join(missing[:4]) + f" and {len(missing) - 4} more" * (len(missing) > 4)
        code = "; without [retcode] its exit code is 0 even after a failure" * ("[retcode] task_failed" in missing)
        yield "warning", f"`luigi` (not `pipeline`) lacks {names}{code}", _COPY
    if different:
        yield "warning", ", ".join(different), "set them as in the project's luigi.cfg"
    if not missing and not different:
        yield "ok", "as the package needs them", ""


def _machine(workers: int) -> Iterator[Answer]:
    cpus, needs = usable_cpus(), f"a worker takes up to {size(_WORKER_BYTES)} of memory"
    message = f"{counted(workers, 'worker')} on {counted(cpus, 'CPU')}; {needs}"
    many = f"{message}, and more than two for each CPU do not help"
    yield ("ok", message, "") if workers <= 2 * cpus else ("warning", many, f"use --workers {2 * cpus}")


def _lake(settings: Settings) -> Iterator[Answer]:
    """Write a file to the lake and delete it again."""
    if "://" not in settings.lake and not (folder := Path(settings.lake).absolute()).exists():
        yield _not_created_yet(folder)
        return
    key = f".doctor-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory() as scratch:
        store = store_of(replace(settings, scratch=scratch))
        with store.publish(key) as draft:
            draft.write_bytes(b"written by pipeline doctor\n")
        store.delete(key)
    yield "ok", f"{store.location}: a file was written and deleted", ""


def _warehouse(settings: Settings) -> Iterator[Answer]:
    """Check whether the warehouse answers and can be written."""
    engine = engine_of(settings.warehouse)
    if path := engine.local_file(settings.warehouse):
        if not path.exists():
            yield _not_created_yet(path)
            return
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            yield "failed", f"{path} is not writable", "change the owner or mode of the file, or of its folder"
            return
    warehouse = warehouse_of(replace(settings, lock_timeout_s=min(settings.lock_timeout_s, _LOCK_S)))
    try:
        foreign = warehouse.validate_shared()
        count = sum(month is not None for dataset in DATASETS.values() for month in warehouse.loads(dataset))
        (row,) = warehouse.query(engine.question).to_pylist()
    except Locked as error:
        remedy = "close it: a load waits for it for lock_timeout_s, then fails"
        yield "warning", str(error).partition("; ")[0], remedy
        return
    if foreign:
        yield "warning", not_ours(foreign), "rename yours and load a month, to have ours too"
    message = f"{redact(settings.warehouse)}: {counted(count, 'month')} loaded"
    for status, text, remedy in engine.judge(row, get_config().getint("resources", engine.resource, 1)):
        yield status, "; ".join(filter(None, (message, text))), remedy


def logs(settings: Settings) -> Iterator[Answer]:
    """Check whether logs and history can be written."""
    if reason := problem(Path(settings.logs)):
        yield "warning", f"{reason}: runs have no logs and no history", "make room, or change its owner or mode"
    else:
        yield "ok", f"{settings.logs} is writable", ""


def _source(settings: Settings) -> Iterator[Answer]:
    """Ask the source once, by a HEAD request, for a month that was published long ago."""
    source = source_of(replace(settings, timeout_s=min(settings.timeout_s, _REQUEST_S), retries=0))
    # The mirror of the old CSVs ends in 2021.
    dataset, month = DATASETS["green"], parse_month("2024-01" if source.format == "parquet" else "2019-01")
    url, where = source.url(dataset, month), redact(settings.source)
    if not source.is_folder and (proxy := requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))):
        where += f" through the proxy {redact(proxy)}"
    began = time.monotonic()
    try:
        exists = source.version(dataset, month) is not None
    except SourceError as error:
        remedy = "check the network, the proxy settings in the environment, and [pipeline] source; or try again later"
        yield "failed", f"{where}: {str(error).partition('; ')[0]}", remedy
        return
    answered = f"{where} answered in {1000 * (time.monotonic() - began):.0f} ms"
    remedy = "if it lacks other months too, check [pipeline] source and source_format"
    yield ("ok", answered, "") if exists else ("warning", f"{where} lacks green {format_month(month)}", remedy)


def disk(settings: Settings) -> Iterator[Answer]:
    """Compare the free space with the missing months of the last year: of the datasets in the lake, or of all."""
    if "://" in settings.lake:
        yield "ok", f"{settings.lake} is not on this machine", ""
        return
    last = add_months(date.today().replace(day=1), -settings.publication_lag_months)
    year = month_range(add_months(last, -11), last)
    inventory = inventory_of(settings, "conform")
    by_dataset = [bytes_of_missing(inventory, {name: year}, "conform") for name in DATASETS]
    started = [each for each in by_dataset if len(each) < len(year)]
    months = [count for each in started or by_dataset for count in each]
    free = shutil.disk_usage(nearest_folder(settings.lake)).free
    message = f"{size(free)} free for {settings.lake}; "
    message += f"{counted(len(months), 'missing month')} of the last year take about {size(sum(months))}"
    status = "failed" if free < max(months, default=0) else "warning" if free < sum(months) else "ok"
    yield status, message, "" if status == "ok" else "make room"


def _scheduler(url: str) -> Iterator[Answer]:
    """Check whether luigid answers, and whether it has the limits of our resources."""
    if not url:
        yield "ok", "none is configured, and none is required", ""
        return
    began, names = time.monotonic(), luigid_resources(url)
    message = f"{redact(url)} answered in {1000 * (time.monotonic() - began):.0f} ms"
    if unknown := sorted(set(default_options()["resources"]) - names):
        remedy = "start luigid with a luigi.cfg that has [resources], such as docs/luigid.cfg"
        yield "warning", f"{message}; it allows only one at a time of {', '.join(unknown)}", remedy
    else:
        yield "ok", message, ""


def _notification(settings: Settings) -> Iterator[Answer]:
    receiver = get_config().get("email", "receiver", "")
    targets = ["notify_url"] * bool(settings.notify_url) + [f"e-mail to {receiver}"] * bool(receiver)
    yield "ok", f"runs report to {' and '.join(targets)}" if targets else "none is configured, and none is required", ""


def _not_created_yet(path: Path) -> Answer:
    """The answer for a lake or warehouse that does not exist."""
    folder = nearest_folder(path)
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return "ok", f"{path} does not exist yet; the first run creates it", ""
    return "failed", f"{path} cannot be created: {folder} is not a writable folder", "change its owner or mode"
