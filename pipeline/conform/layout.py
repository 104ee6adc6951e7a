"""Which column of a raw file is which declared column: by name, ignoring case and outer spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conform.convert import Problem, convert, convertible, misfits
from pipeline.datasets.base import IGNORED_NAMES, Dataset, fold
from pipeline.errors import SchemaError, cut
from pipeline.months import label
from pipeline.raw import RawFile

#: An error names at most so many columns; TLC's files have at most 25.
_SHOWN = 40


class Layout:
    """The positions of each declared column in a raw file, and the problems with the values of all batches so far."""

    def __init__(self, dataset: Dataset, positions: Mapping[str, Sequence[int]], raw: RawFile) -> None:
        self.dataset = dataset
        self._positions = positions
        #: The positions to read, in the file's order.
        self.positions = sorted(position for several in positions.values() for position in several)
        #: The declared columns that the file has, in declared order.
        self.present = tuple(name for name in dataset.by_name if name in positions)
        #: Their types, in a Parquet file.
        self.types = {name: str(raw.types[positions[name][0]]) for name in self.present if raw.parquet}
        self.misfits = {column.name: misfits(column) for column in dataset.columns}
        self._conflicts = {
            name: Problem(f"{name}: rows in which two spellings of the column are filled and differ")
            for name in dataset.by_name
        }

    @property
    def problems(self) -> list[Problem]:
        """The problems found so far, in declared order."""
        return [problem for problem in [*self.misfits.values(), *self._conflicts.values()] if problem.rows]

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows in the dataset's schema; values that do not fit are null and added to `problems`."""
        arrays = []
        for column in self.dataset.columns:
            array = None
            for position in self._positions.get(column.name, ()):
                values = convert(batch[str(position)], column, self.misfits[column.name])
                array = values if array is None else _merge(array, values, self._conflicts[column.name])
            arrays.append(pa.nulls(batch.num_rows, column.arrow_type) if array is None else array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.dataset.schema)


def match_columns(raw: RawFile, dataset: Dataset, month: date | None) -> Layout:
    """Find each declared column in the raw file.

    Raises:
        SchemaError: the file has undeclared columns, lacks expected ones, or has columns of types that no era
            explains; the message names all of them.
    """
    owners = {spelling: column for column in dataset.columns for spelling in column.spellings()}
    positions: dict[str, list[int]] = {}
    unknown, mistyped = [], []
    for position, (name, type_) in enumerate(zip(raw.names, raw.types, strict=True)):
        owner = owners.get(fold(name))
        if owner is not None:
            positions.setdefault(owner.name, []).append(position)
            if not convertible(type_, owner.arrow_type):
                mistyped.append(f"{cut(name)} is {cut(str(type_))}, not {owner.type}")
        elif fold(name) not in IGNORED_NAMES and (name.strip() or raw.parquet):
            # A CSV's fields without a name must be empty, which its reader verifies.
            unknown.append(cut(name, quote=repr))
    missing = sorted(
        column.name
        for column in dataset.columns
        if column.name not in positions and column.expected(month, parquet=raw.parquet)
    )
    problems = [
        f"unknown columns [{_listed(unknown)}]" if unknown else "",
        f"missing columns {missing}" if missing else "",
        f"unexpected types: {_listed(mistyped)}" if mistyped else "",
    ]
    if any(problems):
        verb = "declare them" if unknown else "the expected columns are declared"
        listed = ", ".join(filter(None, problems))
        raise SchemaError(f"{label(dataset.name, month)}: {listed}; {verb} in {dataset.declared_in}")
    return Layout(dataset, positions, raw)


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(sorted(items)[:_SHOWN]) + more


def _merge(first: pa.Array, second: pa.Array, conflict: Problem) -> pa.Array:
    differ = pc.fill_null(pc.not_equal(first, second), False)
    if pc.any(differ).as_py():
        texts = [array.filter(differ).cast(pa.string()) for array in (first, second)]
        conflict.add(pc.binary_join_element_wise(*texts, " against "))
    return pc.coalesce(first, second)
