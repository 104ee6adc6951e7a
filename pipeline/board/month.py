"""Everything that is known about one month, as data for its page."""

from __future__ import annotations

import shlex
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
from pipeline.runs.event_files import StepState, last_steps
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

    def part(read: Any, *arguments: Any) -> Any:
        try:
            return read(inventory.store, dataset, *arguments, command=suggested_command)
        except StoreError as error:
            problems.append(str(error))
            return None

    has_checks = inventory.entry(lake.checks_key(dataset, month)) is not None
    comparison = next(iter(part(compare_months, [month]) or ()), None) if has_checks else None
    columns = part(profile, month) if comparison else None
    # Without an earlier month that passed there is nothing to compare with, and that is no problem.
    difference = part(diff_months, month, None) if month and comparison and comparison["months_before"] else None
    published = published_months(dataset.name).get(month) if month else None
    source = _source(inventory, dataset, month, problems)
    by_run = last_steps(History(settings.logs, silent=True), dataset.name, format_month(month) if month else "")
    return {
        "dataset": dataset.name,
        "month": format_month(month) if month else None,
        "status": as_data(status),
        "steps": [_step(inventory, status, step, source, by_run.get(step)) for step in steps_of(dataset.name)],
        "source": source,
        "published_rows": columns["published_rows"] if columns else published.rows if published else None,
        "comparison": comparison,
        "profile": columns,
        "diff": difference,
        "commands": _commands(inventory, status, has_checks=has_checks, has_diff=difference is not None),
        "remarks": [each for each in remarks(statuses, zones) if each.dataset == dataset.name],
        "problems": problems,
    }


def _commands(inventory: Inventory, status: MonthStatus, *, has_checks: bool, has_diff: bool) -> list[dict[str, str]]:
    """What can be done to the month in its present state: word, step and line of each command."""
    dataset, month = dataset_named(status.dataset), status.month
    words, lines = label(dataset.name, month).split(), list[dict[str, str]]()

    def add(word: str, *options: str, step: str = "", line: str = "") -> None:
        lines.append({"word": word, "step": step, "command": line or suggested_command(word, *words, *options)})

    # The zones have no backfill: that of every dataset brings them.
    if month and month <= date.today() and status.missing_steps():
        add("backfill")
    if status.stale and month:
        add("refresh", "--apply")
    for step in steps_of(dataset.name):
        files = inventory.files(step, dataset, month).values()
        if step in status.done or any(map(inventory.entry, files)):
            add("redo", "--from", step, step=step)
    if has_checks:
        add("check")
    if has_diff:
        add("diff")
    if any(log_path(current_settings().logs, dataset.name, month, step).exists() for step in STEPS):
        add("logs")
    if "conform" in status.done:
        add("head")
    if "load" in status.done:
        where = f" WHERE month = DATE '{month}'" if month else ""
        # In double quotes, since it has single ones; a shell replaces nothing in it.
        statement = f'"SELECT * FROM {dataset.name}{where} LIMIT 10"'
        add("sql", line=suggested_command("sql").replace("sql", f"sql {statement}", 1))
    add("describe", line=shlex.join(["pipeline", "describe", dataset.name]))
    return lines


def _step(
    inventory: Inventory, status: MonthStatus, step: str, source: Any, by_run: tuple[str, StepState] | None
) -> dict[str, Any]:
    """What a step has left of the month, and when."""
    dataset, month = dataset_named(status.dataset), status.month
    entries = map(inventory.entry, inventory.files(step, dataset, month).values())
    files = [_file(entry) for entry in entries if entry]
    load = inventory.loads(dataset).get(month) if step == "load" else None
    marts = inventory.marts(dataset).get(month, {}) if step == "mart" and month else {}
    moments = [_text(record.built_at) for record in marts.values()] + ([_text(load.loaded_at)] if load else [])
    at = source["fetched_at"] if source and step == "download" else files[0]["modified"] if files else None
    return {
        "name": step,
        "stage": BY_NAME[step].stage,
        "files": files,
        "rows": load.rows if load else None,
        "marts": {name: record.rows for name, record in marts.items()},
        "at": max(moments, default=at),
        "run": {"run": by_run[0], **asdict(by_run[1])} if by_run else None,
    }


def _file(entry: Entry) -> dict[str, Any]:
    modified = None
    if local_folder(entry.uri):
        with suppress(OSError):  # Deleted meanwhile.
            modified = _text(datetime.fromtimestamp(Path(entry.uri).stat().st_mtime, timezone.utc))
    return {"key": entry.key, "uri": entry.uri, "bytes": entry.bytes, "modified": modified}


def _source(inventory: Inventory, dataset: Dataset, month: date | None, problems: list[str]) -> dict[str, Any] | None:
    """The sidecar of the raw file."""
    key = inventory.files("download", dataset, month)["raw"]
    try:
        if listed := inventory.entry(lake.sidecar_key(key)):
            sidecar = sidecar_of(inventory.store, key, listed)
            return {**asdict(sidecar), "url": redact(sidecar.url)}
    except SourceError as error:
        problems.append(str(error))
    return None


def _text(moment: datetime) -> str:
    """A time as ISO text; the records of warehouses are in UTC, some without saying so."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).isoformat(timespec="seconds")
