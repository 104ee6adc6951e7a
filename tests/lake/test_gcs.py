"""A lake in Cloud Storage: its requests, and failures of the network, the service or another writer.

The contract of every store is in test_store_contract.py.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import random
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from cloud import Cloud
from emulators import GcsEmulator
from google.cloud.storage import retry as library_retry

from pipeline.datasets import DATASETS
from pipeline.errors import ConcurrentWriteError, StoreError, UsageError
from pipeline.lake import Store, gcs, google_cloud, open_store, planning, raw_key, trips_key
from pipeline.months import add_months, parse_month

GREEN = DATASETS["green"]
KEY = trips_key(GREEN, parse_month("2024-01"))
CHUNK = 256 << 10
#: More than the library sends in a single request.
LARGE = random.Random(3).randbytes((8 << 20) + 3 * CHUNK + 17)
ATTEMPTS = 3


#: The library does not read some responses, and leaves their connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _garbage_is_collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own retries, with shorter pauses."""
    quick = library_retry.DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(library_retry, "DEFAULT_RETRY", quick)


@pytest.fixture
def store(cloud: Cloud, tmp_path: Path) -> Store:
    return open_store(cloud.lake, str(tmp_path / "scratch"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_CHUNK_BYTES", CHUNK)


def publish(store: Store, content: bytes, key: str = KEY, **metadata: str) -> None:
    with store.publish(key, metadata) as draft:
        draft.write_bytes(content)


def content_of(store: Store, key: str = KEY) -> bytes:
    with store.entry(key).open_local() as path:
        return path.read_bytes()


def scratch(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "scratch").rglob("*")]


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


# Requests.


def test_a_small_file_is_uploaded_in_one_request_with_a_precondition(cloud: Cloud, store: Store) -> None:
    publish(store, b"{}", "checks/green/2024-01.json", dataset="green")
    lookup, upload = cloud.gcs.requests
    assert (lookup.method, lookup.path) == (
        "GET",
        f"/storage/v1/b/{cloud.bucket}/o/some/lake/checks/green/2024-01.json",
    )
    assert (upload.method, upload.path) == ("POST", f"/upload/storage/v1/b/{cloud.bucket}/o")
    assert upload.query == {"uploadType": "multipart", "ifGenerationMatch": "0"}
    generation = store_blob(cloud, "checks/green/2024-01.json").generation
    cloud.clear()
    publish(store, b"{1}", "checks/green/2024-01.json", dataset="green")
    assert cloud.gcs.requests[-1].query == {"uploadType": "multipart", "ifGenerationMatch": str(generation)}


@pytest.mark.usefixtures("small_chunks")
def test_a_large_file_is_uploaded_in_chunks_with_its_metadata_and_its_checksum(cloud: Cloud, store: Store) -> None:
    publish(store, LARGE, dataset="green", month="2024-01")
    start, *chunks = cloud.gcs.seen(path="^/upload/")
    assert (start.method, start.path) == ("POST", f"/upload/storage/v1/b/{cloud.bucket}/o")
    assert start.query == {"uploadType": "resumable", "ifGenerationMatch": "0"}
    assert start.body == {"name": f"some/lake/{KEY}", "metadata": {"dataset": "green", "month": "2024-01"}}
    assert start.headers["x-upload-content-type"] == "application/vnd.apache.parquet"
    assert start.headers["x-upload-content-length"] == str(len(LARGE))
    starts = range(0, len(LARGE), CHUNK)
    assert [chunk.headers["content-range"] for chunk in chunks] == [
        f"bytes {first}-{min(first + CHUNK, len(LARGE)) - 1}/{len(LARGE)}" for first in starts
    ]
    assert {chunk.method for chunk in chunks} == {"PUT"}
    assert chunks[-1].headers["x-goog-hash"] == f"crc32c={crc32c(LARGE)}"
    assert store_blob(cloud, KEY).crc32c == crc32c(LARGE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (KEY, "application/vnd.apache.parquet"),
        ("checks/green/2024-01.json", "application/json"),
        ("raw/zones/taxi_zone_lookup.csv", "text/csv"),
        ("raw/yellow/yellow_tripdata_2009-01.csv.gz", "application/octet-stream"),
    ],
)
def test_an_object_has_its_content_type_and_metadata(cloud: Cloud, store: Store, name: str, kind: str) -> None:
    publish(store, b"rows", name, dataset="green", month="2024-01", source_sha256="5" * 64)
    blob = store_blob(cloud, name)
    assert blob.content_type == kind
    assert blob.metadata == {"dataset": "green", "month": "2024-01", "source_sha256": "5" * 64}


