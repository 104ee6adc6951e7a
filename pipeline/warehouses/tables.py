"""The tables that every engine has: column comments, the ledger's columns, the view `trips`, a mart's parameters.

The SQL built here runs unchanged on DuckDB, Postgres and BigQuery.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import date

import pyarrow as pa

from pipeline.datasets.base import Column, Dataset
from pipeline.months import add_months
from pipeline.warehouses.base import LoadRecord, MartRecord

#: The column that the loader adds to the rows of every dataset; in the lake, the path has the month instead.
MONTH = "month"
MONTH_DOC = "Month of the TLC file that has the trip; the pickup may be in another month."
TRIPS_DOC = "Yellow and green trips: the columns that both have, and the names of the zones."

#: A point in time with time zone; an engine without such a type stores it in UTC.
MOMENT = pa.timestamp("us", tz="UTC")
_LEDGER_TYPES = {"str": pa.string(), "int": pa.int64(), "date": pa.date32(), "datetime": MOMENT}


def _columns(record: type[LoadRecord] | type[MartRecord]) -> tuple[Column, ...]:
    """The columns of a ledger's table: the fields of its records. One that may be None is not required."""
    columns = []
    for field in fields(record):
        name, _, optional = str(field.type).partition(" | ")
        comment = field.metadata["comment"]
        columns.append(Column(field.name, _LEDGER_TYPES[name], required=not optional, doc=comment))
    return tuple(columns)


#: The ledger's tables: comment and columns.
LEDGER: Mapping[str, tuple[str, tuple[Column, ...]]] = {
    "loads": ("Loaded months (and the zones), each with the lake file it came from.", _columns(LoadRecord)),
    "mart_loads": ("Built months of the marts, each with the load it was built from.", _columns(MartRecord)),
}


def describe(column: Column) -> str:
    """The comment of a column in one line: meaning, unit and codes; empty if nothing is declared."""
    codes = "; ".join(f"{code} = {meaning}" for code, meaning in column.codes.items())
    parts = (column.doc, f"Unit: {column.unit}." if column.unit else "", f"Codes: {codes}." if codes else "")
    return " ".join(filter(None, parts))


def trips_view(datasets: Iterable[Dataset]) -> str | None:
    """The SELECT of the view `trips`: the columns that its datasets share with the same type, and their zones by name.

    None if no dataset is declared to be in it. Left joins keep the trips whose zone is null or not in the zone table.
    """
    present = [dataset for dataset in datasets if dataset.in_trips_view]
    if not present:
        return None
    shared = [
        name
        for name, column in present[0].by_name.items()
        if all(name in other.by_name and other.by_name[name].type == column.type for other in present)
    ]
    branches = "\n    UNION ALL\n".join(
        f"    SELECT '{dataset.name}' AS dataset, {MONTH}, {', '.join(shared)} FROM {dataset.name}"
        for dataset in present
    )
    columns, joins = [f"t.{name}" for name in ("dataset", MONTH, *shared)], []
    for end in ("pickup", "dropoff"):
        if f"{end}_location_id" in shared:
            columns += [f"{end}_zones.borough AS {end}_borough", f"{end}_zones.zone AS {end}_zone"]
            joins.append(f"LEFT JOIN zones AS {end}_zones ON {end}_zones.location_id = t.{end}_location_id")
    return f"SELECT {', '.join(columns)}\nFROM (\n{branches}\n) AS t\n" + "\n".join(joins)


def bind_mart(sql: str, dataset: str, month: date) -> str:
    """A mart's SELECT with literals in place of `:dataset`, `:month` and `:next_month`.

    Each engine has its own syntax for parameters, and BigQuery prunes partitions by constants only.
    """
    values = {
        "dataset": f"'{dataset}'",
        "month": f"DATE '{month.isoformat()}'",
        "next_month": f"DATE '{add_months(month, 1).isoformat()}'",
    }
    return re.sub(r"(?<![:\w]):(dataset|month|next_month)\b", lambda match: values[match[1]], sql)
