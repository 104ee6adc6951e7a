"""The emulators and gateways for tests: emulators clean up, requests are recorded, faults are exact."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from bigquery_shim import BigQueryGateway
from emulators import BigQueryEmulator, GcsEmulator, gcs_emulator
from gateway import Gateway
from gcs_shim import GcsGateway
from google.api_core.exceptions import BadRequest, Conflict, Forbidden, GoogleAPICallError, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery as bq
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

#: Large enough that the client uploads it in chunks by default.
CONTENT = os.urandom(64) * 140_000
CHUNK = 4 << 20
QUICK = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{uuid4().hex}"


# The emulators themselves.


def test_an_emulator_leaves_no_process_and_no_file_and_sets_no_variable() -> None:
    before = dict(os.environ)
    with gcs_emulator() as emulator:
        assert requests.get(f"{emulator.url}/storage/v1/b", timeout=10).status_code == 200
        processes = psutil.Process().children(recursive=True)
        assert dict(os.environ) == before
    assert not emulator.root.exists()
    assert not any(process.is_running() for process in processes if str(emulator.root) in _command(process))


def test_an_emulator_ends_with_its_parent_even_if_the_parent_is_killed() -> None:
    script = "import emulators, time\nwith emulators.gcs_emulator() as e:\n print(e.root, flush=True)\n time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        root = Path(parent.stdout.readline().strip())
        children = psutil.Process(parent.pid).children(recursive=True)
        assert any(str(root) in _command(child) for child in children)
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not root.exists()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


# The gateway, with Cloud Storage behind it.


@pytest.fixture
def gateway(gcs: GcsEmulator, name: str) -> Iterator[Gateway]:
    gcs.make_bucket(name)
    with GcsGateway(gcs.url) as gateway:
        yield gateway


@pytest.fixture
def bucket(gateway: Gateway, name: str) -> Iterator[Any]:
    client = storage.Client("p", AnonymousCredentials(), client_options={"api_endpoint": gateway.url})
    yield client.bucket(name)
    client.close()


def upload(bucket: Any, **options: Any) -> Any:
    blob = bucket.blob("a/b c", chunk_size=CHUNK)
    blob.upload_from_file(io.BytesIO(CONTENT), size=len(CONTENT), checksum="crc32c", retry=QUICK, **options)
    return blob


def test_a_request_is_recorded_with_its_query_body_and_status(gateway: Gateway, bucket: Any) -> None:
    blob = upload(bucket, if_generation_match=0, content_type="text/plain")
    start, *_, last = [one for one in gateway.requests if one.path.startswith("/upload/")]
    assert (start.method, start.path, start.status) == ("POST", f"/upload/storage/v1/b/{bucket.name}/o", 200)
    assert start.query == {"uploadType": "resumable", "ifGenerationMatch": "0"}
    assert start.body == {"name": "a/b c"}
    assert start.headers["x-upload-content-type"] == "text/plain"
    assert last.method == "PUT"
    assert last.headers["content-range"] == f"bytes {2 * CHUNK}-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert last.body_bytes == len(CONTENT) - 2 * CHUNK
    assert blob.self_link.startswith(gateway.url)
    assert bucket.blob("a/b c").download_as_bytes(retry=QUICK) == CONTENT
    assert gateway.seen("GET", "a/b c.*alt=media")
    gateway.clear()
    assert gateway.requests == []


@pytest.mark.parametrize("status", [503, 429])
def test_an_ordered_status_is_answered_as_often_as_ordered_and_does_not_reach_the_emulator(
    gateway: Gateway, bucket: Any, status: int
) -> None:
    gateway.fail(status, path="prefix=x", times=2, retry_after=1)
    answers = [requests.get(f"{gateway.url}/storage/v1/b/{bucket.name}/o?prefix=x", timeout=10) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].headers["Retry-After"] == "1"
    assert [one.fault for one in gateway.requests] == ["fail", "fail", None]


def test_the_client_recognizes_an_ordered_error_as_google_s(gateway: Gateway, bucket: Any) -> None:
    gateway.fail(403, path="/o", reason="forbidden", message="no storage.objects.list")
    with pytest.raises(Forbidden, match=r"no storage\.objects\.list") as caught:
        list(bucket.client.list_blobs(bucket))
    assert caught.value.errors[0]["reason"] == "forbidden"


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_an_upload_that_is_cut_in_any_chunk_can_be_resumed(gateway: Gateway, bucket: Any, skip: int) -> None:
    gateway.cut_upload(1000, method="PUT", skip=skip)
    upload(bucket, if_generation_match=0)
    (cut,) = [one for one in gateway.requests if one.fault == "cut_upload"]
    assert (cut.body_bytes, cut.status) == (1000, 0)
    assert bucket.blob("a/b c").download_as_bytes() == CONTENT


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_a_chunk_whose_answer_was_lost_is_not_stored_twice(gateway: Gateway, bucket: Any, skip: int) -> None:
    gateway.lose_answer(method="PUT", skip=skip)
    upload(bucket, if_generation_match=0)
    assert [one.fault for one in gateway.seen("PUT")].count("lose_answer") == 1
    assert bucket.blob("a/b c").download_as_bytes() == CONTENT


def test_a_download_that_is_cut_is_resumed(gateway: Gateway, bucket: Any) -> None:
    upload(bucket)
    gateway.clear()
    gateway.cut_download(100_000, path="alt=media")
    assert bucket.blob("a/b c").download_as_bytes(retry=QUICK) == CONTENT
    assert [one.status for one in gateway.requests] == [200, 206]


def test_only_one_of_two_concurrent_resumable_uploads_succeeds(gateway: Gateway, bucket: Any) -> None:
    start = f"{gateway.url}/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&ifGenerationMatch=0"
    sessions = [requests.post(start, json={"name": "x"}, timeout=10).headers["Location"] for _ in range(2)]
    assert all(session.startswith(gateway.url) for session in sessions)
    answers = [
        requests.put(session, data=b"12", headers={"Content-Range": "bytes 0-1/2"}, timeout=10) for session in sessions
    ]
    assert [answer.status_code for answer in answers] == [200, 412]
    with pytest.raises(PreconditionFailed):
        bucket.blob("x").delete(if_generation_match=1)
    assert bucket.blob("x").exists()


def test_a_request_on_hold_waits_until_it_is_released(gateway: Gateway, bucket: Any) -> None:
    held = gateway.hold(method="GET")
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(bucket.exists)
        assert held.reached.wait(10)
        assert not asking.done()
        held.released.set()
        assert asking.result()


def test_a_gateway_stops_while_a_request_is_on_hold(gcs: GcsEmulator) -> None:
    with GcsGateway(gcs.url) as gateway:
        held = gateway.hold()
        with ThreadPoolExecutor() as threads:
            asking = threads.submit(requests.get, gateway.url, timeout=30)
            assert held.reached.wait(10)
            gateway.stop()
            with pytest.raises(requests.ConnectionError):
                asking.result()


# BigQuery.

F = bq.SchemaField
SCHEMA = [F("vendor_id", "INT64", description="who"), F("fare_amount", "FLOAT64"), F("month", "DATE")]


@pytest.fixture
def service(bigquery: BigQueryEmulator) -> Iterator[BigQueryGateway]:
    with BigQueryGateway(bigquery) as service:
        yield service


@pytest.fixture
def client(service: BigQueryGateway, gcs: GcsEmulator, name: str) -> Iterator[bq.Client]:
    """A client whose project has a dataset `taxi` with a partitioned table `green`; a bucket of the project's name."""
    gcs.make_bucket(name)
    options = {"api_endpoint": service.url}
    client = bq.Client(name, AnonymousCredentials(), location="europe-west1", client_options=options)
    client.create_dataset("taxi")
    table = bq.Table(f"{name}.taxi.green", SCHEMA)
    table.time_partitioning = bq.TimePartitioning("MONTH", "month")
    client.create_table(table)
    service.clear()
    yield client
    client.close()


