"""The warehouse in BigQuery: its requests to the service, and what it does when the service fails.

The contract of all warehouses is tested in test_warehouse_contract.py.
"""

from __future__ import annotations

import dataclasses
import re
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cloud import PROJECT, Cloud, warehouse_at
from google.cloud.bigquery import SchemaField
from google.cloud.bigquery import retry as library_retry
from loading import FEB, GREEN, JAN, MAR, File, trips, zones

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Column, Dataset
from pipeline.errors import UsageError, WarehouseError
from pipeline.lake import planning
from pipeline.lake.google_cloud import bigquery_client
from pipeline.marts import marts_of
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.base import Mart
from pipeline.warehouses.bigquery import tables as bigquery_tables
from pipeline.warehouses.bigquery.schema import view_table
from pipeline.warehouses.bigquery.tables import Tables, parse_url
from pipeline.warehouses.tables import describe
from pipeline.warehouses.views import declared_views

VIEWS = declared_views(DATASETS.values(), ZONES)

ROLES = r"roles/bigquery\.jobUser on the project test-project and roles/bigquery\.dataEditor on the dataset"


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses of the library's retries and of ours."""
    quick = library_retry.DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(library_retry, "DEFAULT_RETRY", quick)
    monkeypatch.setattr(bigquery_tables, "_FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(bigquery_tables, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(bigquery_tables, "_DEADLINE_S", 10)
    monkeypatch.setattr(bigquery_tables, "_LONGEST_WAIT_S", 0.01)


@pytest.fixture
def warehouse(cloud: Cloud, tmp_path: Path) -> Warehouse:
    return warehouse_at(cloud.warehouse, tmp_path / "scratch")


def with_datasets(cloud: Cloud, tmp_path: Path, *datasets: Dataset) -> Warehouse:
    return warehouse_at(
        cloud.warehouse, tmp_path / "scratch", datasets=DATASETS | {dataset.name: dataset for dataset in datasets}
    )


def totals(warehouse: Warehouse, month: date = JAN) -> list[float]:
    sql = f"SELECT total_amount FROM green WHERE month = DATE '{month}' ORDER BY total_amount"
    return warehouse.query(sql).column(0).to_pylist()


def jobs(cloud: Cloud, job_type: str = "load") -> list[dict[str, Any]]:
    """The bodies of the requests that inserted jobs of this type: load, copy or query."""
    return [one.body for one in cloud.bigquery.seen("POST", r"/jobs\?") if job_type in one.body["configuration"]]


def load_ids(cloud: Cloud) -> list[str]:
    return [body["jobReference"]["jobId"] for body in jobs(cloud)]


# Creating the dataset and its tables.


def test_the_dataset_is_created_with_the_options_of_its_url(cloud: Cloud, tmp_path: Path) -> None:
    url = f"{cloud.warehouse}&expiration_days=30&label.team=data"
    warehouse_at(url, tmp_path / "scratch").replace(ZONES, None, zones(tmp_path))
    (made,) = cloud.bigquery.seen("POST", r"/datasets\?")
    assert made.body["location"] == "EU"
    assert made.body["labels"] == {"made_by": "taxi-pipeline", "team": "data"}
    assert made.body["defaultTableExpirationMs"] == str(30 * 86_400_000)
    assert "New York taxi trips" in made.body["description"]
    table = bigquery_client(PROJECT, "EU").get_table(f"{cloud.dataset}.green")
    assert table.labels["team"] == "data"


def test_without_options_nothing_expires(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    (made,) = cloud.bigquery.seen("POST", r"/datasets\?")
    assert "defaultTableExpirationMs" not in made.body


def test_a_table_is_partitioned_clustered_and_described_as_declared(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    (made,) = [one.body for one in cloud.bigquery.seen("POST", r"/tables\?") if _table_id(one.body) == "green"]
    assert made["timePartitioning"] == {"type": "MONTH", "field": "month"}
    assert made["clustering"] == {"fields": ["pickup_location_id"]}
    assert made["description"] == GREEN.doc
    assert made["labels"]["made_by"] == "taxi-pipeline"
    assert re.fullmatch("[0-9a-f]{16}", made["labels"]["declaration"])
    fields = {field["name"]: field for field in made["schema"]["fields"]}
    assert list(fields) == [*GREEN.by_name, "month"]
    assert fields["pickup_datetime"]["type"] == "DATETIME"
    assert fields["month"]["type"] == "DATE"
    assert all(field["description"] for field in fields.values())
    assert "Creative Mobile" in fields["vendor_id"]["description"]
    client = bigquery_client(PROJECT, "EU")
    assert {item.table_id for item in client.list_tables(cloud.dataset)} == {
        *DATASETS,
        "zones",
        "loads",
        "mart_loads",
        *(view.name for view in VIEWS),
    }


def test_views_and_their_columns_are_described_and_a_killed_load_leaves_this_to_the_next(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    file = trips(tmp_path, GREEN, JAN, [10.0])
    warehouse.replace(GREEN, JAN, file)
    client = bigquery_client(PROJECT, "EU")
    for view in VIEWS:
        table = client.get_table(f"{cloud.dataset}.{view.name}")
        assert (table.table_type, table.description) == ("VIEW", view.doc)
        described = [(field.name, field.description) for field in table.schema]
        assert described == [(column.name, describe(column)[:1024]) for column in view.columns]
        types = {field["name"]: field["type"] for field in table.to_api_repr()["schema"]["fields"]}
        assert types == {name: type_ for name, type_, _ in view_table(view).columns}
    # As of a load that ended between two requests.
    table = client.get_table(f"{cloud.dataset}.codes")
    table.labels, table.schema = (
        table.labels | {"declaration": "incomplete"},
        [SchemaField(field.name, field.field_type) for field in table.schema],
    )
    client.update_table(table, ["labels", "schema"])
    cloud.clear()
    warehouse.replace(GREEN, JAN, file)
    changed = {
        one.path.rpartition("/")[2].partition("?")[0] for one in cloud.bigquery.requests if one.method == "PATCH"
    }
    assert changed == {"codes"}
    assert all(field.description for field in client.get_table(f"{cloud.dataset}.codes").schema)


def _table_id(body: dict[str, Any]) -> str:
    name: str = body["tableReference"]["tableId"]
    return name


def test_a_warehouse_that_is_as_declared_is_not_changed(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    cloud.clear()
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [10.0]))
    changing = [one for one in cloud.bigquery.requests if one.method != "GET" and not one.path.endswith("/jobs")]
    assert changing == []


# One load.


def test_a_load_job_has_exactly_this_configuration(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    (body,) = jobs(cloud)
    reference, load = body["jobReference"], body["configuration"]["load"]
    assert re.fullmatch(r"load_green_2024-01_[0-9a-f]{8}", reference.pop("jobId"))
    assert reference == {"projectId": PROJECT, "location": "EU"}
    fields = load.pop("schema")["fields"]
    # The month is a key in the path, not a column of the file.
    assert [field["name"] for field in fields] == list(GREEN.by_name)
    assert {field["name"]: field["type"] for field in fields}["pickup_datetime"] == "DATETIME"
    assert {field["mode"] for field in fields} == {"NULLABLE"}
    assert load == {
        "sourceUris": [f"{cloud.lake}/trips/green/month=2024-01-01/green_2024-01.parquet"],
        "sourceFormat": "PARQUET",
        "destinationTable": {"projectId": PROJECT, "datasetId": cloud.dataset, "tableId": "green$202401"},
        "writeDisposition": "WRITE_TRUNCATE",
        "createDisposition": "CREATE_NEVER",
        "hivePartitioningOptions": {
            "mode": "CUSTOM",
            "sourceUriPrefix": f"{cloud.lake}/trips/green/{{month:DATE}}",
        },
    }


def test_a_staged_load_uses_a_table_of_its_own_and_deletes_it(cloud: Cloud, tmp_path: Path) -> None:
    staged = warehouse_at(f"{cloud.warehouse}&load=staged", tmp_path / "scratch")
    for values in ([10.0, 20.0], [30.0]):
        cloud.clear()
        assert staged.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, values)) == len(values)
        assert totals(staged) == values
    (load,), (copy,) = jobs(cloud), jobs(cloud, "copy")
    table = load["configuration"]["load"]["destinationTable"]["tableId"]
    assert re.fullmatch(r"staging_green_[0-9a-f]{8}_202401", table)
    (source,) = copy["configuration"]["copy"]["sourceTables"]
    assert source["tableId"] == f"{table}$202401"
    assert copy["configuration"]["copy"]["destinationTable"]["tableId"] == "green$202401"
    (made,) = [one.body for one in cloud.bigquery.seen("POST", r"/tables\?")]
    assert made["timePartitioning"] == {"type": "MONTH", "field": "month"}
    assert int(made["expirationTime"]) > time.time() * 1000
    listed = [item.table_id for item in bigquery_client(PROJECT, "EU").list_tables(cloud.dataset)]
    assert [name for name in listed if name.startswith("staging")] == []
    assert staged.loads(GREEN)[JAN].rows == 1


def test_compact_deletes_old_records_that_do_not_count(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    for values in ([10.0], [20.0], [30.0]):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, values))
        warehouse.replace_mart_month(GREEN, JAN, marts_of("green"))
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    warehouse.forget(GREEN, FEB)
    before = (warehouse.loads(GREEN), warehouse.mart_months(GREEN))
    warehouse.compact()
    assert warehouse.query("SELECT COUNT(*) AS n FROM loads").to_pylist() == [{"n": 7}], (
        "all records are of the last hour"
    )
    client = bigquery_client(PROJECT, "EU")
    for table, moment in (("loads", "loaded_at"), ("mart_loads", "built_at")):
        sql = f"UPDATE {cloud.dataset}.{table} SET {moment} = TIMESTAMP_SUB({moment}, INTERVAL 2 HOUR) WHERE TRUE"
        client.query(sql).result()
    warehouse.compact()
    assert warehouse.query("SELECT COUNT(*) AS n FROM loads").to_pylist() == [{"n": 1}]
    assert warehouse.query("SELECT COUNT(*) AS n FROM mart_loads").to_pylist() == [{"n": len(marts_of("green"))}]
    planning.step_begins()
    after = (warehouse.loads(GREEN), warehouse.mart_months(GREEN))
    assert [list(each) for each in after] == [list(each) for each in before] == [[JAN], [JAN]]
    assert after[0][JAN].fingerprint == before[0][JAN].fingerprint


def test_the_zones_replace_their_whole_table(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    (body,) = jobs(cloud)
    assert re.fullmatch(r"load_zones_[0-9a-f]{8}", body["jobReference"]["jobId"])
    load = body["configuration"]["load"]
    assert load["destinationTable"]["tableId"] == "zones"
    assert "hivePartitioningOptions" not in load


def test_a_load_job_whose_answer_was_lost_is_found_and_a_redo_is_another_job(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    file = trips(tmp_path, GREEN, JAN, [10.0])
    warehouse.replace(ZONES, None, zones(tmp_path))
    cloud.clear()
    cloud.bigquery.lose_answer(method="POST", path=r"/jobs\?")
    assert warehouse.replace(GREEN, JAN, file) == 1
    first, again = load_ids(cloud)
    assert first == again, "the second request has the same job id"
    posts = [one.status for one in cloud.bigquery.seen("POST", r"/jobs\?") if "load" in one.body["configuration"]]
    assert posts == [200, 409]
    warehouse.replace(GREEN, JAN, file)
    assert load_ids(cloud)[-1] != first
    assert totals(warehouse) == [10.0]


def test_a_statement_whose_answer_was_lost_is_not_run_twice(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    cloud.clear()
    cloud.bigquery.lose_answer(method="POST", path=r"/jobs\?", skip=1)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    assert [one.status for one in cloud.bigquery.seen("POST", r"/jobs\?")] == [200, 200, 409]
    loads = warehouse.query("SELECT dataset, rows FROM loads WHERE month IS NOT NULL").to_pylist()
    assert loads == [{"dataset": "green", "rows": 1}]


# A service that fails for some time, or permanently.


@pytest.mark.parametrize("status", [503, 429])
def test_requests_to_a_busy_service_are_retried(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path, status: int
) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    cloud.clear()
    for method, path in (("POST", r"/jobs\?"), ("GET", r"/jobs/"), ("GET", r"/tables\?"), ("GET", r"/data\?")):
        cloud.bigquery.fail(status, method=method, path=path, times=3)
    assert warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0])) == 1
    assert len([one for one in cloud.bigquery.requests if one.fault]) == 12
    assert len(set(load_ids(cloud))) == 1
    assert totals(warehouse) == [10.0]


def test_a_rate_limited_job_is_retried_with_new_job_ids(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    cloud.bigquery.fail_job("load", ("rateLimitExceeded", "too many table update operations"), times=3)
    assert warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0])) == 1
    first, *others = load_ids(cloud)
    assert others == [f"{first}_2", f"{first}_3", f"{first}_4"]
    assert totals(warehouse) == [10.0]
    assert warehouse.loads(GREEN)[JAN].rows == 1


