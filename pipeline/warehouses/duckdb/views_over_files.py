"""The warehouse whose datasets are views over their trips files (`?tables=views`); zones, marts and records are tables.

A load keeps the trips file beside the database, as `<database>.files/<dataset>/month=<month>/<fingerprint>.parquet`:
a hard link where the file system has them, otherwise a copy. So a query reads exactly the file that was loaded, also
after the month was conformed again. View and record change in one transaction; files that no record needs are deleted
after it. Why: docs/decisions/views-over-the-lake.md
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.datasets.base import DATE, Column, Dataset
from pipeline.disk import sync
from pipeline.errors import WarehouseError
from pipeline.months import label
from pipeline.warehouses import schema
from pipeline.warehouses.base import Ledger, StoredFile
from pipeline.warehouses.duckdb.file import DuckDBFile
from pipeline.warehouses.duckdb.warehouse import DuckDBDialect, DuckDBWarehouse
from pipeline.warehouses.load_file import inspect
from pipeline.warehouses.schema import Table
from pipeline.warehouses.tables import MONTH, MONTH_DOC
from pipeline.warehouses.views import View, is_ours


class ViewsDialect(DuckDBDialect):
    """Datasets with months are views."""

    def __init__(self, folder: Path, datasets: Mapping[str, Dataset]) -> None:
        self._folder, self._datasets = folder, datasets

    def path(self, dataset: str, month: date, fingerprint: str) -> Path:
        """The file with the month's rows."""
        return self._folder / dataset / f"{MONTH}={month.isoformat()}" / f"{quote(fingerprint, safe='')}.parquet"

    def tables(self, connection: Any) -> dict[str, Table]:
        """Tables and views."""
        tables = super().tables(connection)
        if found := sorted(self._datasets.keys() & tables.keys()):
            raise WarehouseError(
                f"{', '.join(found)}: tables in this database, which was made without ?tables=views; "
                f"remove that from [pipeline] warehouse, or {self.elsewhere(connection)}"
            )
        return tables | self._relations(connection, "view")

    def dataset_changes(self, connection: Any, dataset: Dataset, existing: Table | None) -> list[str]:
        """The statements that create the view of the loaded files, or replace one of other files or columns."""
        declared = schema.table_of(self, dataset)
        if dataset.first_month is None:
            return super().dataset_changes(connection, dataset, existing)
        if existing and (schema.changed_types(declared, existing) or not is_ours(existing.comment)):
            return []  # A load reports it.
        loads = "SELECT month, fingerprint FROM loads WHERE dataset = $1 ORDER BY month"
        # The records of a view that was dropped are about to be deleted.
        files = connection.execute(loads, [dataset.name]).fetchall() if existing else []
        select = self._select(declared, [self.path(dataset.name, *file) for file in files])
        view = View(dataset.name, dataset.doc, (*dataset.columns, Column(MONTH, DATE, doc=MONTH_DOC)), (), select)
        return [] if existing and existing.comment == view.comment else schema.view_statements(self, view)

    def _select(self, declared: Table, files: list[Path]) -> str:
        if not files:
            nulls = (f'CAST(NULL AS {column.type}) AS "{name}"' for name, column in declared.columns.items())
            return f"SELECT {', '.join(nulls)} WHERE false"
        paths = ", ".join(schema.literal(glob.escape(str(file))) for file in files)
        # Without a schema, DuckDB opens all files before each query to know their columns.
        columns = ", ".join(
            f"'{name}': {{name: '{name}', type: '{column.type}', default_value: NULL}}"
            for name, column in declared.columns.items()
            if name != MONTH
        )
        names = ", ".join(f'"{name}"' for name in declared.columns)
        options = f"schema = MAP {{{columns}}}, hive_partitioning = true, hive_types = {{'{MONTH}': DATE}}"
        return f"SELECT {names} FROM read_parquet([{paths}], {options})"


