"""What only Postgres has: partitions, comments, waiting for locks, sessions that end early, types of rows."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from full_disk import full_disk
from loading import FEB, GREEN, JAN, MAR, File, many_trips, trips, write
from postgres import PASSWORD, Database, postgres_server

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Column, Dataset
from pipeline.errors import UsageError, WarehouseError
from pipeline.marts import marts_of
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.postgres.copy import encode
from pipeline.warehouses.postgres.schema import PostgresDialect
from pipeline.warehouses.tables import LEDGER, MOMENT, MONTH_DOC, describe
from pipeline.warehouses.views import declared_views

TESTS = Path(__file__).parents[1]
VIEWS = declared_views(DATASETS.values(), ZONES)
MANY = 50_000
#: Where versions of this package that swapped tables copied a month; a crash left it behind.
INCOMING = "green_2024_01_incoming"

#: Loads a month, but stops after a function of the warehouse, or within the pieces of `encode`.
INTERRUPT = """
import itertools, sys
sys.path.insert(0, sys.argv.pop(1))
import loading
from pipeline.warehouses.postgres import warehouse as postgres
name = sys.argv.pop(1)
owner = postgres.PostgresWarehouse if name == "replace" else postgres
original = getattr(owner, name)
def stop():
    loading.tell("stopped")
    sys.stdin.readline()
def interrupted(*args):
    result = original(*args)
    stop()
    return result
def encoded(*args):
    yield from itertools.islice(pieces := original(*args), 3)
    stop()
    yield from pieces