def test_a_job_that_always_fails_is_one_error_with_all_reasons_the_job_id_and_its_page(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = (("rateLimitExceeded", "too many updates"), ("quotaExceeded", "and too much of it"))
    monkeypatch.setattr(bigquery_tables, "_PATIENCE_S", 0.2)
    cloud.bigquery.fail_job("load", *reasons, times=1_000)
    with pytest.raises(WarehouseError) as caught:
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    last = load_ids(cloud)[-1]
    page = f"https://console.cloud.google.com/bigquery?project={PROJECT}&page=queryresults&j=bq:EU:{last}"
    messages = "rateLimitExceeded: too many updates; quotaExceeded: and too much of it"
    assert str(caught.value) == f"green 2024-01: {messages}; job {last}, {page}"
    assert len(load_ids(cloud)) == len(set(load_ids(cloud))) > 3


def test_a_statement_that_meets_a_concurrent_update_is_run_again(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    message = "Transaction is aborted due to concurrent update against table loads"
    cloud.bigquery.fail_job("query", ("invalidQuery", message), times=2)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    assert set(warehouse.loads(GREEN)) == {JAN}


def test_a_service_that_stays_unavailable_is_one_clear_error_after_the_deadline(
    cloud: Cloud, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bigquery_tables, "_DEADLINE_S", 0.3)
    warehouse.replace(ZONES, None, zones(tmp_path))
    for method, path, ask in (
        ("POST", r"/jobs\?", lambda: warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))),
        ("POST", r"/jobs\?", lambda: warehouse.query("SELECT 1 AS one")),
        ("GET", "/tables", lambda: warehouse.loads(GREEN)),
        ("GET", "/tables", lambda: warehouse.expose(cloud.lake)),
    ):
        cloud.clear()
        cloud.bigquery.fail(503, method=method, path=path, times=None, message="come back later")
        began = time.monotonic()
        with pytest.raises(
            WarehouseError, match=r"in BigQuery: .*HTTP 503: come back later; run again later"
        ) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert time.monotonic() - began < 20
        assert len([one for one in cloud.bigquery.requests if one.status == 503]) > 2


