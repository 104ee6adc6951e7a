"""The one inventory: what exists of each month, what of it is out of date, and so what a run does.

Bulk questions only, and each when it is first needed: one listing of each folder of the lake, the records of each
dataset's loads and marts. Plan, status, tasks, redo, refresh and the end of a run all ask here, so that they agree.

A load counts while its table holds it, as the warehouse says. A mart counts while it is built from the load that is
there, by the SQL that is declared. Staleness has one basis: a trips file is by its source (as the sidecar says) and its
declaration, a load by the trips file's fingerprint, a mart by the load's and the hash of its SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pipeline import lake
from pipeline.conform.check import findings_in
from pipeline.datasets import dataset_named
from pipeline.datasets.base import DECLARATION_KEY, PRESENT_KEY, SIDECAR_KEY, SOURCE_KEY, WARNINGS_KEY, Dataset
from pipeline.errors import SourceError
from pipeline.lake import Entry, Store
from pipeline.marts import marts_of
from pipeline.source.site import Sidecar, Source
from pipeline.state.steps import BY_NAME, STEPS, TABLE, steps_left
from pipeline.warehouses.base import LoadRecord, Mart, MartRecord, Warehouse

#: In place of the SHA-256 of a sidecar that cannot be read.
_UNREADABLE = "unreadable"
#: Why trips are out of date when the raw bytes are others by now.
OLDER_RAW = "conformed from older raw bytes"


@dataclass(frozen=True)
class MonthStatus:
    """What exists of one month of one dataset (of the zones, when `month` is None)."""

    dataset: str
    month: date | None
    #: The last of its steps: mart, or load where there are no marts.
    last_step: str
    #: The steps whose result exists and counts.
    done: frozenset[str] = frozenset()
    #: The rules that its checks broke, for a month that was refused.
    failed: tuple[str, ...] = ()
    #: The rules that its checks broke, for a month that passed all the same.
    warnings: tuple[str, ...] = ()
    #: The step, kind and text of the error with which its last run failed, where that is known.
    failure: tuple[str, str, str] | None = None
    #: By the step to do again: why its result is out of date.
    stale: Mapping[str, str] = field(default_factory=dict)
    #: Nothing exists, and TLC may not have published it yet.
    young: bool = False
    rows: int | None = None
    raw_bytes: int | None = None

    @property
    def stage(self) -> str:
        """How far it is: complete, loaded, conformed, raw, missing, or not published; refused; stale."""
        if self.stale:
            return "stale"
        if self.last_step in self.done:
            return "complete"
        if self.failed:
            return "refused"
        reached = next((step.stage for step in reversed(TABLE) if step.name in self.done), "")
        return reached or ("not published" if self.young else "missing")

    @property
    def mark(self) -> str:
        """The stage as it is shown: besides those, warned (complete), and failed (neither stale nor refused)."""
        if self.stage == "complete":
            return "warned" if self.warnings else "complete"
        return "failed" if self.failure and self.stage not in ("stale", "refused") else self.stage

    @property
    def missing_steps(self) -> tuple[str, ...]:
        """The steps that a run does, in their order; files and loads that are out of date count as done."""
        return self.missing_through(self.last_step)

    def missing_through(self, last: str) -> tuple[str, ...]:
        """The steps that a run up to this one does: back to the last that is done, whatever came after it."""
        return steps_left(self.done.__contains__, min(last, self.last_step, key=STEPS.index))

    @property
    def stale_from(self) -> str | None:
        """The first step to do again; None when all that exists fits together."""
        return next((step for step in STEPS if step in self.stale), None)


class Inventory:
    """What exists; ask a new one after something has changed."""

    def __init__(self, store: Store, source: Source, warehouse: Warehouse | None) -> None:
        """Without a warehouse nothing counts as loaded."""
        self.store, self.source, self.warehouse = store, source, warehouse
        self._entries: dict[str, Mapping[str, Entry]] = {}
        self._loads: dict[str, Mapping[date | None, LoadRecord]] = {}
        self._marts: dict[str, Mapping[date, Mapping[str, MartRecord]]] = {}

    def files(self, step: str, dataset: Dataset, month: date | None) -> dict[str, str]:
        """The keys of what the step leaves in the lake, by kind; the first one says that it is done."""
        return files_of(step, dataset, month, self.source)

    def entry(self, key: str) -> Entry | None:
        """The file of the lake, None where there is none; by one listing of its folder."""
        folder = lake.folder_of(key)
        if folder not in self._entries:
            self._entries[folder] = self.store.entries(folder)
        return self._entries[folder].get(key)

    def loads(self, dataset: Dataset) -> Mapping[date | None, LoadRecord]:
        """The months that are loaded; the zones by None."""
        if dataset.name not in self._loads:
            self._loads[dataset.name] = self.warehouse.loads(dataset) if self.warehouse else {}
        return self._loads[dataset.name]

    def marts(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """The records of marts, by month and mart; whether they count is another question."""
        if dataset.name not in self._marts:
            asked = self.warehouse and marts_of(dataset.name)
            self._marts[dataset.name] = self.warehouse.mart_months(dataset) if self.warehouse and asked else {}
        return self._marts[dataset.name]

    def done(self, step: str, dataset: Dataset, month: date | None) -> bool:
        """Whether the result of the step exists and counts."""
        if files := self.files(step, dataset, month):
            return self.entry(next(iter(files.values()))) is not None
        load = self.loads(dataset).get(month)
        if step == "load" or load is None or month is None:
            return step == "load" and load is not None
        records = self.marts(dataset).get(month, {})
        wanted = marts_of(dataset.name)
        return all(mart.name in records and not _older_mart(records[mart.name], mart, load) for mart in wanted)

    def left(self, dataset: Dataset, month: date | None, through: str = STEPS[-1]) -> tuple[str, ...]:
        """The steps that a run up to this one does for the month."""
        return steps_left(lambda step: self.done(step, dataset, month), last_step_of(dataset.name, through))

    def missing(self, dataset: Dataset, months: Sequence[date], through: str = STEPS[-1]) -> list[date]:
        """Those of the months for which a run up to this step has something to do."""
        last = last_step_of(dataset.name, through)
        return [month for month in months if not self.done(last, dataset, month)]

    def statuses(self, months: Mapping[str, Sequence[date | None]], today: date) -> dict[str, list[MonthStatus]]:
        """All that is known of each month of each dataset, in the given order; of the zones by month None."""
        views = {name: _DatasetView(self, dataset_named(name)) for name in months}
        return {name: [views[name].status(month, today) for month in wanted] for name, wanted in months.items()}


def files_of(step: str, dataset: Dataset, month: date | None, source: Source) -> dict[str, str]:
    """The keys of what a step leaves in the lake, by kind; nothing for a step that ends in the warehouse."""
    keys = BY_NAME[step].files
    return keys(dataset, month, source.file_name(dataset, month)) if keys else {}


def last_step_of(dataset: str, through: str = STEPS[-1]) -> str:
    """The last step, up to `through`, that the dataset has: one without marts ends with load."""
    return min(through, "mart" if marts_of(dataset) else "load", key=STEPS.index)


def _older_mart(record: MartRecord, mart: Mart, load: LoadRecord) -> str:
    """Why the mart's month is out of date."""
    if record.fingerprint != load.fingerprint:
        return "built from an older load"
    # A record of before the hash was kept counts until the mart is built again.
    return "built by other SQL than is declared" if record.definition not in (None, mart.definition) else ""


