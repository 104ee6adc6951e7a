"""Any era's raw file as one Parquet file in the dataset's one schema, measured on the way.

Every row is kept, in its order. A value that does not fit is an error, never a null; so is a column that is unknown, or
missing in a month that must have it. The same file gives the same bytes: no clock, no random order. Decoding runs in
the caller's thread and encoding in a second one, in memory that does not grow with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import pyarrow as pa

from pipeline.conform.layout import Layout, Problems, match_columns
from pipeline.conform.profile import Measures, Profiler
from pipeline.conform.writer import TripsWriter
from pipeline.datasets import dataset_named
from pipeline.datasets.base import (
    DATASET_KEY,
    DECLARATION_KEY,
    MONTH_KEY,
    PRESENT_KEY,
    SCALE_KEY,
    SOURCE_KEY,
    VERSION_KEY,
    Dataset,
)
from pipeline.datasets.published import published_months
from pipeline.errors import SchemaError, SourceError, UsageError, cut
from pipeline.months import format_month
from pipeline.raw import RawFile
from pipeline.raw.reader import open_raw
from pipeline.version import __version__

#: With so many wrong values the message will not get better by reading on.
_ENOUGH_PROBLEMS = 100_000

Progress = Callable[[float, int], None]


def conform_file(
    raw: Path,
    draft: Path,
    dataset: Dataset | str,
    month: date | None,
    *,
    source_sha256: str | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Measures:
    """Write the raw file's rows to `draft` in the dataset's schema, and say what they are like.

    `month` is None for the zones. `source_sha256` is that of the raw file, when it is known already. `progress` is
    told a fraction from 0 to 1 and the rows so far. `threads` limits Arrow's threads while this runs. An old draft is
    overwritten; after an error there is none.

    Raises:
        SourceError: the raw file is not what its name claims, or is damaged.
        SchemaError: it has columns or values that nobody declared, or lacks some; the message names all.
        StoreError: the draft cannot be written.
        UsageError: the arguments cannot be.
    """
    dataset = dataset_named(dataset) if isinstance(dataset, str) else dataset
    subject = _subject(dataset, month)
    if draft.exists() and draft.samefile(raw):
        raise UsageError(f"{draft}: is the raw file itself, which is never rewritten")
    try:
        with _arrow_threads(threads):
            source = open_raw(raw, subject=subject, advice=_advice(dataset, month))
            layout = match_columns(source, dataset, month, subject)
            measures = Measures(
                dataset=dataset.name,
                month=month,
                published_rows=_published_rows(source, dataset, month),
                source_sha256=source_sha256 or _sha256(raw),
                declaration=dataset.declaration(layout.present),
                columns_in_source=layout.present,
            )
            use_threads = threads is None or threads > 1
            return _convert(source, draft, layout, measures, progress or (lambda *_: None), use_threads=use_threads)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _convert(
    source: RawFile, draft: Path, layout: Layout, measures: Measures, progress: Progress, *, use_threads: bool
) -> Measures:
    """Convert, count and write batch by batch; once a value did not fit, only go on counting such values."""
    dataset, problems = layout.dataset, Problems(layout.dataset)
    tally, rows = Profiler(measures, dataset), 0
    schema = dataset.schema.with_metadata(_metadata(measures))
    with (
        TripsWriter(draft, schema) as writer,
        closing(source.batches(layout.positions, use_threads=use_threads)) as batches,
    ):
        for published, fraction in batches:
            batch = layout.apply(published, problems)
            tally.add(batch)
            rows += batch.num_rows
            if not problems.rows:
                writer.write(batch)
            elif problems.rows >= _ENOUGH_PROBLEMS:
                break
            progress(fraction, rows)
        measures = tally.finish()
        _refuse(problems, measures, dataset)
    return measures


def _refuse(problems: Problems, measures: Measures, dataset: Dataset) -> None:
    lines = problems.lines()
    for column in dataset.columns:
        nulls = measures.columns[column.name].nulls - problems.misfits[column.name].rows
        if column.required and nulls > 0:
            lines.append(f"{column.name}: rows without a value, which it must have: {nulls:,}")
    if lines:
        subject = _subject(dataset, measures.month)
        raise SchemaError(
            f"{subject}: {'; '.join(lines)} (in the first {measures.rows:,} rows); "
            f"types and words are declared in {dataset.declared_in}"
        )


def _metadata(measures: Measures) -> dict[str, str]:
    facts = {
        DATASET_KEY: measures.dataset,
        MONTH_KEY: format_month(measures.month) if measures.month else "",
        SOURCE_KEY: measures.source_sha256,
        DECLARATION_KEY: measures.declaration,
        PRESENT_KEY: ",".join(measures.columns_in_source),
        VERSION_KEY: __version__,
    }
    return {key: text for key, text in facts.items() if text}


def _subject(dataset: Dataset, month: date | None) -> str:
    if (month is None) != (dataset.first_month is None):
        raise UsageError(f"{dataset.name}: {'needs a month' if month is None else 'comes without months'}")
    return f"{dataset.name} {format_month(month)}" if month else dataset.name


def _advice(dataset: Dataset, month: date | None) -> str:
    """What to do about a CSV whose rows are damaged."""
    if month and dataset.first_parquet_month and month >= dataset.first_parquet_month:
        return "take the month as Parquet instead"
    return "the file is damaged, or of a layout that nobody has seen"


def _published_rows(source: RawFile, dataset: Dataset, month: date | None) -> int | None:
    published = published_months(dataset.name).get(month) if month and source.parquet else None
    if published is None:
        return None
    scale = source.metadata.get(SCALE_KEY, "1")
    try:
        return round(published.rows * float(scale))
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{dataset.name}: {SCALE_KEY} in the file's metadata is {cut(scale, quote=repr)}, not a number"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _arrow_threads(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    before = pa.cpu_count()
    pa.set_cpu_count(threads)
    try:
        yield
    finally:
        pa.set_cpu_count(before)
