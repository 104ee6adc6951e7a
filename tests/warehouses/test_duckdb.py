"""What only DuckDB has: its lock, the copy of `loads` beside the database, and the file on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from loading import FEB, GREEN, JAN, MAR, YELLOW, File, many_trips, trips, write, zones

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Column
from pipeline.errors import UsageError, WarehouseError
from pipeline.marts import marts_of
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.duckdb import warehouse as module
from pipeline.warehouses.duckdb.copy_of_loads import CopyOfLoads
from pipeline.warehouses.duckdb.file import DuckDBFile
from pipeline.warehouses.duckdb.warehouse import _KNOWN, DuckDBWarehouse
from pipeline.warehouses.tables import describe
from pipeline.warehouses.views import declared_views

TESTS = Path(__file__).parents[1]

HOLD = """
import duckdb, sys
path, statement = (*sys.argv[1:], "SELECT 1")[:2]
connection = duckdb.connect(path, read_only=statement == "read")
connection.execute("SELECT 1" if statement == "read" else statement)
print("held", flush=True)
sys.stdin.read()
"""

#: Load a month, but stop or die around the n-th call of a function.
INTERRUPT = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import loading
import pipeline.warehouses.duckdb.warehouse as module
from pipeline.warehouses.duckdb.copy_of_loads import CopyOfLoads
name, when, number, how = (sys.argv.pop(1) for _ in range(4))
owner = next(each for each in (CopyOfLoads, module, module.schema) if hasattr(each, name))
original, calls = getattr(owner, name), []
def stop():
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("stopped", flush=True)
    sys.stdin.readline()
def interrupted(*args):
    calls.append(1)
    if when == "before" and len(calls) == int(number):
        stop()
    result = original(*args)
    if when == "after" and len(calls) == int(number):
        stop()
    return result
setattr(owner, name, interrupted)
loading.main()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse" / "trips.duckdb"


@pytest.fixture
def warehouse(path: Path) -> DuckDBWarehouse:
    return opened(path)


def opened(path: Path, **options: object) -> DuckDBWarehouse:
    file = DuckDBFile(path, "500MB", 2, float(options.pop("lock_timeout_s", 30)))  # type: ignore[arg-type]
    return DuckDBWarehouse(file, options.pop("datasets", DATASETS), ZONES)  # type: ignore[arg-type]


@contextmanager
def held(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another program has the database open, after it ran a statement, or read-only."""
    with process(HOLD, str(path), *arguments) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n", holder.communicate()
        yield holder


@contextmanager
def process(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, *arguments], text=True, **pipes) as running:
        try:
            yield running
        finally:
            running.kill()
            running.communicate()


@contextmanager
def loading(path: Path, file: File, at: str) -> Iterator[subprocess.Popen[str]]:
    """A process that loads green 2024-01 and stops at a point such as `insert_rows after 1`."""
    url = f"duckdb:///{path}"
    with process(INTERRUPT, str(TESTS), *at.split(), "stop", url, "green", "2024-01", str(file.path)) as loader:
        assert loader.stdout
        assert [loader.stdout.readline() for _ in "12"] == ["ready\n", "stopped\n"], loader.communicate()
        yield loader


def die(path: Path, file: File, at: str) -> None:
    url = f"duckdb:///{path}"
    with process(INTERRUPT, str(TESTS), *at.split(), "die", url, "green", "2024-01", str(file.path)) as loader:
        output = loader.communicate()
        assert loader.returncode == -9, output


def beside(path: Path) -> set[str]:
    return {entry.name for entry in path.parent.iterdir()}


WHOLE = {"trips.duckdb", "trips.duckdb.loads.json"}


# --- URLs ---


