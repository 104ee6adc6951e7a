"""The tables that every engine has: column comments, the ledger's columns, the view `trips`, a mart's parameters.

The SQL built here runs unchanged on DuckDB, Postgres and BigQuery.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

import pyarrow as pa

from pipeline.datasets.base import Column, Dataset
from pipeline.months import add_months

#: The column that the loader adds to the rows of every dataset; in the lake, the path has the month instead.
MONTH = "month"
MONTH_DOC = "Month of the TLC file that has the trip; the pickup may be in another month."
#: The datasets in the view `trips`.
UNITED = ("yellow", "green")
TRIPS_DOC = "Yellow and green trips: the columns that both have, and the names of the zones."

#: A point in time with time zone; an engine without such a type stores it in UTC.
MOMENT = pa.timestamp("us", tz="UTC")
_FINGERPRINT = Column("fingerprint", pa.string(), required=True, doc="Fingerprint of the loaded trips file.")
_ROWS = Column("rows", pa.int64(), required=True, doc="Number of rows.")
_VERSION = Column("version", pa.string(), required=True, doc="Package version that wrote this record.")
#: The ledger's tables: comment and columns, which are the fields of `LoadRecord` and `MartRecord`.
LEDGER: Mapping[str, tuple[str, tuple[Column, ...]]] = {
    "loads": (
        "Loaded months (and the zones), each with the lake file it came from.",
        (
            Column("dataset", pa.string(), required=True, doc="Table with the rows."),
            Column(MONTH, pa.date32(), doc="Month of the rows; null for the zones."),
            _ROWS,
            Column("source_sha256", pa.string(), required=True, doc="SHA-256 of the file that TLC published."),
            Column("declaration", pa.string(), required=True, doc="Hash of the declaration it was conformed with."),
            _FINGERPRINT,
            Column("loaded_at", MOMENT, required=True, doc="Time of the load, in UTC."),
            _VERSION,
        ),
    ),
    "mart_loads": (
        "Built months of the marts, each with the load it was built from.",
        (
            Column("mart", pa.string(), required=True, doc="Table with the rows."),
            Column("dataset", pa.string(), required=True, doc="Dataset of the rows."),
            Column(MONTH, pa.date32(), required=True, doc="Month of the rows."),
            _ROWS,
            _FINGERPRINT,
            Column("built_at", MOMENT, required=True, doc="Time of the build, in UTC."),
            _VERSION,
            Column("definition", pa.string(), doc="Hash of the SQL; null if built by an older package version."),
        ),
    ),
}


def describe(column: Column) -> str:
    """The comment of a column in one line: meaning, unit and codes; empty if nothing is declared."""
    codes = "; ".join(f"{code} = {meaning}" for code, meaning in column.codes.items())
    parts = (column.doc, f"Unit: {column.unit}." if column.unit else "", f"Codes: {codes}." if codes else "")
    return " ".join(filter(None, parts))


def trips_view(datasets: Mapping[str, Dataset]) -> str | None:
    """The SELECT of the view `trips`: the columns that its datasets share with the same type, and their zones by name.

    None if none of its datasets are given. Left joins keep the trips whose zone is null or not in the zone table.
    """
    present = [datasets[name] for name in UNITED if name in datasets]
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
