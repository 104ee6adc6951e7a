"""The tables as every engine has them: what is said of a column, the view `trips`, how a mart's SELECT gets its month.

The SQL made here is plain enough for DuckDB, Postgres and BigQuery alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from pipeline.datasets.base import Column, Dataset
from pipeline.months import add_months

#: The column that the loader adds to every dataset's rows; the lake has it in the path instead.
MONTH = "month"
MONTH_DOC = "Month of the file in which TLC published the trip; the pickup may lie elsewhere."
#: The datasets whose trips the view `trips` unites.
UNITED = ("yellow", "green")
TRIPS_DOC = "Yellow and green trips: the columns that both have, and the zones by name."


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
