"""The status of months for people: the grid, the totals, and what is wrong, with a command for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from rich.table import Column

from pipeline.cli.cells import CELLS, grid, legend
from pipeline.cli.tables import new_table, print_line, print_table, print_text
from pipeline.errors import redact
from pipeline.months import format_month, spans
from pipeline.places import store_of
from pipeline.settings import current_settings, suggested_command
from pipeline.state.inventory import MonthStatus
from pipeline.state.steps import STEPS, TABLE
from pipeline.units import size

Statuses = Mapping[str, Sequence[MonthStatus]]

_MOST_REMARKS = 20


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


def document(statuses: Statuses, zones: MonthStatus) -> dict[str, Any]:
    """The whole status as plain values."""
    settings = current_settings()
    return {
        "as_of": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lake": store_of(settings).location,
        "warehouse": redact(settings.warehouse),
        "totals": _totals([each for months in statuses.values() for each in months]),
        "zones": _as_data(zones),
        "datasets": [
            {"dataset": name, **_totals(months), "months": [_as_data(each) for each in months]}
            for name, months in statuses.items()
        ],
        "remarks": [asdict(remark) for remark in remarks(statuses, zones)],
    }


def remarks(statuses: Statuses, zones: MonthStatus) -> list[Remark]:
    """What is refused, failed or out of date; one remark for consecutive months with the same reason."""
    found = []
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
                found.append(Remark(group[0].dataset, span, mark, reason, command, step))
    return found


def print_status(statuses: Statuses, zones: MonthStatus) -> None:
    """Print grid, totals and remarks, at most 80 columns wide for four datasets."""
    settings = current_settings()
    print_table(
        grid({name: {each.month: each.mark for each in months if each.month} for name, months in statuses.items()})
    )
    print_text(legend(each.mark for months in statuses.values() for each in months))
    print_line("")
    # A line for each total and a column for each dataset, so that four datasets fit.
    table = new_table("months", *(Column(name, justify="right", min_width=12) for name in statuses))
    totals = [_totals(months) for months in statuses.values()]
    for mark in CELLS:
        counts = [total["marks"].get(mark) for total in totals]
        if any(counts):
            table.add_row(mark, *(f"{count:,}" if count else "" for count in counts))
    table.add_row("rows loaded", *(f"{total['rows']:,}" for total in totals))
    table.add_row("raw bytes", *(size(total["raw_bytes"]) for total in totals))
    print_table(table)
    print_line(f"zones      {zones.mark}" + (f", {zones.rows:,} rows" if "load" in zones.done and zones.rows else ""))
    print_line(f"lake       {store_of(settings).location}")
    print_line(f"warehouse  {redact(settings.warehouse)}")
    if found := remarks(statuses, zones):
        print_line("")
        print_remarks(found)


def print_remarks(found: Sequence[Remark]) -> None:
    """Print the first remarks, each with its command on a line of its own, and how many more there are."""
    for remark in found[:_MOST_REMARKS]:
        print_line(f"{remark.subject}: {remark.why}", style=CELLS[remark.stage][1])
        print_line(f"  {remark.command}")
    if len(found) > _MOST_REMARKS:
        print_line(f"… and {len(found) - _MOST_REMARKS} more; --json lists all")
    steps = {remark.step for remark in found if remark.stage == "stale"}
    if steps - {"download"}:
        but = ", except for --from download" if "download" in steps else ""
        print_line(f"All that is out of date, at once{but}: {suggested_command('refresh', '--apply')}")


def _why(status: MonthStatus) -> str:
    if status.stage == "stale":
        return "; ".join(status.stale[step] for step in STEPS if step in status.stale)
    if status.mark == "failed" and status.failure:
        return f"{status.failure[0]} failed: {status.failure[1]}"
    return f"refused by its checks: {', '.join(status.failed).replace('_', ' ')}"


def _as_data(status: MonthStatus) -> dict[str, Any]:
    values = asdict(status)
    month, done = format_month(status.month) if status.month else None, values.pop("done")
    # A dataset without marts has all of them as soon as it is loaded.
    steps = {step.stage: min(step.name, status.last_step, key=STEPS.index) in done for step in TABLE}
    return {**values, "month": month, **steps, "stage": status.stage, "mark": status.mark}


def _totals(months: Sequence[MonthStatus]) -> dict[str, Any]:
    stages, marks = Counter(each.stage for each in months), Counter(each.mark for each in months)
    return {
        "stages": {stage: stages[stage] for stage in CELLS if stages[stage]},
        "marks": {mark: marks[mark] for mark in CELLS if marks[mark]},
        "rows": sum(each.rows or 0 for each in months if "load" in each.done),
        "raw_bytes": sum(each.raw_bytes or 0 for each in months),
    }
