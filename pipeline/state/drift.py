"""How lake and warehouse differ from the source, and what of them is out of date.

Nothing is downloaded to find out: a HEAD request for each month whose raw bytes exist or of which nothing does, four at
a time, against what its sidecar says. Without conditions, as an answer to HEAD has no body that they could save.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date, datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from pipeline import lake
from pipeline.datasets import dataset_named
from pipeline.errors import SourceError
from pipeline.months import format_month
from pipeline.source.parts import Version
from pipeline.source.site import Sidecar, Source
from pipeline.state.invalidation import Month, Months, raw_of
from pipeline.state.inventory import OLDER_RAW, Inventory, MonthStatus, sidecar_of
from pipeline.state.steps import STEPS

_THREADS = 4
#: After so many months in a row about which the source said nothing, it is not asked any more.
_PATIENCE = 4
_NOT_ASKED = "not asked, since the source did not answer for the months before it"

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Finding:
    """A way in which a month is not up to date (the zones, when `month` is None)."""

    dataset: str
    month: date | None
    #: new, republished, gone, stale; unknown: there is no telling; unanswered: the source did not say.
    what: str
    why: str
    #: When the source published what it has, or when what is out of date was made or fetched; None: nothing says so.
    dated: datetime | None = None
    #: The first step to do again; None where you must decide.
    redo_from: str | None = None

    @property
    def plain(self) -> dict[str, str | None]:
        """For machines."""
        return {
            "dataset": self.dataset,
            "month": format_month(self.month) if self.month else None,
            "finding": self.what,
            "why": self.why,
            "dated": self.dated.isoformat(timespec="seconds") if self.dated else None,
            "redo_from": self.redo_from,
        }


@dataclass(frozen=True)
class Comparison:
    """What came of comparing months with the source and with each other; each list in the order of the months."""

    findings: list[Finding]
    #: The raw bytes are those that the source has.
    same: list[Month]
    #: Neither the source has it, nor is anything of it here.
    absent: list[Month]
    #: Trips or rows are here, but no raw bytes that could be compared.
    without_raw: list[Month]


def compare(inventory: Inventory, months: Months, today: date, *, redo: Callable[[Month, str], str]) -> Comparison:
    """Compare these months; `redo` gives the command that does a month again from a step."""
    sidecars, findings = _sidecars(inventory, months, redo)
    unreadable = {(found.dataset, found.month) for found in findings}
    wanted = {name: [month for month in each if (name, month) not in unreadable] for name, each in months.items()}
    status = {(name, of.month): of for name, each in inventory.statuses(wanted, today).items() for of in each}
    to_ask = [month for month, of in status.items() if "download" in of.done or not of.done]
    same, absent = set[Month](), set[Month]()
    for month, answer in source_versions(inventory.source, to_ask):
        if found := _of_source(month, answer, sidecars):
            findings.append(found)
        else:
            (same if month in sidecars else absent).add(month)
    findings += _of_staleness(inventory, status, sidecars)
    every = _each(months)
    order = {month: index for index, month in enumerate(every)}
    return Comparison(
        sorted(findings, key=lambda found: order[found.dataset, found.month]),
        [month for month in every if month in same],
        [month for month in every if month in absent],
        [month for month in status if month not in to_ask],
    )


def _sidecars(
    inventory: Inventory, months: Months, redo: Callable[[Month, str], str]
) -> tuple[dict[Month, Sidecar], list[Finding]]:
    """The sidecars of all raw bytes in the lake, and a finding for each that cannot be read."""
    raws = {month: raw_of(inventory.source, month) for month in _each(months)}
    here = {month: key for month, key in raws.items() if inventory.entry(key)}
    beside = {month: inventory.entry(lake.sidecar_key(key)) for month, key in here.items()}
    sidecars, findings = {}, []
    for month, answer in _in_threads(lambda month: sidecar_of(inventory.store, here[month], beside[month]), list(here)):
        if isinstance(answer, SourceError):
            findings.append(Finding(*month, "unknown", f"{answer}; to fetch it again, run: {redo(month, 'download')}"))
        else:
            sidecars[month] = answer
    return sidecars, findings


def source_versions(source: Source, months: Sequence[Month]) -> Iterator[tuple[Month, Version | SourceError | None]]:
    """What the source has of each month; once it has failed for several in a row, the others are not asked about."""
    failures, left = 0, dict.fromkeys(months)
    with closing(_in_threads(lambda month: source.version(dataset_named(month[0]), month[1]), months)) as answers:
        for month, answer in answers:
            failures = failures + 1 if isinstance(answer, SourceError) else 0
            del left[month]
            yield month, answer
            if failures == _PATIENCE:
                break
    yield from ((month, SourceError(_NOT_ASKED)) for month in left)


def _of_source(month: Month, answer: Version | SourceError | None, sidecars: Mapping[Month, Sidecar]) -> Finding | None:
    sidecar = sidecars.get(month)
    if isinstance(answer, SourceError):
        return Finding(*month, "unanswered", str(answer))
    if answer is None:
        fetched = f"fetched {sidecar.fetched_at[:10]}" if sidecar else ""
        return Finding(*month, "gone", f"the source has it no more; {fetched}, and kept") if sidecar else None
    dated = _http_time(answer.last_modified)
    if sidecar is None:
        return Finding(*month, "new", "the source has it, nothing of it is here", dated, "download")
    difference = _difference(sidecar, answer)
    return Finding(*month, "republished", difference, dated, "download") if difference else None


def _difference(sidecar: Sidecar, version: Version) -> str:
    """In what the source's file is another than the one that was fetched; of what either does not tell, nothing."""
    found = []
    # Tags and dates are those of one place; what came from another is compared by its length alone.
    if sidecar.url == version.url:
        tags = [tag.removeprefix("W/") for tag in (sidecar.etag, version.etag) if tag]
        found += ["another ETag"] if len(set(tags)) == 2 else []
        found += ["another date"] if len({sidecar.last_modified, version.last_modified} - {None}) == 2 else []
    if version.bytes is not None and version.bytes != sidecar.bytes:
        found.append(f"{version.bytes:,} bytes, not {sidecar.bytes:,}")
    return ", ".join(found)