def put(gcs: GcsEmulator, client: bq.Client, month: str, columns: dict[str, list[Any]] | bytes) -> str:
    """Write a month into the lake; returns its URI."""
    key = f"lake/trips/green/month={month}-01/green.parquet"
    file = gcs.root / client.project / key
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(columns, bytes):
        file.write_bytes(columns)
    else:
        pq.write_table(pa.table(columns), file)
    return f"gs://{client.project}/{key}"


def hive_partitioning(prefix: str) -> Any:
    options = bq.HivePartitioningOptions()
    options.mode = "CUSTOM"
    options.source_uri_prefix = f"{prefix}/{{month:DATE}}"
    return options


def load(client: bq.Client, uri: str, month: str, **options: Any) -> Any:
    config = bq.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    config.hive_partitioning = hive_partitioning(f"gs://{client.project}/lake/trips/green")
    return client.load_table_from_uri(uri, f"taxi.green${month.replace('-', '')}", job_config=config, **options)


def rows(client: bq.Client, sql: str = "SELECT * FROM taxi.green ORDER BY ALL") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in client.query(sql.replace("ORDER BY ALL", "ORDER BY 1, 2, 3")).result()]


def test_a_load_replaces_only_the_month_of_its_partition_decorator(client: bq.Client, gcs: GcsEmulator) -> None:
    load(client, put(gcs, client, "2024-01", {"vendor_id": [1, 2], "fare_amount": [1.5, 2.5]}), "2024-01").result()
    load(client, put(gcs, client, "2024-02", {"vendor_id": [9], "fare_amount": [9.5]}), "2024-02").result()
    # Columns are matched by name, and the table may have more columns.
    job = load(client, put(gcs, client, "2024-01", {"fare_amount": [7.5], "vendor_id": [7]}), "2024-01")
    assert job.state == "RUNNING"
    assert job.result().output_rows == 1
    assert rows(client) == [(7, 7.5, date(2024, 1, 1)), (9, 9.5, date(2024, 2, 1))]
    done = client.get_job(job.job_id)
    assert (done.state, done.destination.table_id, done.location) == ("DONE", "green$202401", "europe-west1")
    assert client.get_table("taxi.green").num_rows == 2