def test_a_bad_file_is_an_error_with_all_reasons_and_the_old_rows_stay(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    cloud.clear()
    reasons = (("invalid", "Error while reading data"), ("invalid", "column fare_amount: bad page"))
    cloud.bigquery.fail_job("load", *reasons)
    with pytest.raises(WarehouseError, match=r"green 2024-01: .*reading data; invalid: column fare_amount: bad page"):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [11.0]))
    assert len(load_ids(cloud)) == 1, "a second job would fail, too"
    assert totals(warehouse) == [10.0]
    assert JAN not in warehouse.loads(GREEN)


def test_a_file_with_damaged_data_leaves_the_old_rows(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    path = trips(tmp_path, GREEN, JAN, [float(number) for number in range(5_000)]).path
    content = bytearray(path.read_bytes())
    content[4:4_000] = bytes(3_996)
    path.write_bytes(content)
    with pytest.raises(WarehouseError, match=r"green 2024-01: .*job load_green_2024-01_\w+, https://console"):
        warehouse.replace(GREEN, JAN, File(path))
    assert totals(warehouse) == [10.0]
    assert JAN not in warehouse.loads(GREEN)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [12.0]))
    assert totals(warehouse) == [12.0]


def test_an_interrupted_load_has_no_record_and_leaves_the_old_rows(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    warehouse.replace_mart_month(GREEN, JAN, marts_of("green"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tables, "load", stop)
    with pytest.raises(KeyboardInterrupt):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [11.0]))
    assert JAN not in warehouse.loads(GREEN)
    assert warehouse.mart_months(GREEN) == {}
    assert totals(warehouse) == [10.0]


