"""The one inventory: what exists of each month, which of it is stale, and what a run must do.

It asks in bulk, and only when first needed: one listing of each folder of the lake, one query for the records of each
dataset's loads and marts.

A load counts while the warehouse still has its rows. A mart counts while it was built from the current load by the
declared SQL. Staleness has one basis: a trips file depends on its source (the sidecar's hash) and its declaration, a
load on the trips file's fingerprint, a mart on the load's fingerprint and the hash of its SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pipeline import lake
from pipeline.conform.check import Finding, findings_in
from pipeline.datasets import dataset_named
from pipeline.datasets.base import DECLARATION_KEY, PRESENT_KEY, SIDECAR_KEY, SOURCE_KEY, WARNINGS_KEY, Dataset
from pipeline.errors import SourceError
from pipeline.lake import Entry, Store
from pipeline.marts import marts_of
from pipeline.source.site import Sidecar, Source
from pipeline.state.steps import BY_NAME, STEPS, TABLE, steps_left, steps_of
from pipeline.warehouses.base import LoadRecord, Mart, MartRecord, Warehouse

#: In place of the SHA-256 of a sidecar that cannot be read.
_UNREADABLE = "unreadable"
#: Why trips are stale when the raw file was replaced.
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
    #: The rules that a refused month broke.
    failed: tuple[str, ...] = ()
    #: The rules about which a month that passed its checks has warnings.
    warnings: tuple[str, ...] = ()
    #: The step, error class and message with which its last run failed, where that is known.
    failure: tuple[str, str, str] | None = None
    #: By the step to do again: why its result is stale.
    stale: Mapping[str, str] = field(default_factory=dict)
    #: Nothing exists, and TLC may not have published it yet.
    young: bool = False
    #: When TLC is expected to publish it, where that is asked for a month that is not published yet.
    expected: date | None = None
    rows: int | None = None
    raw_bytes: int | None = None
    trips_bytes: int | None = None

    @property
    def stage(self) -> str:
        """Its progress: complete, loaded, conformed, raw, missing, or not published; refused; stale."""
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
        """The stage as it is shown; in addition warned (complete), and failed (neither stale nor refused)."""
        if self.stage == "complete":
            return "warned" if self.warnings else "complete"
        return "failed" if self.failure and self.stage not in ("stale", "refused") else self.stage

    def missing_steps(self, through: str = STEPS[-1]) -> tuple[str, ...]:
        """The steps that a run up to this one does: all after the last that is done, even if that is stale."""
        return steps_left(self.done.__contains__, steps_of(self.dataset, through))

    @property
    def stale_from(self) -> str | None:
        """The first step to do again; None when nothing is stale."""
        return next((step for step in STEPS if step in self.stale), None)


class Inventory:
    """What exists; make a new one after something has changed."""

    def __init__(self, store: Store, source: Source, warehouse: Warehouse | None) -> None:
        """Without a warehouse nothing counts as loaded."""
        self.store, self.source, self.warehouse = store, source, warehouse
        # Plain dictionaries, since an inventory is made for each question of a step.
        self._entries: dict[str, Mapping[str, Entry]] = {}
        self._loads: dict[str, Mapping[date | None, LoadRecord]] = {}
        self._marts: dict[str, Mapping[date, Mapping[str, MartRecord]]] = {}
        #: By dataset and declaration: whether trips that were conformed by it would be the same today.
        self._current: dict[tuple[str, str], bool] = {}

    def files(self, step: str, dataset: Dataset, month: date | None) -> dict[str, str]:
        """The keys of the step's files in the lake, by type; empty for a step of the warehouse."""
        keys = BY_NAME[step].files
        return keys(dataset, month, self.source.file_name(dataset, month)) if keys else {}

    def entry(self, key: str) -> Entry | None:
        """The file of the lake, None if it does not exist; from one listing of its folder."""
        folder = lake.folder_of(key)
        if folder not in self._entries:
            self._entries[folder] = self.store.entries(folder)
        return self._entries[folder].get(key)

    def loads(self, dataset: Dataset) -> Mapping[date | None, LoadRecord]:
        """The months that are loaded; the zones by None."""
        if self.warehouse and dataset.name not in self._loads:
            self._loads[dataset.name] = self.warehouse.loads(dataset)
        return self._loads.get(dataset.name, {})

    def marts(self, dataset: Dataset) -> Mapping[date, Mapping[str, MartRecord]]:
        """The records of marts, by month and mart, including stale ones."""
        if self.warehouse and dataset.name not in self._marts and marts_of(dataset.name):
            self._marts[dataset.name] = self.warehouse.mart_months(dataset)
        return self._marts.get(dataset.name, {})

    def done(self, step: str, dataset: Dataset, month: date | None) -> bool:
        """Whether the result of the step exists and counts."""
        if files := self.files(step, dataset, month):
            return self.entry(next(iter(files.values()))) is not None
        load = self.loads(dataset).get(month)
        if step == "load" or load is None or month is None:
            return step == "load" and load is not None
        records = self.marts(dataset).get(month, {})
        declared = marts_of(dataset.name)
        return all(mart.name in records and not _why_stale(records[mart.name], mart, load) for mart in declared)

    def left(self, dataset: Dataset, month: date | None, through: str = STEPS[-1]) -> tuple[str, ...]:
        """The steps that a run up to this one does for the month."""
        return steps_left(lambda step: self.done(step, dataset, month), steps_of(dataset.name, through))

    def missing(self, dataset: Dataset, months: Sequence[date], through: str = STEPS[-1]) -> list[date]:
        """The months for which a run up to this step has something to do."""
        last = steps_of(dataset.name, through)[-1]
        return [month for month in months if not self.done(last, dataset, month)]

    def statuses(self, months: Mapping[str, Sequence[date | None]], today: date) -> dict[str, list[MonthStatus]]:
        """The status of each month of each dataset, in the given order; the zones have the month None."""
        return {
            name: [self._status(dataset_named(name), month, today) for month in wanted]
            for name, wanted in months.items()
        }

    def _status(self, dataset: Dataset, month: date | None, today: date) -> MonthStatus:
        steps = steps_of(dataset.name)
        done = frozenset(step for step in steps if self.done(step, dataset, month))
        raw = self.entry(self.files("download", dataset, month)["raw"])
        trips = self.entry(self.files("conform", dataset, month)["trips"])
        load = self.loads(dataset).get(month)
        unpublished = trips is None and load is None
        rows, findings = self._checks(dataset, month) if unpublished else (None, [])
        return MonthStatus(
            dataset.name,
            month,
            steps[-1],
            done,
            failed=tuple(finding.rule for finding in findings if finding.severity == "error"),
            warnings=() if unpublished else self._warnings(dataset, month),
            stale=self._stale(dataset, month, raw, trips, load),
            young=not done and month is not None and self.source.is_young(month, today),
            rows=load.rows if load else rows,
            raw_bytes=raw.bytes if raw else None,
            trips_bytes=trips.bytes if trips else None,
        )

    def _stale(
        self, dataset: Dataset, month: date | None, raw: Entry | None, trips: Entry | None, load: LoadRecord | None
    ) -> dict[str, str]:
        """Why what exists is stale, by the step to do again."""
        stale = {}
        records = self.marts(dataset).get(month, {}) if month and load else {}
        declared = [mart for mart in marts_of(dataset.name) if mart.name in records]
        if load and (reasons := {_why_stale(records[mart.name], mart, load) for mart in declared} - {""}):
            stale["mart"] = ", ".join(sorted(reasons))
        if trips is not None and load is not None and load.fingerprint != trips.fingerprint:
            stale["load"] = "loaded from an older trips file"
        source = self._source_sha256(raw) if raw else None
        if source == _UNREADABLE:
            stale["download"] = "its sidecar is not readable"
        if trips is not None and (reason := self._why_trips_stale(dataset, month, source, trips, load)):
            stale["conform"] = reason
        return stale

    def _why_trips_stale(
        self, dataset: Dataset, month: date | None, source: str | None, trips: Entry, load: LoadRecord | None
    ) -> str:
        """Why trips are stale, given the hash of the raw file; empty when they are not."""
        metadata, current = trips.metadata, load if load and load.fingerprint == trips.fingerprint else None
        if current:  # Saves reading the footer of each file.
            metadata = {**metadata, SOURCE_KEY: current.source_sha256, DECLARATION_KEY: current.declaration}
        elif DECLARATION_KEY not in metadata:
            metadata = _footer(trips)
        if not {SOURCE_KEY, DECLARATION_KEY} <= set(metadata):
            return "not a trips file that says what it was made of"
        if source not in (None, _UNREADABLE, metadata[SOURCE_KEY]):
            return OLDER_RAW
        key = (dataset.name, metadata[DECLARATION_KEY])
        if key not in self._current:
            # Files with the same hash have the same columns, so that asking about one is enough.
            present = metadata.get(PRESENT_KEY) or (self._checked_columns(dataset, month, metadata) if current else "")
            present = present or _footer(trips).get(PRESENT_KEY, "")
            self._current[key] = dataset.declaration(present.split(",")) == key[1]
        return "" if self._current[key] else "conformed by an older declaration of the columns"

    def _source_sha256(self, raw: Entry) -> str | None:
        if SOURCE_KEY in raw.metadata:
            return raw.metadata[SOURCE_KEY]
        listed = self.entry(lake.sidecar_key(raw.key))
        try:
            return sidecar_of(self.store, raw.key, listed).sha256 if listed else None
        except SourceError:
            return _UNREADABLE

    def _warnings(self, dataset: Dataset, month: date | None) -> tuple[str, ...]:
        """The warnings of a month; if the store keeps metadata, from its listing, without a request for each month."""
        entry = self.entry(lake.checks_key(dataset, month))
        if entry is not None and entry.metadata:
            return tuple(filter(None, entry.metadata.get(WARNINGS_KEY, "").split(",")))
        findings = self._checks(dataset, month)[1]
        return tuple(finding.rule for finding in findings if finding.severity == "warning")

    def _checked_columns(self, dataset: Dataset, month: date | None, metadata: Mapping[str, str]) -> str:
        """The columns of the source, from the checks of the same bytes and declaration; without importing pyarrow."""
        document = self._document(dataset, month)
        same = all(document.get(key) == metadata[key] for key in (SOURCE_KEY, DECLARATION_KEY))
        return ",".join(document.get(PRESENT_KEY, ())) if same else ""

    def _checks(self, dataset: Dataset, month: date | None) -> tuple[int | None, list[Finding]]:
        """Rows and findings of a checks document."""
        document = self._document(dataset, month)
        try:
            return document.get("rows"), findings_in(document)
        except (KeyError, TypeError, AttributeError):
            return None, []

    def _document(self, dataset: Dataset, month: date | None) -> Mapping[str, Any]:
        """The checks document; empty if it does not exist or cannot be read, as conforming again rewrites it."""
        entry = self.entry(lake.checks_key(dataset, month))
        try:
            document = json.loads(_bytes(entry)) if entry else {}
        except ValueError:
            document = {}
        return document if isinstance(document, dict) else {}


