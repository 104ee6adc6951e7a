"""Emulators of Google Cloud for one test: its own bucket and dataset, behind gateways that record requests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from bigquery_shim import BigQueryGateway
from conftest import Folder
from emulators import BigQueryEmulator, GcsEmulator
from gcs_shim import GcsGateway

from pipeline import lake
from pipeline.datasets.base import Dataset
from pipeline.lake import Entry, Store, open_store
from pipeline.warehouses import StoredFile, Warehouse, open_warehouse

PROJECT = "test-project"
#: The environment variable with the lake of a warehouse in BigQuery, for child processes; see `warehouse_at`.
LAKE = "PIPELINE_TEST_LAKE"
_numbers = itertools.count()


@dataclass(frozen=True)
class Cloud:
    """An empty bucket, and the name of a dataset that does not exist yet."""

    gcs: GcsGateway
    bigquery: BigQueryGateway
    bucket: str
    dataset: str

    @property
    def lake(self) -> str:
        return f"gs://{self.bucket}/some/lake"

    @property
    def warehouse(self) -> str:
        return f"bigquery://{PROJECT}/{self.dataset}?location=EU"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which Google's libraries connect to the gateways."""
        return {"STORAGE_EMULATOR_HOST": self.gcs.url, "BIGQUERY_EMULATOR_HOST": self.bigquery.url, LAKE: self.lake}

    def use(self, folder: Folder) -> Folder:
        """Let the folder's commands use this cloud; the emulator supports one writing step at a time."""
        options = folder.path / "luigi.cfg"
        options.write_text(options.read_text().replace("\nbigquery = 4\n", "\nbigquery = 1\n"))
        folder.environment |= {
            **self.environment,
            "PIPELINE_LAKE": self.lake,
            "PIPELINE_WAREHOUSE": self.warehouse,
        }
        return folder

    def clear(self) -> None:
        """Forget requests and faults."""
        self.gcs.clear()
        self.bigquery.clear()


@contextmanager
def cloud_of(gcs: GcsEmulator, bigquery: BigQueryEmulator) -> Iterator[Cloud]:
    number = next(_numbers)
    with GcsGateway(gcs.url) as storage, BigQueryGateway(bigquery) as tables:
        bucket = f"taxi-{os.getpid()}-{number}"
        gcs.make_bucket(bucket)
        yield Cloud(storage, tables, bucket, f"taxi_{os.getpid()}_{number}")


@pytest.fixture
def cloud(gcs: GcsEmulator, bigquery: BigQueryEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """Google Cloud for this test and the commands that it starts."""
    with cloud_of(gcs, bigquery) as cloud:
        for name, text in cloud.environment.items():
            monkeypatch.setenv(name, text)
        yield cloud


def warehouse_at(url: str, scratch: Path, **options: Any) -> Warehouse:
    """The warehouse at the URL; a warehouse in BigQuery also loads local files, which it copies into its lake first."""
    warehouse = open_warehouse(url, **options)
    if not url.startswith("bigquery://"):
        return warehouse
    return ThroughTheLake(warehouse, open_store(os.environ[LAKE], str(scratch)))


class ThroughTheLake:
    """A warehouse in BigQuery that loads local files, so that contract tests use the same files for all engines."""

    def __init__(self, warehouse: Warehouse, store: Store) -> None:
        self._warehouse, self._store = warehouse, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warehouse, name)

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        return self._warehouse.replace(dataset, month, self._put(file, lake.trips_key(dataset, month)))

    def _put(self, file: StoredFile, key: str) -> StoredFile:
        with file.open_local() as path, self._store.publish(key) as draft:
            draft.write_bytes(path.read_bytes())
        return _Put(self._store.entry(key), file.fingerprint)


@dataclass(frozen=True)
class _Put:
    """The file's copy in the lake, with the fingerprint of the original."""

    entry: Entry
    fingerprint: str

    @property
    def uri(self) -> str:
        return self.entry.uri

    def open(self) -> AbstractContextManager[BinaryIO]:
        return self.entry.open()

    def open_local(self) -> AbstractContextManager[Path]:
        return self.entry.open_local()
