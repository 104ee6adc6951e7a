"""SQL for BigQuery: ours translated into its words, and statements about the ledger."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from typing import Any

from pipeline.errors import WarehouseError
from pipeline.warehouses.base import LoadRecord, MartRecord
from pipeline.warehouses.queries import refuse
from pipeline.warehouses.tables import LEDGER


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


def refuse_unless_reading(sql: str) -> None:
    """Let one statement pass that only reads.

    Raises:
        WarehouseError: the text is anything else.
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


def insertion(table: str, record: LoadRecord | MartRecord, **expressions: str) -> str:
    """An INSERT of one row; `expressions` stand in place of values."""
    names = [column.name for column in LEDGER[table][1]]
    values = [expressions.get(name) or literal(getattr(record, name)) for name in names]
    return f"INSERT INTO {table} ({', '.join(f'`{name}`' for name in names)}) VALUES ({', '.join(values)})"


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
