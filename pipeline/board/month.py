"""Everything that is known about one month, as data for its page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from pipeline import lake
from pipeline.datasets import dataset_named
from pipeline.datasets.base import Dataset
from pipeline.datasets.published import published_months
from pipeline.errors import SourceError, StoreError, redact
from pipeline.lake import Entry, local_folder
from pipeline.months import format_month, label
from pipeline.places import inventory_of
from pipeline.runs.event_files import last_steps
from pipeline.runs.history import History
from pipeline.runs.overview import as_data, remarks, statuses_of
from pipeline.settings import current_settings, suggested_command
from pipeline.state.checks import compare_months, diff_months, profile
from pipeline.state.inventory import Inventory, MonthStatus, sidecar_of
from pipeline.state.steps import BY_NAME, STEPS, steps_of
from pipeline.tasks.logs import log_path


def month_document(dataset: Dataset, month: date | None) -> dict[str, Any]:
    """The whole document; a part that cannot be read is null, with the reason in `problems`."""
    settings, problems = current_settings(), list[str]()
    inventory = inventory_of(settings)
    statuses, zones = statuses_of({dataset.name: [month]} if month else {})
    status = statuses[dataset.name][0] if month else zones
    store = inventory.store

    def part(read: Any, *arguments: Any) -> Any:
        try:
            return read(store, dataset, *arguments, command=suggested_command)
        except StoreError as error:
            problems.append(str(error))
            return None

    has_checks = inventory.entry(lake.checks_key(dataset, month)) is not None
    comparisons = part(compare_months, [month]) if has_checks else None
    comparison = comparisons[0] if comparisons else None
    columns = part(profile, month) if comparison else None
    # Without an earlier month that passed there is nothing to compare with, and that is no problem.
    difference = None
    if month and comparison and comparison["months_before"]:
        difference = part(diff_months, month, None)
    source = _source(inventory, dataset, month, problems)
    published = published_months(dataset.name).get(month) if month else None
    expected_rows = columns["published_rows"] if columns else published.rows if published else None
    return {
        "dataset": dataset.name,
        "month": format_month(month) if month else None,
        "status": as_data(status),
        "steps": [_step(inventory, status, step, source) for step in steps_of(dataset.name)],
        "source": source,
        "rows": status.rows,
        "published_rows": expected_rows,
        "rows_off_published": status.rows - expected_rows if status.rows is not None and expected_rows else None,
        "findings": comparison["findings"] if comparison else [],
        "comparison": comparison,
        "columns": columns["columns"] if columns else [],
        "columns_before": columns["months_before"] if columns else [],
        "diff": difference,
        "commands": commands(inventory, status, has_checks=has_checks, has_diff=difference is not None),
        "failure": dict(zip(("step", "kind", "error"), status.failure, strict=True)) if status.failure else None,
        "by_run": {step: {"run": run, **asdict(state)} for step, (run, state) in _by_run(dataset, month).items()},
        "remarks": [each for each in remarks(statuses, zones) if each.dataset == dataset.name],
        "problems": problems,
    }


def commands(inventory: Inventory, status: MonthStatus, *, has_checks: bool, has_diff: bool) -> list[dict[str, str]]:
    """What can be done to the month in its present state: the label, the word and the line of each command."""
    dataset, month = dataset_named(status.dataset), status.month
    words, lines = label(dataset.name, month).split(), list[dict[str, str]]()

    def add(text: str, word: str, *options: str) -> None:
        lines.append({"label": text, "word": word, "command": suggested_command(word, *words, *options)})

    # The zones have no backfill: that of every dataset brings them.
    if month and month <= date.today() and status.missing_steps():
        add("Run the missing steps", "backfill")
    if status.stale and month:
        add("Run what is out of date", "refresh", "--apply")
    for step in steps_of(dataset.name):
        files = inventory.files(step, dataset, month).values()
        if step in status.done or any(map(inventory.entry, files)):
            add(f"Run again from {step}", "redo", "--from", step)
    if has_checks:
        add("Checks", "check")
    if has_diff:
        add("Difference from the month before", "diff")
    if any(log_path(current_settings().logs, dataset.name, month, step).exists() for step in STEPS):
        add("Logs", "logs")
    if "conform" in status.done:
        add("First rows", "head")
    if "load" in status.done:
        where = f" WHERE month = DATE '{month}'" if month else ""
        # In double quotes, since it has single ones; a shell replaces nothing in it.
        statement = f'"SELECT * FROM {dataset.name}{where} LIMIT 10"'
        query = suggested_command("sql").replace("sql", f"sql {statement}", 1)
        lines.append({"label": "Query", "word": "sql", "command": query})
    describe = shlex.join(["pipeline", "describe", dataset.name])
    return [*lines, {"label": "Columns and rules", "word": "describe", "command": describe}]


def _step(inventory: Inventory, status: MonthStatus, step: str, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a step has left of the month, and when."""
    dataset, month = dataset_named(status.dataset), status.month
    entries = {kind: inventory.entry(key) for kind, key in inventory.files(step, dataset, month).items()}
    files = [_file(kind, entry) for kind, entry in entries.items() if entry]
    load = inventory.loads(dataset).get(month)
    marts: list[dict[str, Any]] = [
        {"mart": name, "rows": record.rows, "built_at": _text(record.built_at), "version": record.version}
        for name, record in (inventory.marts(dataset).get(month, {}) if month else {}).items()
    ]
    when = {
        "download": source["fetched_at"] if source else None,
        "conform": files[0]["modified"] if files else None,
        "load": _text(load.loaded_at) if load else None,
        "mart": max((mart["built_at"] for mart in marts), default=None),
    }
    record = {"rows": load.rows, "loaded_at": _text(load.loaded_at), "version": load.version} if load else None
    return {
        "name": step,
        "leaves": BY_NAME[step].leaves,
        "done": step in status.done,
        "stale": status.stale.get(step),
        "files": files,
        "load": record if step == "load" else None,
        "marts": marts if step == "mart" else [],
        "at": when.get(step),
    }


def _file(kind: str, entry: Entry) -> dict[str, Any]:
    modified = None
    if local_folder(entry.uri):
        with suppress(OSError):  # Deleted meanwhile.
            modified = _text(datetime.fromtimestamp(Path(entry.uri).stat().st_mtime, timezone.utc))
    return {"type": kind, "key": entry.key, "uri": entry.uri, "bytes": entry.bytes, "modified": modified}


def _source(inventory: Inventory, dataset: Dataset, month: date | None, problems: list[str]) -> dict[str, Any] | None:
    """The sidecar of the raw file."""
    key = inventory.files("download", dataset, month)["raw"]
    listed = inventory.entry(lake.sidecar_key(key))
    try:
        sidecar = sidecar_of(inventory.store, key, listed) if listed else None
    except SourceError as error:
        problems.append(str(error))
        return None
    return {**asdict(sidecar), "url": redact(sidecar.url)} if sidecar else None


def _by_run(dataset: Dataset, month: date | None) -> Mapping[str, Any]:
    history = History(current_settings().logs, silent=True)
    return last_steps(history, dataset.name, format_month(month) if month else "")


def _text(moment: datetime) -> str:
    """A time as ISO text; the records of warehouses are in UTC, some without saying so."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).isoformat(timespec="seconds")