def _of_staleness(
    inventory: Inventory, status: Mapping[Month, MonthStatus], sidecars: Mapping[Month, Sidecar]
) -> Iterator[Finding]:
    for month, of in status.items():
        if of.stale_from:
            why = "; ".join(of.stale[step] for step in STEPS if step in of.stale)
            yield Finding(*month, "stale", why, _made_at(inventory, of, sidecars.get(month)), of.stale_from)


def _made_at(inventory: Inventory, status: MonthStatus, sidecar: Sidecar | None) -> datetime | None:
    """When what is out of date was made, or what it should be made of was fetched."""
    dataset = dataset_named(status.dataset)
    if status.stale.get("conform") == OLDER_RAW:
        return _iso_time(sidecar.fetched_at) if sidecar else None
    if status.stale_from == "mart" and status.month:
        return min((mart.built_at for mart in inventory.marts(dataset)[status.month].values()), default=None)
    load = inventory.loads(dataset).get(status.month)
    return load.loaded_at if load else None


def _each(months: Months) -> list[Month]:
    return [(name, month) for name, of in months.items() for month in of]


def _in_threads(work: Callable[[_T], _R], items: Sequence[_T]) -> Generator[tuple[_T, _R | SourceError], None, None]:
    """Do the work for each item, several at a time; a SourceError is an answer, any other error is raised here.

    In threads that do not keep the process alive, so that Ctrl-C ends it at once whatever they wait for.
    """
    todo: SimpleQueue[tuple[_T] | None] = SimpleQueue()
    done: SimpleQueue[tuple[_T, Any]] = SimpleQueue()

    def serve() -> None:
        while given := todo.get():
            try:
                done.put((*given, work(*given)))
            except BaseException as error:
                done.put((*given, error))

    coming, threads = iter(items), [Thread(target=serve, daemon=True) for _ in range(min(_THREADS, len(items)))]
    for thread, item in zip(threads, coming, strict=False):
        thread.start()
        todo.put((item,))
    try:
        for _ in items:
            item, answer = done.get()
            if isinstance(answer, BaseException) and not isinstance(answer, SourceError):
                raise answer
            yield item, answer
            for following in islice(coming, 1):  # Not before: the answers may be reason to ask no more.
                todo.put((following,))
    except GeneratorExit:
        pass
    finally:
        for _ in threads:
            todo.put(None)
    # No thread may be left beside a run, which forks.
    for thread in threads:
        thread.join()


def _http_time(text: str | None) -> datetime | None:
    with suppress(TypeError, ValueError):
        return parsedate_to_datetime(text or "").astimezone(timezone.utc)
    return None


def _iso_time(text: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    return None
