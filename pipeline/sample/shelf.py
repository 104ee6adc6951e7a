"""The files of the sample site: a path gives a whole file on disk, which is made on the first request.

A finished file is published by one rename, so that a cache, also one shared by processes, never has half a month.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.months import add_months, parse_month
from pipeline.sample.csv_files import write_csv, write_csv_gz
from pipeline.sample.draws import epoch_s
from pipeline.sample.eras import FIRST_MONTHS, FIRST_PARQUET_MONTHS, LAST_CSV_MONTH
from pipeline.sample.files import Order, order, write_parquet
from pipeline.sample.zones import zones_csv

LAST = date(2025, 12, 1)
_REPUBLISHED = epoch_s(date(2022, 6, 1)) + 29 * 86_400
#: Increase it with each change of the rows, so that cached files are made again.
_RECIPE = 2
_MONTH_FILE = re.compile(r"/(?:trip-data|.*releases/download/\w+)/(\w+)_tripdata_(\d{4}-\d{2})\.(parquet|csv|csv\.gz)")
_ZONES_FILE = re.compile(r"/(?:misc|.*releases/download/misc)/taxi_zone_lookup\.csv")
_WRITERS: dict[str, Callable[[Order, Path], None]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "csv.gz": write_csv_gz,
}
_TYPES = {".parquet": "binary/octet-stream", ".csv": "text/csv", ".gz": "application/gzip"}


@dataclass(frozen=True)
class Item:
    """A file that the site serves."""

    path: Path
    etag: str
    last_modified: int
    content_type: str

    @property
    def size(self) -> int:
        """The file's bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Made:
    """Synthetic months, with TLC's numbers of rows times `scale` or with `rows` rows each; stored in `cache`."""

    cache: Path
    scale: float = 1.0
    rows: int | None = None
    last: date = LAST
    seed: int = 0
    row_group_rows: int = 1 << 20

    def find(self, path: str, edition: int = 0) -> Item | None:
        """The file at this path of TLC's site or of the CSVs' mirror; None if the site has no such file.

        Another edition has other rows (as many) under another ETag, as if TLC had republished it.
        """
        if _ZONES_FILE.fullmatch(path):
            return self._item(
                "taxi_zone_lookup.csv", 1_711_000_000, edition, lambda draft: draft.write_bytes(zones_csv())
            )
        match = _MONTH_FILE.fullmatch(path)
        if match is None or not self._has(match[1], match[2], match[3]):
            return None
        month = order(match[1], parse_month(match[2]), scale=self.scale, rows=self.rows)
        month = replace(month, seed=self.seed + edition, row_group_rows=self.row_group_rows)
        # TLC publishes a month about two months later, and republished all older ones when it changed to Parquet.
        published = max(epoch_s(add_months(month.month, 2)) + 19 * 86_400, _REPUBLISHED)
        name = PurePosixPath(path).name
        return self._item(name, published, edition, lambda draft: _WRITERS[match[3]](month, draft))

    def _has(self, dataset: str, month_text: str, ending: str) -> bool:
        try:
            month = parse_month(month_text)
        except UsageError:
            return False
        firsts = FIRST_PARQUET_MONTHS if ending == "parquet" else FIRST_MONTHS
        last = self.last if ending == "parquet" else min(self.last, LAST_CSV_MONTH)
        return dataset in firsts and ending in _WRITERS and firsts[dataset] <= month <= last

    def _item(self, name: str, published: int, edition: int, write: Callable[[Path], object]) -> Item:
        identity = f"{name} {self.scale} {self.rows} {self.seed + edition} {self.row_group_rows} {_RECIPE}"
        identity = f"{identity} {np.__version__} {pa.__version__}"
        key = hashlib.md5(identity.encode(), usedforsecurity=False).hexdigest()
        path = self.cache / key / name
        if not path.exists():
            _publish(path, write)
        return Item(path, f'"{key}"', published + edition * 86_400, _TYPES[path.suffix])


@dataclass(frozen=True)
class Kept:
    """The files of a folder with the layout of TLC's site; other editions of them are stored in `cache`."""

    folder: Path
    cache: Path

    def find(self, path: str, edition: int = 0) -> Item | None:
        """The file at this path of TLC's site, or of the CSVs' mirror (folder `csv`); None if there is none."""
        mirrored = re.sub(r".*/releases/download/", "/csv/", path)
        for candidate in dict.fromkeys((path, mirrored)):
            file = (self.folder / candidate.lstrip("/")).resolve()
            if file.is_file() and file.is_relative_to(self.folder.resolve()):
                return self._item(file, edition)
        return None

    def _item(self, file: Path, edition: int) -> Item:
        state = file.stat()
        identity = f"{file.name} {state.st_size} {state.st_mtime_ns} {edition}"
        key = hashlib.md5(identity.encode(), usedforsecurity=False).hexdigest()
        served = file if edition == 0 else self.cache / key / file.name
        if not served.exists():
            _publish(served, lambda draft: _rewrite(file, draft))
        content_type = _TYPES.get(file.suffix, "binary/octet-stream")
        return Item(served, f'"{key}"', int(state.st_mtime) + edition * 86_400, content_type)


_guard = threading.Lock()
_locks: dict[Path, threading.Lock] = {}


def _publish(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file, once for all requests at the same time."""
    with _guard:
        lock = _locks.setdefault(path, threading.Lock())
    with lock:
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def _rewrite(file: Path, draft: Path) -> None:
    """Write the same rows as other bytes."""
    if file.suffix == ".parquet":
        pq.write_table(pq.read_table(file), draft, compression="snappy")
    elif file.suffix == ".gz":
        draft.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), compresslevel=1, mtime=1))
    else:
        draft.write_bytes(file.read_bytes().rstrip() + b"\n")


def http_date(seconds: int) -> str:
    """A time in the format of HTTP headers."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
