"""What is there of each month, by the lake and the warehouse themselves, and what of it is out of date.

Bulk questions only: one listing of each folder of the lake, one reading of `loads`. Staleness has one basis: a trips
file is by its source (as the sidecar says) and its declaration, a load by the trips file's fingerprint, a mart by the
load's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pipeline import lake
from pipeline.conform.check import findings_in
from pipeline.datasets import dataset_named
from pipeline.datasets.base import DECLARATION_KEY, PRESENT_KEY, SOURCE_KEY, WARNINGS_KEY, Dataset
from pipeline.errors import SourceError
from pipeline.lake import Entry, Store
from pipeline.marts import marts_of
from pipeline.source.site import Sidecar, Source
from pipeline.warehouses.base import LoadRecord, MartRecord, Warehouse

#: In place of the SHA-256 of a sidecar that cannot be read.
_UNREADABLE = "unreadable"
#: Why trips are out of date for which other raw bytes have arrived.
OLDER_RAW = "conformed from older raw bytes"
#: The steps of a month, first to last; a dataset without marts ends with load.
STEPS = ("download", "conform", "load", "mart")


@dataclass(frozen=True)
class MonthStatus:
    """What is there of one month of one dataset (of the zones, when `month` is None)."""

    dataset: str
    month: date | None
    #: The last of its steps: mart, or load where there are no marts.
    last_step: str
    raw: bool = False
    conformed: bool = False
    loaded: bool = False
    marts: bool = False
    #: The rules that its checks broke, for a month that was refused.
    failed: tuple[str, ...] = ()
    #: The rules that its checks broke, for a month that passed all the same.
    warnings: tuple[str, ...] = ()
    #: The step, kind and text of the error with which its last run failed, where that is known.
    failure: tuple[str, str, str] | None = None
    #: By step that would mend it: why what is there is out of date.
    stale: Mapping[str, str] = field(default_factory=dict)
    #: Nothing is there, and TLC may not have published it yet.
    young: bool = False
    rows: int | None = None
    raw_bytes: int | None = None

    @property
    def stage(self) -> str:
        """How far it is: complete, loaded, conformed, raw, missing, or not published; refused; stale."""
        if self.stale:
            return "stale"
        if self.complete:
            return "complete"
        if self.loaded:
            return "loaded"
        if self.conformed:
            return "conformed"
        if self.failed:
            return "refused"
        if self.raw:
            return "raw"
        return "not published" if self.young else "missing"

    @property
    def mark(self) -> str:
        """The stage as it is shown: besides those, warned (complete), and failed (neither stale nor refused)."""
        if self.stage == "complete":
            return "warned" if self.warnings else "complete"
        return "failed" if self.failure and self.stage not in ("stale", "refused") else self.stage

    @property
    def complete(self) -> bool:
        """Whether its last step is done."""
        return self.marts if self.last_step == "mart" else self.loaded

    @property
    def missing_steps(self) -> tuple[str, ...]:
        """The steps that a run would do, in their order; what is out of date does not count."""
        return self.missing_through(self.last_step)

    def missing_through(self, last: str) -> tuple[str, ...]:
        """The steps that a run up to this one would do: back to the last that is done, whatever came after it."""
        done = {"download": self.raw, "conform": self.conformed, "load": self.loaded, "mart": self.marts}
        wanted: list[str] = []
        for step in reversed(STEPS[: min(map(STEPS.index, (last, self.last_step))) + 1]):
            if done[step]:
                break
            wanted.insert(0, step)
        return tuple(wanted)

    @property
    def stale_from(self) -> str | None:
        """The first step that must be done anew, None when all that is there is of one piece."""
        return next((step for step in STEPS if step in self.stale), None)


def statuses(
    store: Store, warehouse: Warehouse | None, source: Source, months: Mapping[str, Sequence[date | None]], today: date
) -> dict[str, list[MonthStatus]]:
    """The status of each month of each dataset, in the order in which they are given; of the zones by month None.

    Without a warehouse the lake alone is asked.
    """
    return {
        name: _DatasetView(store, warehouse, source, dataset_named(name), today).of(wanted)
        for name, wanted in months.items()
    }


class _DatasetView:
    """All that is known of one dataset."""

    def __init__(
        self, store: Store, warehouse: Warehouse | None, source: Source, dataset: Dataset, today: date
    ) -> None:
        self._dataset, self._source, self._store, self._today = dataset, source, store, today
        monthly = dataset.first_month is not None
        self._raw = store.entries(f"raw/{dataset.name}/")
        self._trips = store.entries(f"trips/{dataset.name}/" if monthly else f"{dataset.name}/")
        self._checks = store.entries(f"checks/{dataset.name}/")
        zones = None if monthly or warehouse is None else warehouse.loaded_zones()
        self._loads: Mapping[date | None, LoadRecord] = (
            {None: zones} if zones else dict(warehouse.loaded_months(dataset)) if monthly and warehouse else {}  # type: ignore[arg-type]
        )
        self._wanted_marts = frozenset(mart.name for mart in marts_of(dataset.name))
        self._marts: Mapping[date, Mapping[str, MartRecord]] = (
            warehouse.mart_months(dataset) if self._wanted_marts and warehouse else {}
        )
        self._current: dict[str, bool] = {}

    def of(self, months: Iterable[date | None]) -> list[MonthStatus]:
        return [self._status(month) for month in months]

    def _status(self, month: date | None) -> MonthStatus:
        raw = self._raw.get(lake.raw_key(self._dataset, self._source.file_name(self._dataset, month)))
        trips = self._trips.get(lake.trips_key(self._dataset, month))
        load, marts = self._loads.get(month), self._marts.get(month, {}) if month else {}
        there = raw or trips or load
        refused = trips is None and load is None
        document = self._document(month) if refused else {}
        return MonthStatus(
            self._dataset.name,
            month,
            "mart" if self._wanted_marts else "load",
            raw=raw is not None,
            conformed=trips is not None,
            loaded=load is not None,
            marts=load is not None and self._wanted_marts <= set(marts),
            failed=_rules(document, "error"),
            warnings=() if refused else self._warnings(month),
            stale=self._stale(raw, trips, load, marts),
            young=not there and month is not None and self._source.is_young(month, self._today),
            rows=load.rows if load else document.get("rows"),
            raw_bytes=raw.bytes if raw else None,
        )

    def _stale(
        self, raw: Entry | None, trips: Entry | None, load: LoadRecord | None, marts: Mapping[str, MartRecord]
    ) -> dict[str, str]:
        """Why what is there is out of date, by the step that would mend it."""
        found = {}
        if load is not None and any(mart.fingerprint != load.fingerprint for mart in marts.values()):
            found["mart"] = "built from an older load"
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
            present = trips.facts.get(PRESENT_KEY) or _facts(trips, read=True).get(PRESENT_KEY, "")
            self._current[declaration] = self._dataset.declaration(present.split(",")) == declaration
        return "" if self._current[declaration] else "conformed by an older declaration of the columns"

    def _source_sha256(self, raw: Entry) -> str | None:
        if SOURCE_KEY in raw.facts:
            return raw.facts[SOURCE_KEY]
        beside = self._raw.get(lake.sidecar_key(raw.key))
        if beside is None:
            return None
        try:
            with beside.open() as file:
                return Sidecar.from_json(file.read(), beside.key).sha256
        except SourceError:
            return _UNREADABLE

    def _warnings(self, month: date | None) -> tuple[str, ...]:
        """The warnings of a month; of a store that keeps metadata by its listing, without a request for each month."""
        entry = self._checks.get(lake.checks_key(self._dataset, month))
        if entry is not None and entry.facts:
            return tuple(filter(None, entry.facts.get(WARNINGS_KEY, "").split(",")))
        return _rules(self._document(month), "warning")

    def _document(self, month: date | None) -> dict[str, Any]:
        """The checks of a month."""
        entry = self._checks.get(lake.checks_key(self._dataset, month))
        if entry is None:
            return {}
        try:
            with entry.open() as file:
                document: dict[str, Any] = json.loads(file.read())
                findings_in(document)
        except (ValueError, KeyError, TypeError):  # Conforming the month again writes it anew.
            return {}
        return document


def _rules(document: Mapping[str, Any], severity: str) -> tuple[str, ...]:
    return tuple(found.rule for found in findings_in(document) if found.severity == severity) if document else ()


def sidecar_of(store: Store, raw_key: str) -> Sidecar:
    """Where raw bytes came from.

    Raises:
        SourceError: nothing says so, or nothing that can be read.
    """
    key = lake.sidecar_key(raw_key)
    if not store.exists(key):
        raise SourceError(
            f"{raw_key}: has no sidecar {key}, so nothing says where it came from (your own copies belong into the "
            "folder that [pipeline] source names)"
        )
    with store.entry(key).open() as file:
        return Sidecar.from_json(file.read(), key)


def _facts(trips: Entry, *, read: bool = False) -> Mapping[str, str]:
    """What the trips file says of itself: beside it where the store keeps such, else in its footer, if it has one."""
    if not read and DECLARATION_KEY in trips.facts:
        return trips.facts
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with trips.open() as file:
            said = pq.read_metadata(file).metadata or {}
    except pa.ArrowException:
        return {}
    return {key.decode(): text.decode() for key, text in said.items() if key != b"ARROW:schema"}
