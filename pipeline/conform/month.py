"""Writes the raw file of any era as one Parquet file in the dataset's one schema, and measures it on the way.

Decoding runs in the caller's thread and encoding in a second one, in memory that does not grow with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import pyarrow as pa

from pipeline.conform.layout import Layout, match_columns
from pipeline.conform.profile import Measures, Profiler
from pipeline.conform.writer import TripsWriter
from pipeline.datasets import Dataset, base, dataset_named
from pipeline.datasets.published import published_months
from pipeline.errors import SchemaError, UsageError
from pipeline.months import format_month, label
from pipeline.raw import Batches, RawFile
from pipeline.raw.reader import open_raw
from pipeline.version import __version__

#: After so many wrong values, reading more of the file does not improve the message.
_ENOUGH_PROBLEMS = 100_000


def conform_file(
    raw: Path,
    draft: Path,
    dataset: Dataset | str,
    month: date | None,
    *,
    source_sha256: str | None = None,
    progress: Callable[[float, int], None] | None = None,
    threads: int | None = None,
    also: Callable[[pa.RecordBatch], None] | None = None,
) -> Measures:
    """Write the raw file's rows to `draft` in the dataset's schema, and return what was measured.

    `month` is None for the zones. `source_sha256` is that of the raw file, if it is known already. `progress` gets a
    fraction from 0 to 1 and the rows so far. `threads` limits Arrow's threads. `also` gets each batch that is
    written. An old draft is overwritten; after an error no draft is left.

    Raises:
        SourceError: the raw file is damaged, or not of the format that its name says.
        SchemaError: it has undeclared columns, lacks expected ones, or has values that do not fit; the message names
            all of them.
        StoreError: the draft cannot be written.
        UsageError: the arguments are invalid.
    """
    dataset = dataset_named(dataset) if isinstance(dataset, str) else dataset
    if (month is None) != (dataset.first_month is None):
        raise UsageError(f"{dataset.name}: {'needs a month' if month is None else 'has no months'}")
    if draft.exists() and draft.samefile(raw):
        raise UsageError(f"{draft}: is the raw file itself, which is never overwritten")
    arrow_threads = pa.cpu_count()
    try:
        pa.set_cpu_count(threads or arrow_threads)
        source = open_raw(raw, subject=label(dataset.name, month), advice=_advice(dataset, month))
        layout = match_columns(source, dataset, month)
        measures = Measures(
            dataset=dataset.name,
            month=month,
            published_rows=_published_rows(source, dataset, month),
            source_sha256=source_sha256 or _sha256(raw),
            declaration=dataset.declaration(layout.present),
            columns_in_source=layout.present,
            types_in_source=layout.types,
        )
        batches = source.batches(layout.positions, use_threads=threads is None or threads > 1)
        _convert(batches, draft, layout, measures, progress, also)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        pa.set_cpu_count(arrow_threads)
    return measures


def _convert(
    batches: Batches,
    draft: Path,
    layout: Layout,
    measures: Measures,
    progress: Callable[[float, int], None] | None,
    also: Callable[[pa.RecordBatch], None] | None,
) -> None:
    """Convert, measure and write batch by batch; after a value that does not fit, only measure."""
    profiler = Profiler(measures, layout.dataset)
    schema = layout.dataset.schema.with_metadata(provenance(measures))
    with TripsWriter(draft, schema) as writer, closing(batches):
        for published, fraction in batches:
            batch = layout.apply(published)
            profiler.add(batch)
            wrong = sum(problem.rows for problem in layout.problems)
            if not wrong:
                writer.write(batch)
                if also:
                    also(batch)
            elif wrong >= _ENOUGH_PROBLEMS:
                break
            if progress:
                progress(fraction, measures.rows)
        _validate_values(layout, measures)


def _validate_values(layout: Layout, measures: Measures) -> None:
    dataset, lines = layout.dataset, [str(problem) for problem in layout.problems]
    for column in dataset.columns:
        nulls = measures.columns[column.name].nulls - layout.misfits[column.name].rows
        if column.required and nulls > 0:
            lines.append(f"{column.name}: rows without a value, which is required: {nulls:,}")
    if lines:
        raise SchemaError(
            f"{label(dataset.name, measures.month)}: {'; '.join(lines)} (in the first {measures.rows:,} rows); "
            f"types and words are declared in {dataset.declared_in}"
        )


def provenance(measures: Measures) -> dict[str, str]:
    """The metadata of the trips file: what its rows were made from, and by which declaration and version."""
    metadata = {
        base.DATASET_KEY: measures.dataset,
        base.MONTH_KEY: format_month(measures.month) if measures.month else "",
        base.SOURCE_KEY: measures.source_sha256,
        base.DECLARATION_KEY: measures.declaration,
        base.PRESENT_KEY: ",".join(measures.columns_in_source),
        base.VERSION_KEY: __version__,
    }
    return {key: text for key, text in metadata.items() if text}


def _advice(dataset: Dataset, month: date | None) -> str:
    """What to do about a CSV whose rows are damaged."""
    if month and dataset.first_parquet_month and month >= dataset.first_parquet_month:
        return "use the Parquet file of the month instead"
    return "the file is damaged, or of an unknown layout"


def _published_rows(source: RawFile, dataset: Dataset, month: date | None) -> int | None:
    published = published_months(dataset.name).get(month) if month and source.parquet else None
    # A file of the sample site has a share of the published rows.
    return round(published.rows * float(source.metadata.get(base.SCALE_KEY, "1"))) if published else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