def test_the_bucket_itself_is_not_requested(cloud: Cloud, store: Store) -> None:
    publish(store, b"rows")
    assert content_of(store) == b"rows"
    assert set(store.entries("trips/")) == {KEY}
    assert cloud.gcs.seen(path=rf"^/storage/v1/b/{cloud.bucket}(\?|$)") == []
    # The library would send the request in another thread, perhaps after this line.
    assert os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] == "true"


def store_blob(cloud: Cloud, key: str) -> Any:
    blob = google_cloud.storage_client().bucket(cloud.bucket).get_blob(f"some/lake/{key}")
    assert blob is not None
    return blob


# Listings.


def test_a_plan_uses_one_listing_for_all_months_and_a_step_asks_again(
    cloud: Cloud, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_at_work", None)
    months = [add_months(parse_month("2009-01"), number) for number in range(570)]
    publish(store, b"rows")
    cloud.clear()
    existing = [month for month in months if store.exists(trips_key(GREEN, month))]
    assert existing == [parse_month("2024-01")]
    (listing,) = cloud.gcs.requests
    assert listing.query["maxResults"] == "1000"
    assert (listing.path, listing.query["prefix"]) == (f"/storage/v1/b/{cloud.bucket}/o", "some/lake/trips/green/")
    open_store(cloud.lake, "elsewhere").delete(KEY)
    assert store.exists(KEY), "a plan uses the listing"
    planning.step_begins()
    assert not store.exists(KEY)
    assert cloud.gcs.requests[-1].path == f"/storage/v1/b/{cloud.bucket}/o/some/lake/{KEY}"


def test_a_listing_reads_every_page(cloud: Cloud, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {f"checks/green/2024-{month:02}.json" for month in range(1, 6)}
    for key in keys:
        publish(store, b"{}", key)
    cloud.clear()
    monkeypatch.setattr(gcs, "_PAGE", 2)
    assert set(store.entries("checks/green/")) == keys
    assert ["pageToken" in one.query for one in cloud.gcs.requests] == [False, True, True]


# Temporary failures.


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.usefixtures("small_chunks")
def test_a_service_that_is_busy_for_a_while_is_retried(cloud: Cloud, store: Store, status: int) -> None:
    for method, path in (("GET", "/o/some"), ("POST", "^/upload"), ("PUT", "^/upload"), ("GET", "alt=media")):
        cloud.gcs.fail(status, method=method, path=path, times=ATTEMPTS)
    cloud.gcs.fail(status, path="prefix=", times=ATTEMPTS)
    cloud.gcs.fail(status, method="DELETE", times=ATTEMPTS)
    publish(store, LARGE)
    assert content_of(store) == LARGE
    assert set(store.entries("trips/")) == {KEY}
    store.delete(KEY)
    assert not store.exists(KEY)
    assert len([one for one in cloud.gcs.requests if one.fault]) == 6 * ATTEMPTS


OPERATIONS = {
    "exists": lambda store: store.exists("x"),
    "entries": lambda store: store.entries("trips/"),
    "delete": lambda store: store.delete("x"),
    "entry": lambda store: store.entry(KEY),
    "publish": lambda store: publish(store, b"new"),
    "download": content_of,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_unavailable_service_is_one_clear_error_after_the_deadline(
    cloud: Cloud, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    publish(store, b"rows")
    monkeypatch.setattr(gcs, "_DEADLINE_S", 0.3)
    path = {"publish": "^/upload", "download": "alt=media"}.get(operation, "")
    cloud.gcs.fail(503, path=path, times=None, message="come back later")
    with pytest.raises(StoreError, match=f"in {cloud.lake}: .*come back later.*; run again") as caught:
        OPERATIONS[operation](store)
    assert "\n" not in str(caught.value)
    assert len([one for one in cloud.gcs.requests if one.status == 503]) > 2
    assert scratch(tmp_path) == []


@pytest.mark.parametrize("skip", [0, 1, 34])
@pytest.mark.usefixtures("small_chunks")
def test_a_cut_upload_is_resumed(cloud: Cloud, store: Store, tmp_path: Path, skip: int) -> None:
    cloud.gcs.cut_upload(70_000, method="PUT", skip=skip)
    publish(store, LARGE)
    assert [one.fault for one in cloud.gcs.requests].count("cut_upload") == 1
    assert len(cloud.gcs.seen("POST", "^/upload")) == 1, "the upload did not start again"
    assert content_of(store) == LARGE
    assert scratch(tmp_path) == []


@pytest.mark.parametrize("content", [b"rows" * 1000, LARGE], ids=["one request", "chunks"])
@pytest.mark.usefixtures("small_chunks")
def test_an_upload_whose_last_response_is_lost_has_succeeded(cloud: Cloud, store: Store, content: bytes) -> None:
    if content is LARGE:
        cloud.gcs.lose_answer(method="PUT", path="^/upload", skip=len(LARGE) // CHUNK)
    else:
        cloud.gcs.lose_answer(method="POST", path="^/upload")
    publish(store, content)
    assert [one.fault for one in cloud.gcs.requests].count("lose_answer") == 1
    if content is not LARGE:
        assert [one.status for one in cloud.gcs.seen("POST", "^/upload")] == [200, 412]
    assert content_of(store) == content


@pytest.mark.usefixtures("small_chunks")
def test_a_cut_download_is_resumed(cloud: Cloud, store: Store) -> None:
    publish(store, LARGE)
    cloud.clear()
    cloud.gcs.cut_download(100_000, path="alt=media", times=2)
    assert content_of(store) == LARGE
    assert [one.fault for one in cloud.gcs.requests].count("cut_download") == 2
    ranges = {one.headers["range"] for one in cloud.gcs.seen("GET", "alt=media")}
    assert len(ranges) == 3, ranges


@pytest.mark.usefixtures("small_chunks")
def test_a_download_with_another_checksum_is_an_error_and_nothing_is_left(
    cloud: Cloud, store: Store, gcs: GcsEmulator, tmp_path: Path
) -> None:
    publish(store, LARGE)
    with (gcs.root / cloud.bucket / "some" / "lake" / KEY).open("r+b") as file:
        file.write(b"other")
    with pytest.raises(StoreError, match=f"{KEY} in {cloud.lake}: .*(?i:checksum).*; run again") as caught:
        content_of(store)
    assert "\n" not in str(caught.value)
    assert scratch(tmp_path) == []


# Concurrent writers.


def test_of_two_writers_of_different_bytes_the_second_gets_an_error(cloud: Cloud, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConcurrentWriteError, match=f"{KEY}: another process"), store.publish(KEY) as draft:
        draft.write_bytes(b"mine")
        publish(open_store(cloud.lake, str(tmp_path / "scratch")), b"theirs")
    assert content_of(store) == b"theirs"
    with pytest.raises(ConcurrentWriteError), store.publish(KEY) as draft:
        draft.write_bytes(b"mine")
        store.delete(KEY)
    assert not store.exists(KEY)
    assert scratch(tmp_path) == []


@pytest.mark.parametrize("content", [b"same", LARGE], ids=["one request", "chunks"])
def test_two_writers_of_the_same_bytes_both_succeed(cloud: Cloud, store: Store, content: bytes) -> None:
    with store.publish(KEY) as draft:
        draft.write_bytes(content)
        publish(store, content)
    assert content_of(store) == content
    assert 412 in [one.status for one in cloud.gcs.requests]


@pytest.mark.parametrize("status", [404, 412])
def test_a_file_that_is_replaced_before_it_is_read_is_a_clear_error(cloud: Cloud, store: Store, status: int) -> None:
    publish(store, b"old")
    blob = store_blob(cloud, KEY)
    # The emulator keeps no old generations; Cloud Storage answers so unless the bucket keeps them.
    cloud.gcs.fail(status, path="alt=media", message=f"No such object: {cloud.bucket}/some/lake/{KEY}")
    with pytest.raises(StoreError, match=f"{KEY}: was deleted or replaced in {cloud.lake}; run again"):
        content_of(store)
    (read,) = cloud.gcs.seen(path="alt=media")
    assert read.query["ifGenerationMatch"] == str(blob.generation)


# Permissions, buckets and credentials.


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_permission_is_named_with_the_bucket(cloud: Cloud, store: Store, operation: str) -> None:
    publish(store, b"rows")
    path = {"publish": "^/upload", "download": "alt=media"}.get(operation, "")
    cloud.gcs.fail(403, path=path, times=None, message="a@b does not have storage.objects.get access")
    with pytest.raises(StoreError, match=rf"roles/storage\.objectUser on the bucket gs://{cloud.bucket}") as caught:
        OPERATIONS[operation](store)
    assert "a@b does not have storage.objects.get access" in str(caught.value)
    assert len([one for one in cloud.gcs.requests if one.status == 403]) == 1


@pytest.mark.parametrize("operation", ["entries", "publish"])
@pytest.mark.usefixtures("cloud")
def test_a_missing_bucket_is_an_error_with_the_command_that_makes_it(tmp_path: Path, operation: str) -> None:
    store = open_store("gs://no-such-bucket/lake", str(tmp_path))
    with pytest.raises(StoreError, match="gcloud storage buckets create gs://no-such-bucket$") as caught:
        OPERATIONS[operation](store)
    assert "\n" not in str(caught.value)


_USE_BOTH = """
import sys
from pipeline.datasets import DATASETS
from pipeline.errors import UsageError
from pipeline.lake import open_store
from pipeline.warehouses import open_warehouse
store, warehouse = open_store("gs://some-bucket/lake", sys.argv[1]), open_warehouse("bigquery://project/taxi")
for call in (lambda: store.exists("raw/green/a"), lambda: warehouse.loads(DATASETS["green"])):
    try:
        print("answered", call())
    except UsageError as error:
        print(error)
"""


def test_without_credentials_the_error_lists_three_ways_to_give_them(tmp_path: Path) -> None:
    google = ("GOOGLE_", "STORAGE_", "BIGQUERY_", "CLOUDSDK_", "GCLOUD_", "GCE_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(google)}
    # Nothing listens on this port; a request to the real address would take some seconds.
    environment |= {"HOME": str(tmp_path), "NO_GCE_CHECK": "true", "GCE_METADATA_HOST": "127.0.0.1:9"}
    command = [sys.executable, "-c", _USE_BOTH, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, lines
    for line in lines:
        for way in ("gcloud auth application-default login", "GOOGLE_APPLICATION_CREDENTIALS", "service account"):
            assert way in line
        assert "~/.google/credentials/google_credentials.json" in line
    assert done.stderr == ""


@pytest.fixture(scope="module")
def private_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without credentials, on a machine outside Google Cloud, and no cached clients."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    google_cloud._client.cache_clear()
    return tmp_path


def write_key(path: Path, private_key: str, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = {"type": "service_account", "project_id": f"project-of-{name}", "private_key_id": "1", "client_id": "1"}
    key |= {"private_key": private_key, "client_email": f"{name}@project.iam.gserviceaccount.com"}
    path.write_text(json.dumps(key | {"token_uri": "https://oauth2.invalid/token"}))
    return path


def test_the_key_file_in_the_home_is_used_unless_another_is_named(
    home: Path, private_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key(home / ".google/credentials/google_credentials.json", private_key, "default")
    client = google_cloud.storage_client()
    assert client._credentials.service_account_email.startswith("default@")
    assert client.project == "project-of-default"
    named = write_key(home / "named.json", private_key, "named")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(named))
    google_cloud._client.cache_clear()
    assert google_cloud.storage_client()._credentials.service_account_email.startswith("named@")
    google_cloud._client.cache_clear()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("content", [b"s3cret", b"\xff\xfes3cret", b'["s3cret"]', b'{"type": "s3cret"}', None])
def test_a_broken_key_file_is_named_and_not_quoted(
    home: Path, private_key: str, monkeypatch: pytest.MonkeyPatch, content: bytes | None, named: bool
) -> None:
    path = write_key(home / ".google/credentials/google_credentials.json", "no key s3cret", "s3cret")
    if content is not None:
        path.write_bytes(content)
    if named:
        path = path.rename(home / "named.json")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(UsageError, match=f"{re.escape(str(path))}.*gcloud auth application-default login") as caught:
        open_store("gs://some-bucket/lake", str(home)).entries("raw/")
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    shown = traceback.format_exception(caught.value)
    assert not [line for line in shown if "s3cret" in line and "pytest" not in line]


_FORKED = """
import os, sys
from pipeline.lake.google_cloud import bigquery_client, storage_client
mine = storage_client(), bigquery_client("p", "EU")
child = os.fork()
if child == 0:
    its = storage_client(), bigquery_client("p", "EU")
    os._exit(int(any(one is other for one, other in zip(mine, its))))
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert (storage_client(), bigquery_client("p", "EU")) == mine
sys.exit(status)
"""


@pytest.mark.usefixtures("cloud")
def test_a_client_is_reused_in_its_process_and_never_in_a_forked_one() -> None:
    # From 3.12 on Python warns when a script forks while a library has threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_key_of_the_raw_months_is_an_object_below_the_prefix(cloud: Cloud, store: Store) -> None:
    key = raw_key(GREEN, "green_tripdata_2024-01.parquet")
    publish(store, b"rows", key)
    assert store.entry(key).uri == f"gs://{cloud.bucket}/some/lake/{key}"
    assert google_cloud.storage_client().bucket(cloud.bucket).blob(f"some/lake/{key}").exists()


_AGED = """
import warnings
import pipeline.lake.google_cloud
for python in ("a non-supported Python version (3.10.13). Google …", "a Python version (3.11.7) which Google …"):
    said = f"You are using {python}"
    warnings.warn_explicit(said, FutureWarning, "script.py", 1, module="google.api_core._python_version_support")
warnings.warn_explicit("You are using a deprecated name", FutureWarning, "script.py", 1, module="google.api_core")
"""


def test_the_warning_about_old_pythons_is_suppressed() -> None:
    done = subprocess.run([sys.executable, "-c", _AGED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "script.py:1: FutureWarning: You are using a deprecated name\n"


def test_a_missing_bundle_of_certificates_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "https://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(StoreError, match="/no/such/file; set REQUESTS_CA_BUNDLE to a file"):
        open_store("gs://bucket").exists("raw/green/a")
