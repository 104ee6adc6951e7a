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
from pipeline.errors import NotPublished, SourceError, StoreError
from pipeline.lake import Entry, Store
from pipeline.months import format_month
from pipeline.source.parts import Part
from pipeline.source.site import Source
from pipeline.state.status import STEPS, sidecar_of
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


def forget_once_fetched(
    store: Store, warehouse: Warehouse, source: Source, what: Going, *, wait_s: float, anew: bool = False
) -> bool:
    """Forget the month only once what the source has of it has arrived, whole, where the next download takes it up.

    False when these are the very bytes that are here: then nothing is forgotten, and their sidecar is renewed; with
    `anew` the month is forgotten all the same.

    Raises:
        NotPublished: the source has none; nothing was forgotten.
        SourceError: it misbehaved through all retries; nothing was forgotten.
    """
    raw = raw_of(source, (what.dataset.name, what.month))
    # Held until the old file has gone: a part whose file is there is swept by whoever plans a run.
    with store.part(raw, wait_s=wait_s) as path:
        sidecar = source.fetch(what.dataset, what.month, path)
        if anew or _sha256(store, raw) != sidecar.sha256:
            forget(store, warehouse, what)
            return True
        beside = lake.sidecar_key(raw)
        facts = store.entry(beside).facts if store.exists(beside) else {}
        with store.publish(beside, facts) as draft:
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
    redo: Callable[[Month, str], str],
    anew: bool = False,
) -> tuple[list[Month], list[str]]:
    """Forget what is out of date, months by the step that mends it; returns those that a run must make, and errors.

    What is here is not given up before its replacement is proved: bytes of the source are fetched first, raw bytes are
    compared with their sidecar, and a trips file is read to its end. Where that fails the month stays as it is. A month
    may be given with several steps. `redo` gives the command that does a month again from a step. With `anew` fetched
    bytes count although they are those that are here.
    """
    todo: list[Month] = []
    errors: list[str] = []
    handled: set[Month] = set()
    for step in STEPS:
        months = _grouped(month for month in wanted.get(step, ()) if month not in handled)
        for what in going(store, warehouse, source, months, step):
            month = (what.dataset.name, what.month)
            kept = f"what is here of {name_of(*month)} stays as it is"
            try:
                needs_source = _prove(store, source, month, step, redo)
            except (SourceError, StoreError) as error:
                errors.append(f"{error.words}; {kept}")
                handled.add(month)
                continue
            try:
                if not needs_source:
                    forget(store, warehouse, what)
                elif forget_once_fetched(store, warehouse, source, what, wait_s=wait_s, anew=anew):
                    say(f"{name_of(*month)}: fetched")
                else:
                    say(f"{name_of(*month)}: the source's bytes are those that are here; their sidecar is renewed")
                    continue  # With a later step the month has its turn again.
                todo.append(month)
            except (NotPublished, SourceError) as error:
                errors.append(f"{error.words}; {kept}")
            handled.add(month)
    return todo, errors


def _prove(store: Store, source: Source, month: Month, step: str, redo: Callable[[Month, str], str]) -> bool:
    """Read to its end what a step would work on; returns whether that must be fetched first.

    Raises:
        SourceError: raw bytes that have no readable sidecar, or are not those that it is of.
        StoreError: a trips file that cannot be read.
    """
    raw, trips = raw_of(source, month), lake.trips_key(dataset_named(month[0]), month[1])
    if step == "mart":  # A load has its rows in the warehouse, where nothing rots unseen.
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
    """The hash of the raw bytes that are here; None where there are none."""
    if not store.exists(raw_key):
        return None
    with store.entry(raw_key).open_local() as path:
        return Part(path).sha256()


def _grouped(months: Iterable[Month]) -> dict[str, list[date | None]]:
    grouped: dict[str, list[date | None]] = {}
    for name, month in months:
        grouped.setdefault(name, []).append(month)
    return grouped
