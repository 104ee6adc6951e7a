"""Checks before a load: is this the conformed file of that dataset and month, and does it fit the table?

Only the footer is read (of the zones, also their numbers). All problems are reported together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.datasets.base import DATASET_KEY, DECLARATION_KEY, MONTH_KEY, SOURCE_KEY, Dataset
from pipeline.errors import WarehouseError
from pipeline.months import format_month, label
from pipeline.warehouses.base import Mart


@dataclass(frozen=True)
class LoadFile:
    """What the footer of a conformed file records."""

    rows: int
    source_sha256: str
    declaration: str


def inspect(file: Path | BinaryIO, dataset: Dataset, month: date | None, *, where: str) -> LoadFile:
    """Compare the file's footer with the dataset and month; `where` is the file's name in messages.

    Raises:
        WarehouseError: it is not Parquet, or is of another dataset or month, or does not fit the table; all problems.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    subject = label(dataset.name, month)
    try:
        with pq.ParquetFile(file) as parquet:
            footer = parquet.metadata
            zones = parquet.read(["location_id"]).to_pydict().get("location_id", []) if month is None else []
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(
            f"{subject}: {where} is not a readable Parquet file: {error}; conform the month again"
        ) from error
    metadata = {key.decode(): text.decode() for key, text in (footer.metadata or {}).items() if key != b"ARROW:schema"}
    problems = _problems(footer, metadata, dataset, month)
    if repeated := _repeated(zones):
        # The view `trips` would have the trips of these zones twice.
        problems.append(f"the zone numbers {repeated} occur more than once")
    if problems:
        raise WarehouseError(
            f"{subject}: {where} cannot be loaded: {'; '.join(problems)}; conform the month again, "
            f"or declare what is missing in {dataset.declared_in or 'the dataset'}"
        )
    return LoadFile(footer.num_rows, metadata[SOURCE_KEY], metadata[DECLARATION_KEY])


def validate_marts(subject: str, dataset: Dataset, marts: Iterable[Mart]) -> None:
    """Raise a WarehouseError that lists the marts that are not for the dataset."""
    foreign = sorted(mart.name for mart in marts if dataset.name not in mart.datasets)
    if foreign:
        raise WarehouseError(f"{subject}: the marts {foreign} are not for {dataset.name}; see pipeline/marts")


def _problems(footer: Any, metadata: dict[str, str], dataset: Dataset, month: date | None) -> list[str]:
    """A missing optional column is no problem: the file is older than its declaration."""
    problems = []
    if absent := [key for key in (DATASET_KEY, SOURCE_KEY, DECLARATION_KEY) if key not in metadata]:
        problems.append(f"it is not a conformed file: its metadata has no {absent}")
    elif metadata[DATASET_KEY] != dataset.name:
        problems.append(f"its dataset is {metadata[DATASET_KEY]!r}")
    if not absent and metadata.get(MONTH_KEY, "")[:7] != (format_month(month) if month else ""):
        problems.append(f"its month is {metadata.get(MONTH_KEY, '')!r}")
    schema, required = footer.schema.to_arrow_schema(), {column.name for column in dataset.columns if column.required}
    if repeated := _repeated(schema.names):
        problems.append(f"columns {repeated} occur more than once")
    if unknown := sorted(set(schema.names) - dataset.by_name.keys()):
        problems.append(f"unknown columns {unknown}")
    if missing := sorted(required - set(schema.names)):
        problems.append(f"required columns {missing} are missing")
    for field in schema:
        declared = dataset.by_name.get(field.name)
        if declared and str(field.type) != declared.type:
            problems.append(f"{field.name} is {field.type}, declared {declared.type}")
    nulls: Counter[str] = Counter()
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            # Without statistics, the engine finds the nulls.
            if chunk.path_in_schema in required and chunk.statistics is not None:
                nulls[chunk.path_in_schema] += chunk.statistics.null_count or 0
    return problems + [f"{name} is required, but {rows:,} rows have no value" for name, rows in nulls.items() if rows]


def _repeated(values: Iterable[Any]) -> list[Any]:
    return sorted(value for value, count in Counter(values).items() if count > 1 and value is not None)