setattr(owner, name, encoded if name == "encode" else interrupted)
loading.main()
"""


@dataclasses.dataclass(frozen=True)
class TaxiDatabase:
    """A database, and a folder for files."""

    database: Database
    folder: Path

    def open(self, lock_timeout_s: float = 30, **datasets: Dataset) -> Warehouse:
        return open_warehouse(self.database.url, lock_timeout_s=lock_timeout_s, datasets=DATASETS | datasets)

    def load(self, month: date, *totals: float, lock_timeout_s: float = 30) -> int:
        return self.open(lock_timeout_s).replace(GREEN, month, self.file(month, *totals))

    def load_many(self, rows: int = MANY) -> int:
        return self.open().replace(GREEN, JAN, many_trips(self.folder, GREEN, JAN, rows))

    def file(self, month: date, *totals: float) -> File:
        return trips(self.folder, GREEN, month, list(totals))

    def loaded(self) -> dict[date, int]:
        return {month: record.rows for month, record in self.open().loads(GREEN).items()}

    def totals(self, table: str = "green") -> list[float]:
        return [total for (total,) in self.database.execute(f"SELECT total_amount FROM {table} ORDER BY 1")]

    def relations(self, like: str = "%") -> dict[str, str]:
        """Kind, comment and columns of each relation, by name."""
        sql = (
            "SELECT relname, concat_ws(' ', relkind, relispartition, obj_description(c.oid, 'pg_class'), "
            "(SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) "
            "FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)) FROM pg_class AS c "
            f"WHERE relnamespace = 'public'::regnamespace AND relname LIKE '{like}'"
        )
        return dict(self.database.execute(sql))

    def sessions(self, state: str = "") -> list[int]:
        """The server processes of this package's sessions; with `Lock` only those that wait for one."""
        sql = f"FROM pg_stat_activity WHERE datname = '{self.database.name}' AND application_name = 'taxi-pipeline'"
        sessions = self.database.execute(f"SELECT pid, wait_event_type {sql}")
        return [pid for pid, event in sessions if state in ("", event)]

    @contextmanager
    def other(self, sql: str = "SELECT COUNT(*) FROM green") -> Iterator[psycopg.Connection[Any]]:
        """A transaction of another session, which began with this statement."""
        with psycopg.connect(self.database.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute(sql)
            yield connection

    @contextmanager
    def process(self, file: File, at: str = "") -> Iterator[subprocess.Popen[str]]:
        """A process that loads green 2024-01, and may stop after a function such as `encode` until it reads a line."""
        program = ["-c", INTERRUPT, str(TESTS), at] if at else [str(TESTS / "loading.py")]
        command = [sys.executable, *program, self.database.url, "green", "2024-01", str(file.path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as running:
            try:
                for word in ["ready\n", "stopped\n"][: 2 if at else 1]:
                    assert running.stdout.readline() == word, running.communicate()
                yield running
            finally:
                running.kill()
                running.communicate()


@pytest.fixture
def db(database: Database, tmp_path: Path) -> TaxiDatabase:
    return TaxiDatabase(database, tmp_path)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met within 30 s"
        time.sleep(0.01)


def extended(dataset: Dataset, *columns: Column) -> Dataset:
    return dataclasses.replace(dataset, columns=(*dataset.columns, *columns))


def test_a_month_is_a_partition_with_bounds_and_an_index(db: TaxiDatabase) -> None:
    assert db.load(JAN, 1.0) == db.load(JAN, 2.0) == 1
    assert db.database.execute(
        "SELECT pg_get_partkeydef(inhparent), relname::text, pg_get_expr(relpartbound, oid) "
        "FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'green'::regclass"
    ) == [("RANGE (month)", "green_2024_01", "FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")]
    for table in ("green", "green_2024_01"):
        on = f"SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{table}'"
        ((name, text),) = db.database.execute(on)
        assert (name, text.partition(" USING ")[2]) == (f"{table}_pickup_datetime_idx", "brin (pickup_datetime)")
    assert db.relations("%incoming%") == {}


def test_tables_and_columns_have_types_not_null_and_comments_of_the_declarations(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    tables = {of.name: (of.doc, of.columns) for of in (*DATASETS.values(), ZONES)}
    for name, (doc, columns) in {**tables, **LEDGER, "green_2024_01": ("green of 2024-01.", GREEN.columns)}.items():
        wanted = [(c.name, PostgresDialect.types[c.type], c.required, describe(c)) for c in columns]
        if name not in ("zones", *LEDGER):
            wanted.append(("month", "date", True, MONTH_DOC))
        actual = db.database.execute(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, col_description(attrelid, attnum) "
            f"FROM pg_attribute WHERE attrelid = '{name}'::regclass AND attnum > 0 ORDER BY attnum"
        )
        assert (actual, db.database.execute(f"SELECT obj_description('{name}'::regclass)")) == (wanted, [(doc,)])


def test_neither_a_long_reader_nor_the_readers_after_it_wait_for_a_load_or_make_it_wait(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0, 2.0)
    read = "SELECT COUNT(*), SUM(total_amount) FROM green"
    with db.other() as reader, db.process(many_trips(db.folder, GREEN, JAN, MANY), "encode") as loader:
        with psycopg.connect(db.database.url, options="-cstatement_timeout=5s") as later:
            assert later.execute(read).fetchall() == [(2, 3.0)], "the new rows are being copied"
        assert loader.communicate("\n")[0] == f"{MANY}\n"
        assert reader.execute(read).fetchall() == [(2, 3.0)]
    assert db.loaded() == {JAN: MANY} == {JAN: len(db.totals())}


def test_a_month_is_forgotten_while_another_session_reads_the_dataset(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    db.load(FEB, 2.0)
    with db.other() as reader:
        db.open(lock_timeout_s=0).forget(GREEN, JAN)
        assert reader.execute("SELECT SUM(total_amount) FROM green").fetchone() == (3.0,)
    assert (db.totals(), db.loaded()) == ([2.0], {FEB: 1})


@pytest.mark.parametrize("sql", ["LOCK green", "LOCK green_2024_01", f"LOCK {INCOMING}", "LOCK loads"])
def test_a_load_that_waits_too_long_for_a_lock_names_its_holder_and_keeps_the_old_month(
    sql: str, db: TaxiDatabase
) -> None:
    db.load(JAN, 1.0)
    db.database.execute(f"CREATE TABLE {INCOMING} ()")
    with ThreadPoolExecutor() as pool, db.other(sql) as holder:
        load = pool.submit(db.load, JAN, 2.0, lock_timeout_s=0.5)
        session = rf"locked by PID {holder.info.backend_pid} \(.*still after 0\.5 s.*pg_terminate_backend\(PID\)"
        with pytest.raises(WarehouseError, match=f"green 2024-01: {session}"):
            load.result(timeout=60)
    assert (db.totals(), db.loaded()) == ([1.0], {JAN: 1})
    assert db.load(JAN, 2.0) == 1
    assert db.relations("%incoming%") == {}


def test_a_transaction_from_before_sees_the_old_month_and_no_first_load_waits_for_it(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0, 2.0)
    with db.other("SELECT * FROM green") as reader:
        assert db.load(JAN, 3.0, 4.0, 5.0) == 3
        assert db.load(FEB, 2.0, lock_timeout_s=0) == 1
        assert reader.execute("SELECT SUM(total_amount) FROM green").fetchone() == (3.0,)
    assert db.loaded() == {JAN: 3, FEB: 1}


SWAPPED_IN = f"""
ALTER TABLE green DETACH PARTITION green_2024_01;
ALTER TABLE green_2024_01 ADD CONSTRAINT month CHECK (month = DATE '2024-01-01');
ALTER TABLE green ATTACH PARTITION green_2024_01 FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE {INCOMING} (LIKE green_2024_01 INCLUDING ALL)
"""


def test_a_partition_and_a_leftover_of_an_earlier_version_are_taken_over(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    db.database.execute(SWAPPED_IN)
    assert (db.load(JAN, 2.0, 3.0), db.totals()) == (2, [2.0, 3.0])
    assert db.relations("%incoming%") == {}


def test_two_loads_of_a_month_come_one_after_the_other(db: TaxiDatabase) -> None:
    first, second = db.file(JAN, 1.0, 2.0), db.file(JAN, 3.0, 4.0, 5.0)
    with db.process(first, "record_load") as holder:
        (pid,) = db.sessions()
        with pytest.raises(WarehouseError, match=rf"green 2024-01: locked by PID {pid} \(.*still after 0\.3 s"):
            db.load(JAN, 3.0, lock_timeout_s=0.3)
        with db.process(second) as waiter:
            until(lambda: db.sessions("Lock"))
            assert db.loaded() == {}
            assert holder.communicate("\n")[0] == "2\n"
            assert waiter.communicate()[0] == "3\n"
    assert (db.totals(), db.loaded()) == ([3.0, 4.0, 5.0], {JAN: 3})


@pytest.mark.parametrize("month", [FEB, MAR], ids=["again", "first"])
def test_a_month_does_not_wait_while_another_is_copied(month: date, db: TaxiDatabase) -> None:
    for there in (JAN, FEB):
        db.load(there, 1.0)
    with db.process(many_trips(db.folder, GREEN, JAN, MANY), "encode") as other:
        assert db.load(month, 2.0, 3.0, lock_timeout_s=1) == 2
        assert other.communicate("\n")[0] == f"{MANY}\n"
    assert db.loaded() == {FEB: 1, JAN: MANY, month: 2}


@pytest.mark.parametrize("at", ["lock_session", "prepare_partition", "encode", "record_load", "replace"])
@pytest.mark.parametrize("before", [2, 0], ids=["again", "first"])
def test_a_load_killed_in_or_after_a_step_leaves_the_old_month_or_the_new(
    at: str, before: int, db: TaxiDatabase
) -> None:
    if before:
        db.load(JAN, 1.0, 2.0)
    with db.process(many_trips(db.folder, GREEN, JAN, MANY), at) as loader:
        loader.kill()
    until(lambda: not db.sessions())
    rows = MANY if at == "replace" else before
    assert db.loaded() == ({JAN: rows} if rows else {})
    assert len(db.totals() if db.relations("green") else []) == rows
    assert db.load_many() == MANY
    assert (db.loaded(), len(db.totals())) == ({JAN: MANY}, MANY)


@pytest.mark.parametrize(("how", "times"), [("killed", 1), ("terminated", 2), ("terminated", 3)])
def test_a_load_whose_session_ends_starts_again_twice_and_then_is_an_error(
    how: str, times: int, db: TaxiDatabase
) -> None:
    if how == "killed" and db.database.server.folder is None:
        pytest.skip("only a server that the tests started is made to crash")
    db.load(JAN, 1.0)
    with db.process(many_trips(db.folder, GREEN, JAN, MANY), "encode") as loader:
        for left in reversed(range(times)):
            (pid,) = db.sessions()
            terminate = f"SELECT pg_terminate_backend({pid}, 20000)"
            os.kill(pid, signal.SIGKILL) if how == "killed" else db.database.execute(terminate)
            loader.stdin.write("\n" if left else "\n\n")
            loader.stdin.flush()
            assert not left or loader.stdout.readline() == "stopped\n"
        out, err = loader.communicate()
    failed = "WarehouseError: green 2024-01 in Postgres at host" in err
    assert (failed, out) == ((True, "") if times == 3 else (False, f"stopped\n{MANY}\n"))
    rows = 1 if failed else MANY
    assert (len(db.totals()), db.loaded()) == (rows, {JAN: rows})


def test_a_server_whose_disk_is_full_is_named_and_keeps_the_old_month(tmp_path: Path) -> None:
    with ExitStack() as stack:
        # Postgres reports a file that may not grow as a full disk; a file of its log has 16 MB from the beginning.
        with full_disk(17 << 20):
            server = stack.enter_context(postgres_server())
        db = TaxiDatabase(Database(server, "postgres"), tmp_path)
        db.load(JAN, 1.0)
        with pytest.raises(WarehouseError, match=r"green 2024-01 in Postgres at host 127\.0\.0\.1, .*could not extend"):
            db.load_many(300_000)
        assert (db.totals(), db.loaded()) == ([1.0], {JAN: 1})
        assert db.load(JAN, 2.0) == 1


def test_a_new_column_reaches_all_partitions_and_a_changed_type_is_refused(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    color = Column("color", pa.string(), doc="Colour of the cab.", required=True)
    newer = extended(GREEN, color)
    db.open(green=newer).replace(newer, FEB, trips(db.folder, newer, FEB, [2.0], color=["apple"]))
    for table in ("green", "green_2024_01", "green_2024_02"):
        assert db.relations()[table].endswith(", month date, color text")
    assert db.load(MAR, 3.0) == 1, "the older version of the package works on the newer table"
    changed = extended(GREEN, dataclasses.replace(color, type=pa.int64()))
    with pytest.raises(WarehouseError, match="color is text in the table, now declared bigint; .*DROP TABLE green"):
        db.open(green=changed).replace(changed, FEB, trips(db.folder, changed, FEB, [4.0], color=[7]))
    rows = db.database.execute("SELECT month, total_amount, color FROM green ORDER BY 1")
    assert rows == [(JAN, 1.0, None), (FEB, 2.0, "apple"), (MAR, 3.0, None)]


def test_a_view_on_trips_stays_when_trips_gets_columns_at_its_end_and_is_named_otherwise(db: TaxiDatabase) -> None:
    few = ("pickup_datetime", "total_amount")
    for month, names in ((JAN, few), (FEB, (*few, "dropoff_location_id"))):
        two = [DATASETS["yellow"], GREEN]
        narrow = {of.name: dataclasses.replace(of, columns=tuple(of.by_name[name] for name in names)) for of in two}
        file = trips(db.folder, GREEN, month, [1.0], drop=tuple(GREEN.by_name.keys() - set(names)))
        db.open(**narrow).replace(narrow["green"], month, file)
        db.database.execute("CREATE OR REPLACE VIEW mine AS SELECT total_amount FROM trips")
    assert ", dropoff_location_id bigint, dropoff_borough text" in db.relations()["trips"]
    with pytest.raises(WarehouseError, match="view mine depends on view trips.*; drop what depends on it"):
        db.load(MAR, 2.0)
    assert db.totals("mine") == db.totals() == [1.0, 1.0]


def test_the_view_trips_of_an_older_version_gets_columns_at_its_end_and_keeps_grants_and_what_depends_on_it(
    db: TaxiDatabase,
) -> None:
    db.load(JAN, 1.0)
    columns = next(view for view in VIEWS if view.name == "trips").columns
    names = [column.name for column in columns]
    older = ", ".join(names[: names.index("dropoff_zone") + 1])
    db.database.execute(
        f"ALTER VIEW trips RENAME TO newer; CREATE VIEW trips AS SELECT {older} FROM newer; COMMENT ON VIEW trips IS "
        "'Trips. (definition 01234567)'; GRANT SELECT ON trips TO PUBLIC; CREATE VIEW mine AS SELECT * FROM trips"
    )
    db.load(FEB, 2.0)
    assert db.totals("mine") == [1.0, 2.0]
    attributes = "attname, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = 'trips'::regclass"
    assert db.database.execute(f"SELECT {attributes} AND attnum > 0 ORDER BY attnum") == [
        (column.name, describe(column)) for column in columns
    ]
    assert db.database.execute("SELECT relacl::text LIKE '%,=r/%' FROM pg_class WHERE relname = 'trips'") == [(True,)]


@pytest.mark.parametrize("foreign", ["VIEW codes AS SELECT 7 AS mine", "TYPE codes AS ENUM ('a')", "SEQUENCE codes"])
def test_whatever_has_the_name_of_a_view_stays_and_loads_go_on(foreign: str, db: TaxiDatabase) -> None:
    db.database.execute(f"CREATE {foreign}")
    before = db.relations("codes")
    assert db.load(JAN, 1.0) == 1
    assert (db.relations("codes"), db.open().validate_shared()) == (before, ["codes"])
    assert db.totals("green_tripdata") == [1.0]


PLAIN = [f"TABLE {name} (a int)" for name in ("green", "zones", "loads", "green_2024_01")]


@pytest.mark.parametrize("foreign", [*PLAIN, "VIEW green AS SELECT 1 AS a", "VIEW trips AS SELECT 1 AS a"])
def test_a_foreign_object_with_our_name_is_refused_and_stays_as_it_is(foreign: str, db: TaxiDatabase) -> None:
    db.database.execute(f"CREATE {foreign}")
    before = db.relations()
    with pytest.raises(WarehouseError, match=foreign.split()[1]):
        db.load(JAN, 1.0)
    assert before.items() <= db.relations().items()
    assert db.loaded() == {}


DETACH = "ALTER TABLE green DETACH PARTITION green_2024_01"
REMOVED = ["DROP TABLE green_2024_01", "DROP TABLE green CASCADE", f"{DETACH}; ALTER TABLE green_2024_01 RENAME TO old"]
REPLACED = [
    DETACH,
    "DROP TABLE green_2024_01; CREATE TABLE green_2024_01 AS SELECT * FROM green",
    "DROP TABLE green CASCADE; CREATE TABLE green (total_amount int)",
]


@pytest.mark.parametrize("change", REMOVED, ids=["partition", "parent", "renamed"])
def test_a_month_that_the_user_removed_is_not_reported_and_can_be_loaded_again(change: str, db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    db.database.execute(change)
    assert db.loaded() == {}
    assert db.load(JAN, 1.0) == 1
    assert (db.totals(), db.totals("trips"), db.loaded()) == ([1.0], [1.0], {JAN: 1})


@pytest.mark.parametrize("change", REPLACED, ids=["detached", "partition", "parent"])
def test_a_table_of_our_name_without_the_month_is_not_reported_and_stays_as_it_is(
    change: str, db: TaxiDatabase
) -> None:
    db.load(JAN, 1.0)
    db.database.execute(change)
    before = db.relations("green%")
    assert db.loaded() == {}
    with pytest.raises(WarehouseError, match=r"table green\w* exists, but "):
        db.load(JAN, 2.0)
    assert db.relations("green%") == before


def test_an_index_of_the_users_own_on_the_dataset_is_on_each_month_that_comes_later(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    db.database.execute("CREATE INDEX mine ON green (total_amount DESC) WHERE total_amount > 0")
    db.database.execute(f"{DETACH}; ALTER TABLE green_2024_01 RENAME TO old")
    db.load(FEB, 2.0)
    db.load(JAN, 3.0)
    children = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'mine'::regclass ORDER BY 1"
    names = [name for (name,) in db.database.execute(children)]
    assert [name.rpartition("_idx")[0] for name in names] == [
        "green_2024_01_total_amount",
        "green_2024_02_total_amount",
    ]


TRICKS = """SELECT 1; DROP TABLE green | /* */ SELECT 1; DROP TABLE green | SHOW server_version; DROP TABLE green
| COMMIT; DROP TABLE green | COMMIT | DO $$ BEGIN COMMIT; DROP TABLE green; END $$
| DO $$ BEGIN SET transaction_read_only = off; DROP TABLE green; END $$ | EXPLAIN ANALYZE DELETE FROM green
| SELECT set_config('transaction_read_only', 'off', true) | SELECT * INTO mine FROM green
| WITH gone AS (DELETE FROM green RETURNING 1) SELECT * FROM gone"""


def test_a_query_is_one_statement_that_cannot_change_anything(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    before = db.relations()
    for trick in TRICKS.split("|"):
        with pytest.raises((UsageError, WarehouseError), match="^query(:| in Postgres at )") as caught:
            db.open().query(trick)
        assert "when the server is available" not in str(caught.value)
        assert (db.relations(), db.totals()) == (before, [1.0])


@pytest.mark.parametrize(
    ("sql", "arrow_type", "values"),
    [
        ("VALUES (1.50), (987654321.123), (NULL)", pa.decimal128(12, 3), [Decimal("1.500"), Decimal("987654321.123")]),
        ("SELECT 1e40::numeric", pa.decimal256(41, 0), [Decimal(10**40)]),
        ("VALUES ('NaN'::numeric), (1.5)", pa.float64(), [float("nan"), 1.5]),
        (
            "SELECT timestamptz '2024-07-01 12:00-04'",
            pa.timestamp("us", tz="UTC"),
            [datetime(2024, 7, 1, 16, tzinfo=timezone.utc)],
        ),
        ("SELECT ARRAY['a', 'b c', NULL]", pa.string(), ['{a,"b c",NULL}']),
        ("""SELECT '{"a": null}'::jsonb""", pa.string(), ['{"a": null}']),
        ("SELECT interval '1 month'", pa.string(), ["1 mon"]),
        ("SELECT 'pg_class'::regclass", pa.string(), ["pg_class"]),
        ("EXPLAIN (COSTS off) SELECT 1", pa.string(), ["Result"]),
        ("SHOW transaction_read_only", pa.string(), ["on"]),
    ],
    ids=["numeric", "wide", "nan", "moment", "array", "json", "interval", "name", "explain", "show"],
)
def test_a_query_gives_exact_values(sql: str, arrow_type: pa.DataType, values: list[Any], db: TaxiDatabase) -> None:
    column = db.open().query(sql).column(0)
    assert column.type == arrow_type
    assert repr(column.drop_null().to_pylist()) == repr(pa.array(values, arrow_type).to_pylist())


def test_a_query_may_return_many_rows_with_growing_widths_and_two_columns_with_one_name(db: TaxiDatabase) -> None:
    table = db.open().query("SELECT i, (i * i) / 8.0 AS n, i FROM generate_series(0, 24999) AS i")
    assert table.column_names == ["i", "n", "i"]
    assert table.column(0).to_pylist() == table.column(2).to_pylist() == list(range(25_000))
    assert table.column(1).to_pylist() == [Decimal(i * i) / 8 for i in range(25_000)]


FLOATS = (0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", " ", "\\N", "\t\r\n\\", "'\"", "Zürich 東京 \U0001f695", "e\u0301", "NULL", "x" * 10_000)
BEGINNING, SPAN = datetime(1677, 9, 21, 0, 12, 44), timedelta(microseconds=18_446_744_073_709_551)
MAKERS: dict[pa.DataType, Callable[[random.Random], Any]] = {
    pa.bool_(): lambda chance: chance.random() < 0.5,
    pa.int32(): lambda chance: chance.choice((-(2**31), 2**31 - 1, 0, chance.randrange(-(2**31), 2**31))),
    pa.int64(): lambda chance: chance.choice((-(2**63), 2**63 - 1, 0, chance.randrange(-(2**63), 2**63))),
    pa.float64(): lambda chance: chance.choice((*FLOATS, chance.gauss(0, 1e6))),
    pa.string(): lambda chance: chance.choice(TEXTS),
    pa.date32(): lambda chance: (BEGINNING + SPAN * chance.random()).date(),
    pa.timestamp("us"): lambda chance: BEGINNING + SPAN * chance.choice((0, 1, chance.random())),
}
ALL_TYPES = extended(
    GREEN, *(Column(f"c{n}", arrow_type) for n, arrow_type in enumerate(MAKERS)), Column("row", pa.int64())
)


@pytest.mark.parametrize("rows", [0, 1, 500, 12_000])
def test_values_of_every_type_come_back_as_they_were(rows: int, db: TaxiDatabase) -> None:
    assert set(map(str, MAKERS)) == PostgresDialect.types.keys() - {MOMENT}
    chance = random.Random(rows)

    def value(column: Column) -> Any:
        return None if not column.required and chance.random() < 0.2 else MAKERS[column.arrow_type](chance)

    columns = {column.name: [value(column) for _ in range(rows)] for column in ALL_TYPES.columns}
    columns["row"] = list(range(rows))
    table = pa.table(columns, schema=ALL_TYPES.schema)
    warehouse = db.open(green=ALL_TYPES)
    assert warehouse.replace(ALL_TYPES, JAN, write(db.folder / "all_types.parquet", ALL_TYPES, JAN, table)) == rows
    loaded = warehouse.query("SELECT * FROM green ORDER BY row").drop_columns("month")
    assert loaded.schema.equals(ALL_TYPES.schema, check_metadata=False)
    assert list(map(repr, loaded.to_pylist())) == list(map(repr, table.to_pylist()))


def test_a_text_with_a_nul_is_refused_with_its_column_and_the_old_month_stays(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    file = trips(db.folder, GREEN, JAN, [2.0], store_and_fwd_flag=["a\0b"])
    with pytest.raises(WarehouseError, match="green 2024-01 in .*0x00.*store_and_fwd_flag"):
        db.open().replace(GREEN, JAN, file)
    assert (db.totals(), db.loaded()) == ([1.0], {JAN: 1})


@pytest.mark.parametrize(
    ("arrow_type", "value"),
    [
        (pa.date32(), -(2**31)),
        (pa.date32(), -(2**31) + 10_956),
        (pa.timestamp("us"), -(2**63)),
        (pa.timestamp("us"), -(2**63) + 946_684_800_000_000),
    ],
)
def test_a_time_out_of_the_range_of_postgres_is_refused_and_never_changed(
    arrow_type: Any, value: int, db: TaxiDatabase
) -> None:
    dataset = extended(GREEN, Column("odd", arrow_type))
    number = pa.int32() if arrow_type == pa.date32() else pa.int64()
    file = trips(db.folder, dataset, JAN, [1.0], odd=pa.array([value], number).cast(arrow_type))
    with pytest.raises(WarehouseError, match=r"green 2024-01 in .* out of range.*odd"):
        db.open(green=dataset).replace(dataset, JAN, file)
    assert db.loaded() == {}


def test_a_slice_of_a_batch_is_encoded_like_a_batch_of_these_rows() -> None:
    chance = random.Random(7)
    types = [*MAKERS] * 2
    columns = [[None if n % 3 == 0 and number >= len(MAKERS) else MAKERS[arrow_type](chance) for n in range(40)]
               for number, arrow_type in enumerate(types)]  # fmt: skip
    columns += [["B00001"] * 40, ["ab" if n % 2 else None for n in range(40)], [""] * 40, [None] * 40]
    types += [pa.string()] * 4
    schema = pa.schema([(str(number), arrow_type) for number, arrow_type in enumerate(types)])
    whole = pa.table(columns, schema=schema).to_batches()[0]
    for first, rows in ((0, 40), (7, 20), (39, 1), (12, 0)):
        part = whole.slice(first, rows)
        copied = pa.table([values[first : first + rows] for values in columns], schema=schema).to_batches()
        assert b"".join(encode([part])) == b"".join(encode(copied))


def test_a_month_is_analyzed_before_its_marts_in_the_columns_that_their_plans_need(db: TaxiDatabase) -> None:
    db.open().replace(GREEN, JAN, many_trips(db.folder, GREEN, JAN, 60_000))
    db.open().replace_mart_month(GREEN, JAN, marts_of("green"))
    analyzed = db.database.execute("SELECT attname FROM pg_stats WHERE tablename = 'green_2024_01' ORDER BY 1")
    assert analyzed == [("month",), ("pickup_datetime",)], "autovacuum does the others"
    modified = "SELECT n_mod_since_analyze FROM pg_stat_user_tables WHERE relname = 'green_2024_01'"
    until(lambda: db.database.execute(modified) == [(60_000,)])


def test_marts_need_no_right_to_temporary_tables_and_leave_none_behind(db: TaxiDatabase) -> None:
    owner, name = f"owner_{db.database.name}", db.database.name
    db.database.execute(
        f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; "
        f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC"
    )
    try:
        for _ in ("without the right", "with the right"):
            warehouse = open_warehouse(db.database.server.url_of(name, owner))
            warehouse.replace(GREEN, JAN, db.file(JAN, 1.0, 2.0))
            rows = warehouse.replace_mart_month(GREEN, JAN, marts_of("green"))
            assert (rows.keys(), rows["daily_trips"]) == ({mart.name for mart in marts_of("green")}, 2)
            assert db.relations("%built%") == {}
            db.database.execute(f"GRANT TEMP ON DATABASE {name} TO PUBLIC")
    finally:
        db.database.execute(f"DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")


def test_a_query_of_trips_reads_the_zones_only_if_it_needs_their_names(db: TaxiDatabase) -> None:
    db.load(JAN, 1.0)
    for columns, scans in (
        ("SUM(total_amount)", 0),
        ("MAX(pickup_zone)", 1),
        ("MAX(pickup_zone), MAX(dropoff_zone)", 2),
    ):
        plan = "\n".join(line for (line,) in db.database.execute(f"EXPLAIN SELECT {columns} FROM trips"))
        assert plan.count("Scan on zones") == scans, plan