def test_a_load_without_a_record_is_not_reported(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    file = trips(tmp_path, GREEN, JAN, [11.0])
    cloud.bigquery.fail_job("query", ("invalidQuery", "table is locked"))
    with pytest.raises(WarehouseError, match="green 2024-01: invalidQuery: table is locked"):
        warehouse.replace(GREEN, JAN, file)
    assert len(load_ids(cloud)) == 1
    assert warehouse.loads(GREEN) == {}
    warehouse.replace(GREEN, JAN, file)
    assert totals(warehouse) == [11.0]


@pytest.mark.parametrize("path", [r"/jobs\?", r"/tables\?", r"/data\?"])
def test_a_missing_permission_is_named_with_the_roles_to_grant(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path, path: str
) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    cloud.bigquery.fail(403, path=path, times=None, reason="accessDenied", message="a@b may not")
    with pytest.raises(
        WarehouseError, match=rf"green 2024-01 in BigQuery: .*a@b may not; grant {ROLES} {cloud.dataset}"
    ):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))


# Declarations that change.


TIP = Column("new_fee", pa.float64(), doc="A new fee.", unit="USD")


def test_a_new_column_is_added_and_existing_rows_stay(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    changed = [
        dataclasses.replace(DATASETS[name], columns=(*DATASETS[name].columns, TIP)) for name in ("green", "yellow")
    ]
    later = with_datasets(cloud, tmp_path, *changed)
    later.replace(changed[0], FEB, trips(tmp_path, changed[0], FEB, [20.0], new_fee=[0.5]))
    assert set(later.loads(GREEN)) == {JAN, FEB}
    for table in ("green", "trips"):
        rows = later.query(f"SELECT month, total_amount, new_fee FROM {table} ORDER BY month").to_pylist()
        assert [tuple(row.values()) for row in rows] == [(JAN, 10.0, None), (FEB, 20.0, 0.5)]
    fields = bigquery_client(PROJECT, "EU").get_table(f"{cloud.dataset}.green").schema
    assert (fields[-1].name, fields[-1].description) == ("new_fee", "A new fee. Unit: USD.")
    # An older declaration, on another machine, does not remove the column.
    warehouse.replace(GREEN, MAR, trips(tmp_path, GREEN, MAR, [30.0]))
    rows = later.query("SELECT new_fee FROM green ORDER BY month").to_pylist()
    assert [row["new_fee"] for row in rows] == [None, 0.5, None]


def test_a_changed_type_is_an_error_that_names_table_columns_types_and_the_remedy(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    types = {"extra": pa.string(), "passenger_count": pa.float64()}
    columns = [dataclasses.replace(column, type=types.get(column.name, column.type)) for column in GREEN.columns]
    changed = dataclasses.replace(GREEN, columns=tuple(columns))
    with pytest.raises(WarehouseError) as caught:
        with_datasets(cloud, tmp_path, changed).replace(changed, FEB, trips(tmp_path, changed, FEB, [1.0]))
    for part in (
        f"{cloud.dataset}.green",
        "extra is FLOAT in the table, declared STRING",
        "passenger_count is INTEGER in the table, declared FLOAT",
    ):
        assert part in str(caught.value)
    assert "DROP TABLE green" in str(caught.value)
    assert totals(warehouse) == [10.0]
    assert set(warehouse.loads(GREEN)) == {JAN}


def test_a_mart_with_a_new_column_keeps_its_months(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [10.0, 20.0]))
    sql = "SELECT COUNT(*) AS n{} FROM trips WHERE dataset = :dataset AND month = :month"
    warehouse.replace_mart_month(GREEN, JAN, [Mart("counted", "Trips.", sql.format(""), ("green",))])
    wider = Mart("counted", "Trips and money.", sql.format(", SUM(total_amount) AS total"), ("green",))
    assert warehouse.replace_mart_month(GREEN, FEB, [wider]) == {"counted": 1}
    rows = warehouse.query("SELECT month, n, total FROM counted ORDER BY month").to_pylist()
    assert [tuple(row.values()) for row in rows] == [(JAN, 2, None), (FEB, 2, 30.0)]
    changed = Mart("counted", "Trips.", sql.replace("COUNT(*)", "CAST(COUNT(*) AS TEXT)").format(""), ("green",))
    with pytest.raises(
        WarehouseError, match=r"counted: n is INTEGER in the table, declared STRING.*DROP TABLE counted"
    ):
        warehouse.replace_mart_month(GREEN, JAN, [changed])
    tables = [item.table_id for item in bigquery_client(PROJECT, "EU").list_tables(cloud.dataset)]
    assert [name for name in tables if name.startswith("draft")] == []


def test_the_columns_of_a_mart_have_descriptions_and_new_words_replace_them(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0, 20.0]))
    client = bigquery_client(PROJECT, "EU")
    for doc in ("All trips.", "All trips of the month."):
        counted = Mart("counted", "Trips.", f"-- {doc}\nSELECT COUNT(*) AS n FROM green", ("green",), {"n": doc})
        assert warehouse.replace_mart_month(GREEN, JAN, [counted]) == {"counted": 1}
        assert client.get_table(f"{cloud.dataset}.counted").schema[-1].description == doc


