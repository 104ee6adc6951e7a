"""The tables as every engine has them: what is said of a column, the view `trips`, how a mart's SELECT gets its month.

The SQL made here is plain enough for DuckDB, Postgres and BigQuery alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

import pyarrow as pa

from pipeline.datasets.base import Column, Dataset
from pipeline.months import add_months

#: The column that the loader adds to every dataset's rows; the lake has it in the path instead.
MONTH = "month"
MONTH_DOC = "Month of the file in which TLC published the trip; the pickup may lie elsewhere."
#: The datasets whose trips the view `trips` unites.
UNITED = ("yellow", "green")
TRIPS_DOC = "Yellow and green trips: the columns that both have, and the zones by name."

#: A point in time, with its zone; engines without such a type keep it in UTC.
MOMENT = pa.timestamp("us", tz="UTC")
_FINGERPRINT = Column("fingerprint", pa.string(), required=True, doc="Fingerprint of the trips file that was loaded.")
_ROWS = Column("rows", pa.int64(), required=True, doc="Number of rows.")
_VERSION = Column("version", pa.string(), required=True, doc="Version of the package that wrote this.")
#: The ledger: what each of its two tables is, and its columns, which are the fields of `LoadRecord` and `MartRecord`.
LEDGER: Mapping[str, tuple[str, tuple[Column, ...]]] = {
    "loads": (
        "Every month that is here, and the zones: from which file of the lake it came.",
        (
            Column("dataset", pa.string(), required=True, doc="Table in which the rows are."),
            Column(MONTH, pa.date32(), doc="Month of the rows; null for the zones."),
            _ROWS,
            Column("source_sha256", pa.string(), required=True, doc="SHA-256 of the file that TLC published."),
            Column("declaration", pa.string(), required=True, doc="Hash of the declaration by which it was conformed."),
            _FINGERPRINT,
            Column("loaded_at", MOMENT, required=True, doc="When, in UTC."),
            _VERSION,
        ),
    ),
    "mart_loads": (
        "Every month of every mart that is here, and from which load it was built.",
        (
            Column("mart", pa.string(), required=True, doc="Table in which the rows are."),
            Column("dataset", pa.string(), required=True, doc="Dataset of the rows."),
            Column(MONTH, pa.date32(), required=True, doc="Month of the rows."),
            _ROWS,
            _FINGERPRINT,
            Column("built_at", MOMENT, required=True, doc="When, in UTC."),
            _VERSION,
            Column("definition", pa.string(), doc="Hash of the SQL; null where an older version built the mart."),
        ),
    ),
}


def describe(column: Column) -> str:
    """What a table says of the column: its meaning, unit and codes, in one line; empty when nothing is known."""
    codes = "; ".join(f"{code} = {meaning}" for code, meaning in column.codes.items())
    parts = (column.doc, f"Unit: {column.unit}." if column.unit else "", f"Codes: {codes}." if codes else "")
    return " ".join(part for part in parts if part)


def shared_columns(datasets: Mapping[str, Dataset]) -> list[str]:
    """The columns that the united datasets all have with the same type, in the order of the first."""
    first, *others = [datasets[name] for name in UNITED if name in datasets]
    return [
        column.name
        for column in first.columns
        if all(column.name in other.by_name and other.by_name[column.name].type == column.type for other in others)
    ]


def trips_view(datasets: Mapping[str, Dataset]) -> str | None:
    """The SELECT behind the view `trips`; None when there is nothing to unite.

    Left joins: a trip without a zone, or with a zone that the table lacks, stays.
    """
    present = [name for name in UNITED if name in datasets]
    if not present:
        return None
    shared = shared_columns(datasets)
    branches = "\n    UNION ALL\n".join(
        f"    SELECT '{name}' AS dataset, {MONTH}, {', '.join(shared)} FROM {name}" for name in present
    )
    columns = [f"t.{name}" for name in ("dataset", MONTH, *shared)]
    joins = []
    for end in ("pickup", "dropoff"):
        if f"{end}_location_id" in shared:
            columns += [f"{end}_zones.borough AS {end}_borough", f"{end}_zones.zone AS {end}_zone"]
            joins.append(f"LEFT JOIN zones AS {end}_zones ON {end}_zones.location_id = t.{end}_location_id")
    return f"SELECT {', '.join(columns)}\nFROM (\n{branches}\n) AS t\n" + "\n".join(joins)


def trips_view_docs(datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """What each column of the view `trips` means."""
    first = next(datasets[name] for name in UNITED if name in datasets)
    docs = {"dataset": "Table in which the trip is.", MONTH: MONTH_DOC}
    for name in shared_columns(datasets):
        docs[name] = describe(first.by_name[name])
        if name.endswith("_location_id"):
            end = name.removesuffix("_location_id")
            docs |= {f"{end}_borough": f"Borough of {name}, by zones.", f"{end}_zone": f"Name of {name}, by zones."}
    return docs


def bind_mart(sql: str, dataset: str, month: date) -> str:
    """A mart's SELECT with `:dataset`, `:month` and `:next_month` replaced by literals.

    Literals, since each engine binds parameters in its own spelling, and BigQuery's partitions are pruned by constants.
    """
    values = {
        "dataset": f"'{dataset}'",
        "month": f"DATE '{month.isoformat()}'",
        "next_month": f"DATE '{add_months(month, 1).isoformat()}'",
    }
    return re.sub(r"(?<![:\w]):(dataset|month|next_month)\b", lambda found: values[found[1]], sql)
