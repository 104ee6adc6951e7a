"""The tables that every engine has: column comments, the ledger's columns, a mart's parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import date

from pipeline.datasets.base import DATE, INT64, TEXT, Column
from pipeline.months import add_months
from pipeline.warehouses.base import LoadRecord, MartRecord

#: The column that the loader adds to the rows of every dataset; in the lake, the path has the month instead.
MONTH = "month"
MONTH_DOC = "Month of the TLC file that has the trip; the pickup may be in another month."

#: A point in time with time zone; an engine without such a type stores it in UTC.
MOMENT = "timestamp[us, tz=UTC]"
_LEDGER_TYPES = {"str": TEXT, "int": INT64, "date": DATE, "datetime": MOMENT}


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
