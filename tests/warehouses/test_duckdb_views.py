"""What only a DuckDB warehouse with ?tables=views has: the files that its views read."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from conftest import Folder
from loading import FEB, GREEN, JAN, File, trips, zones

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Column, Dataset
from pipeline.errors import UsageError, WarehouseError
from pipeline.marts import marts_of
from pipeline.warehouses import Warehouse, open_warehouse

pytestmark = pytest.mark.skipif(duckdb.__version__ < "2", reason="views need DuckDB 2")

TESTS = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse" / "trips.duckdb"


@pytest.fixture
def url(path: Path) -> str:
    return f"duckdb:///{path}?tables=views"


@pytest.fixture
def warehouse(url: str) -> Warehouse:
    return open_warehouse(url)


def totals(warehouse: Warehouse, dataset: Dataset = GREEN) -> list[tuple[date, float]]:
    rows = warehouse.query(f"SELECT month, total_amount FROM {dataset.name} ORDER BY ALL").to_pylist()
    return [(row["month"], row["total_amount"]) for row in rows]


def files(path: Path) -> list[str]:
    folder = path.with_name("trips.duckdb.files")
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_query_reads_the_loaded_file_until_the_next_load_whatever_becomes_of_the_file_in_the_lake(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    loaded, conformed = trips(tmp_path, GREEN, JAN, [1.0]), trips(tmp_path, GREEN, JAN, [2.0, 3.0])
    warehouse.replace(GREEN, JAN, loaded)
    conformed.path.replace(loaded.path)
    assert totals(warehouse) == [(JAN, 1.0)]
    warehouse.replace(GREEN, JAN, loaded)
    assert totals(warehouse) == [(JAN, 2.0), (JAN, 3.0)]
    loaded.path.unlink()
    assert totals(warehouse) == [(JAN, 2.0), (JAN, 3.0)]
    assert warehouse.changed_rows(GREEN) == {}


def test_a_load_takes_no_room_beside_the_lake_and_keeps_no_file_that_no_record_needs(
    warehouse: Warehouse, path: Path, tmp_path: Path
) -> None:
    first, second = trips(tmp_path, GREEN, JAN, [1.0]), trips(tmp_path, GREEN, JAN, [2.0])
    for file in (first, first, second):
        warehouse.replace(GREEN, JAN, file)
        assert files(path) == [f"green/month=2024-01-01/{file.fingerprint}.parquet"]
    assert second.path.samefile(path.with_name("trips.duckdb.files") / files(path)[0])
    warehouse.forget(GREEN, JAN)
    assert list(path.with_name("trips.duckdb.files").rglob("month=*")) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_file_of_another_file_system_is_copied(warehouse: Warehouse, tmp_path: Path) -> None:
    file = trips(tmp_path, GREEN, JAN, [1.0])
    elsewhere = File(Path("/dev/shm") / f"{os.getpid()}-{file.path.name}")
    shutil.move(file.path, elsewhere.path)
    try:
        warehouse.replace(GREEN, JAN, elsewhere)
    finally:
        elsewhere.path.unlink()
    assert totals(warehouse) == [(JAN, 1.0)]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import loading
import pipeline.warehouses.duckdb.views_over_files as module
original = getattr(module.schema, sys.argv[2])
def killed(*args):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module.schema, sys.argv[2], killed)
sys.argv[1:] = sys.argv[3:]
loading.main()
"""


