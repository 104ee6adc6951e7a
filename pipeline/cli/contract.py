"""The declarations in two standard forms: a data contract per dataset (ODCS), and sources for dbt.

ODCS is the Open Data Contract Standard, https://bitol-io.github.io/open-data-contract-standard. dbt's file is
described in https://docs.getdbt.com/reference/source-properties. Both are made from the declarations alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from pipeline.conform.check import limits_of
from pipeline.datasets import DATASETS, ZONES, Column, Dataset
from pipeline.datasets.base import BOOL, DATE, FLOAT64, INT32, INT64, TEXT, TIME
from pipeline.marts import all_marts
from pipeline.version import __version__
from pipeline.warehouses.tables import LEDGER, MONTH, MONTH_DOC, describe
from pipeline.warehouses.views import declared_views

#: The oldest version of the standard that has relationships; tools for newer ones read it too.
_ODCS = "v3.1.0"
_TLC = "https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page"
_LOGICAL_TYPES = {
    BOOL: "boolean",
    INT32: "integer",
    INT64: "integer",
    FLOAT64: "number",
    TEXT: "string",
    DATE: "date",
    TIME: "timestamp",
}
_MONTH = Column(MONTH, DATE, required=True, doc=MONTH_DOC)
_MART_KEY = (Column("dataset", TEXT, required=True, doc="Dataset of the trips."), _MONTH)
#: Where each engine has our tables, unless the dbt project says otherwise.
_SCHEMA = (
    "{{ var('taxi_schema', 'main' if target.type == 'duckdb' else 'public' if target.type == 'postgres'"
    " else target.schema) }}"
)


def data_contract(dataset: Dataset) -> dict[str, Any]:
    """The contract of one dataset: its table, and the view with TLC's names."""
    since = f"Published since {dataset.first_month:%Y-%m}. " if dataset.first_month else ""
    rules = [
        {
            "name": rule.name,
            "type": "text",
            "severity": rule.severity,
            "description": f"{rule.doc}; allowed: {limits_of(rule)}",
        }
        for rule in dataset.rules
    ]
    views = [view for view in declared_views(DATASETS.values(), ZONES) if view.tables == (dataset.name,)]
    return {
        "apiVersion": _ODCS,
        "kind": "DataContract",
        "id": f"taxi-pipeline-{dataset.name}",
        "name": dataset.name,
        "version": __version__,
        "status": "active",
        "domain": "transport",
        "description": {
            "purpose": dataset.doc,
            "usage": f"{since}Times are New York wall-clock times without a zone; money is US dollars as published.",
            "limitations": "Odd but real rows, such as strays, reversals and wrong times, are kept; see the rules.",
            "authoritativeDefinitions": [{"type": "canonicalUrl", "url": _TLC}],
        },
        "schema": [
            _object(dataset.name, "table", dataset.doc, _stored(dataset)) | {"quality": rules},
            *(_object(view.name, "view", view.doc, view.columns) for view in views),
        ],
    }


def dbt_sources() -> dict[str, Any]:
    """One dbt source with all tables, views and marts; a column that is unique or never null has tests."""
    tables = [_table(dataset.name, dataset.doc, _stored(dataset)) for dataset in (*DATASETS.values(), ZONES)]
    for view in declared_views(DATASETS.values(), ZONES):
        # What is never null in one dataset may be null in another one of the same view.
        tables.append(_table(view.name, view.doc, view.columns, with_tests=len(view.tables) == 1))
    tables += [_table(name, doc, columns) for name, (doc, columns) in LEDGER.items()]
    for mart in all_marts().values():
        # dbt reads no types here, so any will do.
        columns = (Column(name, TEXT, doc=doc) for name, doc in mart.columns.items())
        # A mart exists once the first month of its datasets is built, and a test of a missing table fails.
        tables.append(_table(mart.name, mart.doc, (*_MART_KEY, *columns), with_tests=False))
    source = {
        # The models of the Data Engineering Zoomcamp have this name for it.
        "name": "raw",
        "description": f"New York taxi trips: the tables of taxi-pipeline {__version__}, and views with TLC's names.",
        "database": "{{ var('taxi_database', target.database) }}",
        "schema": _SCHEMA,
        "tables": tables,
    }
    return {"version": 2, "sources": [source]}


def as_yaml(*documents: dict[str, Any]) -> str:
    """The documents as one YAML stream, their keys in the order in which they were put in."""
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)


def _stored(dataset: Dataset) -> tuple[Column, ...]:
    """The columns of the dataset's table."""
    return (*dataset.columns, _MONTH) if dataset.first_month else dataset.columns


def _object(name: str, kind: str, doc: str, columns: Iterable[Column]) -> dict[str, Any]:
    properties = [_property(column) for column in columns]
    return {"name": name, "physicalType": kind, "logicalType": "object", "description": doc, "properties": properties}


def _property(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "logicalType": _LOGICAL_TYPES[column.type]}
    found |= {"description": describe(column)} if describe(column) else {}
    found |= {"required": True} if column.required else {}
    found |= {"unique": True, "primaryKey": True, "primaryKeyPosition": 1} if column.unique else {}
    found |= {"partitioned": True, "partitionKeyPosition": 1} if column is _MONTH else {}
    custom = {"tlcName": column.tlc_name if column.tlc_name != column.name else "", "unit": column.unit}
    listed = [{"property": name, "value": value} for name, value in custom.items() if value]
    return found | ({"customProperties": listed} if listed else {})


def _table(name: str, doc: str, columns: Iterable[Column], *, with_tests: bool = True) -> dict[str, Any]:
    listed = []
    for column in columns:
        described: dict[str, Any] = {"name": column.name}
        described |= {"description": describe(column)} if describe(column) else {}
        tests = ["unique"] * column.unique + ["not_null"] * column.required
        listed.append(described | ({"data_tests": tests} if tests and with_tests else {}))
    return {"name": name, "description": doc} | ({"columns": listed} if listed else {})
