"""What a backfill would do, from what exists and, for recent months, from what the source says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from pipeline.datasets import dataset_named
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import SourceError
from pipeline.months import format_month
from pipeline.source.site import Source
from pipeline.state.drift import ask_source
from pipeline.state.inventory import Inventory, MonthStatus
from pipeline.state.steps import STEPS, bytes_to_keep


@dataclass
class DatasetPlan:
    """What a backfill would do for one dataset; months as texts."""

    dataset: str
    #: The months with nothing to do.
    there: list[str] = field(default_factory=list)
    #: The months that would begin with each step, and those for which each step would be done.
    begins: dict[str, list[str]] = field(default_factory=lambda: {step: [] for step in STEPS})
    steps: dict[str, list[str]] = field(default_factory=lambda: {step: [] for step in STEPS})
    not_published: list[str] = field(default_factory=list)
    #: Recent months about which the source did not answer; they count as published.
    unanswered: list[str] = field(default_factory=list)
    bytes_to_download: int = 0
    #: In the lake and the warehouse.
    bytes_to_keep: int = 0


def plan_backfill(
    source: Source, statuses: Mapping[str, Sequence[MonthStatus]], through: str, today: date
) -> tuple[list[DatasetPlan], list[SourceError]]:
    """The plan of each dataset up to a step, and the answers that the source failed to give."""
    young = [(each.dataset, each.month) for months in statuses.values() for each in months if each.young]
    future = [(name, month) for name, month in young if month and month > today]
    # A plan is useful without the answers, so it waits less than a run.
    source = replace(source, policy=replace(source.policy, retries=min(1, source.policy.retries), on_retry=None))
    answers = dict(ask_source(source, [month for month in young if month not in future]))
    plans = [DatasetPlan(name) for name in statuses]
    for plan in plans:
        for status in statuses[plan.dataset]:
            assert status.month is not None
            key, month, steps = (plan.dataset, status.month), format_month(status.month), status.missing_steps(through)
            if key in future or (key in answers and answers[key] is None):
                plan.not_published.append(month)
                continue
            if isinstance(answers.get(key), SourceError):
                plan.unanswered.append(month)
            (plan.begins[steps[0]] if steps else plan.there).append(month)
            for step in steps:
                plan.steps[step].append(month)
            plan.bytes_to_download += estimated_bytes(plan.dataset, [status.month]) if "download" in steps else 0
            plan.bytes_to_keep += bytes_to_keep(plan.dataset, status.month, steps)
    return plans, [answer for answer in answers.values() if isinstance(answer, SourceError)]


def bytes_of_missing(inventory: Inventory, months: Mapping[str, Sequence[date | None]], through: str) -> list[int]:
    """About how many bytes each missing month adds to lake and warehouse; the inventory is of the same step."""
    return [
        bytes_to_keep(name, month, inventory.left(dataset_named(name), month, through))
        for name, each in months.items()
        for month in inventory.missing(dataset_named(name), list(filter(None, each)), through)
    ]