def test_a_mart_whose_worker_died_before_its_columns_were_described_is_completed_by_the_next(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0, 20.0]))
    counted = Mart("counted", "Trips.", "SELECT COUNT(*) AS n FROM green", ("green",), {"n": "All trips."})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Tables, "_describe", die)
        warehouse.replace_mart_month(GREEN, JAN, [counted])
    client = bigquery_client(PROJECT, "EU")
    assert client.get_table(f"{cloud.dataset}.counted").schema[-1].description is None
    assert warehouse.mart_months(GREEN) == {}
    cloud.clear()
    assert warehouse.replace_mart_month(GREEN, JAN, [counted]) == {"counted": 1}
    assert client.get_table(f"{cloud.dataset}.counted").schema[-1].description == "All trips."
    assert not [one for one in cloud.bigquery.requests if "draft_" in f"{one.path} {one.body}"], "not built again"


# Reading the ledger, and queries.


def test_the_ledger_is_read_in_at_most_three_requests_for_any_number_of_months(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_at_work", None)
    counts = []
    for month in (JAN, FEB, MAR):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [10.0]))
        warehouse.replace_mart_month(GREEN, month, marts_of("green"))
        for ask in (warehouse.loads, lambda _: warehouse.loads(ZONES).get(None), warehouse.mart_months):
            planning.step_begins()  # otherwise the ledger is cached for some seconds
            cloud.clear()
            ask(GREEN)
            counts.append(len(cloud.bigquery.requests))
            assert {one.method for one in cloud.bigquery.requests} == {"GET"}, "only requests that are free of charge"
    assert max(counts) <= 3, counts
    assert len(set(counts)) == 1, counts


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM green WHERE TRUE",
        "CREATE TABLE other AS SELECT 1 AS one",
        "SELECT 1 AS one; DROP TABLE green",
        "SELECT 1 AS one; SELECT 2 AS two",
        "EXPORT DATA OPTIONS (uri = 'gs://b/*', format = 'CSV') AS SELECT 1",
        "CALL some_procedure()",
        "BEGIN SELECT 1; END",
        "",
        "SELECT FROM WHERE",
    ],
)
def test_a_query_that_does_more_than_read_is_not_sent(cloud: Cloud, warehouse: Warehouse, sql: str) -> None:
    with pytest.raises((UsageError, WarehouseError), match=r"^query: "):
        warehouse.query(sql)
    assert cloud.bigquery.requests == []


