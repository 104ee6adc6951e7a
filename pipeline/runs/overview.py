"""The status of months with the failures of their last runs, as data: what `pipeline status --json` prints.

The grid in the terminal, the HTML page, and the board show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timezone
from typing import Any

from pipeline.datasets import ZONES, dataset_named
from pipeline.errors import redact
from pipeline.months import format_month, label, spans
from pipeline.places import inventory_of, store_of, warehouse_file
from pipeline.runs.history import History
from pipeline.settings import Settings, current_settings, suggested_command
from pipeline.state.invalidation import Months
from pipeline.state.inventory import MonthStatus
from pipeline.state.publication import expected_days
from pipeline.state.steps import STEPS, TABLE

Statuses = Mapping[str, Sequence[MonthStatus]]


@dataclass(frozen=True)
class Mark:
    """How a month is shown: a character that is clear without colours, its colour in a terminal, and its meaning."""

    character: str
    style: str
    meaning: str
    #: On a page, where other characters look different in every font.
    sign: str


*_EARLIER, _LAST = TABLE
#: By stage of a month, and for what is special about it.
MARKS: Mapping[str, Mark] = {
    "complete": Mark(_LAST.character, _LAST.style, _LAST.meaning, _LAST.letter),
    "warned": Mark("*", "yellow", "complete, with warnings (pipeline check)", "W"),
    **{step.stage: Mark(step.character, step.style, step.meaning, step.letter) for step in reversed(_EARLIER)},
    "missing": Mark("·", "dim", "missing", "·"),
    "not published": Mark("-", "dim", "not published yet", "-"),
    "stale": Mark("~", "yellow", "out of date", "~"),
    "refused": Mark("!", "red", "refused by its checks", "!"),
    "failed": Mark("x", "red", "failed", "x"),
    "running": Mark("▸", "bold yellow", "at work", "▸"),
}


@dataclass(frozen=True)
class Remark:
    """Something that is wrong with consecutive months, and the command that fixes it."""

    dataset: str
    #: As a period, such as 2024-01..2024-03; empty for the zones.
    months: str
    #: refused, failed, or stale.
    stage: str
    why: str
    command: str
    #: The first step to do again.
    step: str

    @property
    def subject(self) -> str:
        """Such as green 2024-01."""
        return f"{self.dataset} {self.months}".rstrip()


def statuses_of(months: Months) -> tuple[dict[str, list[MonthStatus]], MonthStatus]:
    """By dataset: its months; and the zones."""
    inventory = inventory_of(current_settings())
    statuses = inventory.statuses({**months, ZONES.name: [None]}, date.today())
    failures = _failures(current_settings())
    for name, each in statuses.items():
        absent = [status.month for status in each if status.month and status.stage == "not published"]
        expected: Mapping[date | None, date] = expected_days(inventory, dataset_named(name), absent) if absent else {}
        statuses[name] = [
            replace(status, failure=failures.get(label(name, status.month)), expected=expected.get(status.month))
            for status in each
        ]
    (zones,) = statuses.pop(ZONES.name)
    return statuses, zones


def document(statuses: Statuses, zones: MonthStatus) -> dict[str, Any]:
    """The whole status, as JSON has it."""
    settings = current_settings()
    totals = _totals([each for months in statuses.values() for each in months])
    return {
        "as_of": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lake": store_of(settings).location,
        "warehouse": redact(settings.warehouse),
        "totals": {**totals, "warehouse_bytes": _warehouse_bytes(settings)},
        "zones": as_data(zones),
        "datasets": [
            {"dataset": name, **_totals(months), "months": [as_data(each) for each in months]}
            for name, months in statuses.items()
        ],
        "remarks": remarks(statuses, zones),
    }


def with_marks(document: Mapping[str, Any]) -> dict[str, Any]:
    """The status, and what its marks and steps are, for a page."""
    return {
        "document": {**document, "remarks": [asdict(each) for each in document["remarks"]]},
        "marks": {name: {"sign": mark.sign, "meaning": mark.meaning} for name, mark in MARKS.items()},
        "steps": [{name: getattr(step, name) for name in ("name", "stage", "leaves", "time_share")} for step in TABLE],
    }


def remarks(statuses: Statuses, zones: MonthStatus) -> list[Remark]:
    """What is refused, failed or out of date; one remark for consecutive months with the same reason."""
    results = []
    for months in ([zones], *statuses.values()):
        groups: dict[tuple[str, str, str], list[MonthStatus]] = {}
        for each in months:
            if each.mark in ("refused", "failed", "stale"):
                step = each.failure[0] if each.failure and each.mark == "failed" else "download"
                groups.setdefault((each.mark, _why(each), each.stale_from or step), []).append(each)
        for (mark, why, step), group in groups.items():
            texts = {format_month(each.month) if each.month else "": each.failure[2] for each in group if each.failure}
            for span in spans(each.month for each in group if each.month) or [""]:
                subject = f"{group[0].dataset} {span}".split()
                if mark == "failed" and span and step != "conform":
                    command = suggested_command("backfill", *subject)
                else:  # Raw bytes that failed to conform may have been replaced at the source.
                    first = "download" if mark == "failed" and step == "conform" else step
                    command = suggested_command("redo", *subject, "--from", first)
                reason = f"{why}: {texts[span]}" if mark == "failed" and span in texts else why
                results.append(Remark(group[0].dataset, span, mark, reason, command, step))
    return results


def _failures(settings: Settings) -> dict[str, tuple[str, str, str]]:
    """By month, such as green 2024-01: step, kind and text of the error, if its last run on this machine failed.

    Only runs into this lake and this warehouse count, and those of old versions, which did not record the two.
    """
    targets = (store_of(settings).location, redact(settings.warehouse))
    failures: dict[str, tuple[str, str, str]] = {}
    for run in History(settings.logs).runs():
        if (run.lake or targets[0], run.warehouse or targets[1]) == targets:
            for month in run.months_done:
                failures.pop(month, None)
            failed = [failure for failure in run.failures if not failure.waits]
            failures |= {f"{each.dataset} {each.month}".rstrip(): (each.step, each.kind, each.error) for each in failed}
    return failures


def _why(status: MonthStatus) -> str:
    if status.stage == "stale":
        return "; ".join(status.stale[step] for step in STEPS if step in status.stale)
    if status.mark == "failed" and status.failure:
        return f"{status.failure[0]} failed: {status.failure[1]}"
    return f"refused by its checks: {', '.join(status.failed).replace('_', ' ')}"


def as_data(status: MonthStatus) -> dict[str, Any]:
    """A month as JSON has it; `late_days` are those after the day on which it was expected."""
    values = {name: value for name, value in vars(status).items() if name != "done"}
    expected = status.expected
    # A dataset without marts has all of them as soon as it is loaded.
    steps = {step.stage: min(step.name, status.last_step, key=STEPS.index) in status.done for step in TABLE}
    return {
        **values,
        "month": format_month(status.month) if status.month else None,
        "expected": expected.isoformat() if expected else None,
        "late_days": max(0, (date.today() - expected).days) if expected else None,
        **steps,
        "stage": status.stage,
        "mark": status.mark,
    }


def _totals(months: Sequence[MonthStatus]) -> dict[str, Any]:
    stages, marks = Counter(each.stage for each in months), Counter(each.mark for each in months)
    return {
        "stages": {stage: stages[stage] for stage in MARKS if stages[stage]},
        "marks": {mark: marks[mark] for mark in MARKS if marks[mark]},
        "rows": sum(each.rows or 0 for each in months if "load" in each.done),
        "raw_bytes": sum(each.raw_bytes or 0 for each in months),
        "trips_bytes": sum(each.trips_bytes or 0 for each in months),
    }


def _warehouse_bytes(settings: Settings) -> int | None:
    """The size of the warehouse where it is a local file that exists."""
    file = warehouse_file(settings)
    return file.stat().st_size if file and file.exists() else None
