"""What a backfill, a redo and a refresh would do, as data: for the commands that print it, and for a page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline.datasets import need_zones
from pipeline.disk import nearest_folder
from pipeline.errors import SourceError
from pipeline.lake import local_folder
from pipeline.months import format_month, label
from pipeline.places import inventory_of, source_of
from pipeline.runs.overview import remarks, statuses_of
from pipeline.settings import Settings, current_settings, suggested_command
from pipeline.state.drift import Comparison, compare
from pipeline.state.invalidation import DeletionPlan, Month, Months
from pipeline.state.plan import bytes_of_missing, plan_backfill


@dataclass(frozen=True)
class Space:
    """About how many bytes months add to lake and warehouse, and how many are free on the disk of the lake."""

    needed: int
    free: int
    #: Whether the source is TLC's site, on whose sizes the first number is based.
    is_reliable: bool

    @property
    def is_enough(self) -> bool:
        """Whether the months fit."""
        return self.needed <= self.free


def space_for(months: Months, through: str) -> Space | None:
    """The space that the missing ones of the months take; None for a lake that is not on this machine."""
    settings = current_settings()
    if (folder := local_folder(settings.lake)) is None:
        return None
    needed = sum(bytes_of_missing(inventory_of(settings, through), months, through))
    return Space(needed, shutil.disk_usage(nearest_folder(folder)).free, settings.source == Settings.source)


def backfill_preview(months: Months, through: str) -> tuple[dict[str, Any], list[SourceError]]:
    """What `pipeline plan --json` prints; and the answers that the source failed to give.

    `marks` has the months of each dataset by their mark, and `left` those that are out of date, and stay so.
    """
    statuses, zones = statuses_of(months)
    plans, problems = plan_backfill(source_of(current_settings()), statuses, through, date.today())
    marks: dict[str, dict[str, list[str]]] = {name: {} for name in statuses}
    left: dict[str, list[str]] = {name: [] for name in statuses}
    for name, each in statuses.items():
        for status in each:
            if status.month:
                marks[name].setdefault(status.mark, []).append(format_month(status.month))
                if status.stale_from and status.stale_from not in status.missing_steps(through):
                    left[name].append(format_month(status.month))
        # No remark about what is out of date but will be done again.
        statuses[name] = [status for status in each if status.stale_from not in status.missing_steps()]
    return {
        "through": through,
        "datasets": plans,
        "zones": zones.missing_steps(through) if need_zones(statuses) else (),
        "remarks": remarks(statuses, zones),
        "marks": marks,
        "left": left,
    }, problems


def deletions_preview(plans: Sequence[DeletionPlan]) -> dict[str, Any]:
    """What is deleted of each month before it is done again, and of all together."""
    months: list[dict[str, Any]] = [
        {
            "dataset": plan.dataset.name,
            "month": format_month(plan.month) if plan.month else None,
            "files": [{"type": name, "key": file.key, "bytes": file.bytes} for name, file in plan.files.items()],
            "bytes": sum(file.bytes for file in plan.files.values()),
            "rows": plan.load.rows if plan.load else 0,
            "marts": list(plan.marts),
        }
        for plan in plans
        if plan
    ]
    totals = {name: sum(month[name] for month in months) for name in ("bytes", "rows")}
    return {"months": months, **totals, "marts": sum(len(month["marts"]) for month in months)}


def compare_with_source(months: Months) -> Comparison:
    """Compare the months with the source and with each other."""
    today = date.today().replace(day=1)
    return compare(inventory_of(current_settings()), months, today, redo=redo_command)


def comparison_data(months: Months, compared: Comparison) -> dict[str, Any]:
    """What `pipeline refresh --json` prints of a comparison."""
    return {
        "compared": sum(map(len, months.values())),
        "as_at_source": len(compared.same),
        "absent": [label(*month) for month in compared.absent],
        "without_raw": [label(*month) for month in compared.without_raw],
        "findings": [finding.plain for finding in compared.findings],
    }


def redo_command(month: Month, step: str) -> str:
    """The command that does the month again from the step."""
    return suggested_command("redo", *label(*month).split(), "--from", step)
