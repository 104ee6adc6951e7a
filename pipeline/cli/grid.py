"""The status for people: the grid, the totals, and what is refused, failed or out of date with the command for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from typing import Any

from pipeline.cli.cells import CELLS, grid, legend
from pipeline.cli.options import console
from pipeline.cli.tables import new_table, print_line, print_table
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
    """Something that is wrong with some months in a row, and the command that mends it."""

    dataset: str
    #: As a period, such as 2024-01..2024-03; empty for the zones.
    months: str
    #: refused, failed, or stale.
    stage: str
    why: str
    command: str
    #: The first step to be done anew.
    step: str

    @property
    def subject(self) -> str:
        """Such as green 2024-01."""
        return f"{self.dataset} {self.months}".rstrip()


def document(found: Statuses, zones: MonthStatus) -> dict[str, Any]:
    """All of it as plain values."""
    settings = current_settings()
    return {
        "as_of": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lake": store_of(settings).location,
        "warehouse": redact(settings.warehouse),
        "totals": _totals([each for of in found.values() for each in of]),
        "zones": _facts(zones),
        "datasets": [
            {"dataset": name, **_totals(of), "months": [_facts(each) for each in of]} for name, of in found.items()
        ],
        "remarks": [asdict(remark) for remark in remarks(found, zones)],
    }


def remarks(found: Statuses, zones: MonthStatus) -> list[Remark]:
    """What is refused, failed or out of date; months in a row for the same reason are one remark."""
    made = []
    for each in ([zones], *found.values()):
        by_reason: dict[tuple[str, str, str], list[date | None]] = {}
        texts = {of.month: of.failure[2] for of in each if of.failure}
        for of in each:
            if of.mark in ("refused", "failed", "stale"):
                step = of.failure[0] if of.failure and of.mark == "failed" else "download"
                by_reason.setdefault((of.mark, _why(of), of.stale_from or step), []).append(of.month)
        for (stage, why, step), months in by_reason.items():
            for span in spans([month for month in months if month]) or [""]:
                words = f"{each[0].dataset} {span}".split()
                told = why
                if stage == "failed" and span and step != "conform":
                    command = suggested_command("backfill", *words)
                else:  # Raw bytes that could not be conformed may be others by now.
                    first = "download" if stage == "failed" and step == "conform" else step
                    command = suggested_command("redo", *words, "--from", first)
                if stage == "failed" and ".." not in span:
                    told += f": {texts[_month(span) if span else None]}"
                made.append(Remark(each[0].dataset, span, stage, told, command, step))
    return made


def print_status(found: Statuses, zones: MonthStatus) -> None:
    """Print all of it, at most 80 columns wide for four datasets."""
    settings = current_settings()
    print_table(grid({name: {each.month: each.mark for each in of if each.month} for name, of in found.items()}))
    out = console()
    out.print(legend(each.mark for of in found.values() for each in of), soft_wrap=not out.is_terminal)
    out.print()
    _print_totals({name: _totals(of) for name, of in found.items()})
    print_line(f"zones      {zones.mark}" + (f", {zones.rows:,} rows" if "load" in zones.done and zones.rows else ""))
    print_line(f"lake       {store_of(settings).location}")
    print_line(f"warehouse  {redact(settings.warehouse)}")
    found_wrong = remarks(found, zones)
    if found_wrong:
        out.print()
        print_remarks(found_wrong)


def print_remarks(found: Sequence[Remark]) -> None:
    """Print each with its command on a line of its own; of very many only the first."""
    for remark in found[:_MOST_REMARKS]:
        print_line(f"{remark.subject}: {remark.why}", style=CELLS[remark.stage][1])
        print_line(f"  {remark.command}")
    if len(found) > _MOST_REMARKS:
        print_line(f"… and {len(found) - _MOST_REMARKS} more, which --json has")
    steps = {remark.step for remark in found if remark.stage == "stale"}
    if steps - {"download"}:
        but = ", but for --from download" if "download" in steps else ""
        print_line(f"What is out of date, all at once{but}: {suggested_command('refresh', '--apply')}")


def print_spans(label: str, months: Mapping[str, Sequence[str]]) -> None:
    """Print a list of months by dataset, as few periods, under a label."""
    for name, of in months.items():
        if of:
            print_line(f"{label}  {name} {', '.join(spans(map(_month, of)))}")
            label = " " * len(label)


def _why(of: MonthStatus) -> str:
    if of.stage == "stale":
        return "; ".join(of.stale[step] for step in STEPS if step in of.stale)
    if of.mark == "failed" and of.failure:
        return f"{of.failure[0]} failed: {of.failure[1]}"
    return f"refused by its checks: {', '.join(of.failed).replace('_', ' ')}"


def _facts(of: MonthStatus) -> dict[str, Any]:
    known = asdict(of)
    month, done = format_month(of.month) if of.month else None, known.pop("done")
    # A dataset without marts has all of them as soon as it is loaded.
    steps = {step.stage: min(step.name, of.last_step, key=STEPS.index) in done for step in TABLE}
    return {**known, "month": month, **steps, "stage": of.stage, "mark": of.mark}


def _totals(of: Sequence[MonthStatus]) -> dict[str, Any]:
    stages, marks = Counter(each.stage for each in of), Counter(each.mark for each in of)
    return {
        "stages": {stage: stages[stage] for stage in CELLS if stages[stage]},
        "marks": {mark: marks[mark] for mark in CELLS if marks[mark]},
        "rows": sum(each.rows or 0 for each in of if "load" in each.done),
        "raw_bytes": sum(each.raw_bytes or 0 for each in of),
    }


def _print_totals(totals: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each total, a column for each dataset, so that four of them fit whatever their stages."""
    table = new_table()
    table.add_column("months")
    for name in totals:
        table.add_column(name, justify="right", min_width=12)
    for stage in CELLS:
        counts = [of["marks"].get(stage, 0) for of in totals.values()]
        if any(counts):
            table.add_row(stage, *(f"{count:,}" if count else "" for count in counts))
    table.add_row("rows loaded", *(f"{of['rows']:,}" for of in totals.values()))
    table.add_row("raw bytes", *(size(of["raw_bytes"]) for of in totals.values()))
    print_table(table)


def _month(text: str) -> date:
    return date.fromisoformat(f"{text}-01")