def test_a_schema_with_the_key_of_the_path_is_an_error_and_without_a_schema_times_are_timestamps(
    client: bq.Client, gcs: GcsEmulator
) -> None:
    uri = put(gcs, client, "2024-01", {"vendor_id": [1], "pickup_datetime": [datetime(2024, 1, 2, 3)]})
    config = bq.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    config.hive_partitioning = hive_partitioning(f"gs://{client.project}/lake/trips/green")
    for names in (["vendor_id", "month"], ["month"]):
        config.schema = [bq.SchemaField(name, {"month": "DATE"}.get(name, "INTEGER")) for name in names]
        with pytest.raises(BadRequest, match=r"names the partition keys \['month'\]"):
            client.load_table_from_uri(uri, "taxi.green$202401", job_config=config).result()
    for schema, expected in (([], "TIMESTAMP"), ([bq.SchemaField("pickup_datetime", "DATETIME")], "DATETIME")):
        config.schema = [bq.SchemaField("vendor_id", "INTEGER"), *schema] if schema else []
        name = f"{client.project}.taxi.times_{expected.lower()}"
        client.load_table_from_uri(uri, name, job_config=config).result()
        types = {field.name: field.field_type for field in client.get_table(name).schema}
        assert types["pickup_datetime"] == expected


@pytest.mark.parametrize(
    ("content", "month", "message"),
    [
        (b"PAR1 no parquet PAR1", "2024-01", "Error while reading data"),
        ({"vendor_id": [1], "fare_amount": [1.5]}, "2024-03", "different partitions"),
        ({"vendor_id": ["1"], "fare_amount": [1.5]}, "2024-01", "vendor_id has changed type from INT64 to STRING"),
        ({"vendor_id": [1], "tip": [1.5]}, "2024-01", r"Cannot add fields \(field: tip\)"),
    ],
)
def test_a_failed_load_does_not_change_the_table(
    client: bq.Client, gcs: GcsEmulator, content: Any, month: str, message: str
) -> None:
    load(client, put(gcs, client, "2024-01", {"vendor_id": [1], "fare_amount": [1.5]}), "2024-01").result()
    job = load(client, put(gcs, client, "2024-01", content), month)
    with pytest.raises(BadRequest, match=message):
        job.result()
    assert rows(client) == [(1, 1.5, date(2024, 1, 1))]
    assert client.get_job(job.job_id).error_result["reason"] == "invalid"


def test_readers_see_the_old_month_or_the_new_one(client: bq.Client, gcs: GcsEmulator) -> None:
    uri = put(gcs, client, "2024-01", {"vendor_id": list(range(2000)), "fare_amount": [1.0] * 2000})
    load(client, uri, "2024-01").result()
    seen = set()
    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(lambda: load(client, uri, "2024-01").result().output_rows) for _ in range(4)]
        while not all(each.done() for each in loads):
            seen.add(rows(client, "SELECT COUNT(*), MIN(month), MAX(month) FROM taxi.green")[0])
    assert [each.result() for each in loads] == [2000] * 4
    assert seen == {(2000, date(2024, 1, 1), date(2024, 1, 1))}


def test_a_missing_file_or_dataset_is_not_found(client: bq.Client) -> None:
    with pytest.raises(NotFound, match="Not found: URI gs://"):
        load(client, f"gs://{client.project}/lake/trips/green/month=2024-01-01/none.parquet", "2024-01").result()
    with pytest.raises(NotFound, match="nope"):
        list(client.list_tables("nope"))


def test_a_job_id_is_used_once_even_if_the_answer_was_lost(
    service: BigQueryGateway, client: bq.Client, gcs: GcsEmulator
) -> None:
    uri = put(gcs, client, "2024-01", {"vendor_id": [1], "fare_amount": [1.5]})
    service.lose_answer(method="POST", path="/jobs")
    with pytest.raises(Conflict, match="Already Exists: Job"):
        load(client, uri, "2024-01", job_id="load-1")
    assert [one.status for one in service.seen("POST", "/jobs")] == [200, 409]
    assert client.get_job("load-1").output_rows == 1
    with pytest.raises(Conflict):
        client.query("SELECT 1", job_id="load-1", job_retry=None)
    with pytest.raises(NotFound):  # its location is not the United States
        client.get_job("load-1", location="US")


