"""Connections to Postgres: the password, which is never shown, error messages, broken lines, whole runs."""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow.parquet as pq
import pytest
from commands import running_luigid
from conftest import Folder, make_folder
from emulators import free_port
from loading import FEB, GREEN, JAN, MAR, many_trips, trips
from postgres import PASSWORD, Database

from pipeline import lake
from pipeline.datasets import ZONES
from pipeline.errors import WarehouseError, redact
from pipeline.marts import all_marts, marts_of
from pipeline.sample import SampleSite
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.postgres import server as postgres_server

WRITTEN = quote(PASSWORD, safe="")
#: Pieces of the password, as it is and as a URL writes it, wherever libpq may cut it.
PIECES = ("s3cret", "/word", "%2Fword", "word@")


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A user whose password is PASSWORD, and who may make tables."""
    name = f"loader_of_{database.name}"
    database.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    database.execute(f"REVOKE CREATE ON SCHEMA public FROM public; GRANT USAGE, CREATE ON SCHEMA public TO {name}")
    try:
        yield name
    finally:
        database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def url(database: Database, role: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database's URL as that user, with the password, which is given nowhere else."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    return database.server.url_of(database.name, role)


def _at(url: str, address: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{address}").geturl()


def _shown(text: str) -> list[str]:
    return [piece for piece in PIECES if piece in text]


def _leaks(folder: Folder, *ended: subprocess.CompletedProcess[str]) -> list[str]:
    """The commands and the files of the folder that contain the password."""
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    leaks = [path.name for path in files if _shown(path.read_bytes().decode("latin-1"))]
    return leaks + [str(command.args[0]) for command in ended if _shown(command.stdout + command.stderr)]


def _error(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message of a connection to this URL, which is retried only briefly."""
    monkeypatch.setattr(postgres_server, "_CONNECT_RETRY_S", 0.3)
    with pytest.raises(WarehouseError) as caught:
        open_warehouse(url).loads(ZONES).get(None)
    assert _shown("".join(traceback.format_exception(caught.value))) == []
    return str(caught.value)


def _totals(url: str) -> tuple[int, float]:
    (row,) = open_warehouse(url).query("SELECT COUNT(*) AS n, SUM(total_amount) AS s FROM green").to_pylist()
    return row["n"], row["s"]