def test_a_relative_url_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_warehouse("duckdb:///data/w.duckdb").replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    assert beside(tmp_path / "data" / "w.duckdb") == {"w.duckdb", "w.duckdb.loads.json"}
    assert set(open_warehouse(f"duckdb:///{tmp_path}/data/w.duckdb").loads(GREEN)) == {JAN}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "warehouse.duckdb",
        "sqlite:///w.db",
        "duckdb:",
        "duckdb://",
        "duckdb:///",
        "duckdb://data/w.duckdb",
        "duckdb:///:memory:",
        "duckdb:///w.duckdb?threads=2",
        "duckdb:///folder/",
        "duckdb:///s3://bucket/w.duckdb",
        "duckdb:///md:trips",
    ],
)
def test_a_url_without_a_database_file_is_an_error_that_lists_allowed_urls(url: str) -> None:
    with pytest.raises(UsageError, match=r"duckdb:///folder/name\.duckdb"):
        open_warehouse(url)


@pytest.mark.parametrize("bound", [{"memory_limit": "lots"}, {"threads": 0}, {"lock_timeout_s": -1}])
def test_an_invalid_bound_is_an_error(bound: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        open_warehouse("duckdb:///w.duckdb", **bound)  # type: ignore[arg-type]


def _sqlite(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE green (a)")
        connection.commit()


def _text(path: Path) -> None:
    path.write_text("vendor_id,pickup_datetime\n")


@pytest.mark.parametrize(("make", "kind"), [(_sqlite, "an SQLite database"), (_text, "no DuckDB database")])
def test_a_file_of_another_program_is_recognised_by_its_first_bytes_and_stays_unchanged(
    tmp_path: Path, path: Path, make: Callable[[Path], None], kind: str
) -> None:
    """DuckDB itself would download an extension for an SQLite file."""
    path.parent.mkdir()
    make(path)
    before, warehouse = path.read_bytes(), opened(path)
    with pytest.raises(WarehouseError, match=rf"cannot open {path}: it is {kind}; set \[pipeline\] warehouse to"):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with pytest.raises(WarehouseError, match=rf"it is {kind}"):
        warehouse.query("SELECT 1")
    assert path.read_bytes() == before
    assert beside(path) == {path.name}
    elsewhere = opened(path.with_name("new.duckdb"))
    assert elsewhere.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0])) == 1