def test_a_job_fails_with_the_errors_that_are_ordered(
    service: BigQueryGateway, client: bq.Client, gcs: GcsEmulator
) -> None:
    uri = put(gcs, client, "2024-01", {"vendor_id": [1], "fare_amount": [1.5]})
    service.fail_job("load", ("rateLimitExceeded", "too many"), ("stopped", "therefore"))
    job = load(client, uri, "2024-01")
    with pytest.raises(GoogleAPICallError, match="too many"):
        job.result(retry=None)
    assert [error["reason"] for error in job.errors] == ["rateLimitExceeded", "stopped"]
    load(client, uri, "2024-01").result()
    assert rows(client) == [(1, 1.5, date(2024, 1, 1))]


def test_columns_are_added_by_patch_and_not_changed(client: bq.Client, gcs: GcsEmulator) -> None:
    load(client, put(gcs, client, "2024-01", {"vendor_id": [1], "fare_amount": [1.5]}), "2024-01").result()
    table = client.get_table("taxi.green")
    table.schema = [*table.schema, F("tip", "FLOAT64", description="extra")]
    client.update_table(table, ["schema"])
    load(client, put(gcs, client, "2024-02", {"tip": [0.5], "vendor_id": [2]}), "2024-02").result()
    assert rows(client) == [(1, 1.5, date(2024, 1, 1), None), (2, None, date(2024, 2, 1), 0.5)]
    assert [field.description for field in client.get_table("taxi.green").schema] == ["who", None, None, "extra"]
    table.schema = [F("vendor_id", "STRING"), *table.schema[1:]]
    with pytest.raises(BadRequest, match="changed type from INT64 to STRING"):
        client.update_table(table, ["schema"])


def test_a_view_is_created_once_however_many_ask_at_once(service: BigQueryGateway, client: bq.Client) -> None:
    view = bq.Table(f"{client.project}.taxi.numbers")
    view.view_query = "SELECT 1 AS n"
    with ThreadPoolExecutor(8) as threads:
        views = list(threads.map(lambda _: client.create_table(view, exists_ok=True), range(8)))
    assert {each.view_query for each in views} == {view.view_query}
    assert sorted(one.status for one in service.seen("POST", "/tables")) == [200] + [409] * 7


def test_views_external_tables_and_labels_are_returned_as_they_were_created(client: bq.Client) -> None:
    view = bq.Table(f"{client.project}.taxi.trips")
    view.view_query = f"SELECT 'green' AS dataset, green.* FROM `{client.project}.taxi.green` AS green"
    view.labels = {"made_by": "test"}
    client.create_table(view)
    external = bq.Table(f"{client.project}.taxi.green_lake")
    configuration = bq.ExternalConfig("PARQUET")
    configuration.source_uris = ["gs://lake/trips/green/*"]
    configuration.hive_partitioning = hive_partitioning("gs://lake/trips/green")
    external.external_data_configuration = configuration
    client.create_table(external)
    client.query(
        "CREATE TABLE taxi.daily PARTITION BY DATE_TRUNC(month, MONTH) OPTIONS (labels = [('a', 'b')]) AS "
        "SELECT month, COUNT(*) AS trips FROM taxi.green WHERE FALSE GROUP BY month"
    ).result()

    assert client.get_table("taxi.trips").view_query == view.view_query
    assert [field.name for field in client.get_table("taxi.trips").schema] == [
        "dataset",
        "vendor_id",
        "fare_amount",
        "month",
    ]
    table = client.get_table("taxi.green_lake")
    assert table.table_type == "EXTERNAL"
    assert table.external_data_configuration.to_api_repr() == configuration.to_api_repr()
    assert {item.table_id: (item.table_type, item.labels) for item in client.list_tables("taxi")} == {
        "green": ("TABLE", {}),
        "trips": ("VIEW", {"made_by": "test"}),
        "green_lake": ("EXTERNAL", {}),
        "daily": ("TABLE", {"a": "b"}),
    }
    client.delete_table("taxi.trips")
    assert client.get_table("taxi.daily").time_partitioning.type_ == "MONTH"


def test_a_transaction_whose_statement_fails_changes_nothing(client: bq.Client) -> None:
    client.query("INSERT INTO taxi.green VALUES (1, 1.5, DATE '2024-01-01')").result()
    statements = ["DELETE FROM taxi.green WHERE TRUE", "INSERT INTO taxi.green SELECT CAST('no' AS INT64), 1.0, NULL"]
    script = "; ".join(["BEGIN TRANSACTION", *statements, "COMMIT TRANSACTION;"])
    with pytest.raises(BadRequest):
        client.query(script, job_retry=None).result()
    assert rows(client) == [(1, 1.5, date(2024, 1, 1))]