@pytest.mark.parametrize("way", ["URL", "postgres://", "PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE"])
def test_the_password_may_be_wherever_libpq_looks_for_it(
    way: str, url: str, database: Database, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, file = urlsplit(url), tmp_path / "file"
    service = "[taxi]\nhost={}\nport={}\ndbname={}\nuser={}\npassword={}\n"
    form = {"PGPASSFILE": "{}:{}:{}:{}:{}\n", "PGSERVICEFILE": service}.get(way, "")
    file.touch(0o600)
    file.write_text(form.format(parts.hostname, parts.port, database.name, role, PASSWORD))
    if way.startswith("PG"):
        monkeypatch.setenv(way, str(file) if form else PASSWORD)
    urls = {"URL": url, "postgres://": f"postgres://{url.partition('://')[2]}"}
    urls |= {"PGSERVICEFILE": "postgresql:///?service=taxi"}
    warehouse = open_warehouse(urls.get(way, database.server.url_of(database.name, role, None)))
    assert warehouse.query("SELECT current_user::text AS who").to_pylist() == [{"who": role}]


_MART = "luigi --module pipeline Mart --dataset green --month 2024-01 --local-scheduler --log-level DEBUG"
#: Commands, and their output when nothing is to be done.
RUNS = {"pipeline backfill green 2024-01": "Nothing to do: the month is up to date", _MART: "Did not run any tasks"}


@pytest.mark.parametrize("way", ["the URL", "its query", "PGPASSWORD"])
@pytest.mark.parametrize("command", RUNS, ids=["pipeline", "luigi"])
def test_a_run_loads_the_published_rows_and_shows_no_password_and_a_second_one_does_nothing(
    folder: Folder, command: str, way: str, url: str, database: Database, role: str
) -> None:
    parts, bare = urlsplit(url), database.server.url_of(database.name, role, None)
    query = f"host={parts.hostname}&port={parts.port}&user={role}&password={WRITTEN}"
    wanted = {"the URL": url, "its query": f"postgresql:///{database.name}?{query}"}.get(way, bare)
    folder.environment = {"PIPELINE_WAREHOUSE": wanted, "PGPASSWORD": PASSWORD if wanted == bare else ""}
    ended = folder.run(*command.split())
    assert ended.returncode == 0, ended.stderr
    published = pq.read_table(folder.lake / lake.trips_key(GREEN, JAN), partitioning=None)
    names = ", ".join(f'"{name}"' for name in published.column_names)
    arrived = open_warehouse(url).query(f"SELECT {names} FROM green").to_pylist()
    assert sorted(map(repr, arrived)) == sorted(map(repr, published.to_pylist()))
    records = "SELECT dataset, rows, loaded_at FROM loads UNION ALL SELECT mart, 0, built_at FROM mart_loads ORDER BY 1"
    before = database.execute(records)
    assert {name: count for name, count, _ in before} == dict.fromkeys(all_marts(), 0) | {"green": 2000, "zones": 265}
    again = folder.run(*command.split())
    assert (again.returncode, RUNS[command] in again.stdout + again.stderr) == (0, True)
    assert database.execute(records) == before
    assert _leaks(folder, ended, again) == []


def test_two_workers_load_months_of_two_datasets_in_parallel(folder: Folder, url: str, database: Database) -> None:
    folder.environment = {"PIPELINE_WAREHOUSE": url}
    ended = folder.pipeline("backfill", "yellow", "green", "2024-01..2024-03", "--workers", "2")
    assert ended.returncode == 0, ended.stderr
    wanted = [(name, month, 2000) for name in ("green", "yellow") for month in (JAN, FEB, MAR)]
    for counted in ("COUNT(*) FROM trips GROUP BY 1, 2", "rows FROM loads WHERE dataset <> 'zones'"):
        assert database.execute(f"SELECT dataset, month, {counted} ORDER BY 1, 2") == wanted
    for mart in all_marts():
        assert database.execute(f"SELECT DISTINCT dataset, month, 2000 FROM {mart} ORDER BY 1, 2") == wanted


@pytest.mark.parametrize("schema", ["public", "taxi"])
def test_a_role_that_may_not_create_tables_learns_the_grant_and_luigid_gets_no_password(
    folder: Folder, url: str, database: Database, role: str, schema: str
) -> None:
    database.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}")
    wanted = ("--pipeline-warehouse", f"{url}?options=-csearch_path%3D{schema}", "--log-level", "DEBUG")
    load = ("Load", "--dataset", "green", *wanted, "--workers", "2", "--month")
    with running_luigid(folder) as luigid:
        good = folder.luigi(*load, "2024-01", *luigid.options, local=False)
        database.execute(f"REVOKE CREATE ON SCHEMA {schema} FROM {role}")
        bad = folder.luigi(*load, "2024-02", *luigid.options, local=False)
        answers = [luigid.ask("fetch_error", task_id=name) for name in luigid.tasks()]
        assert f"permission denied for schema {schema}" in str(answers)
        assert _shown(f"{luigid.tasks()} {answers}") == []
    assert (good.returncode, bad.returncode) == (0, 1)
    assert database.execute(f"SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = '{role}'") == [(schema,)]
    last = bad.stderr.strip().splitlines()[-1]
    assert last.startswith("WarehouseError: green 2024-02 in Postgres at host ")
    assert f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}" in last
    wrong = folder.pipeline("backfill", "green", "2024-02", "--warehouse", url.replace(WRITTEN, f"x{WRITTEN}"))
    assert (wrong.returncode, "password authentication failed" in wrong.stderr) == (5, True)
    assert "Traceback" not in bad.stderr + wrong.stderr
    assert _leaks(folder, good, bad, wrong) == []


