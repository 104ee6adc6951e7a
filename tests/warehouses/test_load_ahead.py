"""A month that is loaded while it is conformed: afterwards all is as after a load of its file, or as before."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import Folder
from loading import FEB, GREEN, JAN, File, trips, zones
from state import rows, tables

from pipeline.datasets import ZONES
from pipeline.marts import marts_of
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.base import Warehouse

HOLD = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trips.duckdb"


@pytest.fixture
def warehouse(path: Path) -> Warehouse:
    return open_warehouse(f"duckdb:///{path}", lock_timeout_s=10)


def load_ahead(warehouse: Warehouse, file: File, *, batch_rows: int = 2, finish: bool = True) -> None:
    """Hand over the file's batches as conforming does."""
    ahead = warehouse.load_ahead(GREEN, JAN)
    assert ahead is not None
    with closing(ahead), pq.ParquetFile(file.path) as parquet:
        for batch in parquet.iter_batches(batch_rows):
            ahead.add(batch)
        if finish:
            ahead.finish(file)


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_it_leaves_the_rows_and_the_record_that_a_load_of_the_file_leaves(
    warehouse: Warehouse, path: Path, tmp_path: Path, batch_rows: int
) -> None:
    file, other = trips(tmp_path, GREEN, JAN, [1.0, 2.5, -3.0, 4.0, 5.0]), tmp_path / "other.duckdb"
    load_ahead(warehouse, file, batch_rows=batch_rows)
    open_warehouse(f"duckdb:///{other}").replace(GREEN, JAN, file)
    assert tables(path) == tables(other)


def test_it_replaces_the_month_with_its_marts_and_leaves_other_months(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.replace(ZONES, None, zones(tmp_path))
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [1.0]))
        warehouse.replace_mart_month(GREEN, month, marts_of("green"))
    load_ahead(warehouse, trips(tmp_path, GREEN, JAN, [2.0, 3.0]))
    assert {month: load.rows for month, load in warehouse.loads(GREEN).items()} == {JAN: 2, FEB: 1}
    assert set(warehouse.mart_months(GREEN)) == {FEB}