def test_importing_and_opening_imports_no_driver_and_creates_no_file(tmp_path: Path) -> None:
    program = (
        "import sys, pipeline.warehouses as w, pipeline.marts\nfrom pipeline.datasets import ZONES\n"
        "assert w.open_warehouse('duckdb:///w.duckdb').loads(ZONES).get(None) is None\n"
        "sys.exit('duckdb' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- tables ---


def test_tables_carry_types_not_null_and_comments_of_the_declarations(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    columns = warehouse.query(
        "SELECT column_name, data_type, is_nullable, comment FROM duckdb_columns() WHERE table_name = 'green'"
    ).to_pylist()
    by_name = {column.pop("column_name"): column for column in columns}
    assert list(by_name) == [*GREEN.by_name, "month"]
    assert by_name["pickup_datetime"] | {"comment": ""} == {
        "data_type": "TIMESTAMP",
        "is_nullable": False,
        "comment": "",
    }
    assert by_name["month"]["data_type"] == "DATE"
    assert by_name["trip_distance"]["comment"] == "Distance by the meter. Unit: miles."
    assert "1 = credit card; 2 = cash" in by_name["payment_type"]["comment"]
    tables = warehouse.query("SELECT table_name, comment FROM duckdb_tables()").to_pylist()
    assert {table["table_name"]: table["comment"] for table in tables}["green"] == GREEN.doc


def test_views_and_their_columns_carry_comments(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    views = warehouse.query("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").to_pylist()
    comments = {view["view_name"]: view["comment"] for view in views}
    for view in declared_views(DATASETS.values(), ZONES):
        assert comments.pop(view.name) == view.comment
        sql = (
            f"SELECT column_name, comment FROM duckdb_columns() WHERE table_name = '{view.name}' ORDER BY column_index"
        )
        columns = [tuple(row.values()) for row in warehouse.query(sql).to_pylist()]
        assert columns == [(column.name, describe(column)) for column in view.columns]
    assert comments == {}


def test_a_view_of_the_users_own_is_not_replaced(warehouse: DuckDBWarehouse, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    with duckdb.connect(path) as connection:
        connection.execute("CREATE VIEW Green_TripData AS SELECT 7 AS mine; CREATE VIEW other AS SELECT 1 AS one")
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    assert warehouse.query("SELECT * FROM green_tripdata").to_pylist() == [{"mine": 7}]
    assert warehouse.validate_shared() == ["green_tripdata"]
    for read_by_marts in ("for_hire_trips", "trips"):
        with duckdb.connect(path) as connection:
            connection.execute(f"DROP VIEW {read_by_marts}; CREATE VIEW {read_by_marts} AS SELECT 7 AS mine")
        with pytest.raises(WarehouseError, match=f"{read_by_marts} already exists and is not of this package"):
            warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [2.0]))


def test_a_declared_column_that_the_table_lacks_is_added_to_table_and_view(path: Path, tmp_path: Path) -> None:
    opened(path).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    color = Column("color", pa.string(), doc="Colour of the cab.", required=True)
    newer = {
        name: dataclasses.replace(DATASETS[name], columns=(*DATASETS[name].columns, color))
        for name in ("yellow", "green")
    }
    warehouse = opened(path, datasets=newer)
    warehouse.replace(newer["green"], FEB, trips(tmp_path, newer["green"], FEB, [2.0], color=["apple"]))
    rows = warehouse.query("SELECT month, color FROM trips ORDER BY month").to_pylist()
    assert rows == [{"month": JAN, "color": None}, {"month": FEB, "color": "apple"}]
    assert set(warehouse.loads(newer["green"])) == {JAN, FEB}
    # The older version of the package still works on the newer table.
    opened(path).replace(GREEN, MAR, trips(tmp_path, GREEN, MAR, [3.0]))


def test_a_column_that_is_no_longer_required_may_be_null(path: Path, tmp_path: Path) -> None:
    opened(path).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    relaxed = dataclasses.replace(
        GREEN, columns=tuple(dataclasses.replace(column, required=False) for column in GREEN.columns)
    )
    warehouse = opened(path, datasets=DATASETS | {"green": relaxed})
    assert warehouse.replace(relaxed, FEB, trips(tmp_path, relaxed, FEB, [2.0], pickup_datetime=[None])) == 1


def test_a_changed_type_is_an_error_with_table_columns_types_and_remedy(path: Path, tmp_path: Path) -> None:
    opened(path).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    columns = tuple(
        dataclasses.replace(column, type=pa.int64()) if column.name in ("extra", "mta_tax") else column
        for column in GREEN.columns
    )
    changed = dataclasses.replace(GREEN, columns=columns)
    warehouse = opened(path, datasets=DATASETS | {"green": changed})
    with pytest.raises(
        WarehouseError,
        match=r"table green: extra is DOUBLE in the table, now declared BIGINT; mta_tax is DOUBLE .*DROP TABLE green",
    ):
        warehouse.replace(changed, FEB, trips(tmp_path, changed, FEB, [2.0]))
    assert set(opened(path).loads(GREEN)) == {JAN}
    with duckdb.connect(path) as connection:  # the remedy
        connection.execute("DROP TABLE green")
    assert warehouse.loads(changed) == {}
    warehouse.replace(changed, FEB, trips(tmp_path, changed, FEB, [2.0]))
    assert set(warehouse.loads(changed)) == {FEB}


def test_a_mart_whose_table_was_dropped_does_not_count(warehouse: DuckDBWarehouse, path: Path, tmp_path: Path) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [1.0]))
        warehouse.replace_mart_month(GREEN, month, marts_of("green"))
    with duckdb.connect(path) as connection:
        connection.execute("DROP TABLE daily_trips")
    declared = len(marts_of("green"))
    assert len(warehouse.mart_months(GREEN)[JAN]) == declared - 1
    warehouse.replace_mart_month(GREEN, JAN, marts_of("green"))
    built = {month: len(marts) for month, marts in warehouse.mart_months(GREEN).items()}
    assert built == {JAN: declared, FEB: declared - 1}
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [2.0]))