#: Invalid URLs that contain the password.
INVALID = {
    "percent-encoding": "postgresql://USER:s3cret%zz/word@ADDRESS/d",
    "unknown option": f"postgresql://USER:{WRITTEN}@ADDRESS/d?sslmod=x",
    "misspelt password": f"postgresql://USER@ADDRESS/d?pasword={WRITTEN}",
    "raw slash": "postgresql://USER:s3cret/word@ADDRESS/d",
    "raw slash after digits": "postgresql://USER:5/s3cret/word@ADDRESS/d",
    "raw at": "postgresql://USER:my@s3cret@ADDRESS/d",
    "scheme": f"postgre://USER:{WRITTEN}@ADDRESS/d",
    "other engine": f"mysql://USER:{WRITTEN}@ADDRESS/d",
    "words of libpq": f"host=localhost user=USER password={PASSWORD}",
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_url_is_reported_at_once_with_other_mistakes_and_without_the_password(
    case: str, folder: Folder, url: str, role: str
) -> None:
    wrong = INVALID[case].replace("USER", role).replace("ADDRESS", urlsplit(url).netloc.rpartition("@")[2])
    folder.environment = {"PIPELINE_WAREHOUSE": wrong, "PIPELINE_RETRIES": "-1"}
    for command in RUNS:
        ended = folder.run(*command.split())
        assert ended.returncode == (2 if command.startswith("pipeline") else 5)
        assert re.search(r"warehouse .*allowed: .*\(from PIPELINE_WAREHOUSE in the environment\)", ended.stderr)
        assert ("retries = '-1'" in ended.stderr, "Traceback" in ended.stderr) == (True, False)
        assert _leaks(folder, ended) == []
    assert _shown(redact(wrong)) == [] or "://" not in wrong, "the summary of a run would show it"
    assert folder.files() == []


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        ((WRITTEN, f"x{WRITTEN}"), "password authentication failed", "give the password by PGPASSWORD"),
        (("://loader", "://no_loader"), "password authentication|role .* does not exist", "PGPASSWORD|createuser"),
        ((f":{WRITTEN}@", "@"), "no password supplied", "give the password by PGPASSWORD, ~/.pgpass"),
        (("/taxi_", "/no_taxi_"), 'database "no_taxi_.*" does not exist', "createdb"),
        (("@ADDRESS/", "@127.0.0.1:1/"), "Connection refused", "is the server running"),
        (("@ADDRESS/", "@no-such-host.invalid/"), "resolve", r"is \[pipeline\] warehouse right"),
        (("$", "?sslmode=require"), "does not support SSL", "check sslmode"),
        (("$", "?sslmode=verify-full&sslrootcert=none.pem"), "SSL|none.pem", "sslmode and sslrootcert"),
        (("$", "?connect_timeout=x"), "connect_timeout", "warehouse"),
        (("$", "?options=-csearch_path%3Dnowhere"), "no schema .* search_path", "CREATE SCHEMA"),
    ],
)
def test_an_error_names_host_port_database_user_reason_and_remedy(
    change: tuple[str, str], reason: str, remedy: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = change[0].replace("ADDRESS", urlsplit(url).netloc.rpartition("@")[2])
    wrong = url + change[1] if before == "$" else url.replace(before, change[1])
    message, parts = _error(wrong, monkeypatch), urlsplit(wrong)
    where = f"host {parts.hostname}, port {parts.port or 5432}, database {parts.path[1:]}, user {parts.username}"
    assert re.search(f"Postgres at {re.escape(where)}.*({reason}).*({remedy})", message), message


def test_a_user_without_rights_learns_what_the_owner_must_run_and_it_works(
    url: str, database: Database, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM PUBLIC")
    message = _error(url, monkeypatch)
    assert "is the server running" not in message
    database.execute(message[message.index("GRANT CONNECT") :])
    assert open_warehouse(url).loads(ZONES).get(None) is None
    database.execute(f'CREATE SCHEMA "Taxi Data"; ALTER ROLE {role} SET search_path = "Taxi Data"')
    message = _error(url, monkeypatch)
    assert f"has no schema for tables on its search_path; GRANT USAGE, CREATE ON SCHEMA … TO {role}" in message
    database.execute(f'GRANT USAGE ON SCHEMA "Taxi Data" TO {role}')
    with pytest.raises(WarehouseError) as caught:
        open_warehouse(url).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0]))
    message = str(caught.value)
    database.execute(message[message.index("GRANT") :])
    assert open_warehouse(url).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0])) == 1
    assert open_warehouse(url).replace_mart_month(GREEN, JAN, marts_of("green")) == dict.fromkeys(all_marts(), 1)
    assert open_warehouse(url).loads(GREEN).keys() == {JAN}
    assert database.execute("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename ~ 'green'") == [("Taxi Data",)]
    open_warehouse(url).forget(GREEN, JAN)
    assert (open_warehouse(url).loads(GREEN), open_warehouse(url).mart_months(GREEN)) == ({}, {})


