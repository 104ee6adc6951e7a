"""Connections to the Postgres server that a URL names, one for each piece of work, and the texts of their errors.

The URL is libpq's (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING), so the password can
also come from PGPASSWORD, ~/.pgpass or a service file, and TLS options pass through. No message shows the URL.
"""

from __future__ import annotations

import random
import re
import select
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from pipeline.errors import UsageError, WarehouseError

if TYPE_CHECKING:
    import psycopg

_INSTALL = "a postgresql:// warehouse needs its driver; install it: pip install 'taxi-pipeline[postgres]'"
#: The oldest version that the PostgreSQL project supports.
_OLDEST = 140000
#: How long to retry while a server does not answer, is starting or is full; and the shortest and longest pause.
_CONNECT_RETRY_S = 10.0
_PAUSE_S = (0.2, 2.0)
#: How long to wait for a second session from a pooler. A pool without a free session is taken for a session pool.
_POOLER_S = 2.0
#: Which server process serves the connection. Both statements run in one transaction, so the first one lifts a limit
#: of the role or the database for the second.
_BACKEND = "SET LOCAL statement_timeout = 0; SELECT pg_backend_pid()"
#: How often work starts again after a lost connection or a deadlock.
_RESTARTS = 2
#: Messages of libpq and Postgres after which another attempt may succeed; a failed connection has no error code.
_TRANSIENT = re.compile(
    r"Connection refused|Connection reset|timeout expired|connection timeout|closed the connection unexpectedly"
    r"|is starting up|is shutting down|in recovery mode|not yet accepting connections|too many (clients|connections)"
    r"|remaining connection slots|Temporary failure in name resolution",
    re.IGNORECASE,
)
#: Codes after which work starts again: https://www.postgresql.org/docs/current/errcodes-appendix.html
_RESTART_CODES = ("40001", "40P01", "57P01", "57P02", "57P03")
#: Defaults for what the URL leaves open; the timeouts detect a dead connection within two minutes.
_DEFAULTS = {
    "application_name": "taxi-pipeline",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
#: Overrides the settings of the role and the database: a load has no time limit, texts have the format that this
#: package reads, and the server notices when the client is gone.
_SESSION = """
SELECT current_schema(),
    set_config('idle_in_transaction_session_timeout', '0', false),
    (SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'),
    set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
    set_config('quote_all_identifiers', 'off', false),
    set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
    CASE WHEN version() !~* 'visual|mingw|msvc' THEN set_config('client_connection_check_interval', '2s', false) END
"""
#: What the user can do about an error with this code.
_REMEDIES = {
    "42501": "only the owner of a table may change it; to create tables: GRANT USAGE, CREATE ON SCHEMA {schema} "
    "TO {user}",
    "query 42501": "a query may only read; where {user} may not read: GRANT SELECT ON the table TO {user}",
    "53100": "the server's disk is full: free some space, then run again",
    "53200": "the server is out of memory: check its settings, then run again",
    "42P07": "rename the table that is not from this package, or {elsewhere}",
    "55P03": "another session holds a lock: wait for it, then run again (the limit is lock_timeout_s)",
    "57014": "the statement was cancelled: run again",
    "2BP01": "drop what depends on it, run again, then create it again",
}
#: What the user can do about a failed connection, by the reason that libpq gives.
_CONNECT_REMEDIES = {
    r"password|authentication": "give the password by PGPASSWORD, ~/.pgpass, a service file or the URL",
    r"permission denied for database": "its owner must allow it: GRANT CONNECT ON DATABASE {dbname} TO {user}",
    r"not permitted to log in": "ALTER ROLE {user} LOGIN, or use another user in [pipeline] warehouse",
    r"not currently accepting connections": "its owner has closed it; use another one in [pipeline] warehouse",
    r"unsupported startup parameter": "a pooler does not pass it on: remove it from [pipeline] warehouse, and "
    "set it for the role (ALTER ROLE {user} SET search_path = …)",
    r"database .* does not exist": "create it (createdb --owner {user} {dbname}), or use another one in "
    "[pipeline] warehouse",
    r"role .* does not exist": "create it (createuser), or use another user in [pipeline] warehouse",
    r"pg_hba": "its pg_hba.conf must allow it; if it requires TLS, add ?sslmode=require to the URL",
    r"support SSL|require SSL|SSL error|certificate|TLS": "check sslmode and sslrootcert in [pipeline] warehouse",
    "": "is the server running, and is [pipeline] warehouse right?",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Server:
    """A database on a Postgres server."""

    url: str = field(repr=False)

    def run(self, subject: str, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """Do the work on a new connection in autocommit mode; starts again when the connection is lost.

        `subject` begins every error message.

        Raises:
            WarehouseError: the connection failed, or Postgres reported an error.
        """
        driver = import_psycopg()
        restarts = 0
        while True:
            with closing(self._connect(subject)) as connection:
                try:
                    self._prepare(subject, connection)
                    return work(connection)
                except driver.Error as error:
                    lost = error.sqlstate in _RESTART_CODES or (error.sqlstate is None and connection.broken)
                    if not lost or restarts == _RESTARTS:
                        raise WarehouseError(self._message(subject, connection, error, lost)) from error
            restarts += 1
            time.sleep(jitter(2.0**restarts / 4))

    def _describe(self, pgconn: Any = None) -> str:
        """Host, port, database and user, without secrets; libpq's connection knows them best."""
        driver = import_psycopg()
        options = {item.keyword.decode(): item.val.decode() for item in driver.pq.Conninfo.get_defaults() if item.val}
        options |= driver.conninfo.conninfo_to_dict(self.url)
        if pgconn is not None:
            used = {"host": pgconn.host, "port": pgconn.port, "dbname": pgconn.db, "user": pgconn.user}
            options |= {key: value.decode() for key, value in used.items() if value}
        values = {key: options.get(key) or "not set" for key in ("host", "port", "dbname", "user")}
        return "host {host}, port {port}, database {dbname}, user {user}".format(**values)

    def _connect(self, subject: str) -> psycopg.Connection[Any]:
        driver = import_psycopg()
        options = driver.conninfo.conninfo_to_dict(self.url)
        deadline, pause_s = time.monotonic() + _CONNECT_RETRY_S, _PAUSE_S[0]
        while True:
            try:
                connection: psycopg.Connection[Any] = driver.connect(
                    self.url,
                    autocommit=True,
                    cursor_factory=driver.RawCursor,
                    client_encoding="utf8",
                    **{key: value for key, value in _DEFAULTS.items() if key not in options},
                )
                return connection
            except driver.Error as error:
                pgconn, reason = getattr(error, "pgconn", None), " ".join(str(error).split())
                if not _TRANSIENT.search(reason) or time.monotonic() >= deadline:
                    raise WarehouseError(
                        f"{subject}: no connection to Postgres at {self._describe(pgconn)}: {reason}; "
                        f"{_connect_remedy(reason, pgconn)}"
                    ) from error
            time.sleep(jitter(pause_s))
            pause_s = min(2 * pause_s, _PAUSE_S[1])

    def _is_transaction_pool(self, subject: str, connection: psycopg.Connection[Any]) -> bool:
        """Whether a pooler may use another server session for each transaction.

        Locks and settings of a session would then stay in sessions that other clients get. A pooler reports its own
        number as the server's process. In transaction mode it gives the session just used to a second client.
        """
        backend = _backend(connection)
        if backend == connection.info.backend_pid:
            return False
        with suppress(import_psycopg().Error), closing(self._connect(subject)) as other:
            other.pgconn.send_query(b"BEGIN; " + _BACKEND.encode())
            deadline = time.monotonic() + _POOLER_S
            while other.pgconn.is_busy():
                if not select.select([other.pgconn.socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    return False
                other.pgconn.consume_input()
                while not other.pgconn.is_busy() and (result := other.pgconn.get_result()):
                    if b"statement pooling" in result.error_message:
                        return True
                    if result.ntuples:
                        return int(result.get_value(0, 0) or 0) == backend or _backend(connection) != backend
        return False

    def _prepare(self, subject: str, connection: psycopg.Connection[Any]) -> None:
        """Refuse a server that cannot work, and set the session's settings."""
        version, server = connection.info.server_version, f"Postgres at {self._describe(connection.pgconn)}"
        if version < _OLDEST:
            raise WarehouseError(
                f"{subject}: {server} has version {version // 10000}; allowed is {_OLDEST // 10000} or newer"
            )
        if self._is_transaction_pool(subject, connection):
            raise WarehouseError(
                f"{subject}: {server} is reached through a pooler (such as PgBouncer) that shares sessions by "
                "transaction, so locks would stay in sessions of other clients; set [pipeline] warehouse to the server "
                "itself, or to a pool with pool_mode = session"
            )
        # A statement of its own: a limit that the role or the database sets applies to the next statement too.
        connection.execute("SET statement_timeout = 0")
        row = connection.execute(_SESSION).fetchone()
        if row is None or row[0] is None:
            raise WarehouseError(
                f"{subject}: {server} has no schema for tables on its search_path; "
                f"GRANT USAGE, CREATE ON SCHEMA … TO {_identifier(connection.info.user)} if it exists, or "
                f"{elsewhere(connection)}"
            )

    def _message(self, subject: str, connection: psycopg.Connection[Any], error: psycopg.Error, lost: bool) -> str:
        diag = error.diag
        # For invalid data the context names the row and the column.
        context = " ".join((diag.context or "").split()) if (error.sqlstate or "").startswith("22") else ""
        parts = [diag.message_primary or " ".join(str(error).split()) or type(error).__name__]
        parts += [text for text in (diag.message_detail, context, diag.message_hint) if text]
        remedy = _REMEDIES.get(f"{subject} {error.sqlstate}") or _REMEDIES.get(error.sqlstate or "", "")
        if remedy:
            schema = re.search(r"schema (.+)$", parts[0])
            names = {
                "user": _identifier(connection.info.user) if not connection.broken else "the user",
                "schema": _identifier(schema[1] if schema else "public"),
                "elsewhere": elsewhere(connection) if "{elsewhere}" in remedy else "",
            }
            parts.append(remedy.format(**names))
        elif lost:
            parts.append("run again when the server is available; nothing was changed")
        return f"{subject} in Postgres at {self._describe(connection.pgconn)}: {'; '.join(parts)}"


def validate_url(url: str) -> None:
    """Accept what libpq can read; opens no connection.

    Raises:
        UsageError: the URL is invalid, or the driver is not installed.
    """
    driver = import_psycopg()
    try:
        options = driver.conninfo.conninfo_to_dict(url)
        address = f"{options.get('host', '')}{options.get('dbname', '')}"
        if "@" in address or re.search("[^0-9,]", str(options.get("port", ""))):
            # libpq takes part of a password with an unescaped @ or / for the host, and messages would show it.
            raise driver.ProgrammingError("host, port or database has an invalid character")
    except driver.Error as error:
        # The quoted part may belong to a password.
        reason = re.sub(r'\s*:?\s*".*', "", str(error), flags=re.DOTALL).strip()
        raise UsageError(
            f"warehouse {url.partition('://')[0]}://…: not a Postgres URL: {reason}; allowed: "
            "postgresql://user@host:5432/database?sslmode=require, where %, @, /, ? and # in a password are written "
            "%25, %40, %2F, %3F and %23 (better: leave it out, and set PGPASSWORD or write ~/.pgpass)"
        ) from None


def elsewhere(connection: psycopg.Connection[Any]) -> str:
    """How to use a schema of its own: the statement for the database's owner, and the URL without its password."""
    hidden = re.compile("pass|secret")
    options = {key: value for key, value in connection.info.get_parameters().items() if not hidden.search(key)}
    user, host, dbname, port = (options.pop(key, "") for key in ("user", "host", "dbname", "port"))
    unused = {*_DEFAULTS, "client_encoding", "hostaddr", "sslcertmode"}
    query = {key: value for key, value in options.items() if key not in unused}
    query["options"] = f"{query.get('options', '')} -csearch_path=taxi".strip()
    address = f"{quote(user)}@{quote(host, safe='')}{f':{port}' if port else ''}/{quote(dbname)}"
    return (
        f"load into a separate schema: CREATE SCHEMA taxi AUTHORIZATION {_identifier(user)}, then [pipeline] warehouse "
        f"postgresql://{address}?{urlencode(query, quote_via=quote)} (in luigi.cfg each % is written twice)"
    )


def import_psycopg() -> Any:
    """The driver, imported only when it is needed."""
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise UsageError(f"{_INSTALL} ({error})") from error
    return psycopg


def jitter(seconds: float) -> float:
    """A random pause of at most this length, so that processes do not retry at the same moment."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311


def _backend(connection: psycopg.Connection[Any]) -> int:
    cursor = connection.execute(_BACKEND)
    cursor.nextset()
    pid: int = cursor.fetchall()[0][0]
    return pid


def _identifier(name: str) -> str:
    """The name as SQL writes it."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"{}"'.format(name.replace('"', '""'))


def _connect_remedy(reason: str, pgconn: Any) -> str:
    names = {"dbname": "…", "user": "…"}
    if pgconn is not None:
        names = {"dbname": _identifier(pgconn.db.decode()), "user": _identifier(pgconn.user.decode())}
    return next(text for pattern, text in _CONNECT_REMEDIES.items() if re.search(pattern, reason)).format(**names)
