"""The properties of a table in CREATE TABLE and CREATE VIEW, most of which bqemulator 1.4 ignores.

https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlglot
from bigquery_load import Json, TableName
from sqlglot import exp


class Creation(NamedTuple):
    """The table that a statement creates, and the properties of its resource."""

    name: TableName
    properties: Json
    replaces: bool


def creation(query: Json, project: str) -> Creation | None:
    """The table or view that a query job creates; None for any other statement."""
    text = query.get("query", "")
    if text.lstrip()[:6].upper() != "CREATE" or ";" in text.strip().rstrip(";"):
        return None
    tree = sqlglot.parse_one(text, read="bigquery")
    if not isinstance(tree, exp.Create) or tree.kind not in ("TABLE", "VIEW"):
        return None
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    default = query.get("defaultDataset", {})
    parent = (table.catalog or default.get("projectId", project), table.db or default.get("datasetId", ""))
    properties: Json = {}
    for each in tree.args["properties"].expressions if tree.args.get("properties") else []:
        properties |= _property(each)
    if tree.kind == "VIEW":
        properties["view"] = {"query": tree.expression.sql("bigquery"), "useLegacySql": False}
    return Creation(TableName(*parent, table.name), properties, bool(tree.args.get("replace")))


def _property(each: Any) -> Json:
    if isinstance(each, exp.PartitionedByProperty) and isinstance(each.this, exp.DateTrunc):
        return {"timePartitioning": {"type": each.this.unit.name, "field": each.this.this.name}}
    if each.key in ("clusterproperty", "cluster"):  # "cluster" before sqlglot 30.10.
        return {"clustering": {"fields": [column.name for column in each.expressions]}}
    if isinstance(each, exp.Property) and each.name == "description":
        return {"description": each.args["value"].name}
    if isinstance(each, exp.Property) and each.name == "labels":
        pairs = [pair.expressions for pair in each.args["value"].expressions]
        return {"labels": {key.name: text.name for key, text in pairs}}
    return {}