def test_a_path_full_of_wildcards_is_just_a_path(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    trips(tmp_path, GREEN, JAN, [5.0])
    file = trips(tmp_path / "a*[b]?", GREEN, JAN, [1.0, 2.0])
    assert warehouse.replace(GREEN, JAN, file) == 2


# --- the lock ---


def test_while_another_program_has_the_database_the_ledger_is_read_at_once_and_loading_times_out(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    warehouse.replace_mart_month(GREEN, JAN, marts_of("green"))
    warehouse.replace(ZONES, None, zones(tmp_path, {1: "Astoria"}))
    truth = warehouse.loads(GREEN), warehouse.loads(ZONES).get(None), warehouse.mart_months(GREEN)
    with held(path) as holder:
        started = time.monotonic()
        assert (warehouse.loads(GREEN), warehouse.loads(ZONES).get(None), warehouse.mart_months(GREEN)) == truth
        assert time.monotonic() - started < 10, "not lock_timeout_s, which is 30"
        hasty = opened(path, lock_timeout_s=0.4)
        started = time.monotonic()
        for attempt in (
            lambda: hasty.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0])),
            lambda: hasty.query("SELECT 1"),
        ):
            with pytest.raises(WarehouseError, match=rf"held by .*\(PID {holder.pid}\), still after 0\.4 s"):
                attempt()
        assert 0.8 <= time.monotonic() - started < 10
    assert warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0])) == 1


def test_without_a_valid_copy_the_ledger_waits_for_the_lock_as_long_as_a_load_and_says_for_whom(
    warehouse: DuckDBWarehouse,
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "luigi-interface.pipeline.warehouses")
    monkeypatch.setattr("pipeline.warehouses.duckdb.warehouse._NOTICE_S", 0.3)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with held(path, "CREATE TABLE mine (number INTEGER)") as holder:
        with pytest.raises(WarehouseError, match=rf"held by .*\(PID {holder.pid}\), still after 0\.2 s"):
            opened(path, lock_timeout_s=0.2).loads(GREEN)
        assert not caplog.messages
        timer = threading.Timer(1.0, holder.kill)
        timer.start()
        assert set(opened(path, lock_timeout_s=60).loads(GREEN)) == {JAN}
        timer.join()
    (message,) = caplog.messages
    assert re.fullmatch(
        rf"waiting for {path}, which is held by .*\(PID {holder.pid}\); lock_timeout_s allows 60 s", message
    )


