"""`pipeline sql` only reads: a statement that writes, connects or changes settings is an error and changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from loading import GREEN, JAN, trips
from postgres import PASSWORD, Database

from pipeline.errors import UsageError, WarehouseError
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.base import split_explain
from pipeline.warehouses.bigquery.warehouse import validate_reading

#: {folder} is the folder of the database, {url} a web server that must get no request.
DUCKDB_ATTACKS = """
COPY (SELECT 1) TO '{folder}/out.csv'
copy green TO '{folder}/out.parquet'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/w.duckdb'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/w.duckdb.wal'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/w.duckdb.wal.recovery'
EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{folder}/w.duckdb.wal.recovery'
/* EXPLAIN */ EXPLAIN -- SELECT↵ANALYZE /* SELECT 1 */ COPY (SELECT 1) TO '{folder}/w.duckdb.wal.recovery'
/* /* */ EXPLAIN SELECT 1 */ COPY (SELECT 1) TO '{folder}/out.csv'
EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/w.duckdb.wal.recovery'
WITH a AS (COPY (SELECT 1) TO '{folder}/out.csv') SELECT * FROM a
WITH a AS (COPY (SELECT 1) TO '{folder}/w.duckdb.wal.checkpoint') SELECT * FROM a
EXPLAIN ANALYZE WITH a AS (cOpY (SELECT 1) TO '{folder}/w.duckdb.wal.recovery') SELECT 'é' FROM a
WITH a AS (DELETE FROM green RETURNING *) SELECT * FROM a
SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'
SELECT * FROM query('COPY (SELECT 1) TO ''{folder}/out.csv''')
EXPORT DATABASE '{folder}/export'
ATTACH '{folder}/other.duckdb'
EXPLAIN ANALYZE ATTACH '{folder}/other.duckdb'
INSTALL httpfs
LOAD httpfs
FORCE INSTALL httpfs FROM '{url}'
EXPLAIN ANALYZE INSTALL httpfs
EXPLAIN ANALYZE LOAD '{folder}/own.duckdb_extension'
SET enable_external_access = true
SET lock_configuration = false
EXPLAIN ANALYZE SET threads = 1
PRAGMA enable_profiling
CALL enable_logging()
SELECT * FROM read_text('{url}')
SELECT * FROM read_parquet('{url}/a.parquet')
SELECT * FROM '{url}/a.csv'
SELECT * FROM read_text('/etc/hostname')
SELECT * FROM read_csv('{folder}/secret.csv')
SELECT * FROM '{folder}/secret.csv'
SELECT * FROM glob('{folder}/*')
SELECT * FROM sniff_csv('{folder}/secret.csv')
EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1
EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1
CREATE TABLE mine AS SELECT 1
EXPLAIN ANALYZE DELETE FROM green
PREPARE p AS COPY (SELECT 1) TO '{folder}/out.csv'
CHECKPOINT
DROP TABLE green
"""

#: {folder} is one that the server may write, {dsn} its own connection string.
POSTGRES_ATTACKS = """
COPY green TO '{folder}/out'
COPY (SELECT 1) TO PROGRAM 'cat > {folder}/out'
COPY green FROM PROGRAM 'echo 1'
copy (SELECT 1) TO STDOUT
/* SELECT */ COPY (SELECT 1) TO '{folder}/out'
/* /* */ EXPLAIN SELECT 1 */ COPY (SELECT 1) TO '{folder}/out'
/* /* */ SHOW is */ COPY (SELECT 1) TO '{folder}/out'
-- SELECT␍COPY (SELECT 1) TO '{folder}/out'
DO $$ BEGIN COPY green TO '{folder}/out'; END $$
DO $$ BEGIN EXECUTE 'COPY green TO PROGRAM ''cat > {folder}/out'''; END $$
SELECT 1; COPY green TO '{folder}/out'
SHOW is_superuser; COPY green TO '{folder}/out'
EXPLAIN SELECT 1; COPY green TO '{folder}/out'
EXPLAIN ANALYZE SELECT 1) TO '{folder}/out'; COPY (SELECT 1
EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1
EXPLAIN (ANALYZE) SELECT 1 AS one INTO mine
EXPLAIN ANALYZE SELECT * INTO mine FROM green
EXPLAIN ANALYZE CREATE MATERIALIZED VIEW mine AS SELECT 1
EXPLAIN ANALYZE DELETE FROM green
EXPLAIN ANALYZE WITH gone AS (DELETE FROM green RETURNING 1) SELECT * FROM gone
WITH gone AS (DELETE FROM green RETURNING 1) SELECT * FROM gone
SELECT lo_export(4242, '{folder}/out')
SELECT "lo_export"(4242, '{folder}/out')
SELECT U&"lo\\005fexport"(4242, '{folder}/out')
EXPLAIN ANALYZE SELECT lo_export(4242, '{folder}/out')
SELECT lo_import('/etc/hostname')
SELECT lo_from_bytea(0, 'x')
SELECT pg_read_file('PG_VERSION')
SELECT pg_read_binary_file('PG_VERSION')
SELECT * FROM pg_ls_dir('.')
SELECT pg_reload_conf()
SELECT pg_switch_wal()
SELECT pg_rotate_logfile()
SELECT pg_stat_reset()
SELECT pg_create_physical_replication_slot('mine')
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
SELECT dblink_exec('{dsn}', 'CREATE TABLE mine (a int)')
SELECT * FROM dblink('{dsn}', 'CREATE TABLE mine (a int)') AS t(a text)
SELECT set_config('transaction_read_only', 'off', true)
SELECT set_config('role', 'none', true), query_to_xml('SELECT lo_export(4242, ''{folder}/out'')', true, true, '')
SELECT query_to_xml('SELECT set_' || 'config(''role'', ''none'', true)', true, true, '')
SET TRANSACTION READ WRITE
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE
RESET ROLE
COMMIT
BEGIN
PREPARE TRANSACTION 'mine'
ALTER SYSTEM SET work_mem = '1GB'
CALL no_such_procedure()
EXECUTE mine
SELECT * FROM green FOR UPDATE
SELECT nextval('counter')
SELECT setval('counter', 7)
SELECT writes()
"""


#: BigQuery is sent only statements that change nothing.
BIGQUERY_ATTACKS = """
EXPORT DATA OPTIONS (uri = 'gs://b/*', format = 'CSV') AS SELECT 1
LOAD DATA INTO t FROM FILES (format = 'CSV', uris = ['gs://b/x'])
CREATE OR REPLACE TABLE green AS SELECT 1
CREATE TEMP FUNCTION f() AS (1); SELECT f()
CREATE MODEL m OPTIONS (model_type = 'linear_reg') AS SELECT 1
DECLARE x INT64; SELECT x
EXECUTE IMMEDIATE 'DROP TABLE green'
IF TRUE THEN SELECT 1; END IF
LOOP SELECT 1; END LOOP
BEGIN TRANSACTION
SET x = 1
CALL p()
ASSERT TRUE
INSERT INTO green SELECT 1
UPDATE green SET total_amount = 1 WHERE TRUE
MERGE green USING x ON FALSE WHEN NOT MATCHED THEN INSERT ROW
TRUNCATE TABLE green
ALTER TABLE green ADD COLUMN x INT64
DROP TABLE green
GRANT `roles/viewer` ON TABLE green TO 'user:a@b'
WITH a AS (DELETE FROM green WHERE TRUE) SELECT 1
WITH a AS (SELECT 1) DELETE FROM green WHERE TRUE
SELECT * INTO mine FROM green
FROM green |> EXPORT DATA OPTIONS (uri = 'gs://b/*')
SELECT 1 # x↵; DROP TABLE green
SELECT /* /* */ 1; DROP TABLE green -- */
SELECT 'a\\\\'; DROP TABLE green; -- '
"""


def attacks(text: str, **places: object) -> list[str]:
    """The statements of a table, one per line; ↵ and ␍ stand for line ends in a statement."""
    return [line.format(**places).replace("↵", "\n").replace("␍", "\r") for line in text.strip().split("\n")]


def passed(warehouse: Warehouse, statements: list[str], state: Callable[[], object]) -> dict[str, object]:
    """The statements that were allowed, or that changed something."""
    before, found = state(), {}
    for statement in statements:
        try:
            found[statement] = warehouse.query(statement)
        except (UsageError, WarehouseError) as error:
            if not str(error).startswith("query"):
                found[statement] = error
        if state() != before:
            found[statement], before = "changed something", state()
    return found


def test_no_attack_on_duckdb_writes_connects_or_changes_a_setting(tmp_path: Path) -> None:
    folder = tmp_path / "warehouse"
    warehouse = open_warehouse(f"duckdb:///{folder}/w.duckdb")
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    (folder / "secret.csv").write_text("a\n1\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        statements = attacks(DUCKDB_ATTACKS, folder=folder, url=url)
        assert len(statements) >= 40
        assert passed(warehouse, statements, lambda: {path: path.read_bytes() for path in folder.rglob("*")}) == {}
        with pytest.raises(BlockingIOError):  # since nothing has connected
            server.accept()
    assert warehouse.query("SELECT total_amount FROM green").to_pylist() == [{"total_amount": 10.0}]


def test_no_attack_on_postgres_writes_connects_or_keeps_rights_even_for_a_superuser(
    database: Database, tmp_path: Path
) -> None:
    if database.server.folder is None:
        pytest.skip("the server's files cannot be looked at")
    warehouse = open_warehouse(database.url)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    database.execute("CREATE EXTENSION dblink")
    database.execute("CREATE SEQUENCE counter")
    database.execute("SELECT lo_from_bytea(4242, 'abc')")
    database.execute("CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'DELETE FROM green; SELECT 1'")
    folder = database.server.folder / "data" / "attacked"
    database.execute(f"COPY (SELECT 1) TO PROGRAM 'mkdir {folder}'")
    said = urlsplit(database.url)
    dsn = f"host=127.0.0.1 port={said.port} dbname={database.name} user=postgres password={PASSWORD}"

    def state() -> object:
        kept = database.execute(
            "SELECT (SELECT last_value FROM counter), (SELECT sum(total_amount) FROM green), "
            "(SELECT string_agg(relname, ' ' ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace), "
            "(SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_replication_slots)"
        )
        return kept, sorted(path.name for path in folder.iterdir())

    statements = attacks(POSTGRES_ATTACKS, folder=folder, dsn=dsn)
    assert len(statements) >= 40
    assert passed(warehouse, statements, state) == {}
    assert warehouse.query("SELECT total_amount FROM green").to_pylist() == [{"total_amount": 10.0}]


def test_no_attack_on_bigquery_is_sent() -> None:
    for sql in attacks(BIGQUERY_ATTACKS):
        with pytest.raises((UsageError, WarehouseError), match="^query: "):
            validate_reading(sql)


def test_explain_and_comments_are_split_from_the_statement_after_them() -> None:
    cases = {
        "SELECT 1": ("", "SELECT 1"),
        "  -- a\n/* b */ SELECT 1": ("", "SELECT 1"),
        "explain select 1": ("explain", "select 1"),
        "EXPLAIN ANALYZE (COSTS off, FORMAT json) /* c */ SELECT 1": (
            "EXPLAIN ANALYZE (COSTS off, FORMAT json)",
            "SELECT 1",
        ),
        "EXPLAIN (SELECT 1)": ("EXPLAIN", "(SELECT 1)"),
        "EXPLAINED": ("", "EXPLAINED"),
        "": ("", ""),
    }
    assert {sql: split_explain(sql) for sql in cases} == cases


READINGS = (
    "EXPLAIN SELECT * FROM green",
    "-- why\nEXPLAIN ANALYZE SELECT 1 AS one",
    "(SELECT 1)",
    "/* a */ TABLE green",
    "WITH a AS (SELECT 1 AS one) SELECT 'COPY' AS \"copy\", one FROM a -- COPY",
)


@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
def test_every_read_only_statement_is_answered(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path}/w.duckdb" if engine == "duckdb" else request.getfixturevalue("database").url
    warehouse = open_warehouse(url)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    more = {"duckdb": ("FROM green", "DESCRIBE green", "SHOW TABLES", "SUMMARIZE green"), "postgres": ("SHOW port",)}
    for sql in (*READINGS, *more[engine]):
        assert warehouse.query(sql).num_rows >= 1, sql


def test_a_query_of_a_superuser_finds_the_tables_in_the_schema_with_the_users_name(
    database: Database, tmp_path: Path
) -> None:
    database.execute("CREATE SCHEMA postgres")
    warehouse = open_warehouse(database.url)
    warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    assert warehouse.query("SELECT current_schema()::text AS s, total_amount AS t FROM green").to_pylist() == [
        {"s": "postgres", "t": 10.0}
    ]


def test_a_query_without_the_right_to_read_a_table_is_an_error_with_the_grant_to_run(
    database: Database, tmp_path: Path
) -> None:
    open_warehouse(database.url).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [10.0]))
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        reader = open_warehouse(database.server.url_of(database.name, role))
        with pytest.raises(WarehouseError, match=f"may only read; .*GRANT SELECT ON the table TO {role}$"):
            reader.query("SELECT * FROM green")
        database.execute(f"GRANT SELECT ON green TO {role}")
        assert reader.query("SELECT * FROM green").num_rows == 1
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")