def _why_stale(record: MartRecord, mart: Mart, load: LoadRecord) -> str:
    """Why a month of a mart is stale; empty when it is not."""
    if record.fingerprint != load.fingerprint:
        return "built from an older load"
    # Records of older versions have no hash; they count until the mart is built again.
    return "built by other SQL than is declared" if record.definition not in (None, mart.definition) else ""


def sidecar_of(store: Store, raw_key: str, listed: Entry | None = None) -> Sidecar:
    """Where a raw file came from; `listed` is the sidecar's entry of a listing, where one was made.

    Raises:
        SourceError: the sidecar is missing, or cannot be read.
    """
    key = lake.sidecar_key(raw_key)
    if listed is None and not store.exists(key):
        advice = "put your own copies into the folder that [pipeline] source names"
        raise SourceError(f"{raw_key}: has no sidecar {key}, which would say where it came from ({advice})")
    entry = listed or store.entry(key)
    listed_text = entry.metadata.get(SIDECAR_KEY)
    return Sidecar.from_json(listed_text.encode() if listed_text else _bytes(entry), key)


def _bytes(entry: Entry) -> bytes:
    with entry.open() as file:
        return file.read()


def _footer(trips: Entry) -> Mapping[str, str]:
    """The metadata in the trips file's footer; empty if it has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with trips.open() as file:
            metadata = pq.read_metadata(file).metadata or {}
    except pa.ArrowException:
        return {}
    return {key.decode(): text.decode() for key, text in metadata.items() if key != b"ARROW:schema"}
