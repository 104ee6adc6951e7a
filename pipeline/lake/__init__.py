"""The lake: whole files under keys such as trips/green/month=2024-01-01/green_2024-01.parquet.

The promise: a file at its final name is whole. Only `publish` makes a final name; a failed block leaves the old file
and no litter. `tests/lake/test_store_contract.py` holds every store to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pipeline.errors import UsageError
from pipeline.lake.keys import checks_key as checks_key
from pipeline.lake.keys import folder_of as folder_of
from pipeline.lake.keys import raw_key as raw_key
from pipeline.lake.keys import sidecar_key as sidecar_key
from pipeline.lake.keys import trips_key as trips_key
from pipeline.lake.keys import trips_month as trips_month
from pipeline.lake.local import LocalStore


class Entry(Protocol):
    """A whole file of the lake."""

    @property
    def key(self) -> str:
        """Its name within the lake."""

    @property
    def bytes(self) -> int:
        """Its length."""

    @property
    def uri(self) -> str:
        """Where it lies: a path, or gs://bucket/key."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What it was published with, where the store keeps such; else nothing."""

    @property
    def fingerprint(self) -> str:
        """Differs when the content does; the same for the same content, whenever it was published in such a store."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file, of which only what is asked for is read, wherever it lies."""

    def open_local(self) -> AbstractContextManager[Path]:
        """A local path to read the whole of it from, for the length of the block."""


class Store(Protocol):
    """What a lake can do; `tests/lake/test_store_contract.py` holds every one of them to it."""

    @property
    def location(self) -> str:
        """Where the lake is, for people: a folder's path, or gs://bucket/prefix."""

    def exists(self, key: str) -> bool:
        """Whether a whole file lies there."""

    def keys(self, prefix: str) -> set[str]:
        """The keys that start with a prefix that ends in a slash: one listing for all months."""

    def entries(self, prefix: str) -> Mapping[str, Entry]:
        """The files whose keys start with a prefix that ends in a slash, by key: one listing for all months."""

    def entry(self, key: str) -> Entry:
        """The file at the key; a StoreError when there is none."""

    def delete(self, key: str) -> None:
        """Take the file away; nothing happens when there is none."""

    def publish(self, key: str, facts: Mapping[str, str] | None = None) -> AbstractContextManager[Path]:
        """Yield a draft's path; a clean exit puts it, whole, at the key in place of what was there.

        `facts` about the content, as they are when the block ends, are kept beside it where a store can.
        """

    def part(self, key: str, *, wait_s: float) -> AbstractContextManager[Path]:
        """Yield the path of a part file for the key that survives the block and the process, held by one at a time."""

    def sweep(self) -> None:
        """Remove what killed processes left behind."""


@dataclass(frozen=True)
class StoreKind:
    """How addresses of this kind are written, what opens one, with a folder for work in progress, and its drivers."""

    example: str
    open: Callable[[str, Path], Store]
    drivers: tuple[str, ...] = ()


def _open_gcs(address: str, scratch: Path) -> Store:
    from pipeline.lake.gcs import GcsStore

    bucket, _, prefix = address.partition("://")[2].partition("/")
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
        return GcsStore(bucket, prefix, scratch)
    raise UsageError(f"[pipeline] lake = {address!r}: {bucket!r} is no bucket's name; write gs://bucket/prefix")


#: The registry, by the scheme of addresses; another kind of store is another entry. Without a scheme it is a folder.
STORES: dict[str, StoreKind] = {"gs": StoreKind("gs://bucket/prefix", _open_gcs, ("google.cloud.storage",))}


def is_address(lake: str) -> bool:
    """Whether it has a scheme, with the right number of slashes or without, and would else become a folder `s3:`."""
    return "://" in lake or re.match(r"[A-Za-z][\w+.-]+:/", lake) is not None


def store_drivers(lake: str) -> tuple[str, ...]:
    """The modules that steps import for this lake."""
    kind = STORES.get(lake.partition("://")[0])
    return kind.drivers if kind else ()


def open_store(lake: str, scratch: str = "data/scratch") -> Store:
    """The store that the setting `lake` names: a folder, or an address of `STORES` with work in progress in `scratch`.

    A leading `~` is expanded where the setting is read; here it is a folder's name.

    Raises:
        UsageError: the setting is empty or names a kind of store that does not exist.
    """
    scheme, slashes, _ = lake.partition("://")
    if slashes and scheme in STORES:
        return STORES[scheme].open(lake, Path(scratch).absolute())
    if is_address(lake) or not lake.strip():
        kind = lake.partition(":")[0].strip() or "nothing"
        allowed = " and ".join(["a folder", *(known.example for known in STORES.values())])
        raise UsageError(f"[pipeline] lake = {lake!r}: {kind} is no kind of lake; allowed are {allowed}")
    return LocalStore(Path(lake).absolute())