def test_a_query_has_the_dataset_as_its_default_and_returns_times_without_a_zone(
    cloud: Cloud, warehouse: Warehouse, tmp_path: Path
) -> None:
    pickup = datetime(2024, 1, 31, 23, 59, 59, 123456)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0], pickup_datetime=[pickup]))
    cloud.clear()
    for select in (
        "SELECT pickup_datetime FROM green",
        "WITH all_of AS (SELECT * FROM trips) SELECT pickup_datetime FROM all_of",
    ):
        table = warehouse.query(select)
        assert table.schema.field("pickup_datetime").type == pa.timestamp("us")
        assert table.to_pylist() == [{"pickup_datetime": pickup}]
    first, _ = jobs(cloud, "query")
    query = first["configuration"]["query"]
    assert query["defaultDataset"] == {"projectId": PROJECT, "datasetId": cloud.dataset}
    assert query["useLegacySql"] is False
    assert warehouse.query("SELECT loaded_at FROM loads").schema.field(0).type == pa.timestamp("us", tz="UTC")


# External tables.


def test_external_tables_read_the_lake_s_files_and_are_created_once(cloud: Cloud, warehouse: Warehouse) -> None:
    assert not warehouse.exposed(cloud.lake)
    names = warehouse.expose(cloud.lake)
    assert names == [*(f"{name}_lake" for name in DATASETS), "zones_lake"]
    made = {_table_id(one.body): one.body for one in cloud.bigquery.seen("POST", r"/tables\?")}
    assert set(made) == set(names)
    configuration = made["green_lake"]["externalDataConfiguration"]
    fields = configuration.pop("schema")["fields"]
    assert [field["name"] for field in fields] == list(GREEN.by_name)
    assert {field["name"]: field["type"] for field in fields}["pickup_datetime"] == "DATETIME"
    assert configuration == {
        "sourceFormat": "PARQUET",
        "sourceUris": [f"{cloud.lake}/trips/green/*"],
        "hivePartitioningOptions": {
            "mode": "CUSTOM",
            "sourceUriPrefix": f"{cloud.lake}/trips/green/{{month:DATE}}",
        },
    }
    zones_lake = made["zones_lake"]["externalDataConfiguration"]
    assert zones_lake["sourceUris"] == [f"{cloud.lake}/zones/*.parquet"]
    assert "hivePartitioningOptions" not in zones_lake
    assert made["green_lake"]["description"].startswith(GREEN.doc)
    assert warehouse.exposed(cloud.lake)
    cloud.clear()
    assert warehouse.expose(cloud.lake) == names
    assert [one.method for one in cloud.bigquery.requests] == ["GET"]


