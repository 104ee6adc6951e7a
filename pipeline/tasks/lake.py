"""The steps that end in the lake: TLC's bytes as they are, then the one schema, checked before anyone can see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import lake
from pipeline.conform.check import check, checks_document, enforce
from pipeline.conform.month import conform_file
from pipeline.datasets.base import (
    DATASET_KEY,
    DECLARATION_KEY,
    MONTH_KEY,
    PRESENT_KEY,
    SOURCE_KEY,
    VERSION_KEY,
    WARNINGS_KEY,
)
from pipeline.errors import ConcurrentWriteError, SourceError
from pipeline.months import format_month
from pipeline.settings import suggested_command
from pipeline.source.parts import Part
from pipeline.source.site import Sidecar
from pipeline.state.inventory import sidecar_of
from pipeline.tasks.base import OfZones, Step
from pipeline.units import counted, size
from pipeline.version import __version__


class Download(Step):
    """TLC's bytes of the month as they were published, with a sidecar that says where from."""

    resources = {"tlc": 1}  # noqa: RUF012 - Luigi's way

    def run(self) -> None:
        """Fetch, verify, publish; the sidecar first, since the data file is the commit point."""

        def report(got: int, total: int | None, rate: float) -> None:
            of = f" of {size(total)}" if total else ""
            self.progress(got / total if total else None, f"{size(got)}{of}, {size(rate)}/s", moved=got)

        raw = self.raw
        with self.store.part(raw.key, wait_s=self.settings.lock_timeout_s) as path:
            if raw.exists():  # Another process has downloaded it while this one waited for the part.
                return
            sidecar = self.source.fetch(self.spec, self.month, path, report)
            with raw.publish(_facts(self, sidecar)) as draft:
                _publish_sidecar(self, sidecar)
                # Last, as a draft is deleted with whatever fails, and what was downloaded need not be.
                Part(path).move(draft)
        self.done(size(sidecar.bytes), moved=sidecar.bytes)


class Conform(Step):
    """The month in the dataset's one schema, checked before anyone can see it."""

    resources = {"cpu": 1}  # noqa: RUF012

    def run(self) -> None:
        """Conform, measure, check; publish what was measured and found, and the rows only if they pass."""
        facts: dict[str, str] = {}

        def report(fraction: float, rows: int) -> None:
            self.progress(fraction, f"{rows:,} rows", rows=rows)

        with _verified(self) as (path, sidecar), self.trips.publish(facts) as draft:
            measures = conform_file(
                path,
                draft,
                self.spec,
                self.month,
                source_sha256=sidecar.sha256,
                progress=report,
                threads=self.threads,
            )
            findings = check(self.spec, self.month, measures)
            # Taken when the block ends: what the file says of itself, for who lists the lake without opening its files.
            present = ",".join(measures.columns_in_source)
            facts |= {**_facts(self, sidecar), DECLARATION_KEY: measures.declaration, PRESENT_KEY: present}
            warned = {WARNINGS_KEY: ",".join(finding.rule for finding in findings if finding.severity == "warning")}
            with self.store.publish(lake.checks_key(self.spec, self.month), {**facts, **warned}) as text:
                document = checks_document(measures, findings)
                text.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            enforce(self.spec, self.month, findings)
        rules = [finding.rule.replace("_", " ") for finding in findings]
        warnings = f", {counted(len(rules), 'warning')}: {', '.join(rules)}" if rules else ""
        self.done(f"{measures.rows:,} rows{warnings}", rows=measures.rows, warnings=rules)


class DownloadZones(OfZones, Download):
    """TLC's table of zones as it was published, with a sidecar that says where from."""


class ConformZones(OfZones, Conform):
    """The zones as a Parquet file of their one schema."""


def _publish_sidecar(step: Step, sidecar: Sidecar) -> None:
    """Publish the sidecar; one that another machine publishes for the same bytes just now will do."""
    key = lake.sidecar_key(step.raw.key)
    try:
        with step.store.publish(key, {**_facts(step, sidecar), **sidecar.metadata}) as text:
            text.write_text(sidecar.to_json(), encoding="utf-8")
    except ConcurrentWriteError:
        with step.store.entry(key).open_local() as there:
            if Sidecar.from_json(there.read_bytes(), key).sha256 != sidecar.sha256:
                raise


def _facts(step: Step, sidecar: Sidecar) -> dict[str, str]:
    """What a store that keeps metadata says of a file beside its name."""
    return {
        DATASET_KEY: step.spec.name,
        **({MONTH_KEY: format_month(step.month)} if step.month else {}),
        SOURCE_KEY: sidecar.sha256,
        VERSION_KEY: __version__,
    }


@contextmanager
def _verified(step: Step) -> Iterator[tuple[Path, Sidecar]]:
    """The raw file with its sidecar, once they fit each other."""
    raw = step.raw
    with raw.entry().open_local() as path:
        try:
            sidecar = sidecar_of(step.store, raw.key)
            sidecar.validate(path, raw.key)
        except SourceError as error:
            month = [format_month(step.month)] if step.month else []
            again = suggested_command("redo", step.spec.name, *month, "--from", "download")
            raise SourceError(f"{error}; to fetch it again, run: {again}", remedy=again) from error
        yield path, sidecar