class _DatasetView:
    """All that is known of one dataset."""

    def __init__(self, inventory: Inventory, dataset: Dataset) -> None:
        self._inventory, self._dataset = inventory, dataset
        #: By declaration: whether trips that were conformed by it are as they would be now.
        self._current: dict[str, bool] = {}

    def status(self, month: date | None, today: date) -> MonthStatus:
        inventory, dataset = self._inventory, self._dataset
        last_step = last_step_of(dataset.name)
        steps = STEPS[: STEPS.index(last_step) + 1]
        done = frozenset(step for step in steps if inventory.done(step, dataset, month))
        raw, trips = (
            inventory.entry(inventory.files(step, dataset, month)[kind])
            for step, kind in (("download", "raw"), ("conform", "trips"))
        )
        load = inventory.loads(dataset).get(month)
        refused = trips is None and load is None
        document = self._document(month) if refused else {}
        return MonthStatus(
            dataset.name,
            month,
            last_step,
            done,
            failed=_rules(document, "error"),
            warnings=() if refused else self._warnings(month),
            stale=self._stale(month, raw, trips, load),
            young=not done and month is not None and inventory.source.is_young(month, today),
            rows=load.rows if load else document.get("rows"),
            raw_bytes=raw.bytes if raw else None,
        )

    def _stale(
        self, month: date | None, raw: Entry | None, trips: Entry | None, load: LoadRecord | None
    ) -> dict[str, str]:
        """Why what exists is out of date, by the step to do again."""
        found = {}
        records = self._inventory.marts(self._dataset).get(month, {}) if month and load else {}
        declared = [mart for mart in marts_of(self._dataset.name) if mart.name in records]
        if load and (reasons := {_older_mart(records[mart.name], mart, load) for mart in declared} - {""}):
            found["mart"] = ", ".join(sorted(reasons))
        if trips is not None and load is not None and load.fingerprint != trips.fingerprint:
            found["load"] = "loaded from an older trips file"
        if raw is not None and self._source_sha256(raw) == _UNREADABLE:
            found["download"] = "its sidecar is not readable"
        if trips is not None:
            fitting = load if load is not None and "load" not in found else None
            reason = self._older_trips(raw, trips, fitting)
            found |= {"conform": reason} if reason else {}
        return found

    def _older_trips(self, raw: Entry | None, trips: Entry, load: LoadRecord | None) -> str:
        """Why the trips file is out of date; `load` is a record of that very file, which saves reading its footer."""
        facts = {SOURCE_KEY: load.source_sha256, DECLARATION_KEY: load.declaration} if load else _facts(trips)
        if not {SOURCE_KEY, DECLARATION_KEY} <= set(facts):
            return "not a trips file that says what it was made of"
        source = self._source_sha256(raw) if raw else None
        if source not in (None, _UNREADABLE, facts[SOURCE_KEY]):
            return OLDER_RAW
        declaration = facts[DECLARATION_KEY]
        if declaration not in self._current:
            # Files with the same hash have the same columns, so that one of them speaks for all.
            present = trips.metadata.get(PRESENT_KEY) or _facts(trips, read=True).get(PRESENT_KEY, "")
            self._current[declaration] = self._dataset.declaration(present.split(",")) == declaration
        return "" if self._current[declaration] else "conformed by an older declaration of the columns"

    def _source_sha256(self, raw: Entry) -> str | None:
        if SOURCE_KEY in raw.metadata:
            return raw.metadata[SOURCE_KEY]
        beside = self._inventory.entry(lake.sidecar_key(raw.key))
        if beside is None:
            return None
        try:
            with beside.open() as file:
                return Sidecar.from_json(file.read(), beside.key).sha256
        except SourceError:
            return _UNREADABLE

    def _warnings(self, month: date | None) -> tuple[str, ...]:
        """The warnings of a month; of a store that keeps metadata by its listing, without a request for each month."""
        entry = self._inventory.entry(lake.checks_key(self._dataset, month))
        if entry is not None and entry.metadata:
            return tuple(filter(None, entry.metadata.get(WARNINGS_KEY, "").split(",")))
        return _rules(self._document(month), "warning")

    def _document(self, month: date | None) -> dict[str, Any]:
        """The checks of a month."""
        entry = self._inventory.entry(lake.checks_key(self._dataset, month))
        if entry is None:
            return {}
        try:
            with entry.open() as file:
                document: dict[str, Any] = json.loads(file.read())
                findings_in(document)
        except (ValueError, KeyError, TypeError):  # Conforming the month again rewrites it.
            return {}
        return document


