"""The views that every engine has, made from the declarations: each a name, a comment, columns and one SELECT.

- `trips` (yellow and green) and `for_hire_trips` (fhv and fhvhv): trips of several datasets as one table, with zones
  by name, codes as words, and times in minutes.
- `yellow_tripdata` … `taxi_zone_lookup`: each table under TLC's name, with TLC's present spelling of the columns, so
  that queries of courses and articles run unchanged. They have no `month`: `GROUP BY month` of a query that calls an
  expression `month` would mean the column.
- `codes`: the meaning of every code.

The SQL runs unchanged on DuckDB and Postgres, and is translated for BigQuery. Names are not quoted, so Postgres has
them in lower case, and DuckDB and BigQuery as TLC writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.datasets.base import BOOL, DATE, FLOAT64, INT32, INT64, TEXT, TIME, Column, Dataset
from pipeline.warehouses.tables import LEDGER, MONTH, MONTH_DOC, describe

#: The comment of a view carries a hash of its declaration, since an engine stores a view's SQL in its own form.
_MARK = "(definition "
_DOCS = {
    "trips": "Yellow and green trips, with zones by name and codes as words; null is what a dataset does not have.",
    "for_hire_trips": "Trips of fhv and fhvhv, with zones by name; null is what a dataset does not have, as fhv fares.",
}
_NULLS = {
    BOOL: "BOOLEAN",
    INT32: "INTEGER",
    INT64: "BIGINT",
    FLOAT64: "DOUBLE PRECISION",
    TEXT: "TEXT",
    DATE: "DATE",
    TIME: "TIMESTAMP",
}
#: The column with the meaning of a code, by the column with the code.
_WORDS = {"vendor_id": "vendor", "rate_code_id": "rate", "payment_type": "payment", "hvfhs_license_num": "service"}
#: Columns with minutes: from one time to another, and the meaning.
_MINUTES = {
    "duration_minutes": ("pickup_datetime", "dropoff_datetime", "Time from the pickup to the drop-off."),
    "wait_minutes": ("request_datetime", "pickup_datetime", "Time from the request to the pickup."),
}
_CODES = (
    Column("dataset", TEXT, doc="Dataset, which is the name of its table."),
    Column("column_name", TEXT, doc="Column with the code."),
    Column("code", TEXT, doc="The code, as text."),
    Column("meaning", TEXT, doc="What the code means."),
)


@dataclass(frozen=True)
class View:
    """A declared view: its columns are those of the SELECT, in order, which reads these tables."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    tables: tuple[str, ...]
    select: str

    @property
    def comment(self) -> str:
        """The meaning, and a hash of the declaration; another comment means that the view has to be replaced."""
        shape = [(column.name, str(column.type), describe(column)) for column in self.columns]
        return f"{self.doc} {_MARK}{hashlib.sha256(repr((self.select, shape)).encode()).hexdigest()[:8]})"

    @property
    def is_required(self) -> bool:
        """Whether a load fails if this name belongs to something else: the marts read the views of several datasets."""
        return self.name in _DOCS


def is_ours(comment: str) -> bool:
    """Whether this is the comment of a view that this package made."""
    return _MARK in comment


def not_ours(views: Iterable[str]) -> str:
    """What doctor and a load report about names of ours that are the user's."""
    return f"not of this package, so they stay, and our views of these names are not created: {', '.join(views)}"


def declared_views(datasets: Iterable[Dataset], zones: Dataset) -> list[View]:
    """All views over the tables of these datasets; each reads tables only, so their order does not matter."""
    datasets = list(datasets)
    together: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        if dataset.view:
            together.setdefault(dataset.view, []).append(dataset)
    tables = {*LEDGER, *together, "codes", *(dataset.name for dataset in (*datasets, zones))}
    renamed = [
        of for of in (*datasets, zones) if re.fullmatch("[A-Za-z_]\\w*", of.tlc_name) and of.tlc_name not in tables
    ]
    return [
        *(_union(name, members, zones) for name, members in together.items()),
        *(_as_tlc_names_it(dataset) for dataset in renamed),
        _codes(datasets),
    ]


def _as_tlc_names_it(dataset: Dataset) -> View:
    columns = tuple(replace(column, name=re.sub(r"\W", "_", column.tlc_name)) for column in dataset.columns)
    names = (
        ours.name if ours.name == tlc.name else f"{ours.name} AS {tlc.name}"
        for ours, tlc in zip(dataset.columns, columns, strict=True)
    )
    doc = f"{dataset.doc} The table {dataset.name} with TLC's present names."
    select = f"SELECT {', '.join(names)}\nFROM {dataset.name}"
    return View(dataset.tlc_name, doc, columns, (dataset.name,), select)


