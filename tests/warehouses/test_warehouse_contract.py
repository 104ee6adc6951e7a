"""The contract of a warehouse, tested on each engine; test ids contain the engine's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from cloud import PROJECT, Cloud
from google.cloud.bigquery import QueryJobConfig
from postgres import Database
from warehouse_contract import *  # noqa: F403

from pipeline.datasets import DATASETS
from pipeline.lake.google_cloud import bigquery_client
from pipeline.warehouses.duckdb import local_file

ENGINES = ("duckdb", "duckdb_views", "postgres", "bigquery")


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path}/warehouse.duckdb"
    if request.param == "duckdb_views":
        if duckdb.__version__ < "2":
            pytest.skip("views need DuckDB 2")
        return f"duckdb:///{tmp_path}/warehouse.duckdb?tables=views"
    if request.param == "postgres":
        database: Database = request.getfixturevalue("database")
        return database.url
    cloud: Cloud = request.getfixturevalue("cloud")
    return cloud.warehouse


@pytest.fixture
def execute(url: str, request: pytest.FixtureRequest) -> Callable[[str], object]:
    """Runs a statement, as a user may."""
    if url.startswith("duckdb"):

        def in_duckdb(sql: str) -> None:
            with duckdb.connect(local_file(url)) as connection:
                connection.execute(sql)

        return in_duckdb
    if url.startswith("postgres"):
        database: Database = request.getfixturevalue("database")
        return database.execute
    cloud: Cloud = request.getfixturevalue("cloud")

    def in_bigquery(sql: str) -> None:
        config = QueryJobConfig(default_dataset=f"{PROJECT}.{cloud.dataset}")
        bigquery_client(PROJECT, "EU").query(sql, job_config=config).result()

    return in_bigquery


@pytest.fixture
def drop(url: str, execute: Callable[[str], object], request: pytest.FixtureRequest) -> Callable[[str], object]:
    """Drops a table, as a user may do to load it again, or a view."""
    if url.startswith("bigquery"):
        cloud: Cloud = request.getfixturevalue("cloud")
        of = f"{PROJECT}.{cloud.dataset}"
        return lambda named: bigquery_client(PROJECT, "EU").delete_table(f"{of}.{named.split()[1]}")
    if url.endswith("?tables=views"):
        datasets = {f"TABLE {name}": f"VIEW {name}" for name in DATASETS}
        return lambda named: execute(f"DROP {datasets.get(named, named)}")
    return lambda named: execute(f"DROP {named}{' CASCADE' * url.startswith('postgres')}")


@pytest.fixture
def create(execute: Callable[[str], object]) -> Callable[[str], object]:
    """Creates a table of the user's own with one row."""
    return lambda table: execute(f"CREATE TABLE {table} AS SELECT 7 AS mine")