def test_a_load_starts_as_soon_as_the_database_is_unlocked(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with held(path) as holder, process(
        INTERRUPT, str(TESTS), "publish", "after", "9", "stop", f"duckdb:///{path}", "green", "2024-02",
        str(trips(tmp_path, GREEN, FEB, [1.0]).path),
    ) as waiting:  # fmt: skip
        assert waiting.stdout
        assert waiting.stdout.readline() == "ready\n"
        time.sleep(0.3)
        assert waiting.poll() is None
        holder.kill()
        assert waiting.stdout.readline() == "1\n"
    assert set(warehouse.loads(GREEN)) == {JAN, FEB}


LOAD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from loading import FEB, GREEN, trips
from pipeline.warehouses import open_warehouse
open_warehouse(f"duckdb:///{sys.argv[2]}").replace(GREEN, FEB, trips(Path(sys.argv[3]), GREEN, FEB, [2.0]))
"""


@pytest.mark.parametrize("shows", ["rows", "error"])
def test_a_commit_of_another_process_while_duckdb_opens_the_file_is_not_lost(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shows: str
) -> None:
    """DuckDB reads the headers before it takes the lock, so it may open an older state, or fail to read it."""
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    file, older = trips(tmp_path, GREEN, MAR, [3.0]), tmp_path / "older.duckdb"
    connect, calls = duckdb.connect, list[object]()

    def overtaken(database: object, **options: Any) -> duckdb.DuckDBPyConnection:
        calls.append(database)
        if len(calls) > 1:
            return connect(database, **options)
        shutil.copy(path, older)
        subprocess.run([sys.executable, "-c", LOAD, str(TESTS), str(path), str(tmp_path)], check=True)
        if shows == "error":
            raise duckdb.IOException("IO Error: Could not read enough bytes from file")
        return connect(older, **options)

    monkeypatch.setattr(duckdb, "connect", overtaken)
    assert warehouse.replace(GREEN, MAR, file) == 1
    assert len(calls) == 2
    assert set(warehouse.loads(GREEN)) == {JAN, FEB, MAR}
    assert warehouse.query("SELECT total_amount FROM green ORDER BY 1").column(0).to_pylist() == [1.0, 2.0, 3.0]


def test_readers_do_not_block_each_other(warehouse: DuckDBWarehouse, path: Path, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with held(path, "read"):
        assert warehouse.query("SELECT total_amount FROM green").num_rows == 1
        assert set(warehouse.loads(GREEN)) == {JAN}


def test_reading_the_ledger_keeps_the_lock_of_another_connection_of_this_process(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with duckdb.connect(path) as mine:
        assert set(warehouse.loads(GREEN)) == {JAN}
        with pytest.raises(WarehouseError, match="this process itself"):
            opened(path, lock_timeout_s=0.1).replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
        with process(HOLD, str(path)) as other:
            assert "Could not set lock" in other.communicate()[1]
        assert mine.execute("SELECT COUNT(*) FROM green").fetchall() == [(1,)]


@pytest.mark.parametrize("at", ["drop_rows after 1", "insert_rows after 1", "publish after 1"])
def test_during_a_load_all_loaded_months_are_reported_at_once(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path, at: str
) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [1.0]))
    with loading(path, many_trips(tmp_path, GREEN, JAN, 300_000), at):
        started = time.monotonic()
        assert {month: record.rows for month, record in warehouse.loads(GREEN).items()} == {JAN: 1, FEB: 1}
        assert time.monotonic() - started < 10, "not lock_timeout_s, which is 30"


@pytest.mark.parametrize("at", ["publish after 2", "publish before 3"])
def test_around_the_commit_the_copy_has_no_record_of_a_month_that_is_replaced(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path, at: str
) -> None:
    for month in (JAN, FEB):
        warehouse.replace(GREEN, month, trips(tmp_path, GREEN, month, [1.0]))
    with loading(path, many_trips(tmp_path, GREEN, JAN, 300_000), at):
        assert set(warehouse.loads(GREEN)) == {FEB}


def test_after_the_commit_the_copy_has_the_month_while_the_file_is_still_locked(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    with loading(path, trips(tmp_path, GREEN, JAN, [1.0]), "publish after 2"):
        assert set(warehouse.loads(GREEN)) == {JAN, FEB}


# --- the copy ---


def test_an_edited_copy_is_not_read(warehouse: DuckDBWarehouse, path: Path, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    copy = path.with_name("trips.duckdb.loads.json")
    copy.write_text(copy.read_text().replace("2024-01-01", "2024-02-01"))
    assert set(warehouse.loads(GREEN)) == {JAN}


def test_a_new_process_reads_the_copy_of_an_unchanged_database_without_duckdb(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    ledger = warehouse.ledger()
    time.sleep(0.05)  # A short load can write the copy within the same tick of the clock as the database.
    with closing(CopyOfLoads(path)) as copy:
        copy.is_complete = True
        copy.publish(ledger)
    program = (
        "import sys; from pipeline.warehouses import open_warehouse\n"
        f"assert len(open_warehouse('duckdb:///{path}').ledger().loads) == 1\n"
        "print('duckdb' in sys.modules)"
    )
    answers = []
    for _ in range(2):
        answers.append(subprocess.check_output([sys.executable, "-c", program], text=True).strip())
        with duckdb.connect(path) as connection:
            connection.execute("UPDATE loads SET rows = 2")
    assert answers == ["False", "True"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"database": 3}', '{"database": [[1, 2, 3, 4], null]}'])
def test_a_copy_that_is_corrupt_is_ignored(warehouse: DuckDBWarehouse, path: Path, tmp_path: Path, text: str) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    path.with_name("trips.duckdb.loads.json").write_text(text)
    assert set(warehouse.loads(GREEN)) == {JAN}
    assert_no_answer(path)
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    with held(path):
        assert set(warehouse.loads(GREEN)) == {JAN, FEB}


def assert_no_answer(path: Path, *statement: str) -> None:
    """While another program has the database and there is no valid copy, the ledger is an error, not empty.

    Of a process that has not read it; one that has knows it as long as the files are the same.
    """
    _KNOWN.clear()
    with held(path, *statement), pytest.raises(WarehouseError, match="held by"):
        opened(path, lock_timeout_s=0.2).loads(GREEN)


def test_an_old_copy_is_invalid_for_a_deleted_or_replaced_database(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.duckdb"
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    shutil.copy(path, backup)
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [1.0]))
    old = path.with_name("trips.duckdb.loads.json").read_bytes()

    shutil.copy(backup, path)  # restored in place: the same inode, the same database, an older state
    assert_no_answer(path)
    assert set(warehouse.loads(GREEN)) == {JAN}

    path.unlink()
    assert warehouse.loads(GREEN) == {}
    duckdb.connect(path).close()
    assert_no_answer(path)
    assert warehouse.loads(GREEN) == {}

    path.unlink()
    file = trips(tmp_path, GREEN, JAN, [1.0])
    with loading(path, file, "insert_rows after 1"):  # right after that, our own process has created a new one
        assert warehouse.loads(GREEN) == {}
        assert path.with_name("trips.duckdb.loads.json").read_bytes() != old


def test_what_another_program_deletes_from_loads_is_not_claimed_while_it_still_has_the_file(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    assert_no_answer(path, "DELETE FROM loads")
    assert warehouse.loads(GREEN) == {}


def test_a_database_replaced_during_a_load_is_an_error_and_stays_unchanged(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    shutil.copy(path, tmp_path / "other.duckdb")
    with loading(path, trips(tmp_path, GREEN, JAN, [1.0, 2.0]), "insert_rows after 1") as loader:
        (tmp_path / "other.duckdb").replace(path)
        assert "replaced" in loader.communicate("\n")[1]
    assert warehouse.loads(GREEN)[JAN].rows == 1


# --- reading the ledger is cheap ---


def test_thousands_of_questions_about_an_unchanged_database_open_it_once_at_most(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    monkeypatch.setattr("pipeline.warehouses.duckdb.warehouse._is_settled", lambda files: True)
    opens: list[object] = []
    original: Callable[..., object] = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *args, **named: (opens.append(1), original(*args, **named))[1])
    for _ in range(1_000):
        assert set(opened(path).loads(GREEN)) == {JAN}
        assert warehouse.loads(ZONES).get(None) is None
    assert len(opens) <= 1
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); import loading; loading.main()"
    file = trips(tmp_path, GREEN, FEB, [1.0])
    with process(program, str(TESTS), f"duckdb:///{path}", "green", "2024-02", str(file.path)) as other:
        assert other.communicate()[0] == "ready\n1\n"
    assert set(warehouse.loads(GREEN)) == {JAN, FEB}


def test_a_question_right_after_a_change_is_never_answered_from_memory(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    for number in range(6):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0] * number))
        assert warehouse.loads(GREEN)[JAN].rows == number
        warehouse.forget(GREEN, JAN)
        assert warehouse.loads(GREEN) == {}


# --- kills and other failures ---


@pytest.mark.parametrize(
    ("at", "rows"),
    [
        ("evolve before 1", 2),
        ("publish before 1", 2),
        ("drop_rows after 1", 2),
        ("insert_rows after 1", 2),
        ("record_load after 1", 2),
        ("publish after 2", 2),
        ("suppress before 1", 3),
        ("publish before 3", 3),
        ("publish after 3", 3),
    ],
)
def test_a_load_killed_at_a_certain_moment_leaves_the_old_month_or_the_new_and_no_litter(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path, at: str, rows: int
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0, 2.0]))
    new = trips(tmp_path, GREEN, JAN, [3.0, 4.0, 5.0])
    die(path, new, at)
    assert warehouse.loads(GREEN)[JAN].rows == rows
    assert warehouse.query("SELECT COUNT(*) AS n FROM green").to_pylist() == [{"n": rows}]
    warehouse.replace(GREEN, JAN, new)
    assert beside(path) == WHOLE


def test_a_database_moved_with_its_wal_has_the_load_that_was_killed_before_its_checkpoint(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0, 2.0]))
    die(path, trips(tmp_path, GREEN, JAN, [3.0, 4.0, 5.0]), "suppress before 1")
    assert "trips.duckdb.wal" in beside(path)
    moved = opened(shutil.copytree(path.parent, tmp_path / "moved") / path.name)
    shutil.rmtree(path.parent)
    assert moved.loads(GREEN)[JAN].rows == 3
    assert moved.query("SELECT COUNT(*) AS n FROM green").to_pylist() == [{"n": 3}]
    moved.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [6.0]))
    assert beside(tmp_path / "moved" / path.name) == WHOLE


def test_a_first_load_killed_while_it_creates_the_database_leaves_none(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    file = trips(tmp_path, GREEN, JAN, [1.0])
    die(path, file, "evolve after 1")
    assert not path.exists()
    assert warehouse.loads(GREEN) == {}
    warehouse.replace(GREEN, JAN, file)
    assert beside(path) == WHOLE


def test_spill_of_killed_processes_is_deleted_and_nothing_else(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    spill = path.with_name("trips.duckdb.spill-123-0123abcd")
    spill.mkdir()
    (spill / "duckdb_temp_block-1.block").write_bytes(b"x")
    others = path.with_name("trips.duckdb.spill-notes")
    others.mkdir()
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    assert beside(path) == WHOLE | {others.name}


def test_a_large_month_is_inserted_in_parts_with_the_whole_limit_again_for_each(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 100)
    file = trips(tmp_path, GREEN, JAN, [float(number) for number in range(300)])
    limits = []

    def insert(connection: duckdb.DuckDBPyConnection, *arguments: object) -> int:
        limits.extend(connection.execute("SELECT current_setting('memory_limit')").fetchall())
        return original(connection, *arguments)  # type: ignore[arg-type]

    original = module._insert
    monkeypatch.setattr(module, "_insert", insert)
    warehouse = opened(path)
    assert warehouse.replace(GREEN, JAN, file) == 300
    assert limits == [("476.8 MiB",)] * 4
    rows = warehouse.query("SELECT total_amount FROM green")["total_amount"].to_pylist()
    assert rows == [float(number) for number in range(300)]


def test_a_query_that_spills_leaves_nothing(path: Path, tmp_path: Path) -> None:
    opened(path).replace(GREEN, JAN, many_trips(tmp_path, GREEN, JAN, 300_000))
    small = DuckDBWarehouse(DuckDBFile(path, "30MB", 1, 5), DATASETS, ZONES)
    rows = small.query(
        "SELECT COUNT(*) AS n FROM (SELECT g.* FROM green AS g ORDER BY random()) WHERE total_amount >= 0"
    )
    assert rows.to_pylist() == [{"n": 300_000}]
    assert beside(path) == WHOLE


def test_a_signal_during_a_query_stops_the_process_and_not_just_the_query(tmp_path: Path) -> None:
    # DuckDB turns the KeyboardInterrupt into a RuntimeError, which would look like a failure of the month.
    endless = "SELECT sum(sin(a.range * b.range)) FROM range(1000000) a, range(1000000) b"
    file = DuckDBFile(tmp_path / "trips.duckdb", "500MB", 1, 1)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt), file.opened("endless") as connection:
            connection.execute(endless)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_wal_of_a_deleted_database_is_not_replayed_into_a_new_one(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with held(path, "INSERT INTO green SELECT * FROM green") as holder:
        holder.kill()
    assert path.with_name("trips.duckdb.wal").exists()
    assert warehouse.query("SELECT COUNT(*) AS n FROM green").to_pylist() == [{"n": 2}]  # read through its WAL
    path.unlink()
    assert warehouse.loads(GREEN) == {}
    warehouse.replace(GREEN, FEB, trips(tmp_path, GREEN, FEB, [7.0]))
    assert warehouse.query("SELECT total_amount AS t FROM green").to_pylist() == [{"t": 7.0}]
    assert beside(path) == WHOLE


def test_a_file_that_is_no_database_is_an_immediate_error(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    path.parent.mkdir()
    file = trips(tmp_path, GREEN, JAN, [1.0])
    for make in (lambda: path.write_text("not a database" * 400), lambda: path.write_text(""), path.mkdir):
        make()
        started = time.monotonic()
        for attempt in (
            lambda: warehouse.loads(GREEN),
            lambda: warehouse.replace(GREEN, JAN, file),
            lambda: warehouse.query("SELECT 1"),
        ):
            with pytest.raises(WarehouseError, match=r"cannot open .*trips\.duckdb") as caught:
                attempt()
            assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 20, "not lock_timeout_s for each"
        if path.is_file():
            path.unlink()
    assert f"{path}: it is a folder; set [pipeline] warehouse to a DuckDB file" in str(caught.value)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    warehouse = opened(tmp_path / "file" / "w.duckdb")
    with pytest.raises(WarehouseError, match="cannot create"):
        warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))


def test_a_full_disk_is_an_error_and_leaves_the_old_month(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    limit = path.stat().st_size + 300_000
    program = (
        "import resource, signal, sys; sys.dont_write_bytecode = True\n"  # See tests/full_disk.py.
        "sys.path.insert(0, sys.argv.pop(1)); import loading\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "loading.main()"
    )
    file = many_trips(tmp_path, GREEN, JAN, 400_000)
    with process(program, str(TESTS), f"duckdb:///{path}", "green", "2024-01", str(file.path)) as loader:
        assert "pipeline.errors.WarehouseError: green 2024-01" in loader.communicate()[1]
        assert loader.returncode == 1
    assert warehouse.loads(GREEN)[JAN].rows == 1
    assert warehouse.replace(GREEN, JAN, file) == 400_000
    assert beside(path) == WHOLE


def test_a_load_closes_the_database_at_once_and_leaves_no_other_files(
    warehouse: DuckDBWarehouse, path: Path, tmp_path: Path
) -> None:
    warehouse.replace(YELLOW, JAN, trips(tmp_path, YELLOW, JAN, [1.0]))
    with held(path):
        pass
    with pytest.raises(WarehouseError):
        warehouse.replace(YELLOW, JAN, write(tmp_path / "x.parquet", GREEN, JAN, GREEN.schema.empty_table()))
    with pytest.raises(WarehouseError):
        warehouse.query("SELECT nonsense")
    with held(path):
        pass
    assert beside(path) == WHOLE
    recorded = json.loads(path.with_name("trips.duckdb.loads.json").read_text())["database"]
    assert recorded[0][:2] == [path.stat().st_ino, path.stat().st_size]