@pytest.mark.parametrize("foreign", ["TABLE zones (a int)", "VIEW zones AS SELECT 1 AS a"])
def test_beside_foreign_tables_the_url_in_the_message_leads_to_a_separate_schema(
    foreign: str, url: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"CREATE {foreign}")
    file = trips(tmp_path, GREEN, JAN, [1.0])
    with pytest.raises(WarehouseError, match="zones.*, or load into") as caught:
        open_warehouse(f"{url}?sslmode=disable&sslpassword={WRITTEN}").replace(GREEN, JAN, file)
    assert _shown(str(caught.value)) == []
    schema, suggested = re.findall(r"(CREATE SCHEMA .*), then \[pipeline\] warehouse (\S+)", str(caught.value))[0]
    assert ("sslmode=disable" in suggested, suggested.endswith("&options=-csearch_path%3Dtaxi")) == (True, True)
    database.execute(schema)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert open_warehouse(suggested).replace(GREEN, JAN, file) == 1
    assert database.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'green_2024_01'") == [("taxi",)]


#: The process number that a client gets through a pooler, and whether that pooler is refused.
POOLERS = {
    "transactions, the same session for the next client": ("7", True),
    "transactions, sessions in turn": ("nextval('turn')::int", True),
    "sessions": ("-pg_backend_pid()", False),
}


@pytest.mark.parametrize("pooler", POOLERS)
def test_a_transaction_pooler_is_refused_at_once_and_a_session_pooler_works(
    pooler: str, url: str, database: Database, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, refused = POOLERS[pooler]
    database.execute(f"CREATE SEQUENCE turn; GRANT USAGE ON SEQUENCE turn TO {role}")
    monkeypatch.setattr(postgres_server, "_BACKEND", f"SET LOCAL statement_timeout = 0; SELECT {number}")
    _load_through_a_pooler(url, refused, database, tmp_path)


def _load_through_a_pooler(url: str, refused: bool, database: Database, folder: Path) -> None:
    file, began = trips(folder, GREEN, JAN, [1.0]), time.monotonic()
    if refused:
        with pytest.raises(
            WarehouseError, match="green 2024-01: Postgres at .* through a pooler .*pool_mode = session$"
        ):
            open_warehouse(url).replace(GREEN, JAN, file)
        assert time.monotonic() - began < 10
    else:
        assert open_warehouse(url).replace(GREEN, JAN, file) == 1
        assert open_warehouse(url).replace_mart_month(GREEN, JAN, marts_of("green")) == dict.fromkeys(all_marts(), 1)
    # PgBouncer releases a session's locks shortly after the client has gone.
    locks, until = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted", time.monotonic() + 10
    while database.execute(locks) and time.monotonic() < until:
        time.sleep(0.01)
    assert database.execute(locks) == []


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="there is no pgbouncer on PATH")
@pytest.mark.parametrize(("mode", "refused"), [("session", False), ("transaction", True), ("statement", True)])
def test_a_real_pgbouncer_is_refused_by_its_mode(
    mode: str, refused: bool, url: str, role: str, database: Database, tmp_path: Path
) -> None:
    to, port = urlsplit(database.server.url), free_port()
    with tempfile.TemporaryDirectory() as name:
        users, settings = Path(name) / "users", Path(name) / "pgbouncer.ini"
        users.write_text(f'"{role}" "{PASSWORD}"\n')
        settings.write_text(
            f"[databases]\n* = host={to.hostname} port={to.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {users}\npool_mode = {mode}\n"
        )
        Path(name).chmod(0o755)
        command = ["pgbouncer", "-q", str(settings)]
        identity: dict[str, Any] = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, **identity) as pooler:
            try:
                _load_through_a_pooler(_at(url, f"127.0.0.1:{port}"), refused, database, tmp_path)
            finally:
                pooler.kill()