def _rules(document: Mapping[str, Any], severity: str) -> tuple[str, ...]:
    return tuple(found.rule for found in findings_in(document) if found.severity == severity) if document else ()


def sidecar_of(store: Store, raw_key: str, listed: Entry | None = None) -> Sidecar:
    """Where raw bytes came from; `listed` is the sidecar's entry of a listing, whose metadata may say all of it.

    Raises:
        SourceError: nothing says so, or nothing that can be read.
    """
    key = lake.sidecar_key(raw_key)
    if listed is not None and SIDECAR_KEY in listed.metadata:
        return Sidecar.from_json(listed.metadata[SIDECAR_KEY], key)
    if not store.exists(key):
        raise SourceError(
            f"{raw_key}: has no sidecar {key}, so nothing says where it came from (your own copies belong into the "
            "folder that [pipeline] source names)"
        )
    with store.entry(key).open() as file:
        return Sidecar.from_json(file.read(), key)


def _facts(trips: Entry, *, read: bool = False) -> Mapping[str, str]:
    """What the trips file says of itself: beside it where the store keeps such, else in its footer, if it has one."""
    if not read and DECLARATION_KEY in trips.metadata:
        return trips.metadata
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with trips.open() as file:
            said = pq.read_metadata(file).metadata or {}
    except pa.ArrowException:
        return {}
    return {key.decode(): text.decode() for key, text in said.items() if key != b"ARROW:schema"}
