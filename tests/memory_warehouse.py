"""The smallest warehouse: Arrow tables in the memory of one process, queried with DuckDB.

tests/test_extending.py adds it to a copy of the package as docs/extending.md says. Its rows end with the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError, WarehouseError
from pipeline.version import __version__
from pipeline.warehouses.base import Ledger, LoadRecord, Mart, MartRecord, StoredFile, Warehouse
from pipeline.warehouses.load_file import inspect
from pipeline.warehouses.registry import Bounds
from pipeline.warehouses.tables import bind_mart

#: Rows and record of each load, and of each month of a mart.
LOADS: dict[tuple[str, date | None], tuple[pa.Table, LoadRecord]] = {}
MARTS: dict[tuple[str, str, date], tuple[pa.Table, MartRecord]] = {}


def open_url(url: str, bounds: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> MemoryWarehouse:
    if url != "memory://":
        raise UsageError(f"warehouse {url!r} is invalid; allowed: memory://")
    return MemoryWarehouse()


class MemoryWarehouse(Warehouse):
    """See `pipeline.warehouses.base.Warehouse`."""

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))
            rows = pq.ParquetFile(path).read()
        if month:
            rows = rows.append_column("month", pa.array([month] * rows.num_rows, pa.date32()))
        self.forget(dataset, month)
        record = LoadRecord(
            dataset.name,
            month,
            load_file.rows,
            load_file.source_sha256,
            load_file.declaration,
            file.fingerprint,
            datetime.now(timezone.utc),
            __version__,
        )
        LOADS[dataset.name, month] = rows, record
        return rows.num_rows

    def ledger(self) -> Ledger:
        return Ledger(
            {key: record for key, (_, record) in LOADS.items()}, {key: record for key, (_, record) in MARTS.items()}
        )

    def replace_mart_month(self, dataset: Dataset, month: date, marts: Sequence[Mart]) -> dict[str, int]:
        if (dataset.name, month) not in LOADS:
            raise WarehouseError(f"{dataset.name} {month:%Y-%m}: is not loaded")
        load = LOADS[dataset.name, month][1]
        built = {mart.name: self.query(bind_mart(mart.sql, dataset.name, month)) for mart in marts}
        for mart in marts:
            rows, now = built[mart.name], datetime.now(timezone.utc)
            record = MartRecord(
                mart.name, dataset.name, month, rows.num_rows, load.fingerprint, now, __version__, mart.definition
            )
            MARTS[mart.name, dataset.name, month] = rows, record
        return {name: rows.num_rows for name, rows in built.items()}

    def forget(self, dataset: Dataset, month: date | None) -> None:
        LOADS.pop((dataset.name, month), None)
        for key in [key for key in MARTS if month is None or key[1:] == (dataset.name, month)]:
            del MARTS[key]

    def forget_marts(self, dataset: Dataset, month: date) -> None:
        for key in [key for key in MARTS if key[1:] == (dataset.name, month)]:
            del MARTS[key]

    def query(self, sql: str) -> pa.Table:
        with duckdb.connect() as connection:
            for name in {name for name, _ in LOADS}:
                parts = [rows for (loaded, _), (rows, _) in LOADS.items() if loaded == name]
                connection.register(name, pa.concat_tables(parts, promote_options="default"))
            return connection.sql(sql).to_arrow_table()
