"""What is deleted of a month before a step and all after it are done again, and in which order.

First the load with its marts, in one transaction of the warehouse; then trips, checks, raw file and, last, the sidecar.
If the process is killed in between, the next run makes the month again from what is left. A raw file without a sidecar,
which no run accepts, never occurs.
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
from pipeline.months import label
from pipeline.source.parts import Part
from pipeline.source.site import Source
from pipeline.state.inventory import Inventory, sidecar_of
from pipeline.state.steps import STEPS, TABLE
from pipeline.warehouses.base import LoadRecord, MartRecord, Warehouse

#: A dataset's name and a month; None for the zones.
Month = tuple[str, "date | None"]
Months = Mapping[str, Sequence["date | None"]]


@dataclass(frozen=True)
class DeletionPlan:
    """What exists of a month and is deleted; the zones' load stays until another replaces it."""

    dataset: Dataset
    month: date | None
    load: LoadRecord | None = None
    marts: Mapping[str, MartRecord] = field(default_factory=dict)
    #: Files of the lake, by type (trips, checks, raw, sidecar), in the order in which they are deleted.
    files: Mapping[str, Entry] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.load or self.marts or self.files)


def deletion_plans(inventory: Inventory, months: Months, step: str) -> list[DeletionPlan]:
    """What is deleted of each month when the step is done again; an empty plan where nothing exists."""
    return [_plan(inventory, dataset_named(name), month, step) for name, wanted in months.items() for month in wanted]


def _plan(inventory: Inventory, dataset: Dataset, month: date | None, step: str) -> DeletionPlan:
    steps = STEPS[STEPS.index(step) :]
    files = {
        file_type: entry
        for each in reversed(steps)
        for file_type, key in inventory.files(each, dataset, month).items()
        if (entry := inventory.entry(key))
    }
    load = inventory.loads(dataset).get(month) if month and "load" in steps else None
    return DeletionPlan(dataset, month, load, inventory.marts(dataset).get(month, {}) if month else {}, files)


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
    """Delete the months in `wanted`, by the step to do again; returns the months that a run must make, and errors.

    Nothing is deleted before its replacement is verified: the source's file is fetched first, a raw file is compared
    with its sidecar, and a trips file is read to its end. If that fails, the month stays as it is. `redo` gives the
    command that does a month again from a step. With `always` it is deleted even if the source's bytes are the same.
    """
    deleted: dict[Month, bool] = {}
    errors: list[str] = []
    for step in STEPS:
        inventory = Inventory(store, source, warehouse)
        for month in wanted.get(step, ()):
            if month in deleted:
                continue
            plan, subject = _plan(inventory, dataset_named(month[0]), month[1], step), label(*month)
            try:
                in_lake = _verified_in_lake(store, source, plan, step, redo)
                fetched = not in_lake and _delete_once_fetched(
                    store, warehouse, source, plan, wait_s=wait_s, always=always
                )
            except (NotPublished, SourceError, StoreError) as error:
                errors.append(f"{error.words}; what exists of {subject} stays as it is")
                deleted[month] = False
                continue
            if in_lake:
                _delete(store, warehouse, plan)
            elif fetched:
                say(f"{subject}: fetched")
            else:  # The month may be given with a later step, too.
                say(f"{subject}: the source's bytes are those of the lake; their sidecar is renewed")
                continue
            deleted[month] = True
    return [month for month, must_run in deleted.items() if must_run], errors


def _verified_in_lake(
    store: Store, source: Source, plan: DeletionPlan, step: str, redo: Callable[[Month, str], str]
) -> bool:
    """Whether the lake has what the step works on, read to its end; if not, it must be fetched from the source."""
    dataset, month = plan.dataset, plan.month
    for before in reversed(TABLE[: STEPS.index(step)]):
        if before.files is None:  # It works on rows of the warehouse.
            return True
        key = next(iter(before.files(dataset, month, source.file_name(dataset, month)).values()))
        if not store.exists(key):
            continue
        try:
            if before is TABLE[0]:
                with store.entry(key).open_local() as path:
                    sidecar_of(store, key).validate(path, key)
            elif key.endswith(".parquet"):
                _read(store.entry(key))
        except (SourceError, StoreError) as error:
            again = redo((dataset.name, month), before.name)
            raise type(error)(f"{error}; to {before.name} it again, run: {again}") from error
        return True
    return False


def _read(trips: Entry) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with trips.open_local() as path, pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{trips.key}: cannot be read as Parquet: {str(error).strip()}") from error


def _delete(store: Store, warehouse: Warehouse, plan: DeletionPlan) -> None:
    """Delete it, in an order in which a run can continue from every moment."""
    if plan.month and plan.load:
        warehouse.forget(plan.dataset, plan.month)
    elif plan.month and plan.marts:
        warehouse.forget_marts(plan.dataset, plan.month)
    for entry in plan.files.values():
        store.delete(entry.key)


def _delete_once_fetched(
    store: Store, warehouse: Warehouse, source: Source, plan: DeletionPlan, *, wait_s: float, always: bool
) -> bool:
    """Delete the month only after the source's whole file is where the next download takes it from.

    False when its bytes are those of the lake: then nothing is deleted, and their sidecar is renewed.
    """
    raw = lake.raw_key(plan.dataset, source.file_name(plan.dataset, plan.month))
    # Locked until the old file is deleted: every process that plans a run sweeps a part whose file exists.
    with store.part(raw, wait_s=wait_s) as path:
        sidecar = source.fetch(plan.dataset, plan.month, path)
        same = False
        if not always and store.exists(raw):
            with store.entry(raw).open_local() as old:
                same = Part(old).sha256() == sidecar.sha256
        if not same:
            _delete(store, warehouse, plan)
            return True
        key = lake.sidecar_key(raw)
        metadata = store.entry(key).metadata if store.exists(key) else {}
        with store.publish(key, {**metadata, **sidecar.metadata}) as draft:
            draft.write_text(sidecar.to_json(), encoding="utf-8")
        Part(path).discard()
        return False
