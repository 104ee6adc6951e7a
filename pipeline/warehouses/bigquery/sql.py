"""SQL for BigQuery: ours translated into its words, and statements about the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

from pipeline.datasets.base import Column
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import LoadRecord, MartRecord
from pipeline.warehouses.queries import refuse
from pipeline.warehouses.tables import LEDGER, MOMENT

#: What a row of the ledger is about; `loads` has no marts.
_KEY = ("mart", "dataset", "month")


def translate(sql: str, project: str, dataset: str) -> str:
    """SQL as our marts and views are written, for BigQuery, with every table named in full.

    A cast to DECIMAL(18, 2) becomes a rounded NUMERIC, since BigQuery takes no precision in a cast.
    """
    import sqlglot
    from sqlglot import exp

    def change(node: Any) -> Any:
        if isinstance(node, exp.Cast) and node.to.is_type("decimal") and node.to.expressions:
            scale = node.to.expressions[-1].this
            return exp.Round(this=exp.cast(node.this, "decimal"), decimals=scale.copy())
        if isinstance(node, exp.Table) and not node.db:
            node.set("db", exp.to_identifier(dataset, quoted=True))
            node.set("catalog", exp.to_identifier(project, quoted=True))
        return node

    return str(sqlglot.parse_one(sql, read="duckdb").transform(change).sql("bigquery", pretty=True, comments=False))


def names_of(select: str) -> list[str]:
    """The names of the columns that a SELECT gives."""
    import sqlglot
    from sqlglot import exp

    parsed = sqlglot.parse_one(select, read="bigquery")
    return list(parsed.named_selects) if isinstance(parsed, exp.Query) else []


def validate_reading(sql: str) -> None:
    """Let one statement pass that only reads.

    Raises:
        UsageError: the text is anything else.
        WarehouseError: the text is not SQL.
    """
    import sqlglot
    from sqlglot import exp

    try:
        statements = sqlglot.parse(sql, read="bigquery")
    except sqlglot.ParseError as error:
        raise WarehouseError(
            f"query: not understood: {error.errors[0]['description'] if error.errors else error}"
        ) from error
    (first, *others) = statements
    if others or not isinstance(first, exp.Query) or first.find(exp.DML, exp.Into):
        raise refuse(", ".join(found.key.upper() for found in statements if found) or "nothing")


def insertion(
    table: str,
    records: Sequence[LoadRecord | MartRecord],
    *,
    revoked: bool = False,
    lost: bool = False,
    rows: Callable[[Any], str] | None = None,
) -> str:
    """An INSERT of these records as the newest of their keys; `rows` gives an expression for their number of rows.

    A record that is revoked has no number of rows. The time is the server's, since the clocks of several machines
    differ, and the newest counts. A record that is `lost` is revoked as of its own time, so that one which another
    worker writes meanwhile counts.
    """
    columns = LEDGER[table][1]

    def value(record: LoadRecord | MartRecord, column: Column) -> str:
        if column.type == MOMENT:
            after = timedelta(microseconds=1)
            return literal(getattr(record, column.name) + after) if lost else "CURRENT_TIMESTAMP()"
        if column.name == "rows" and (revoked or lost or rows):
            return rows(record) if rows else "NULL"
        return literal(getattr(record, column.name))

    names = ", ".join(f"`{column.name}`" for column in columns)
    values = (f"({', '.join(value(record, column) for column in columns)})" for record in records)
    return f"INSERT INTO {table} ({names}) VALUES {', '.join(values)}"


def newest(rows: Iterable[Mapping[str, Any]], moment: str) -> list[Mapping[str, Any]]:
    """The newest row of each key, without those that revoke it."""
    last: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in _KEY)
        if key not in last or last[key][moment] < row[moment]:
            last[key] = row
    return [row for row in last.values() if row["rows"] is not None]


def compaction(table: str) -> str:
    """A DELETE of the ledger's rows that are older than an hour and count no more, or revoke such.

    Those of the last hour stay, so that nothing is deleted that a run at work has just written.
    """
    names = {column.name: column for column in LEDGER[table][1]}
    moment = next(name for name, column in names.items() if column.type == MOMENT)
    key = "CONCAT(" + ", '|', ".join(f"COALESCE(CAST({name} AS STRING), '')" for name in _KEY if name in names) + ")"
    last = f"SELECT CONCAT({key}, CAST(MAX({moment}) AS STRING)) FROM {table} GROUP BY {key}"
    return (
        f"DELETE FROM {table} WHERE {moment} < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR) "
        f"AND (`rows` IS NULL OR CONCAT({key}, CAST({moment} AS STRING)) NOT IN ({last}))"
    )


def replacement(mart: str, dataset: str, month: date, select: str, names: Sequence[str]) -> str:
    """One statement by which the rows of the SELECT replace those of the dataset's month in the mart."""
    columns = ["dataset", "month", *names]
    return (
        f"MERGE INTO {mart} AS kept\n"
        f"USING (\nSELECT {json.dumps(dataset)} AS dataset, DATE '{month}' AS month, {', '.join(names)}\n"
        f"FROM (\n{select}\n)\n) AS made\nON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND kept.dataset = {json.dumps(dataset)} AND kept.month = DATE '{month}' "
        "THEN DELETE\n"
        f"WHEN NOT MATCHED BY TARGET THEN INSERT ({', '.join(columns)}) "
        f"VALUES ({', '.join(f'made.{name}' for name in columns)})"
    )


def match(**key: str | date | None) -> str:
    """A condition that every column has its value."""
    return " AND ".join(
        f"{name} IS NULL" if value is None else f"{name} = {literal(value)}" for name, value in key.items()
    )


def literal(value: object) -> str:
    """A value as BigQuery writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S.%f}+00'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return str(value) if isinstance(value, int) else json.dumps(value)
