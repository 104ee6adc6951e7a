"""What a data folder holds, in a form in which two runs can be compared: all that must not depend on the run."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil

#: Columns that say when.
_MOMENTS = {"loads": "loaded_at", "mart_loads": "built_at"}


def state(data: Path) -> dict[str, Any]:
    """Every file of the lake as its bytes (sidecars without `fetched_at`) and every table as its sorted rows."""
    lake = data / "lake"
    files = {path.relative_to(lake).as_posix(): path for path in lake.rglob("*") if path.is_file()}
    return {**{name: _content(path) for name, path in files.items()}, **tables(data / "warehouse.duckdb")}


def tables(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table's rows, sorted, without the moments at which they were written."""
    with duckdb.connect(database, read_only=True) as connection:
        names = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {
            name: connection.execute(
                f"SELECT * {f'EXCLUDE {_MOMENTS[name]}' if name in _MOMENTS else ''} FROM {name} ORDER BY ALL"
            ).fetchall()
            for name in names
        }


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """The answer to a question to the database."""
    with duckdb.connect(database, read_only=True) as connection:
        return connection.execute(sql).fetchall()


def is_damaged(said: str) -> bool:
    """Whether a message says that the DuckDB file is damaged, and what to do.

    DuckDB writes one block in place, and a kill within this write damages the file: docs/decisions/duckdb-lock.md
    """
    return bool(re.search("Corrupt database file.*move it away and run the backfill again", said))


#: What psutil raises for a process that ends while it looks, or that belongs to somebody else.
_GONE = (psutil.Error, OSError)


def processes_in(folder: Path) -> list[str]:
    """The command lines of all processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(*_GONE):
            if works_in(process, folder):
                found.append(" ".join(process.cmdline()))
    return found


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Whether the process lives and has the folder as its working folder."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder
    except _GONE:
        return False


def _content(path: Path) -> Any:
    if not path.name.endswith((".parquet.json", ".csv.json", ".csv.gz.json")):
        return path.read_bytes()
    sidecar = json.loads(path.read_text())
    assert sidecar.pop("fetched_at")
    return sidecar
