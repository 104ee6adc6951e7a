"""What of a month goes when a step and all that follows from it are to be done anew, and in which order.

What says that the month is there goes first: its load with the marts, in one step of the warehouse. Then trips, checks,
raw bytes and, last, the sidecar. So whoever is killed in between leaves a month that every run takes for missing and
makes again from what is left: raw bytes without a sidecar, which no run would believe, never come about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pipeline import lake
from pipeline.datasets import dataset_named
from pipeline.datasets.base import Dataset
from pipeline.errors import NotPublished, SourceError
from pipeline.months import format_month
from pipeline.parts import Part
from pipeline.source import Sidecar, Source
from pipeline.status import STEPS
from pipeline.storage import Entry, Store
from pipeline.warehouses.base import LoadRecord, MartRecord, Warehouse

#: A dataset's name and a month; of the zones, None.
Month = tuple[str, "date | None"]
Months = Mapping[str, Sequence["date | None"]]


@dataclass(frozen=True)
class Going:
    """What is there of a month and goes; the zones have no month, and their load stays until another replaces it."""

    dataset: Dataset
    month: date | None
    load: LoadRecord | None = None
    marts: Mapping[str, MartRecord] = field(default_factory=dict)
    #: Of the lake, by what they are (trips, checks, raw, sidecar), in the order in which they go.
    files: Mapping[str, Entry] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.load or self.marts or self.files)


def name_of(name: str, month: date | None) -> str:
    """The month for people, such as `green 2024-01`."""
    return f"{name} {format_month(month)}" if month else name


def raw_of(source: Source, month: Month) -> str:
    """The key of the raw file."""
    dataset = dataset_named(month[0])
    return lake.raw_key(dataset, source.file_name(dataset, month[1]))


def going(store: Store, warehouse: Warehouse, source: Source, months: Months, step: str) -> list[Going]:
    """What would go of each month if the step was done anew; nothing of one of which nothing is there.

    Bulk questions: one listing for each folder of the lake, one each for loads and marts.
    """
    return [
        found
        for name, wanted in months.items()
        for found in _of(store, warehouse, source, dataset_named(name), wanted, step)
    ]


def _of(
    store: Store, warehouse: Warehouse, source: Source, dataset: Dataset, months: Sequence[date | None], step: str
) -> list[Going]:
    first, monthly = STEPS.index(step), dataset.first_month is not None
    loads = warehouse.loaded_months(dataset) if monthly and step != "mart" else {}
    marts = warehouse.mart_months(dataset) if monthly else {}
    there: dict[str, Entry] = {}
    if first <= STEPS.index("conform"):
        there |= store.entries(f"trips/{dataset.name}/" if monthly else f"{dataset.name}/")
        there |= store.entries(f"checks/{dataset.name}/")
    if first <= STEPS.index("download"):
        there |= store.entries(f"raw/{dataset.name}/")
    found = []
    for month in months:
        raw = raw_of(source, (dataset.name, month))
        keys = {"trips": lake.trips_key(dataset, month), "checks": lake.checks_key(dataset, month)}
        keys |= {"raw": raw, "sidecar": lake.sidecar_key(raw)}
        files = {what: there[key] for what, key in keys.items() if key in there}
        load, built = (loads.get(month), marts.get(month, {})) if month else (None, {})
        found.append(Going(dataset, month, load, built, files))
    return found


def forget(store: Store, warehouse: Warehouse, what: Going) -> None:
    """Take it away, in an order in which every moment is one that a run can go on from."""
    if what.month and what.load:
        warehouse.forget_month(what.dataset, what.month)
    elif what.month and what.marts:
        warehouse.forget_marts(what.dataset, what.month)
    for entry in what.files.values():
        store.delete(entry.key)


def forget_once_fetched(store: Store, warehouse: Warehouse, source: Source, what: Going, *, wait_s: float) -> bool:
    """Forget the month only once what the source has of it has arrived, whole, where the next download takes it up.

    False when these are the very bytes that are here: then nothing is forgotten, and their sidecar is renewed.

    Raises:
        NotPublished: the source has none; nothing was forgotten.
        SourceError: it misbehaved through all retries; nothing was forgotten.
    """
    raw = raw_of(source, (what.dataset.name, what.month))
    # Held until the old file has gone: a part whose file is there is swept by whoever plans a run.
    with store.part(raw, wait_s=wait_s) as path:
        sidecar = source.fetch(what.dataset, what.month, path)
        if _sha256(store, raw) != sidecar.sha256:
            forget(store, warehouse, what)
            return True
        beside = lake.sidecar_key(raw)
        with store.publish(beside, store.entry(beside).facts) as draft:
            draft.write_text(sidecar.to_json(), encoding="utf-8")
        Part(path).discard()
        return False


def clear_the_way(
    store: Store,
    warehouse: Warehouse,
    source: Source,
    wanted: Mapping[str, Iterable[Month]],
    *,
    wait_s: float,
    say: Callable[[str], object],
) -> tuple[list[Month], list[str]]:
    """Forget what is out of date, months by the step that mends it; returns those that a run must make, and errors.

    What is here is not given up for what is not at hand: for a step that needs the source its bytes are fetched first,
    and what cannot be had, or not conformed, leaves the month as it is. A month may be given with several steps.
    """
    todo: list[Month] = []
    errors: list[str] = []
    handled: set[Month] = set()
    for step in STEPS:
        months = _grouped(month for month in wanted.get(step, ()) if month not in handled)
        for what in going(store, warehouse, source, months, step):
            month = (what.dataset.name, what.month)
            try:
                if _needs_source(store, source, month, step):
                    if not forget_once_fetched(store, warehouse, source, what, wait_s=wait_s):
                        say(f"{name_of(*month)}: the source's bytes are those that are here; their sidecar is renewed")
                        continue  # With a later step the month has its turn again.
                    say(f"{name_of(*month)}: fetched")
                else:
                    if step == "conform":
                        refuse_unfit(store, source, month)
                    forget(store, warehouse, what)
                todo.append(month)
            except (NotPublished, SourceError) as error:
                errors.append(f"{type(error).__name__}: {error}; what is here of {name_of(*month)} stays as it is")
            handled.add(month)
    return todo, errors


def refuse_unfit(store: Store, source: Source, month: Month) -> None:
    """Say what is wrong with raw bytes that are here and could not be conformed anew, before anything is forgotten.

    Raises:
        SourceError: they have no readable sidecar, or are not as long as it says.
    """
    raw = raw_of(source, month)
    if not store.exists(raw):
        return
    sidecar = sidecar_of(store, raw)
    found = store.entry(raw).bytes
    if found != sidecar.bytes:
        raise SourceError(
            f"{raw}: has {found:,} bytes, its sidecar tells of {sidecar.bytes:,}; pipeline redo "
            f"{name_of(*month)} --from download fetches it anew"
        )


def sidecar_of(store: Store, raw_key: str) -> Sidecar:
    """Where raw bytes came from.

    Raises:
        SourceError: nothing says so, or nothing that can be read.
    """
    key = lake.sidecar_key(raw_key)
    if not store.exists(key):
        raise SourceError(f"{raw_key}: has no sidecar {key}, so nothing says where it came from")
    with store.entry(key).open() as file:
        return Sidecar.from_json(file.read(), key)


def _sha256(store: Store, raw_key: str) -> str | None:
    """The hash of raw bytes that are here, by their sidecar."""
    if not store.exists(raw_key):
        return None
    try:
        return sidecar_of(store, raw_key).sha256
    except SourceError:
        return None


def _needs_source(store: Store, source: Source, month: Month, step: str) -> bool:
    """Whether the step cannot be done anew with what is here alone."""
    if step != "conform":
        return step == "download"
    return not store.exists(raw_of(source, month))


def _grouped(months: Iterable[Month]) -> dict[str, list[date | None]]:
    grouped: dict[str, list[date | None]] = {}
    for name, month in months:
        grouped.setdefault(name, []).append(month)
    return grouped
