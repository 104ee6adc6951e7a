"""How lake and warehouse differ from the source, and what of them is stale.

Nothing is downloaded to find out: one HEAD request for each month whose raw file exists or of which nothing exists; the
answer is compared with the sidecar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from threading import Thread

from pipeline import lake
from pipeline.datasets import dataset_named
from pipeline.errors import SourceError
from pipeline.months import format_month
from pipeline.source.parts import Version
from pipeline.source.site import Sidecar, Source
from pipeline.state.invalidation import Month, Months
from pipeline.state.inventory import OLDER_RAW, Inventory, MonthStatus, sidecar_of
from pipeline.state.publication import http_time
from pipeline.state.steps import STEPS
from pipeline.warehouses.base import Locked

_THREADS = 4
_NOT_ASKED = "not asked, since the source did not answer for the months before it"


@dataclass(frozen=True)
class Finding:
    """A way in which a month is not up to date (the zones, when `month` is None)."""

    dataset: str
    month: date | None
    #: new, republished, gone, stale; rows: other rows than were loaded; unknown: its sidecar cannot be read;
    #: unanswered: the source did not answer.
    category: str
    why: str
    #: When the source published its file, or when the stale result was made or its input fetched; None if unknown.
    dated: datetime | None = None
    #: The first step to do again; None where the user must decide.
    redo_from: str | None = None

    @property
    def plain(self) -> dict[str, str | None]:
        """The finding for JSON."""
        return {
            "dataset": self.dataset,
            "month": format_month(self.month) if self.month else None,
            "finding": self.category,
            "why": self.why,
            "dated": self.dated.isoformat(timespec="seconds") if self.dated else None,
            "redo_from": self.redo_from,
        }


@dataclass(frozen=True)
class Comparison:
    """The result of comparing months with the source and with each other; each list in the order of the months."""

    findings: list[Finding]
    #: The raw file is the one that the source has.
    same: list[Month]
    #: The source does not have it, and nothing of it exists locally.
    absent: list[Month]
    #: Trips or rows exist, but no raw file that could be compared.
    without_raw: list[Month]
    #: Why the rows in the warehouse were not counted; empty if they were.
    not_counted: str = ""


def compare(inventory: Inventory, months: Months, today: date, *, redo: Callable[[Month, str], str]) -> Comparison:
    """Compare these months; `redo` gives the command that does a month again from a step."""
    every_month = [(name, month) for name, wanted in months.items() for month in wanted]
    sidecars, findings = _sidecars(inventory, every_month, redo)
    unreadable = {(finding.dataset, finding.month) for finding in findings}
    statuses = [status for each in inventory.statuses(months, today).values() for status in each]
    by_month = {month: status for month, status in zip(every_month, statuses, strict=True) if month not in unreadable}
    to_ask = [month for month, status in by_month.items() if "download" in status.done or not status.done]
    same, absent = list[Month](), list[Month]()
    for month, answer in ask_source(inventory.source, to_ask):
        if finding := _source_finding(month, answer, sidecars.get(month)):
            findings.append(finding)
        else:
            (same if month in sidecars else absent).append(month)
    for month, status in by_month.items():
        if status.stale_from:
            why = "; ".join(status.stale[step] for step in STEPS if step in status.stale)
            made_at = _made_at(inventory, status, sidecars.get(month))
            findings.append(Finding(*month, "stale", why, made_at, status.stale_from))
    not_counted = ""
    for name in months:
        try:
            changed = inventory.warehouse.changed_rows(dataset_named(name)) if inventory.warehouse else {}
        except Locked as error:
            not_counted, changed = str(error), {}
        for loaded, why in changed.items():
            if (name, loaded) in by_month:
                findings.append(Finding(name, loaded, "rows", why, redo_from="load"))
    findings.sort(key=lambda finding: every_month.index((finding.dataset, finding.month)))
    return Comparison(findings, same, absent, [month for month in by_month if month not in to_ask], not_counted)


def ask_source(source: Source, months: Sequence[Month]) -> Iterator[tuple[Month, Version | SourceError | None]]:
    """What the source has of each month (None: nothing), in their order; one HEAD request each, four at a time.

    When it has failed for all four, the others get a SourceError without a request.
    """

    def ask(month: Month) -> None:
        try:
            answers[month] = source.version(dataset_named(month[0]), month[1])
        except BaseException as error:
            answers[month] = error

    for start in range(0, len(months), _THREADS):
        batch = months[start : start + _THREADS]
        answers: dict[Month, Version | BaseException | None] = {}
        # Daemons, so that Ctrl-C ends the process at once. None of them runs on, as a run forks.
        threads = [Thread(target=ask, args=(month,), daemon=True) for month in batch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for month in batch:
            answer = answers[month]
            if isinstance(answer, BaseException) and not isinstance(answer, SourceError):
                raise answer
            yield month, answer
        if all(isinstance(answer, SourceError) for answer in answers.values()):
            yield from ((month, SourceError(_NOT_ASKED)) for month in months[start + _THREADS :])
            return


def _sidecars(
    inventory: Inventory, months: Sequence[Month], redo: Callable[[Month, str], str]
) -> tuple[dict[Month, Sidecar], list[Finding]]:
    """The sidecars of all raw files in the lake, and a finding for each that cannot be read."""
    sidecars, findings = {}, []
    for month in months:
        key = inventory.files("download", dataset_named(month[0]), month[1])["raw"]
        if inventory.entry(key):
            try:
                sidecars[month] = sidecar_of(inventory.store, key, inventory.entry(lake.sidecar_key(key)))
            except SourceError as error:
                why = f"{error}; to fetch it again, run: {redo(month, 'download')}"
                findings.append(Finding(*month, "unknown", why))
    return sidecars, findings


def _source_finding(month: Month, answer: Version | SourceError | None, sidecar: Sidecar | None) -> Finding | None:
    if isinstance(answer, SourceError):
        return Finding(*month, "unanswered", str(answer))
    if answer is None:
        if sidecar is None:
            return None
        return Finding(*month, "gone", f"no longer at the source; fetched {sidecar.fetched_at[:10]}, and kept")
    dated = http_time(answer.last_modified)
    if sidecar is None:
        return Finding(*month, "new", "the source has it, nothing of it exists locally", dated, "download")
    difference = _difference(sidecar, answer)
    return Finding(*month, "republished", difference, dated, "download") if difference else None


def _difference(sidecar: Sidecar, version: Version) -> str:
    """How the source's file differs from the one that was fetched; a value that either lacks is not compared."""
    differences = []
    # Tags and dates only mean something at one address; a file from another one is compared by its length.
    if sidecar.url == version.url:
        tags = [tag.removeprefix("W/") for tag in (sidecar.etag, version.etag) if tag]
        differences += ["another ETag"] if len(set(tags)) == 2 else []
        differences += ["another date"] if len({sidecar.last_modified, version.last_modified} - {None}) == 2 else []
    if version.bytes is not None and version.bytes != sidecar.bytes:
        differences.append(f"{version.bytes:,} bytes, not {sidecar.bytes:,}")
    return ", ".join(differences)


def _made_at(inventory: Inventory, status: MonthStatus, sidecar: Sidecar | None) -> datetime | None:
    """When the stale result was made, or its input was fetched."""
    dataset = dataset_named(status.dataset)
    if status.stale.get("conform") == OLDER_RAW:
        return datetime.fromisoformat(sidecar.fetched_at) if sidecar else None
    if status.stale_from == "mart" and status.month:
        return min((mart.built_at for mart in inventory.marts(dataset)[status.month].values()), default=None)
    load = inventory.loads(dataset).get(status.month)
    return load.loaded_at if load else None
