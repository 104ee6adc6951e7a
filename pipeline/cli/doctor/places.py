"""Lake, warehouse and disk: can they be reached, may they be written, and is there room?"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

from luigi.configuration import get_config

from pipeline.cli.doctor.line import Line, failed, ok, warning
from pipeline.datasets import DATASETS
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import redact
from pipeline.lake import local_folder
from pipeline.months import add_months, month_range
from pipeline.places import store_of, warehouse_of
from pipeline.settings import Settings
from pipeline.tasks.logs import problem
from pipeline.units import size
from pipeline.warehouses.base import Locked, Shared
from pipeline.warehouses.registry import engine_of

#: What the raw files of a month become: themselves and the trips file; and in a DuckDB file.
_LAKE_SHARE, _WAREHOUSE_SHARE = 2, 1
_MONTHS = 12
#: How long a DuckDB file that another process has is waited for.
_HELD_S = 2.0
#: By dataset, the months that are loaded; what the warehouse says.
Loaded = dict[str, set[date]]


def lake(settings: Settings) -> Iterator[Line]:
    """Whether a file can be put into the lake, and taken away; a lake that is not there is not made."""
    folder = local_folder(settings.lake)
    if folder and not folder.exists():
        yield _to_be_made("lake", folder)
        return
    key = f".doctor/{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory() as scratch:
        store = store_of(replace(settings, scratch=scratch))
        folders = [Path(store.location) / name for name in (".doctor", ".drafts")]
        made = [each for each in folders if not each.exists()] if folder else []
        try:
            with store.publish(key) as draft:
                draft.write_bytes(b"pipeline doctor was here\n")
            store.delete(key)
        finally:
            for each in made:
                with suppress(OSError):
                    each.rmdir()
    yield ok("lake", f"{store.location}: a file was written and taken away")


def warehouse(settings: Settings, loaded: Loaded) -> Iterator[Line]:
    """Whether the warehouse answers and could be written; puts into `loaded` what is there."""
    found = warehouse_of(replace(settings, lock_timeout_s=min(settings.lock_timeout_s, _HELD_S)))
    engine, where = engine_of(settings.warehouse), redact(settings.warehouse)
    if path := engine.local_file(settings.warehouse):
        if not path.exists():
            loaded.update({name: set() for name in DATASETS})
            yield _to_be_made("warehouse", path)
            return
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            yield failed("warehouse", f"{path} may not be written", "change its owner or mode, or its folder's")
            return
    try:
        if isinstance(found, Shared):
            found.validate_shared()
        months = {name: set(filter(None, found.loads(spec))) for name, spec in DATASETS.items()}
        said = found.query(engine.question).to_pylist()[0]
    except Locked as error:
        holder = str(error).partition("; ")[0]
        yield warning("warehouse", holder, "a load waits for it as long as lock_timeout_s says, then fails: close it")
        return
    loaded.update(months)
    told = f"{where}: {sum(map(len, months.values()))} months are there"
    for state, text, remedy in engine.judge(said, get_config().getint("resources", engine.resource, 1)):
        yield Line("warehouse", state, "; ".join(filter(None, (told, text))), remedy)


def logs(settings: Settings) -> Iterator[Line]:
    """Whether the log of a step, and the history, could be written."""
    if wrong := problem(Path(settings.logs)):
        yield warning("logs", f"{wrong}: runs have no logs and no history", "make room, or change its owner or mode")
    else:
        yield ok("logs", f"{settings.logs} can be written")


def disk(settings: Settings, loaded: Loaded | None) -> Iterator[Line]:
    """Whether there is room for what is missing of the last year; of all datasets where nothing is known or there."""
    missing = missing_months(loaded or {}, date.today(), settings.publication_lag_months)
    count, total = sum(map(len, missing.values())), sum(estimated_bytes(name, of) for name, of in missing.items())
    largest = max((estimated_bytes(name, [month]) for name, of in missing.items() for month in of), default=0)
    for paths, share, at_once in _file_systems(settings):
        free, where = shutil.disk_usage(_existing(paths[0])).free, " and ".join(map(str, paths))
        told = f"{size(free)} free at {where}"
        wants = f"the {count} missing month{'s' * (count != 1)} of the last year take about {size(share * total)}"
        remedy = "make room, or put lake, warehouse and scratch elsewhere"
        if free < at_once * largest:
            month = f"the largest missing month takes about {size(at_once * largest)}"
            yield failed("disk", f"{told}; {month}", remedy)
        elif free < share * total:
            yield warning("disk", f"{told}; {wants}", remedy)
        else:
            yield ok("disk", f"{told}; {wants}" if count else f"{told}; nothing is missing of the last year")


def missing_months(loaded: Mapping[str, set[date]], today: date, lag_months: int) -> dict[str, list[date]]:
    """Of the datasets that are there (of all, when none is): the months of the last year that are due and not loaded.

    The year ends with the newest month that must be published by now.
    """
    names = [name for name in DATASETS if loaded.get(name)] or list(DATASETS)
    last = add_months(today.replace(day=1), -lag_months)
    months = month_range(add_months(last, 1 - _MONTHS), last)
    return {name: [month for month in months if month not in loaded.get(name, ())] for name in names}


def _file_systems(settings: Settings) -> list[tuple[list[Path], int, int]]:
    """Folders of this machine by file system; how often raw bytes stay there, and how often a month's at once."""
    lake_folder = local_folder(settings.lake)
    folder = lake_folder or Path(settings.scratch).absolute()
    growing = [(folder, _LAKE_SHARE if lake_folder else 0, _LAKE_SHARE)]
    if path := engine_of(settings.warehouse).local_file(settings.warehouse):
        growing.append((path.parent, _WAREHOUSE_SHARE, _WAREHOUSE_SHARE))
    found: dict[int, tuple[list[Path], int, int]] = {}
    for path, share, at_once in growing:
        device = _existing(path).stat().st_dev
        paths, shares, at_onces = found.get(device, ([], 0, 0))
        found[device] = ([*paths, path], shares + share, at_onces + at_once)
    return list(found.values())


def _to_be_made(check: str, path: Path) -> Line:
    parent = _existing(path)
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return ok(check, f"{path} is not there yet; the first run makes it")
    return failed(check, f"{path} is not there and cannot be made: {parent} may not be written", "change owner or mode")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