@pytest.mark.parametrize("at", ["forget_load", "record_load"])
def test_a_killed_load_leaves_the_old_rows_and_its_file_goes_with_the_next_load(
    at: str, url: str, warehouse: Warehouse, path: Path, tmp_path: Path
) -> None:
    old, new, other = (trips(tmp_path, GREEN, month, [n]) for month, n in ((JAN, 1.0), (JAN, 2.0), (FEB, 3.0)))
    warehouse.replace(GREEN, JAN, old)
    command = [sys.executable, "-c", KILLED, str(TESTS), at, url, "green", "2024-01", str(new.path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    assert len(files(path)) == 2
    assert totals(warehouse) == [(JAN, 1.0)]
    warehouse.replace(GREEN, FEB, other)
    assert totals(warehouse) == [(JAN, 1.0), (FEB, 3.0)]
    assert len(files(path)) == 2


def test_a_newly_declared_column_is_null_in_older_files_and_an_older_version_goes_on(
    url: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    color = Column("color", pa.string(), doc="Colour of the cab.", required=True)
    newer = dataclasses.replace(GREEN, columns=(*GREEN.columns, color))
    later = open_warehouse(url, datasets=DATASETS | {"green": newer})
    later.replace(newer, FEB, trips(tmp_path, newer, FEB, [2.0], color=["apple"]))
    for table in ("green", "trips"):
        rows = later.query(f"SELECT month, color FROM {table} ORDER BY month").to_pylist()
        assert rows == [{"month": JAN, "color": None}, {"month": FEB, "color": "apple"}]
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [3.0]))
    assert totals(warehouse) == [(JAN, 3.0), (FEB, 2.0)]


def test_a_changed_type_is_an_error_whose_remedy_is_to_drop_the_view(url: str, path: Path, tmp_path: Path) -> None:
    open_warehouse(url).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    columns = (dataclasses.replace(each, type=pa.int64()) if each.name == "extra" else each for each in GREEN.columns)
    changed = dataclasses.replace(GREEN, columns=tuple(columns))
    warehouse = open_warehouse(url, datasets=DATASETS | {"green": changed})
    file = trips(tmp_path, changed, FEB, [2.0])
    with pytest.raises(WarehouseError, match=r"extra is DOUBLE in the table, now declared BIGINT; .*DROP VIEW green"):
        warehouse.replace(changed, FEB, file)
    with duckdb.connect(path) as connection:
        connection.execute("DROP VIEW green")
    warehouse.replace(changed, FEB, file)
    assert totals(warehouse, changed) == [(FEB, 2.0)]


def test_a_required_value_that_is_missing_is_an_error_also_in_a_file_without_statistics(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    file = trips(tmp_path, GREEN, JAN, [1.0, 2.0], pickup_datetime=[None, None])
    pq.write_table(pq.read_table(file.path, partitioning=None), file.path, write_statistics=False)
    with pytest.raises(WarehouseError, match="pickup_datetime is required, but has 0 values in the 2 rows"):
        warehouse.replace(GREEN, JAN, file)
    assert (totals(warehouse), warehouse.loads(GREEN)) == ([], {})


@pytest.mark.parametrize("made_with", ["", "?tables=views"])
def test_a_database_of_tables_is_not_opened_with_views_nor_the_other_way_round(
    made_with: str, path: Path, tmp_path: Path
) -> None:
    file = trips(tmp_path, GREEN, JAN, [1.0])
    right = open_warehouse(f"duckdb:///{path}{made_with}")
    right.replace(GREEN, JAN, file)
    wrong = open_warehouse(f"duckdb:///{path}{'' if made_with else '?tables=views'}")
    remedy = "add that to" if made_with else "remove that from"
    for attempt in (lambda: wrong.replace(GREEN, JAN, file), lambda: wrong.forget(GREEN, JAN), wrong.validate_shared):
        with pytest.raises(WarehouseError, match=rf"\?tables=views[,;] {remedy} \[pipeline\] warehouse.*another file"):
            attempt()  # type: ignore[operator]
    assert totals(right) == [(JAN, 1.0)]


def test_a_query_reads_the_loaded_files_and_no_others(warehouse: Warehouse, path: Path, tmp_path: Path) -> None:
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    folder = path.with_name("trips.duckdb.files")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    for secret in (tmp_path / "secret.csv", folder / ".." / ".." / "secret.csv", folder / "link.csv"):
        with pytest.raises(WarehouseError, match="disabled by configuration"):
            warehouse.query(f"SELECT * FROM read_csv('{secret}')")
    with pytest.raises(UsageError):
        warehouse.query(f"COPY (SELECT 1) TO '{folder}/written.csv'")


def test_any_program_reads_the_views_from_any_folder(
    warehouse: Warehouse, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    warehouse.replace(ZONES, None, zones(tmp_path))
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT pickup_zone FROM trips").fetchall() == [("Astoria",)]
        comments = dict(connection.execute("SELECT column_name, comment FROM duckdb_columns()").fetchall())
    assert comments["month"].startswith("Month of the TLC file")


def test_a_database_that_was_moved_reads_the_files_that_moved_with_it_after_the_remedy(
    url: str, path: Path, folder: Folder, tmp_path: Path
) -> None:
    folder.environment["PIPELINE_WAREHOUSE"] = url
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    path.parent.replace(tmp_path / "it's [moved]")
    url = f"duckdb:///{tmp_path}/it's [moved]/trips.duckdb?tables=views"
    with pytest.raises(WarehouseError, match="green: .* moved; run pipeline redo zones --from load"):
        open_warehouse(url).query("SELECT * FROM green")
    folder.environment["PIPELINE_WAREHOUSE"] = url
    ended = folder.pipeline("redo", "zones", "--from", "load", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert len(totals(open_warehouse(url))) == open_warehouse(url).loads(GREEN)[JAN].rows


def test_a_file_that_is_gone_is_found_by_refresh_and_loaded_again_by_redo(url: str, folder: Folder) -> None:
    folder.environment["PIPELINE_WAREHOUSE"] = url
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    path = Path(url.removeprefix("duckdb:///").partition("?")[0])
    (path.with_name("trips.duckdb.files") / files(path)[0]).unlink()
    found = folder.pipeline("refresh", "green", "2024-01")
    assert "the file of its rows is gone" in found.stdout + found.stderr
    ended = folder.pipeline("redo", "green", "2024-01", "--from", "load", "--yes")
    assert ended.returncode == 0, ended.stderr
    warehouse = open_warehouse(url)
    assert warehouse.changed_rows(GREEN) == {}
    assert set(warehouse.mart_months(GREEN)[JAN]) == {mart.name for mart in marts_of("green")}
