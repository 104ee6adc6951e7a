"""Trips files of a few rows for the tests of warehouses, and a program that loads one in its own process:

python tests/loading.py <warehouse url> <dataset> <month> <file> [lock_timeout_s]
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from cloud import LAKE, warehouse_at

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import DATASET_KEY, DECLARATION_KEY, MONTH_KEY, SOURCE_KEY, Dataset
from pipeline.months import parse_month

YELLOW, GREEN = DATASETS["yellow"], DATASETS["green"]
JAN, FEB, MAR = (date(2024, month, 1) for month in (1, 2, 3))


@dataclass(frozen=True)
class File:
    """A file of a lake that is just a folder."""

    path: Path

    @property
    def uri(self) -> str:
        return str(self.path)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    @contextmanager
    def open_local(self) -> Iterator[Path]:
        yield self.path


def write(path: Path, dataset: Dataset, month: date | None, table: pa.Table, **metadata: str) -> File:
    """The table as a conformed file."""
    provenance = {DATASET_KEY: dataset.name, MONTH_KEY: f"{month:%Y-%m}" if month else ""}
    provenance |= {SOURCE_KEY: "5" * 64, DECLARATION_KEY: "d" * 16, **metadata}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(provenance), path, row_group_size=122_880)
    return File(path)


def trips(
    folder: Path, dataset: Dataset, month: date, totals: list[float], drop: tuple[str, ...] = (), **columns: list[Any]
) -> File:
    """One trip a day with the given totals; columns that are not given are null."""
    start = datetime(month.year, month.month, 1, 8)
    given: dict[str, list[Any]] = {
        "pickup_datetime": [start + timedelta(days=day) for day in range(len(totals))],
        "dropoff_datetime": [start + timedelta(days=day, minutes=10) for day in range(len(totals))],
        "pickup_location_id": [1 + row % 2 for row in range(len(totals))],
        "fare_amount": [total - 1 for total in totals],
        "total_amount": totals,
    } | columns
    schema = pa.schema([field for field in dataset.schema if field.name not in drop])
    table = pa.table([pa.array(given.get(f.name, [None] * len(totals)), f.type) for f in schema], schema=schema)
    digest = hashlib.sha256(repr((totals, columns, drop)).encode()).hexdigest()[:8]
    path = folder / f"month={month}" / f"{dataset.name}_{month:%Y-%m}_{digest}.parquet"
    return write(path, dataset, month, table)


def many_trips(folder: Path, dataset: Dataset, month: date, rows: int, *, last_pickup: bool = True) -> File:
    """Enough trips, with different totals, to take a moment to load; the last may have no pickup, which is required."""
    moment = pa.repeat(pa.scalar(datetime(month.year, month.month, 2), pa.timestamp("us")), rows)
    pickups = moment if last_pickup else pa.concat_arrays([moment[1:], pa.nulls(1, moment.type)])
    values = {
        "pickup_datetime": pickups,
        "dropoff_datetime": moment,
        "total_amount": pa.array(range(rows), pa.float64()),
    }
    table = pa.table([values.get(f.name, pa.nulls(rows, f.type)) for f in dataset.schema], schema=dataset.schema)
    return write(folder / f"{dataset.name}_{month:%Y-%m}_{rows}.parquet", dataset, month, table)


def zones(folder: Path, names: dict[int, str] | None = None, ids: list[int] | None = None) -> File:
    """Zones with these names, all in Queens."""
    named = names or {1: "Astoria", 2: "Corona"}
    table = pa.table(
        [ids or list(named), ["Queens"] * len(named), list(named.values()), ["Boro Zone"] * len(named)],
        schema=ZONES.schema,
    )
    return write(folder / f"zones-{'-'.join(named.values())}.parquet", ZONES, None, table)


def main() -> None:
    url, dataset, month, path, *limit = sys.argv[1:]
    scratch = Path(path).parent / f"scratch-{os.getpid()}"
    if LAKE in os.environ:
        # Processes that load the same month at once would replace each other's file before it is loaded.
        os.environ[LAKE] += f"/{os.getpid()}"
    warehouse = warehouse_at(url, scratch, lock_timeout_s=float(limit[0]) if limit else 60)
    tell("ready")
    tell(warehouse.replace(DATASETS[dataset], parse_month(month), File(Path(path))))


def tell(progress: object) -> None:
    """Report to the parent process."""
    sys.stdout.write(f"{progress}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
