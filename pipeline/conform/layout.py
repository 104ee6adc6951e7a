"""Which column of a raw file is which declared column: by name, without regard to case or outer spaces."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conform.convert import Problem, convert, convertible, misfits
from pipeline.datasets.base import IGNORED_NAMES, Dataset, fold
from pipeline.errors import SchemaError, cut
from pipeline.raw import RawFile

#: So many columns are named in an error; a file of ours has at most 25.
_SHOWN = 40


@dataclass(frozen=True)
class Layout:
    """Where in a raw file each declared column is; more than one place where it has two spellings of a column."""

    dataset: Dataset
    places: dict[str, tuple[int, ...]]

    @property
    def positions(self) -> list[int]:
        """The places of all columns, in the file's order."""
        return sorted(place for places in self.places.values() for place in places)

    @property
    def present(self) -> tuple[str, ...]:
        """The declared columns that the file has, in declared order."""
        return tuple(self.places)

    def apply(self, batch: pa.RecordBatch, problems: Problems) -> pa.RecordBatch:
        """The same rows in the dataset's schema; values that do not fit are noted in `problems` and null here."""
        arrays = []
        for column in self.dataset.columns:
            places = self.places.get(column.name, ())
            array = pa.nulls(batch.num_rows, column.type) if not places else None
            for place in places:
                further = convert(batch[str(place)], column, problems.misfits[column.name])
                array = further if array is None else _merge(array, further, problems.conflicts[column.name])
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.dataset.schema)


class Problems:
    """What is wrong with the values of a file, over all its rows."""

    def __init__(self, dataset: Dataset) -> None:
        self.misfits = {column.name: misfits(column) for column in dataset.columns}
        self.conflicts = {
            column.name: Problem(f"{column.name}: rows in which two spellings of the column are filled and differ")
            for column in dataset.columns
        }

    @property
    def rows(self) -> int:
        """How many values are wrong."""
        return sum(problem.rows for problem in [*self.misfits.values(), *self.conflicts.values()])

    def lines(self) -> list[str]:
        """One line per problem, in declared order."""
        return [str(problem) for problem in [*self.misfits.values(), *self.conflicts.values()] if problem.rows]


def match_columns(raw: RawFile, dataset: Dataset, month: date | None, subject: str) -> Layout:
    """Find every declared column in the raw file.

    Raises:
        SchemaError: it has columns that nobody declared, lacks some that it must have, or has them in types that no
            era explains; all of them are named.
    """
    owners = {spelling: column for column in dataset.columns for spelling in column.spellings()}
    places: dict[str, list[int]] = {}
    unknown, mistyped = [], []
    for place, (name, kind) in enumerate(zip(raw.names, raw.types, strict=True)):
        owner = owners.get(fold(name))
        if owner is not None:
            places.setdefault(owner.name, []).append(place)
            if not convertible(kind, owner.type):
                mistyped.append(f"{cut(name)} is {cut(str(kind))}, not {owner.type}")
        elif fold(name) not in IGNORED_NAMES and (name.strip() or raw.parquet):
            # A CSV's fields without a name must be empty; its reader sees to that.
            unknown.append(cut(name, quote=repr))
    missing = [
        column.name
        for column in dataset.columns
        if column.name not in places and column.expected(month, parquet=raw.parquet)
    ]
    _refuse(unknown, missing, mistyped, dataset, subject)
    order = [column.name for column in dataset.columns if column.name in places]
    return Layout(dataset, {name: tuple(places[name]) for name in order})


def _refuse(unknown: list[str], missing: list[str], mistyped: list[str], dataset: Dataset, subject: str) -> None:
    found = [
        f"unknown columns [{_some(unknown)}]" if unknown else "",
        f"missing columns {sorted(missing)}" if missing else "",
        f"unexpected types: {_some(mistyped)}" if mistyped else "",
    ]
    if any(found):
        verb = "declare them" if unknown else "what is expected is declared"
        raise SchemaError(f"{subject}: {', '.join(filter(None, found))}; {verb} in {dataset.declared_in}")


def _some(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return ", ".join(sorted(found)[:_SHOWN]) + more


def _merge(first: pa.Array, second: pa.Array, conflict: Problem) -> pa.Array:
    differ = pc.fill_null(pc.not_equal(first, second), False)
    if pc.any(differ).as_py():
        texts = [array.filter(differ).cast(pa.string()) for array in (first, second)]
        conflict.add(pc.binary_join_element_wise(*texts, " against "))
    return pc.coalesce(first, second)
