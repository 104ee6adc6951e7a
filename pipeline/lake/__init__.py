"""The lake: whole files under keys, in a store.

raw/yellow/yellow_tripdata_2024-01.parquet            TLC's bytes
raw/yellow/yellow_tripdata_2024-01.parquet.json       where they came from (the sidecar)
trips/yellow/month=2024-01-01/yellow_2024-01.parquet  conformed and checked; anyone may read these
checks/yellow/2024-01.json                            the profile and the findings
raw/zones/…, zones/zones.parquet, checks/zones/zones.json   the zones, without a month

The promise: a file at its final name is whole. Only `publish` makes a final name; a failed block leaves the old file
and no litter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.lake.local import LocalStore
from pipeline.months import format_month


class Entry(Protocol):
    """A whole file of the lake."""

    @property
    def key(self) -> str:
        """Its name in the lake."""

    @property
    def bytes(self) -> int:
        """Its length."""

    @property
    def uri(self) -> str:
        """Its absolute path, or gs://bucket/key."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata it was published with; empty where the store keeps none."""

    @property
    def fingerprint(self) -> str:
        """Depends only on the content: differs when the content does."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file, for reading parts of it; nothing else is downloaded."""

    def open_local(self) -> AbstractContextManager[Path]:
        """A local path for reading all of it within the block."""


class Store(Protocol):
    """The contract of a store, tested by `tests/lake/test_store_contract.py`."""

    @property
    def location(self) -> str:
        """The folder's path, or gs://bucket/prefix."""

    def exists(self, key: str) -> bool:
        """Whether the lake has a file with this key."""

    def entries(self, prefix: str) -> Mapping[str, Entry]:
        """The files whose keys start with a prefix that ends in a slash, by key: one listing for all months."""

    def entry(self, key: str) -> Entry:
        """The file at the key; a StoreError when there is none."""

    def delete(self, key: str) -> None:
        """Delete the file, if it exists."""

    def publish(self, key: str, metadata: Mapping[str, str] | None = None) -> AbstractContextManager[Path]:
        """Yield a draft's path; a clean exit moves the draft to the key and replaces the old file.

        `metadata` is read when the block ends, and kept with the file where the store can.
        """

    def part(self, key: str, *, wait_s: float) -> AbstractContextManager[Path]:
        """Yield the path of the key's part file, which survives block and process and is locked by one at a time."""

    def sweep(self) -> None:
        """Delete what killed processes left behind."""


@dataclass(frozen=True)
class StoreKind:
    """A kind of store that is not a local folder; the fields are those of the registry of engines."""

    #: An example URL, for messages.
    example: str
    #: Its `open_url(url, scratch)` returns the store or raises UsageError, and connects to nothing.
    module: str
    #: The modules to import once before steps are forked, because they are slow to import.
    drivers: tuple[str, ...] = ()


#: The stores by URL scheme. A lake without a scheme is a local folder.
STORES = {"gs": StoreKind("gs://bucket/prefix", "pipeline.lake.gcs", ("google.cloud.storage",))}


def local_folder(lake: str) -> Path | None:
    """The absolute folder of a lake on this machine; None for a URL, even with a missing slash (s3:/bucket)."""
    return None if "://" in lake or re.match(r"[A-Za-z][\w+.-]+:/", lake) else Path(lake).absolute()


def store_drivers(lake: str) -> tuple[str, ...]:
    """The modules that steps import for this lake."""
    scheme = lake.partition("://")[0]
    return STORES[scheme].drivers if scheme in STORES else ()


def open_store(lake: str, scratch: str = "data/scratch") -> Store:
    """The store that the setting `lake` names: a folder, or a URL of `STORES` with work in progress in `scratch`.

    Raises:
        UsageError: the setting is empty, invalid, or has an unknown scheme.
    """
    scheme, slashes, _ = lake.partition("://")
    if slashes and scheme in STORES:
        store: Store = import_module(STORES[scheme].module).open_url(lake, Path(scratch).absolute())
        return store
    folder = local_folder(lake)
    if folder is None or not lake.strip():
        scheme = lake.partition(":")[0].strip() or "nothing"
        allowed = " and ".join(["a folder", *(kind.example for kind in STORES.values())])
        raise UsageError(f"[pipeline] lake = {lake!r}: {scheme} is not a supported kind of lake; allowed are {allowed}")
    return LocalStore(folder)


def raw_key(dataset: Dataset, file_name: str) -> str:
    """The key of TLC's bytes."""
    return f"raw/{dataset.name}/{file_name}"


def sidecar_key(raw_key: str) -> str:
    """The key of the sidecar of a raw file."""
    return f"{raw_key}.json"


def trips_key(dataset: Dataset, month: date | None) -> str:
    """The key of the conformed rows; the month is a Hive partition, which query engines understand."""
    if month is None:
        return f"{dataset.name}/{dataset.name}.parquet"
    return f"trips/{dataset.name}/month={month:%Y-%m-%d}/{dataset.name}_{format_month(month)}.parquet"


def checks_key(dataset: Dataset, month: date | None) -> str:
    """The key of the profile and the findings."""
    return f"checks/{dataset.name}/{format_month(month) if month else dataset.name}.json"


def folder_of(key: str) -> str:
    """The prefix to list, for instance raw/green/ for raw/green/green_tripdata_2024-01.parquet."""
    return "/".join(key.split("/")[:-1][:2]) + "/"