def test_external_tables_are_replaced_for_another_lake(cloud: Cloud, warehouse: Warehouse) -> None:
    warehouse.expose(cloud.lake)
    assert not warehouse.exposed(f"{cloud.lake}/other")
    warehouse.expose(f"{cloud.lake}/other")
    assert warehouse.exposed(f"{cloud.lake}/other")
    table = bigquery_client(PROJECT, "EU").get_table(f"{cloud.dataset}.green_lake")
    assert table.external_data_configuration.source_uris == [f"{cloud.lake}/other/trips/green/*"]


# Files, lakes and URLs that are not supported.


def test_a_file_outside_cloud_storage_is_an_error(cloud: Cloud, tmp_path: Path) -> None:
    file = trips(tmp_path, GREEN, JAN, [10.0])
    with pytest.raises(WarehouseError, match=rf"green 2024-01: .*gs:// lake only, not from {file.path}"):
        open_warehouse(cloud.warehouse).replace(GREEN, JAN, file)
    assert cloud.bigquery.requests == []


def test_external_tables_over_a_local_folder_are_an_error(cloud: Cloud, warehouse: Warehouse, tmp_path: Path) -> None:
    for ask in (warehouse.expose, warehouse.exposed):
        with pytest.raises(WarehouseError, match=rf"external tables: .*gs:// lake only, not {tmp_path}"):
            ask(str(tmp_path))
    assert cloud.bigquery.requests == []


@pytest.mark.parametrize(
    ("url", "tables"),
    [
        ("bigquery://my-project/taxi", Tables("my-project", "taxi")),
        (
            "bigquery://example.com:my-project/taxi?location=europe-west1",
            Tables("example.com:my-project", "taxi", "europe-west1"),
        ),
        (
            "bigquery://p1/taxi_2?location=EU&expiration_days=7&label.team=data&label.env=",
            Tables("p1", "taxi_2", "EU", 7, {"team": "data", "env": ""}),
        ),
        ("bigquery://my-project/taxi?load=staged", Tables("my-project", "taxi", staged=True)),
    ],
)
def test_a_url_is_parsed_into_a_target(url: str, tables: Tables) -> None:
    assert parse_url(url) == tables


@pytest.mark.parametrize(
    "url",
    [
        "bigquery://",
        "bigquery://project",
        "bigquery://project/",
        "bigquery://project/data-set",
        "bigquery://project/dataset/table",
        "bigquery://Project/dataset",
        "bigquery://project/dataset?location=",
        "bigquery://project/dataset?expiration_days=0",
        "bigquery://project/dataset?expiration_days=-1",
        "bigquery://project/dataset?expiration_days=1.5",
        "bigquery://project/dataset?expiration_days=",
        "bigquery://project/dataset?locaton=EU",
        "bigquery://project/dataset?location=EU&location=US",
        "bigquery://project/dataset?label.Team=data",
        "bigquery://project/dataset?label.=data",
        "bigquery://project/dataset?load=",
    ],
)
def test_an_invalid_url_is_an_error_with_the_allowed_urls(url: str) -> None:
    with pytest.raises(UsageError, match=r"bigquery://project/dataset\?location=US"):
        open_warehouse(url)