class _Web(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" if self.request.recv(1024) else b"")


def test_a_server_that_is_not_postgres_gives_no_advice_about_certificates(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _Web) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        message = _error(_at(url, f"127.0.0.1:{web.server_address[1]}"), monkeypatch)
        web.shutdown()
    assert re.search(r"no connection to Postgres at host 127.0.0.1, port .* is \[pipeline\] warehouse right\?", message)


class Line:
    """A proxy to the server; it breaks this many connections, each after 500 kB from the client."""

    def __init__(self, url: str, cuts: int = 0) -> None:
        self._to, self.cuts = (urlsplit(url).hostname or "", urlsplit(url).port or 5432), cuts
        self._ends = [socket.socket()]
        self._ends[0].bind(("127.0.0.1", 0))
        self.url = _at(url, f"127.0.0.1:{self._ends[0].getsockname()[1]}")

    def open(self) -> Line:
        self._ends[0].listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._ends += [client := self._ends[0].accept()[0], server := socket.create_connection(self._to)]
                for args in ((client, server, 500_000), (server, client, math.inf)):
                    threading.Thread(target=self._pass_on, args=args, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, left: float) -> None:
        with suppress(OSError):
            while (left >= 0 or self.cuts == 0) and (piece := source.recv(65536)):
                sink.sendall(piece)
                left -= len(piece)
            self.cuts -= left < 0 < self.cuts
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("why", ["no server listens", "all connections are taken"])
def test_a_load_continues_once_the_server_can_be_reached(
    why: str, url: str, database: Database, role: str, tmp_path: Path
) -> None:
    down = why == "no server listens"
    with closing(Line(url)) as line:
        database.execute(f"ALTER ROLE {role} CONNECTION LIMIT {-1 if down else 0}")
        free: Any = line.open if down else lambda: database.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
        later, began = threading.Timer(0.5, free), time.monotonic()
        later.start()
        file = trips(tmp_path, GREEN, JAN, [1.0])
        assert open_warehouse(line.url if down else url).replace(GREEN, JAN, file) == 1
        assert time.monotonic() - began >= 0.5
        later.join()


def test_a_load_whose_line_is_cut_starts_again(url: str, tmp_path: Path) -> None:
    with closing(Line(url, cuts=1).open()) as line:
        assert open_warehouse(line.url).replace(GREEN, JAN, many_trips(tmp_path, GREEN, JAN, 50_000)) == 50_000
        assert line.cuts == 0
    assert _totals(url) == (50_000, sum(range(50_000)))


def test_a_load_whose_line_is_always_cut_ends_with_an_error_and_the_old_month(url: str, tmp_path: Path) -> None:
    open_warehouse(url).replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0, 2.0]))
    file = many_trips(tmp_path, GREEN, JAN, 50_000)
    with closing(Line(url, cuts=100).open()) as line:
        with pytest.raises(WarehouseError, match=r"green 2024-01 in Postgres at host 127.0.0.1, .*; run again"):
            open_warehouse(line.url).replace(GREEN, JAN, file)
        assert line.cuts == 97, "three attempts"
    assert _totals(url) == (2, 3.0)


_WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from pipeline.cli import main
main(sys.argv[1:])
"""


def test_without_the_driver_the_message_names_the_extra_and_duckdb_needs_none(folder: Folder, url: str) -> None:
    folder.environment = {"PIPELINE_WAREHOUSE": url}
    ended = folder.run("python", "-c", _WITHOUT, "psycopg", "backfill", "green", "2024-01")
    assert ended.returncode == 2
    assert re.fullmatch(r"pipeline: .*pip install 'taxi-pipeline\[postgres\]'.*\n", ended.stderr)
    assert _leaks(folder, ended) == folder.files() == []
    folder.environment = {}
    ended = folder.run("python", "-c", _WITHOUT, "psycopg", "backfill", "fhv", "2024-01")
    assert (ended.returncode, folder.database.is_file()) == (0, True), ended.stderr


SETTINGS = (
    "statement_timeout=1ms transaction_timeout=10ms idle_in_transaction_session_timeout=1ms lock_timeout=1ms "
    "timezone=America/New_York datestyle=German datestyle=SQL quote_all_identifiers=on standard_conforming_strings=off"
)


@pytest.mark.parametrize("setting", SETTINGS.split())
def test_a_load_does_not_depend_on_settings_of_a_role_or_a_database(
    setting: str, url: str, database: Database, role: str, tmp_path: Path
) -> None:
    name, _, value = setting.partition("=")
    if not database.execute(f"SELECT 1 FROM pg_settings WHERE lower(name) = '{name}'"):
        pytest.skip(f"this server has no {name}")
    target = f"DATABASE {database.name}" if name == "timezone" else f"ROLE {role}"
    database.execute(f"ALTER {target} SET {name} = '{value}'")
    warehouse, now = open_warehouse(url), datetime.now(timezone.utc)
    file = many_trips(tmp_path, GREEN, JAN, 50_000)
    assert warehouse.replace(GREEN, JAN, file) == warehouse.replace(GREEN, JAN, file) == 50_000
    moment = warehouse.loads(GREEN)[JAN].loaded_at
    assert (abs(moment - now) < timedelta(minutes=5), moment.utcoffset()) == (True, timedelta(0))
    assert warehouse.query("SELECT DISTINCT pickup_datetime AS p FROM green")["p"].to_pylist() == [datetime(2024, 1, 2)]
    assert _totals(url) == (50_000, sum(range(50_000)))


_FORKED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from loading import FEB, GREEN, JAN, MAR, trips
from pipeline.warehouses import open_warehouse
warehouse = open_warehouse(sys.argv[2])
def load(month, *wanted):
    warehouse.replace(GREEN, month, trips(Path(sys.argv[3]), GREEN, month, [1.0]))
    return {month, *wanted} <= set(warehouse.loads(GREEN))
assert load(JAN)
child = os.fork()
if child == 0:
    os._exit(not load(FEB, JAN))
assert load(MAR, JAN)
assert os.waitpid(child, 0)[1] == 0
assert load(JAN, FEB, MAR)
"""


def test_a_warehouse_works_in_a_forked_process_and_its_parent_alike(url: str, tmp_path: Path) -> None:
    # From 3.12 on Python warns about a fork beside threads, here those of a library.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKED, str(Path(__file__).parents[1]), url]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_lost_during_a_run_is_one_message_and_the_same_command_completes(
    tmp_path: Path, site: SampleSite, database: Database
) -> None:
    folder = make_folder(tmp_path / "work", site.url)
    command = ("backfill", "fhv", "2024-01..2024-02", "--workers", "2", "--warehouse", database.url)
    site.faults.add("fhv_tripdata_2024-0*", "delay", 2, times=2)
    process = folder.start("pipeline", *command)
    until = time.monotonic() + 30
    while sum("fhv_tripdata_2024-0" in one.path for one in [*site.requests]) < 2:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    database.server.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
    database.server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.name}'")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    (line,) = (text for text in output.splitlines() if "no connection to Postgres" in text)
    assert "not currently accepting connections" in line
    assert "same for 1 other" in line
    database.server.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
    assert folder.pipeline(*command).returncode == 0
    assert database.execute("SELECT count(*) FROM loads WHERE dataset = 'fhv'") == [(2,)]