class ViewsWarehouse(DuckDBWarehouse):
    """See `pipeline.warehouses.base.Warehouse`."""

    #: Rows cannot be loaded before their file is there.
    loads_ahead = False
    _dialect: ViewsDialect

    def __init__(self, file: DuckDBFile, datasets: Mapping[str, Dataset], zones: Dataset) -> None:
        super().__init__(file, datasets, zones)
        self._folder = file.path.with_name(f"{file.path.name}.files")
        self._dialect = ViewsDialect(self._folder, datasets)

    def replace(self, dataset: Dataset, month: date | None, file: StoredFile) -> int:
        """Keep the file, then record it and replace the view in one transaction."""
        if month is None:
            return super().replace(dataset, month, file)
        with file.open_local() as path:
            load_file = inspect(path, dataset, month, where=str(path))
            with self._writing(dataset, month) as (connection, tables, _):
                remedy = f"load into a new warehouse, or run DROP VIEW {dataset.name} and load all its months again"
                declared = schema.table_of(self._dialect, dataset)
                schema.validate_types(dataset.name, declared, tables[dataset.name], remedy)
                _keep(path, self._dialect.path(dataset.name, month, file.fingerprint))
                schema.drop_marts(connection, self._dialect, dataset.name, month)
                schema.forget_load(connection, dataset.name, month)
                schema.record_load(connection, dataset.name, month, load_file, file.fingerprint)
                self._renew(connection, dataset)
                _validate_rows(connection, dataset, month, load_file.rows, str(path))
        return load_file.rows

    def load_ahead(self, dataset: Dataset, month: date) -> None:
        """Not supported, since the view needs the published file."""

    def forget(self, dataset: Dataset, month: date | None) -> None:
        """Delete marts and records and replace the view in one transaction."""
        if month is None:
            super().forget(dataset, month)
        elif self._file.path.exists():
            with self._writing(dataset, month) as (connection, *_):
                schema.drop_marts(connection, self._dialect, dataset.name, month)
                schema.forget_load(connection, dataset.name, month)
                self._renew(connection, dataset)

    def changed_rows(self, dataset: Dataset) -> dict[date | None, str]:
        """As for every engine; a view of a file that is gone cannot be queried."""
        paths = {
            month: self._dialect.path(dataset.name, month, load.fingerprint)
            for month, load in self.loads(dataset).items()
            if month
        }
        gone: dict[date | None, str] = {
            month: f"the file of its rows is gone: {path}" for month, path in paths.items() if not path.is_file()
        }
        return gone or super().changed_rows(dataset)

    def _renew(self, connection: Any, dataset: Dataset) -> None:
        existing = self._dialect.tables(connection)[dataset.name]
        for statement in self._dialect.dataset_changes(connection, dataset, existing):
            connection.execute(statement)

    def _allow_files(self, connection: Any) -> None:
        # DuckDB compares both the path and the pattern.
        path, pattern = schema.literal(f"{self._folder}/"), schema.literal(glob.escape(f"{self._folder}/"))
        moved = connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE list_contains($1, view_name) "
            "AND contains(sql, 'read_parquet') AND NOT contains(sql, $2)",
            [list(self._datasets), pattern.removesuffix("'")],
        ).fetchall()
        if moved:
            raise WarehouseError(
                f"{', '.join(name for (name,) in moved)}: the files of the views are in another folder than before, "
                "since the database was moved; run pipeline redo zones --from load, which corrects the views"
            )
        connection.execute(f"SET allowed_directories = [{path}, {pattern}]")

    def _sweep(self, ledger: Ledger) -> None:
        super()._sweep(ledger)
        needed = {
            self._dialect.path(name, month, load.fingerprint) for (name, month), load in ledger.loads.items() if month
        }
        with suppress(OSError):
            for file in {*self._folder.glob("*/*/*")} - needed:
                file.unlink()
                with suppress(OSError):  # Not empty.
                    file.parent.rmdir()


def _keep(path: Path, kept: Path) -> None:
    """A link to the file, or a copy, under a name of its own; on the disk when this returns."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_name(f"{secrets.token_hex(4)}.new")
    try:
        os.link(path, draft)
    except OSError:  # Another file system, one without links, or another user's file.
        shutil.copyfile(path, draft)
        sync(draft)
    draft.replace(kept)
    draft.unlink(missing_ok=True)  # Remains if both were links to the same file.
    for folder in kept.parents[:3]:
        sync(folder)


def _validate_rows(connection: Any, dataset: Dataset, month: date, rows: int, where: str) -> None:
    """Raise a WarehouseError unless the view has these rows of the month, with all required values."""
    required = [column.name for column in dataset.columns if column.required]
    counts = ", ".join(["COUNT(*)", *(f'COUNT("{name}")' for name in required)])
    found = connection.execute(f'SELECT {counts} FROM "{dataset.name}" WHERE {MONTH} = $1', [month]).fetchone()
    for name, count in zip(["", *required], found, strict=True):
        if count != rows:
            problem = f"{name} is required, but has {count:,} values in" if name else f"the view has {count:,} of"
            raise WarehouseError(f"{label(dataset.name, month)}: {problem} the {rows:,} rows of {where}")
