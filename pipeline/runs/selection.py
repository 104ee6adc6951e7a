"""Which months are meant by datasets and a period, as users write them: `green 2024-01..2024-03`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.errors import UsageError, all_of
from pipeline.months import add_months, format_month, month_range, parse_months
from pipeline.places import inventory_of, source_of
from pipeline.settings import current_settings
from pipeline.state.invalidation import Months
from pipeline.state.steps import STEPS
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.tasks.runs import start_of

#: How many months back the newest published month is looked for.
_LATEST_MONTHS = 12


def months_selected(words: Sequence[str], *, required: bool = True, zones: bool = False, ask: bool = False) -> Months:
    """The months of the datasets and the period that were typed; with `zones`, the word zones alone selects the zones.

    Raises:
        UsageError: the selection is invalid, or none of its months exists.
    """
    if zones and ZONES.name in words:
        if len(words) > 1:
            raise UsageError(f"{' '.join(words)}: zones is allowed only alone and without a period")
        return {ZONES.name: [None]}
    return dict(months_of(*parse_selection(words, required=required), ask=ask))


def parse_selection(words: Sequence[str], *, required: bool = False) -> tuple[tuple[str, ...], str]:
    """The datasets and the period (or several, with commas) that were typed, in any order; by default all and `all`.

    A word is a period when it looks like one; `all` is a period after another word.

    Raises:
        UsageError: a dataset is unknown, the period is invalid, or one of the two is required and missing.
    """
    parts = [part.strip() for word in words for part in word.split(",") if part.strip()]
    periods = [part for part in parts if part == "latest" or part[0].isdigit() or ".." in part]
    names = [part for part in parts if part not in periods]
    if parts[1:] and parts[-1] == "all":
        periods.append(names.pop())
    if periods[1:] and {"latest", "all"} & set(periods):
        raise UsageError(f"{' '.join(words)}: latest and all are allowed only without another period")
    period = ",".join(periods) or "all"
    datasets, _ = all_of(
        lambda: DatasetsParameter().parse(",".join(names) or "all"),
        lambda: period in ("latest", "all") or parse_months(period),
    )
    if required and not (periods and names):
        raise UsageError(f"{' '.join(words)}: a dataset and a period are needed, for instance: green 2024-01..2024-03")
    return datasets, period


def months_of(names: Sequence[str], period: str, *, ask: bool = False) -> dict[str, list[date]]:
    """The months of each dataset, oldest first, without those before its first month.

    `latest` is the newest month that the source has, which needs requests. `all` ends with this month, or, with `ask`,
    with the newest month that the source has.

    Raises:
        UsageError: the period is invalid, or none of its months exists.
    """
    today = date.today().replace(day=1)
    months: dict[str, list[date]] = {}
    for name in names:
        start = start_of(DATASETS[name])
        if period == "latest":
            newest = _newest(name, today)
            months[name] = [newest] if newest else []
        elif period == "all":
            months[name] = month_range(start, (_newest(name, today) if ask else today) or today)
        else:
            months[name] = [month for month in parse_months(period) if month >= start]
    if not any(months.values()):
        starts = ", ".join(f"{name} starts in {format_month(start_of(DATASETS[name]))}" for name in names)
        raise UsageError(f"no month of {period!r} exists: {starts}")
    return months


def months_to_compare(words: Sequence[str]) -> Months:
    """The months that a refresh compares: without a period all from the oldest existing one, and the zones."""
    names, period = parse_selection(words)
    parts = [part for word in words for part in word.split(",") if part]
    if period != "all" or (parts[1:] and parts[-1] == "all"):
        return months_selected(words, required=False)
    today, inventory = date.today().replace(day=1), inventory_of(current_settings())

    def exists(name: str, month: date | None) -> bool:
        return any(inventory.done(step, dataset_named(name), month) for step in STEPS)

    months: dict[str, Sequence[date | None]] = {}
    for name in names:
        possible = month_range(start_of(DATASETS[name]), today)
        if first := next((month for month in possible if exists(name, month)), None):
            months[name] = month_range(first, today)
    if names == tuple(DATASETS) and exists(ZONES.name, None):
        months[ZONES.name] = [None]
    return months


def _newest(name: str, today: date) -> date | None:
    source = source_of(current_settings())
    months = (add_months(today, -back) for back in range(_LATEST_MONTHS))
    return next((month for month in months if source.version(DATASETS[name], month)), None)
