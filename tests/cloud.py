"""Google Cloud on this machine for one test: a bucket and a dataset of its own, behind gateways that see requests."""

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
#: Names the lake of a warehouse in BigQuery for a process of its own, see `warehouse_at`.
LAKE = "PIPELINE_TEST_LAKE"
_numbers = itertools.count()


@dataclass(frozen=True)
class Cloud:
    """A bucket and a dataset; neither holds anything yet, and the dataset is not even made."""

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
        """What sends Google's libraries here."""
        return {"STORAGE_EMULATOR_HOST": self.gcs.url, "BIGQUERY_EMULATOR_HOST": self.bigquery.url, LAKE: self.lake}

    def use(self, folder: Folder) -> Folder:
        """Make the folder's commands work here; one step at a time writes, as the emulator mixes up two."""
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
    with cloud_of(gcs, bigquery) as found:
        for name, text in found.environment.items():
            monkeypatch.setenv(name, text)
        yield found


def warehouse_at(url: str, scratch: Path, **options: Any) -> Warehouse:
    """The warehouse at the URL; one in BigQuery takes files of this machine, too, by way of its lake."""
    warehouse = open_warehouse(url, **options)
    if not url.startswith("bigquery://"):
        return warehouse
    return ByWayOfTheLake(warehouse, open_store(os.environ[LAKE], str(scratch)))


class ByWayOfTheLake:
    """A warehouse in BigQuery to which the tests of all warehouses can give the same files as to the others."""

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
    """The file's copy in the lake, known by the fingerprint that it had before."""

    entry: Entry
    fingerprint: str

    @property
    def uri(self) -> str:
        return self.entry.uri

    def open(self) -> AbstractContextManager[BinaryIO]:
        return self.entry.open()

    def open_local(self) -> AbstractContextManager[Path]:
        return self.entry.open_local()
