"""What is there, and what a run would do; both without doing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import click

from pipeline.cli.grid import Remark, Statuses, document, print_remarks, print_spans, print_status, remarks
from pipeline.cli.options import as_json, months_of, parse_what, print_json, what, with_settings
from pipeline.cli.tables import new_table, print_line, print_table
from pipeline.datasets import ZONES
from pipeline.datasets.published import estimated_bytes
from pipeline.errors import SourceError, redact
from pipeline.months import format_month
from pipeline.places import inventory_of, source_of, store_of
from pipeline.runs.history import History
from pipeline.settings import Settings, current_settings, expand_home
from pipeline.state.drift import ask_source
from pipeline.state.inventory import MonthStatus
from pipeline.state.steps import STEPS, bytes_to_keep, step_before
from pipeline.units import counted, size

Month = tuple[str, date]

#: By the step with which a month would begin: why with that.
_WHY = {step: before.leaves if (before := step_before(step)) else "nothing is here" for step in STEPS}
#: By mark: what a backfill does about it.
_BACKFILL = {
    "stale": "leaves what is out of date",
    "refused": "tries again what was refused",
    "failed": "tries again what failed",
}


@click.command()
@what(required=False)
@as_json
@click.option("--html", "page", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="A page to send.")
@with_settings
def status(what: tuple[str, ...], as_json: bool, page: Path | None) -> None:
    """Show how far each month is.

    The lake and the warehouse themselves are asked. A row is a year, a cell a month; DATASET and PERIOD as for
    backfill, everything when left out. Below are totals, and what is refused, failed or out of date with the command
    for it. Only a few questions are asked, however many months there are; the source is asked nothing (pipeline refresh
    does that), so that a young month of which nothing is here counts as not published.

    \b
    pipeline status
    pipeline status yellow green 2021..2024 --html months.html
    pipeline status --json
    """  # noqa: D301
    names, period = parse_what(what)
    found, zones = _statuses(months_of(names, period))
    if page:
        from pipeline.cli.formats import draft_of
        from pipeline.cli.page import html_page

        page = Path(expand_home(str(page), "--html"))
        with draft_of(page) as file:
            file.write(html_page(document(found, zones)).encode())
        click.echo(f"written: {page}", err=True)
    if as_json:
        print_json(document(found, zones))
    elif not page:
        print_status(found, zones)


@click.command()
@what(required=True)
@click.option("--through", type=click.Choice(STEPS), default=STEPS[-1], show_default=True, help="The last step.")
@as_json
@with_settings
def plan(what: tuple[str, ...], through: str, as_json: bool) -> None:
    """Show what a backfill would do, and why.

    Nothing is run and nothing written. DATASET and PERIOD as for backfill. The source is asked, by HEAD, only for young
    months of which nothing is here. The bytes are those that TLC has published, or an estimate from them.

    \b
    pipeline plan green 2024
    pipeline plan all 2019..2024 --through conform --json
    """  # noqa: D301
    names, period = parse_what(what, required=True)
    found, zones = _statuses(months_of(names, period))
    absent, unanswered = _absent(found)
    plans = [_plan(name, of, through, absent, set(unanswered)) for name, of in found.items()]
    # What is out of date and done all the same needs no remark.
    left = {name: [each for each in of if each.stale_from not in each.missing_steps] for name, of in found.items()}
    wrong, wanted = remarks(left, zones), zones.missing_through(through)
    if as_json:
        print_json(
            {
                "through": through,
                "datasets": [asdict(of) for of in plans],
                "zones": list(wanted),
                "remarks": [asdict(remark) for remark in wrong],
            }
        )
    else:
        _print_plans(plans, through, wanted, wrong)
    if unanswered:
        click.echo(
            f"pipeline: {next(iter(unanswered.values()))}; so whether young months are there is unknown", err=True
        )


def _statuses(months: Mapping[str, Sequence[date | None]]) -> tuple[Statuses, MonthStatus]:
    settings = current_settings()
    found = inventory_of(settings).statuses({**months, ZONES.name: [None]}, date.today())
    failures = _failures(settings)
    found = {
        name: [replace(each, failure=failures.get((name, _text(each.month)))) for each in of]
        for name, of in found.items()
    }
    (zones,) = found.pop(ZONES.name)
    return found, zones


def _failures(settings: Settings) -> dict[tuple[str, str], tuple[str, str, str]]:
    """By month: the step, kind and text of the error with which its last run on this machine failed, if it did.

    Only runs into this lake and this warehouse count; a record of before these were noted counts for any.
    """
    places = (store_of(settings).location, redact(settings.warehouse))
    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    for run in History(settings.logs).runs():
        if (run.lake or places[0], run.warehouse or places[1]) == places:
            for done in run.months_done:
                dataset, _, month = done.partition(" ")
                found.pop((dataset, month), None)
            failures = [of for of in run.failures if not of.waits]
            found |= {(of.dataset, of.month): (of.step, of.kind, of.error) for of in failures}
    return found


def _text(month: date | None) -> str:
    return format_month(month) if month else ""


@dataclass
class Plan:
    """What would be done for one dataset; months as texts."""

    dataset: str
    #: The months for which nothing is to be done.
    there: list[str] = field(default_factory=list)
    #: By step: the months that would begin with it.
    begins: dict[str, list[str]] = field(default_factory=lambda: {step: [] for step in STEPS})
    #: By step: the months for which it would be done.
    steps: dict[str, list[str]] = field(default_factory=lambda: {step: [] for step in STEPS})
    not_published: list[str] = field(default_factory=list)
    #: Young months about which the source did not answer; they count as published.
    unanswered: list[str] = field(default_factory=list)
    bytes_to_download: int = 0
    #: In lake and warehouse.
    bytes_to_keep: int = 0

    @property
    def months(self) -> int:
        """How many there are to do."""
        return sum(map(len, self.begins.values()))


def _absent(found: Statuses) -> tuple[set[Month], dict[Month, SourceError]]:
    """Young months of which nothing is here and which the source lacks, and those about which it did not answer."""
    source, now = source_of(current_settings()), date.today().replace(day=1)
    # A plan can do without an answer, so it is not as patient as a run.
    source = replace(source, policy=replace(source.policy, retries=min(1, source.policy.retries), on_retry=None))
    young = [(each.dataset, each.month) for of in found.values() for each in of if each.young and each.month]
    absent = {month for month in young if month[1] > now}
    left = [month for month in young if month not in absent]
    answers = dict(zip(left, (answer for _, answer in ask_source(source, left)), strict=True))
    absent |= {month for month, answer in answers.items() if answer is None}
    return absent, {month: answer for month, answer in answers.items() if isinstance(answer, SourceError)}


def _plan(name: str, of: Sequence[MonthStatus], through: str, absent: set[Month], unanswered: set[Month]) -> Plan:
    made = Plan(name)
    for each in of:
        assert each.month is not None
        month, wanted = format_month(each.month), each.missing_through(through)
        if (name, each.month) in absent:
            made.not_published.append(month)
            continue
        if (name, each.month) in unanswered:
            made.unanswered.append(month)
        (made.begins[wanted[0]] if wanted else made.there).append(month)
        for step in wanted:
            made.steps[step].append(month)
        made.bytes_to_download += estimated_bytes(name, [each.month]) if "download" in wanted else 0
        made.bytes_to_keep += bytes_to_keep(name, each.month, wanted)
    return made


def _print_plans(plans: Sequence[Plan], through: str, zones: Sequence[str], wrong: Sequence[Remark]) -> None:
    begins = {f"from {step} on: {why}": [len(of.begins[step]) for of in plans] for step, why in _WHY.items()}
    lines = {
        "nothing to do": [len(of.there) for of in plans],
        **begins,
        "not published yet": [len(of.not_published) for of in plans],
    }
    table = new_table()
    table.add_column("months")
    for of in plans:
        table.add_column(of.dataset, justify="right")
    for label, counts in lines.items():
        if any(counts):
            table.add_row(label, *(f"{count:,}" if count else "" for count in counts))
    if any(of.bytes_to_download for of in plans):
        table.add_row("to download, about", *(size(of.bytes_to_download) for of in plans))
    print_table(table)
    print_line("")
    for step in STEPS:
        print_spans(f"from {step:<10}", {of.dataset: of.begins[step] for of in plans})
    print_spans("not published  ", {of.dataset: of.not_published for of in plans})
    if zones:
        print_line(f"zones            {', '.join(zones)}")
    for stage, does in _BACKFILL.items():
        if some := [remark for remark in wrong if remark.stage == stage]:
            print_line(f"\nA backfill {does}:")
            print_remarks(some)
    count = sum(of.months for of in plans)
    fetched, kept = sum(of.bytes_to_download for of in plans), sum(of.bytes_to_keep for of in plans)
    told = f"about {size(fetched)} to download" if fetched else "nothing to download"
    told += f", in all about {size(kept)} more to keep" if kept else ""
    print_line(f"{counted(count, 'month')} to do through {through}: {told}." if count else "Nothing to do.")