def test_a_month_that_is_not_published_leaves_the_warehouse_as_it_was(
    warehouse: Warehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    before = tables(path)
    load_ahead(warehouse, trips(tmp_path, GREEN, JAN, [2.0, 3.0, 4.0, 5.0]), finish=False)
    assert tables(path) == before


def test_while_another_program_has_the_database_it_does_nothing_at_once(
    warehouse: Warehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        # More batches than may wait.
        load_ahead(warehouse, trips(tmp_path, GREEN, JAN, [1.0] * 20), batch_rows=1)
        holder.communicate("")
    assert set(warehouse.loads(GREEN)) == {FEB}


def test_what_fails_in_it_is_logged_and_left_to_the_load(
    warehouse: Warehouse, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    with duckdb.connect(path) as connection:
        connection.execute("ALTER TABLE green ALTER COLUMN passenger_count TYPE VARCHAR")
    with caplog.at_level(logging.INFO, "luigi-interface.pipeline"):
        load_ahead(warehouse, trips(tmp_path, GREEN, JAN, [1.0] * 20), batch_rows=1)
    assert "passenger_count is VARCHAR in the table" in caplog.text
    assert "the month is loaded in a step of its own" in caplog.text
    assert set(warehouse.loads(GREEN)) == {FEB}


def test_a_file_with_other_rows_than_were_handed_over_is_not_recorded(warehouse: Warehouse, tmp_path: Path) -> None:
    ahead = warehouse.load_ahead(GREEN, JAN)
    assert ahead is not None
    with closing(ahead):
        ahead.add(pq.read_table(trips(tmp_path, GREEN, JAN, [1.0]).path).to_batches()[0])
        ahead.finish(trips(tmp_path, GREEN, JAN, [1.0, 2.0]))
    assert warehouse.loads(GREEN) == {}


# --- in a run ---


def luigi(folder: Folder, task: str, month: str = "2024-01", expected: int = 0) -> str:
    ran = folder.luigi(task, "--dataset", "green", "--month", month)
    assert ran.returncode == expected, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_a_month_loaded_on_the_way_is_the_month_loaded_from_its_file(folder: Folder) -> None:
    luigi(folder, "Load")
    luigi(folder, "Conform", "2024-02")
    luigi(folder, "Load", "2024-02")
    on_the_way, from_its_file = (
        rows(folder.database, f"SELECT * EXCLUDE (month) FROM green WHERE month = '{month}' ORDER BY ALL")
        for month in ("2024-01-01", "2024-02-01")
    )
    assert on_the_way
    assert from_its_file
    for month, loaded in (("2024-01", on_the_way), ("2024-02", from_its_file)):
        file = folder.lake / f"trips/green/month={month}-01/green_{month}.parquet"
        assert loaded == rows(
            folder.database, f"SELECT * FROM read_parquet('{file}', hive_partitioning = false) ORDER BY ALL"
        )
    recorded = rows(folder.database, "SELECT count(DISTINCT fingerprint), count(*) FROM loads")
    assert recorded == [(2, 2)]


#: Luigi with one worker, so that its steps run in its own process, after a change of that process.
LUIGI = """
import os, resource, signal, sys
sys.dont_write_bytecode = True  # See tests/full_disk.py.
import pipeline.warehouses.duckdb.warehouse as module
{change}
from luigi.cmdline import luigi_run
luigi_run()
"""


def changed_load(folder: Folder, change: str) -> subprocess.CompletedProcess[str]:
    options = ("--module", "pipeline", "Load", "--dataset", "green", "--month", "2024-01", "--local-scheduler")
    ran = folder.run(sys.executable, "-c", LUIGI.format(change=change), *options)
    assert (folder.lake / "trips/green/month=2024-01-01/green_2024-01.parquet").exists()
    return ran


def test_a_kill_after_the_file_is_published_and_before_the_commit_leaves_the_load_to_the_next_run(
    folder: Folder,
) -> None:
    killed = changed_load(folder, "module._record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert rows(folder.database, "SELECT (SELECT count(*) FROM green), (SELECT count(*) FROM loads)") == [(0, 0)]
    luigi(folder, "Load")
    assert rows(folder.database, "SELECT count(*) = any_value(rows) FROM green, loads") == [(True,)]


@pytest.mark.parametrize("exists", [False, True], ids=["new database", "existing database"])
def test_a_disk_that_is_full_for_the_database_keeps_the_conformed_month_and_fails_the_load_alone(
    folder: Folder, exists: bool
) -> None:
    if exists:
        luigi(folder, "Load", "2024-02")
    files, months = folder.files(), {"2024-02-01"} if exists else set()
    full = changed_load(folder, "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))")
    assert full.returncode == 1, full.stderr
    assert "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    left = {name for name in set(folder.files()) - {*files} if not name.startswith("lake/")}
    assert left <= {"warehouse.duckdb.wal"}, "DuckDB's own, which the next load removes"
    luigi(folder, "Load")
    assert not folder.database.with_name("warehouse.duckdb.wal").exists()
    loaded = rows(folder.database, "SELECT CAST(month AS TEXT), rows FROM loads")
    assert {month for month, _ in loaded} == {"2024-01-01", *months}
    assert sorted(loaded) == sorted(
        rows(folder.database, "SELECT CAST(month AS TEXT), count(*) FROM green GROUP BY month")
    )


def test_conforming_alone_loads_nothing(folder: Folder) -> None:
    luigi(folder, "Conform")
    assert not folder.database.exists()


@pytest.mark.skipif(duckdb.__version__ < "2", reason="DuckDB before 2 imports pandas itself for the values of a query")
def test_neither_conforming_nor_loading_imports_pandas(folder: Folder) -> None:
    program = (
        "import atexit, sys; atexit.register(lambda: print('pandas' in sys.modules)); "
        "from luigi.cmdline import luigi_run; luigi_run()"
    )
    options = ("--module", "pipeline", "Load", "--dataset", "green", "--month", "2024-01", "--local-scheduler")
    ran = folder.run(sys.executable, "-c", program, *options)
    assert (ran.returncode, ran.stdout) == (0, "False\n"), ran.stderr
