"""`pipeline describe --contract` and `--dbt`: what other tools read of the declarations."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
import yaml
from conftest import Folder, make_folder
from jsonschema import Draft201909Validator
from open_data_contract_standard.model import OpenDataContractStandard

from pipeline.datasets import DATASETS, ZONES
from pipeline.marts import all_marts
from pipeline.warehouses.tables import LEDGER
from pipeline.warehouses.views import declared_views

SPECS = {**DATASETS, ZONES.name: ZONES}


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which nothing has run."""
    return make_folder(tmp_path_factory.mktemp("lone"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def contracts(lone: Folder) -> dict[str, Any]:
    """All contracts, by dataset."""
    ended = lone.pipeline("describe", "--contract")
    assert (ended.returncode, ended.stderr) == (0, "")
    return {contract["name"]: contract for contract in yaml.safe_load_all(ended.stdout)}


@pytest.fixture(scope="module")
def source(lone: Folder) -> dict[str, Any]:
    """The only source of the sources.yml."""
    ended = lone.pipeline("describe", "--dbt")
    assert (ended.returncode, ended.stderr) == (0, "")
    document = yaml.safe_load(ended.stdout)
    assert (document["version"], len(document["sources"])) == (2, 1)
    return document["sources"][0]


def columns_of(table: dict[str, Any]) -> list[str]:
    return [column["name"] for column in table.get("columns") or table.get("properties") or []]


@pytest.mark.parametrize("name", SPECS)
def test_each_dataset_has_a_contract_that_the_standard_accepts(contracts: dict[str, Any], name: str) -> None:
    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8")
    errors = [error.message for error in Draft201909Validator(json.loads(text)).iter_errors(contracts[name])]
    assert errors == []
    contract = OpenDataContractStandard.from_string(yaml.safe_dump(contracts[name]))
    assert [part.name for part in contract.schema_ or []] == [name, SPECS[name].tlc_name]


@pytest.mark.parametrize("name", SPECS)
def test_a_contract_has_what_is_declared(contracts: dict[str, Any], name: str) -> None:
    spec = SPECS[name]
    table, view = contracts[name]["schema"]
    properties = {each["name"]: each for each in table["properties"]}
    assert list(properties) == [*spec.by_name, *(["month"] if spec.first_month else [])]
    assert columns_of(view) == [column.tlc_name for column in spec.columns]
    for column in spec.columns:
        assert column.doc in properties[column.name]["description"]
        assert properties[column.name].get("required", False) is column.required
        assert all(meaning in properties[column.name]["description"] for meaning in column.codes.values())
    assert [(rule["name"], rule["severity"]) for rule in table["quality"]] == [
        (rule.name, rule.severity) for rule in spec.rules
    ]


def test_the_contract_of_one_dataset_is_a_file_of_its_own(lone: Folder, contracts: dict[str, Any]) -> None:
    ended = lone.pipeline("describe", "zones", "--contract")
    assert yaml.safe_load(ended.stdout) == contracts["zones"]
    key = contracts["zones"]["schema"][0]["properties"][0]
    assert (key["name"], key["unique"], key["primaryKey"]) == ("location_id", True, True)
    assert lone.files() == [], "nothing is read and nothing is created"


def test_the_sources_of_dbt_are_all_tables_views_and_marts(source: dict[str, Any]) -> None:
    assert set(source) == {"name", "description", "database", "schema", "tables"}
    tables = {table["name"]: table for table in source["tables"]}
    assert len(tables) == len(source["tables"]), "dbt refuses a table that is listed twice"
    views = {view.name: view for view in declared_views(DATASETS.values(), ZONES)}
    assert list(tables) == [*SPECS, *views, *LEDGER, *all_marts()]
    for name, view in views.items():
        assert columns_of(tables[name]) == [column.name for column in view.columns]
    assert {"VendorID", "lpep_pickup_datetime", "PULocationID"} <= set(columns_of(tables["green_tripdata"]))
    for name, mart in all_marts().items():
        assert columns_of(tables[name]) == ["dataset", "month", *mart.columns]
    for table in tables.values():
        assert set(table) <= {"name", "description", "columns"}
        assert table["description"]
        for column in table.get("columns", []):
            assert set(column) <= {"name", "description", "data_tests"}


def test_dbt_tests_the_keys_and_what_is_never_null(source: dict[str, Any]) -> None:
    tested = {
        (table["name"], column["name"]): column["data_tests"]
        for table in source["tables"]
        for column in table.get("columns", [])
        if "data_tests" in column
    }
    assert tested["zones", "location_id"] == tested["taxi_zone_lookup", "LocationID"] == ["unique", "not_null"]
    assert tested["green", "month"] == tested["green_tripdata", "lpep_pickup_datetime"] == ["not_null"]
    not_tested = {"trips", "for_hire_trips", *all_marts()}
    assert not [name for name, _ in tested if name in not_tested], "a mart may not be built yet"


@pytest.mark.parametrize("words", [("--dbt", "--contract"), ("--dbt", "--json"), ("green", "--dbt")])
def test_forms_that_exclude_each_other_are_a_usage_error(lone: Folder, words: tuple[str, ...]) -> None:
    ended = lone.pipeline("describe", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
