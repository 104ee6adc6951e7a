"""SQL for BigQuery: marts and views translated, queries validated, statements about the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

from pipeline.datasets.base import Column
from pipeline.errors import WarehouseError
from pipeline.warehouses.base import LoadRecord, MartRecord, query_error
from pipeline.warehouses.tables import LEDGER, MOMENT

#: The key of a record; `loads` has no mart.
_KEY = ("mart", "dataset", "month")


def translate(sql: str, project: str, dataset: str) -> str:
    """Translate the SQL of a mart or view for BigQuery, with every table named in full.

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


def validate_reading(sql: str) -> None:
    """Raise UsageError for a statement that does more than read, WarehouseError for text that is not SQL."""
    import sqlglot
    from sqlglot import exp

    try:
        first, *others = statements = sqlglot.parse(sql, read="bigquery")
    except sqlglot.ParseError as error:
        reason = error.errors[0]["description"] if error.errors else error
        raise WarehouseError(f"query: BigQuery's SQL does not allow this: {reason}") from error
    if others or not isinstance(first, exp.Query) or first.find(exp.DML, exp.Into):
        raise query_error(", ".join(statement.key.upper() for statement in statements if statement) or "nothing")


def insertion(
    table: str,
    records: Sequence[LoadRecord | MartRecord],
    *,
    revoked: bool = False,
    lost: bool = False,
    counts: Mapping[str, str] | None = None,
) -> str:
    """An INSERT that makes these records the newest of their keys; a revoked record has no number of rows.

    The time is the server's, since the clocks of several machines differ. A record whose table is `lost` is revoked
    as of its own time, so that a record counts that another worker writes meanwhile. `counts` are the expressions for
    the numbers of rows, by mart.
    """

    def value(record: Any, column: Column) -> str:
        recorded = getattr(record, column.name)
        if column.type == MOMENT:
            return literal(recorded + timedelta(microseconds=1)) if lost else "CURRENT_TIMESTAMP()"
        if column.name == "rows" and (revoked or lost):
            return "NULL"
        return counts[record.mart] if column.name == "rows" and counts else literal(recorded)

    columns = LEDGER[table][1]
    names = ", ".join(f"`{column.name}`" for column in columns)
    values = (f"({', '.join(value(record, column) for column in columns)})" for record in records)
    return f"INSERT INTO {table} ({names}) VALUES {', '.join(values)}"


def newest(rows: Iterable[Mapping[str, Any]], moment: str) -> list[Mapping[str, Any]]:
    """The newest row of each key, by the column `moment`, unless it revokes the key."""
    last = {tuple(map(row.get, _KEY)): row for row in sorted(rows, key=lambda row: row[moment])}
    return [row for row in last.values() if row["rows"] is not None]


def compaction(table: str) -> str:
    """A DELETE of the rows that revoke or no longer count, and are older than an hour.

    Rows of the last hour stay, so that nothing is deleted that a current run has just written.
    """
    types = {column.name: column.type for column in LEDGER[table][1]}
    moment = next(name for name, type_ in types.items() if type_ == MOMENT)
    key = "CONCAT(" + ", '|', ".join(f"COALESCE(CAST({name} AS STRING), '')" for name in _KEY if name in types) + ")"
    last = f"SELECT CONCAT({key}, CAST(MAX({moment}) AS STRING)) FROM {table} GROUP BY {key}"
    return (
        f"DELETE FROM {table} WHERE {moment} < TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR) "
        f"AND (`rows` IS NULL OR CONCAT({key}, CAST({moment} AS STRING)) NOT IN ({last}))"
    )


def replacement(mart: str, dataset: str, month: date, select: str) -> str:
    """A MERGE that replaces the rows of the dataset's month in the mart by those of the SELECT."""
    import sqlglot
    from sqlglot import exp

    query = sqlglot.parse_one(select, read="bigquery")
    names = query.named_selects if isinstance(query, exp.Query) else []
    columns = ["dataset", "month", *names]
    return (
        f"MERGE INTO {mart} AS kept\n"
        f"USING (\nSELECT {literal(dataset)} AS dataset, {literal(month)} AS month, {', '.join(names)}\n"
        f"FROM (\n{select}\n)\n) AS made\nON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND kept.dataset = {literal(dataset)} AND kept.month = {literal(month)} "
        "THEN DELETE\n"
        f"WHEN NOT MATCHED BY TARGET THEN INSERT ({', '.join(columns)}) "
        f"VALUES ({', '.join(f'made.{name}' for name in columns)})"
    )


def literal(value: object) -> str:
    """The value as BigQuery's SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S.%f}+00'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return str(value) if isinstance(value, int) else json.dumps(value)
