"""What of a month is deleted when a step and all that follows from it are done again, and in which order.

What says that the month exists is deleted first: its load with the marts, in one step of the warehouse. Then trips,
checks, raw bytes and, last, the sidecar. So a process that is killed in between leaves a month that every run takes for
missing and makes again from what is left: raw bytes without a sidecar, which no run would accept, never occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pipeline import lake
from pipeline.datasets import dataset_named
from pipeline.datasets.base import Dataset
from pipeline.errors import NotPublished, SourceError, StoreError
from pipeline.lake import Entry, Store
from pipeline.months import format_month
from pipeline.source.parts import Part
from pipeline.source.site import Source
from pipeline.state.inventory import Inventory, sidecar_of
from pipeline.state.steps import STEPS, steps_from
from pipeline.warehouses.base import LoadRecord, MartRecord, Warehouse

#: A dataset's name and a month; of the zones, None.
Month = tuple[str, "date | None"]
Months = Mapping[str, Sequence["date | None"]]


@dataclass(frozen=True)
class DeletionPlan:
    """What exists of a month and is deleted; the zones' load stays until another replaces it."""

    dataset: Dataset
    month: date | None
    load: LoadRecord | None = None
    marts: Mapping[str, MartRecord] = field(default_factory=dict)
    #: Of the lake, by kind (trips, checks, raw, sidecar), in the order in which they are deleted.
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


def deletion_plans(inventory: Inventory, months: Months, step: str) -> list[DeletionPlan]:
    """What is deleted of each month when the step is done again; an empty plan where nothing exists."""
    return [_plan(inventory, dataset_named(name), month, step) for name, wanted in months.items() for month in wanted]


def _plan(inventory: Inventory, dataset: Dataset, month: date | None, step: str) -> DeletionPlan:
    again = steps_from(step)
    files = {
        kind: entry
        for each in reversed(again)
        for kind, key in inventory.files(each.name, dataset, month).items()
        if (entry := inventory.entry(key))
    }
    loaded = month and any(each.name == "load" for each in again)
    load = inventory.loads(dataset).get(month) if loaded else None
    return DeletionPlan(dataset, month, load, inventory.marts(dataset).get(month, {}) if month else {}, files)


def forget(store: Store, warehouse: Warehouse, plan: DeletionPlan) -> None:
    """Delete it, in an order in which a run can go on from every moment."""
    if plan.month and plan.load:
        warehouse.forget(plan.dataset, plan.month)
    elif plan.month and plan.marts:
        warehouse.forget_marts(plan.dataset, plan.month)
    for entry in plan.files.values():
        store.delete(entry.key)


def forget_once_fetched(
    store: Store, warehouse: Warehouse, source: Source, plan: DeletionPlan, *, wait_s: float, always: bool = False
) -> bool:
    """Delete the month only once the source's file has arrived, whole, where the next download takes it up.

    False when its bytes are those of the lake: then nothing is deleted, and their sidecar is renewed; with `always` the
    month is deleted all the same.

    Raises:
        NotPublished: the source has none; nothing was deleted.
        SourceError: it failed after all retries; nothing was deleted.
    """
    raw = raw_of(source, (plan.dataset.name, plan.month))
    # Held until the old file is deleted: a part whose file exists is swept by every process that plans a run.
    with store.part(raw, wait_s=wait_s) as path:
        sidecar = source.fetch(plan.dataset, plan.month, path)
        if always or _sha256(store, raw) != sidecar.sha256:
            forget(store, warehouse, plan)
            return True
        beside = lake.sidecar_key(raw)
        facts = store.entry(beside).metadata if store.exists(beside) else {}
        with store.publish(beside, {**facts, **sidecar.metadata}) as draft:
            draft.write_text(sidecar.to_json(), encoding="utf-8")
        Part(path).discard()
        return False


def invalidate(
    store: Store,
    warehouse: Warehouse,
    source: Source,
    wanted: Mapping[str, Iterable[Month]],
    *,
    wait_s: float,
    say: Callable[[str], object],
    redo: Callable[[Month, str], str],
    always: bool = False,
) -> tuple[list[Month], list[str]]:
    """Delete what is out of date, by the step to do again; returns the months that a run must make, and errors.

    Nothing is deleted before its replacement is verified: bytes of the source are fetched first, raw bytes are compared
    with their sidecar, and a trips file is read to its end. Where that fails the month stays as it is. A month may be
    given with several steps. `redo` gives the command that does a month again from a step. With `always` fetched bytes
    count although they are those of the lake.
    """
    todo: list[Month] = []
    errors: list[str] = []
    handled: set[Month] = set()
    for step in STEPS:
        months = _grouped(month for month in wanted.get(step, ()) if month not in handled)
        for plan in deletion_plans(Inventory(store, source, warehouse), months, step):
            month = (plan.dataset.name, plan.month)
            kept = f"what exists of {name_of(*month)} stays as it is"
            try:
                needs_source = _verify(store, source, month, step, redo)
            except (SourceError, StoreError) as error:
                errors.append(f"{error.words}; {kept}")
                handled.add(month)
                continue
            try:
                if not needs_source:
                    forget(store, warehouse, plan)
                elif forget_once_fetched(store, warehouse, source, plan, wait_s=wait_s, always=always):
                    say(f"{name_of(*month)}: fetched")
                else:
                    say(f"{name_of(*month)}: the source's bytes are those of the lake; their sidecar is renewed")
                    continue  # With a later step the month has its turn again.
                todo.append(month)
            except (NotPublished, SourceError) as error:
                errors.append(f"{error.words}; {kept}")
            handled.add(month)
    return todo, errors


def _verify(store: Store, source: Source, month: Month, step: str, redo: Callable[[Month, str], str]) -> bool:
    """Read to its end what a step works on; returns whether that must be fetched first.

    Raises:
        SourceError: raw bytes that have no readable sidecar, or are not those that it is of.
        StoreError: a trips file that cannot be read.
    """
    raw, trips = raw_of(source, month), lake.trips_key(dataset_named(month[0]), month[1])
    if step == "mart":  # A mart is built from the warehouse's rows.
        return False
    if step == "load" and store.exists(trips):
        try:
            _read(store.entry(trips))
        except StoreError as error:
            raise StoreError(f"{error}; to make it again, run: {redo(month, 'conform')}") from error
        return False
    if step == "download" or not store.exists(raw):
        return True
    try:
        sidecar = sidecar_of(store, raw)
        with store.entry(raw).open_local() as path:
            sidecar.validate(path, raw)
    except SourceError as error:
        raise SourceError(f"{error}; to fetch it again, run: {redo(month, 'download')}") from error
    return False


def _read(trips: Entry) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with trips.open_local() as path, pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{trips.key}: cannot be read as Parquet: {error}") from error


def _sha256(store: Store, raw_key: str) -> str | None:
    """The hash of the lake's raw bytes; None where there are none."""
    if not store.exists(raw_key):
        return None
    with store.entry(raw_key).open_local() as path:
        return Part(path).sha256()


def _grouped(months: Iterable[Month]) -> dict[str, list[date | None]]:
    grouped: dict[str, list[date | None]] = {}
    for name, month in months:
        grouped.setdefault(name, []).append(month)
    return grouped