def _codes(datasets: Iterable[Dataset]) -> View:
    rows = [
        ", ".join(map(_literal, (dataset.name, column.name, str(code), meaning)))
        for dataset in datasets
        for column in dataset.columns
        for code, meaning in column.codes.items()
    ]
    names = ", ".join(column.name for column in _CODES)
    nothing = ", ".join(["CAST(NULL AS TEXT)"] * len(_CODES))
    values = ",\n".join(f"({row})" for row in rows or [nothing])
    select = f"SELECT {names}\nFROM (VALUES\n{values}\n) AS listed({names})\nWHERE dataset IS NOT NULL"
    return View("codes", "The meaning of each code of the trips.", _CODES, (), select)


def _union(name: str, members: Sequence[Dataset], zones: Dataset) -> View:
    """The trips of several datasets: the columns that all have, the zones' names, the other columns, words, minutes.

    A column that has two types is left out. Left joins keep the trips whose zone is null or not in the zone table.
    """
    known: dict[str, Column] = {}
    for column in (column for member in members for column in member.columns):
        known.setdefault(column.name, column)
    fitting = {
        column.name: column
        for column in known.values()
        if all(member.by_name.get(column.name, column).type == column.type for member in members)
    }
    shared = [each for each in fitting if all(each in member.by_name for member in members)]
    others = [each for each in fitting if each not in shared]
    key = Column("dataset", TEXT, doc="Dataset of the trip."), Column(MONTH, DATE, doc=MONTH_DOC)
    columns = [(f"t.{column.name}", column) for column in (*key, *map(fitting.__getitem__, shared))]
    joins: list[str] = []
    more: list[tuple[str, Column]] = []
    parts = [part for part in ("borough", "zone", "service_zone") if part in zones.by_name]
    # Grouped, since an engine then knows that no trip has two zones, and leaves out the join of a query without names.
    names_of_zones = ", ".join(["location_id", *(f"MAX({part}) AS {part}" for part in parts)])
    for end, words in {"pickup": "pickup", "dropoff": "drop-off"}.items():
        if f"{end}_location_id" not in shared:
            continue
        joins.append(
            f"LEFT JOIN (SELECT {names_of_zones} FROM {zones.name} GROUP BY location_id) AS {end}_zones "
            f"ON {end}_zones.location_id = t.{end}_location_id"
        )
        for part in parts:
            doc = f"Of the {words}: {zones.by_name[part].doc[0].lower()}{zones.by_name[part].doc[1:]}"
            named = f"{end}_zones.{part}", Column(f"{end}_{part}", zones.by_name[part].type, doc=doc)
            # Last, since `trips` had no such column at first: existing columns keep their places.
            (more if part == "service_zone" else columns).append(named)
    columns += [*more, *((f"t.{each}", fitting[each]) for each in others)]
    for each, word in _WORDS.items():
        if each in fitting and word not in fitting:
            cases = " ".join(f"WHEN {_literal(code)} THEN {_literal(text)}" for code, text in _meanings(members, each))
            doc = f"Meaning of {each}; null if the code is null or not listed."
            columns.append((f"CASE t.{each} {cases} END", Column(word, TEXT, doc=doc)))
    for minutes, (start, end, doc) in _MINUTES.items():
        if {start, end} <= fitting.keys() and minutes not in fitting:
            seconds = f"CAST(EXTRACT(EPOCH FROM (t.{end} - t.{start})) AS DOUBLE PRECISION)"
            columns.append((f"{seconds} / 60", Column(minutes, FLOAT64, unit="minutes", doc=doc)))
    branches = "\n    UNION ALL\n".join(
        f"    SELECT {_literal(member.name)} AS dataset, {MONTH}, "
        + ", ".join(_or_null(member, fitting[each]) for each in (*shared, *others))
        + f" FROM {member.name}"
        for member in members
    )
    names = (sql if sql == f"t.{column.name}" else f"{sql} AS {column.name}" for sql, column in columns)
    select = f"SELECT {', '.join(names)}\nFROM (\n{branches}\n) AS t\n" + "\n".join(joins)
    doc = _DOCS.get(name, f"Trips of {', '.join(member.name for member in members)}.")
    tables = (*(member.name for member in members), zones.name)
    return View(name, doc, tuple(column for _, column in columns), tables, select.rstrip())


def _or_null(dataset: Dataset, column: Column) -> str:
    name = column.name
    return name if name in dataset.by_name else f"CAST(NULL AS {_NULLS[column.type]}) AS {name}"


def _meanings(datasets: Iterable[Dataset], column: str) -> list[tuple[int | str, str]]:
    codes: dict[int | str, str] = {}
    for dataset in datasets:
        codes |= dataset.by_name[column].codes if column in dataset.by_name else {}
    return list(codes.items())


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
