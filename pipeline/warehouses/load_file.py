"""What a file of the lake says of itself before a warehouse takes it in, and which marts are for it.

A file under the wrong name, of another dataset or month, or with columns that the table cannot take is refused with
everything that is wrong with it, before the engine sees it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.datasets.base import DATASET_KEY, DECLARATION_KEY, MONTH_KEY, SOURCE_KEY, Dataset
from pipeline.errors import WarehouseError
from pipeline.months import format_month
from pipeline.warehouses.base import Mart


@dataclass(frozen=True)
class LoadFile:
    """A conformed file on its way into a warehouse."""

    rows: int
    source_sha256: str
    declaration: str


def inspect(file: Path | BinaryIO, dataset: Dataset, month: date | None, *, where: str) -> LoadFile:
    """Read the file's footer (not its rows) and hold it against the dataset and month that it is to be.

    `where` is what messages call the file.

    Raises:
        WarehouseError: it is no Parquet file, or says that it is something else; all problems are named.
    """
    import pyarrow.parquet as pq

    subject = load_name(dataset, month)
    try:
        footer = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(
            f"{subject}: {where} is not a readable Parquet file: {error}; conform the month again"
        ) from error
    said = {key.decode(): text.decode() for key, text in (footer.metadata or {}).items() if key != b"ARROW:schema"}
    problems = _claims(said, dataset, month) + _columns(footer.schema.to_arrow_schema(), dataset)
    problems += _nulls(footer, dataset)
    if problems:
        raise WarehouseError(
            f"{subject}: {where} cannot be loaded: {'; '.join(problems)}; conform the month again, "
            f"or declare what is missing in {dataset.declared_in or 'the dataset'}"
        )
    return LoadFile(footer.num_rows, said[SOURCE_KEY], said[DECLARATION_KEY])


def load_name(dataset: Dataset, month: date | None) -> str:
    """How messages call a load: green 2024-01, or zones."""
    return f"{dataset.name} {format_month(month)}" if month else dataset.name


def validate_marts(subject: str, dataset: Dataset, marts: Iterable[Mart]) -> None:
    """Let pass marts that are for the dataset.

    Raises:
        WarehouseError: some are not; all of them are named.
    """
    foreign = sorted(mart.name for mart in marts if dataset.name not in mart.datasets)
    if foreign:
        raise WarehouseError(f"{subject}: the marts {foreign} are not for {dataset.name}; see pipeline/marts")


def _claims(said: dict[str, str], dataset: Dataset, month: date | None) -> list[str]:
    missing = [key for key in (DATASET_KEY, SOURCE_KEY, DECLARATION_KEY) if key not in said]
    if missing:
        return [f"its metadata lack {missing}, so it is no conformed file"]
    problems = []
    if said[DATASET_KEY] != dataset.name:
        problems.append(f"it says it is of {said[DATASET_KEY]!r}")
    if said.get(MONTH_KEY, "")[:7] != (format_month(month) if month else ""):
        problems.append(f"it says it is of the month {said.get(MONTH_KEY, '')!r}")
    return problems


def _columns(schema: pa.Schema, dataset: Dataset) -> list[str]:
    """A declared column that the file lacks is fine unless it is required: the file is older than the declaration."""
    problems = []
    doubled = sorted(name for name, times in Counter(schema.names).items() if times > 1)
    if doubled:
        problems.append(f"columns {doubled} occur more than once")
    unknown = sorted(set(schema.names) - dataset.by_name.keys())
    if unknown:
        problems.append(f"unknown columns {unknown}")
    lacking = sorted(column.name for column in dataset.columns if column.required and column.name not in schema.names)
    if lacking:
        problems.append(f"required columns {lacking} are missing")
    for column in dataset.columns:
        for place in schema.get_all_field_indices(column.name):
            if schema.field(place).type != column.type:
                problems.append(f"{column.name} is {schema.field(place).type}, declared {column.type}")
    return problems


def _nulls(footer: Any, dataset: Dataset) -> list[str]:
    """Nulls in required columns, by the footer's statistics; a file without any is left to the engine."""
    required = {column.name for column in dataset.columns if column.required}
    counts: Counter[str] = Counter()
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema in required and chunk.statistics is not None:
                counts[chunk.path_in_schema] += chunk.statistics.null_count or 0
    return [f"{name} has {count:,} rows without a value, which it must have" for name, count in counts.items() if count]
