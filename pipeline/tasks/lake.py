"""The steps that end in the lake: TLC's file as published, then the same rows in one schema, after their checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

from pipeline.conform.check import Finding, check, checks_document, enforce
from pipeline.datasets.base import DATASET_KEY, MONTH_KEY, SOURCE_KEY, VERSION_KEY, WARNINGS_KEY
from pipeline.errors import ConcurrentWriteError, SourceError
from pipeline.months import format_month, label
from pipeline.places import warehouse_of
from pipeline.settings import current_settings, run_context, suggested_command
from pipeline.source.parts import Part
from pipeline.source.site import Sidecar
from pipeline.state.inventory import sidecar_of
from pipeline.tasks.base import OfZones, Step
from pipeline.tasks.workers import usable_cpus
from pipeline.units import counted, size
from pipeline.version import __version__
from pipeline.warehouses.base import LoadAhead


class Download(Step):
    """TLC's file of the month as it was published, with a sidecar that says where it came from."""

    resources = {"tlc": 1}  # noqa: RUF012 - Luigi's way

    def run(self) -> None:
        """Fetch and verify the file; publish the sidecar first, since the raw file says that the step is done."""
        key = self.files("download")["raw"]
        with self.store.part(key, wait_s=current_settings().lock_timeout_s) as part:
            if self.complete():  # Another process downloaded it while this one waited for the lock.
                return
            sidecar = self.source.fetch(self.spec, self.month, part, self._report)
            metadata = {DATASET_KEY: self.spec.name, SOURCE_KEY: sidecar.sha256, VERSION_KEY: __version__}
            metadata |= {MONTH_KEY: format_month(self.month)} if self.month else {}
            with self.store.publish(key, metadata) as draft:
                self._publish(sidecar, {**metadata, **sidecar.metadata})
                Part(part).move(draft)  # Last: a failure above deletes the draft, and keeps the download.
        self.done(size(sidecar.bytes), moved=sidecar.bytes)

    def _report(self, received: int, total: int | None, rate: float) -> None:
        share = f" of {size(total)}" if total else ""
        self.progress(received / total if total else None, f"{size(received)}{share}, {size(rate)}/s", moved=received)

    def _publish(self, sidecar: Sidecar, metadata: Mapping[str, str]) -> None:
        key = self.files("download")["sidecar"]
        try:
            with self.store.publish(key, metadata) as draft:
                draft.write_text(sidecar.to_json(), encoding="utf-8")
        except ConcurrentWriteError:  # Fine, if another machine published it for the same bytes.
            if sidecar_of(self.store, self.files("download")["raw"]).sha256 != sidecar.sha256:
                raise


class Conform(Step):
    """The month in the dataset's one schema, published only if it passes its checks."""

    resources = {"cpu": 1}  # noqa: RUF012

    def run(self) -> None:
        """Publish the month, and finish its load if that could begin."""
        with self._load_ahead() as ahead:
            rows, findings = self._publish(ahead)
            if ahead:
                ahead.finish(self.store.entry(self.files("conform")["trips"]))
        rules = [finding.rule.replace("_", " ") for finding in findings]
        warnings = f", {counted(len(rules), 'warning')}: {', '.join(rules)}" if rules else ""
        self.done(f"{counted(rows, 'row')}{warnings}", rows=rows, warnings=rules)

    def _load_ahead(self) -> AbstractContextManager[LoadAhead | None]:
        if not (self.load_follows and self.month):
            return nullcontext()
        ahead = warehouse_of(current_settings()).load_ahead(self.spec, self.month)
        return closing(ahead) if ahead else nullcontext()

    def _publish(self, ahead: LoadAhead | None) -> tuple[int, list[Finding]]:
        """Conform and measure into a draft, publish the checks, and publish the draft if no check failed."""
        from pipeline.conform.month import conform_file, provenance  # Imports pyarrow, which planning does not need.

        keys, metadata = self.files("conform"), dict[str, str]()  # The store reads the metadata when the block ends.
        raw_key = self.files("download")["raw"]
        with self.store.entry(raw_key).open_local() as raw, self.store.publish(keys["trips"], metadata) as draft:
            sidecar = self._valid_sidecar(raw_key, raw)
            measures = conform_file(
                raw,
                draft,
                self.spec,
                self.month,
                source_sha256=sidecar.sha256,
                progress=lambda fraction, rows: self.progress(fraction, counted(rows, "row"), rows=rows),
                threads=max(1, usable_cpus() // run_context().workers),
                also=ahead.add if ahead else None,
            )
            findings = check(self.spec, self.month, measures)
            metadata |= provenance(measures)
            warned = {WARNINGS_KEY: ",".join(finding.rule for finding in findings if finding.severity == "warning")}
            with self.store.publish(keys["checks"], {**metadata, **warned}) as text:
                document = checks_document(measures, findings)
                text.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            enforce(self.spec, self.month, findings)
        return measures.rows, findings

    def _valid_sidecar(self, key: str, raw: Path) -> Sidecar:
        """The sidecar of the raw file, after comparing them."""
        try:
            sidecar = sidecar_of(self.store, key)
            sidecar.validate(raw, key)
        except SourceError as error:
            again = suggested_command("redo", *label(self.spec.name, self.month).split(), "--from", "download")
            raise SourceError(f"{error}; to fetch it again, run: {again}", remedy=again) from error
        return sidecar


class DownloadZones(OfZones, Download):
    """TLC's table of zones as it was published, with a sidecar that says where it came from."""


class ConformZones(OfZones, Conform):
    """The zones as a Parquet file of their one schema."""
