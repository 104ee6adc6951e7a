"""The contract of a warehouse, tested on each engine; test ids contain the engine's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from cloud import PROJECT, Cloud
from postgres import Database
from warehouse_contract import *  # noqa: F403

from pipeline.lake.google_cloud import bigquery_client

ENGINES = ("duckdb", "postgres", "bigquery")


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path}/warehouse.duckdb"
    if request.param == "postgres":
        database: Database = request.getfixturevalue("database")
        return database.url
    cloud: Cloud = request.getfixturevalue("cloud")
    return cloud.warehouse


@pytest.fixture
def drop(url: str, request: pytest.FixtureRequest) -> Callable[[str], object]:
    """Drops a table, as a user may do to load it again."""
    if url.startswith("duckdb"):

        def drop_in_duckdb(table: str) -> None:
            with duckdb.connect(url.removeprefix("duckdb:///")) as connection:
                connection.execute(f"DROP TABLE {table}")

        return drop_in_duckdb
    if url.startswith("postgres"):
        database: Database = request.getfixturevalue("database")
        return lambda table: database.execute(f"DROP TABLE {table} CASCADE")
    cloud: Cloud = request.getfixturevalue("cloud")
    return lambda table: bigquery_client(PROJECT, "EU").delete_table(f"{PROJECT}.{cloud.dataset}.{table}")
