"""The Postgres server that a URL names: a connection for each piece of work, and errors that say where and what to do.

The URL is libpq's (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING), so a password may
as well come from PGPASSWORD, ~/.pgpass or a service file, and TLS options pass through. What it holds is never shown.
"""

from __future__ import annotations

import random
import re
import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from pipeline.errors import UsageError, WarehouseError

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql", "postgres")
_INSTALL = "a postgresql:// warehouse needs its driver; install it: pip install 'taxi-pipeline[postgres]'"
#: The oldest that its makers still maintain.
_OLDEST = 140000
#: How long a server that does not answer, is starting or is full is asked again; and the pauses, from and to.
_PATIENCE_S = 10.0
_PAUSE_S = (0.2, 2.0)
#: How long a pooler may take to give us a second session; when it has none left, we take it for one of sessions.
_POOLER_S = 2.0
#: Which process of the server serves a connection: of a pooler, the one that it has just then. One transaction; the
#: limit of the role or the database does not hold for its second statement.
_BACKEND = "SET LOCAL statement_timeout = 0; SELECT pg_backend_pid()"
#: How often work is begun anew after its connection broke, or after Postgres chose it to end a deadlock.
_RENEWALS = 2
#: What libpq and Postgres say when the next attempt may succeed; there is no code for a failed connection.
_PASSING = re.compile(
    r"Connection refused|Connection reset|timeout expired|connection timeout|closed the connection unexpectedly"
    r"|is starting up|is shutting down|in recovery mode|not yet accepting connections|too many (clients|connections)"
    r"|remaining connection slots|Temporary failure in name resolution",
    re.IGNORECASE,
)
#: Of work that was begun: https://www.postgresql.org/docs/current/errcodes-appendix.html
_RENEWED = ("40001", "40P01", "57P01", "57P02", "57P03")
#: Unless the URL says otherwise: who we are, and that a line which is cut is noticed within a minute or two.
_DEFAULTS = {
    "application_name": "taxi-pipeline",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
#: Whatever role and database are set to: a load takes as long as it takes, texts are as we read them, and the server,
#: too, notices that we are gone.
_SESSION = """
SELECT current_schema(),
    set_config('idle_in_transaction_session_timeout', '0', false),
    (SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'),
    set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
    set_config('quote_all_identifiers', 'off', false),
    set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false),
    CASE WHEN version() !~* 'visual|mingw|msvc' THEN set_config('client_connection_check_interval', '2s', false) END
"""
#: What a person does about an error of this code.
_REMEDIES = {
    "42501": "tables are for who made them; where there are none yet: GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}",
    "query 42501": "a query may only read; where {user} lacks the right to: GRANT SELECT ON the table TO {user}",
    "53100": "the server's disk is full: make room there, then run again",
    "53200": "the server is out of memory: look at its settings, then run again",
    "42P07": "rename what is not of this package, or {elsewhere}",
    "55P03": "somebody else holds it: wait for them, then run again (the limit is lock_timeout_s)",
    "57014": "somebody cancelled it: run again",
    "2BP01": "drop what depends on it, run again, and make it anew",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Server:
    """A database on a Postgres server, as a URL names it."""

    url: str = field(repr=False)

    def run(self, subject: str, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """Do the work on a connection of its own, in autocommit; once more on a new one when the first one broke.

        `subject` begins every error's message.

        Raises:
            WarehouseError: there is no connection to be had, or Postgres refused what was done.
        """
        driver = import_psycopg()
        renewals = 0
        while True:
            with closing(self._connect(subject)) as connection:
                try:
                    self._begin(subject, connection)
                    return work(connection)
                except driver.Error as error:
                    lost = error.sqlstate in _RENEWED or (error.sqlstate is None and connection.broken)
                    if not lost or renewals == _RENEWALS:
                        raise WarehouseError(self._say(subject, connection, error)) from error
            renewals += 1
            time.sleep(_jitter(2.0**renewals / 4))

    def place(self, found: Any = None) -> str:
        """Where it is, in words without secrets; `found` is libpq's connection, which knows best."""
        driver = import_psycopg()
        said: dict[str, Any] = {
            option.keyword.decode(): option.val.decode()
            for option in driver.pq.Conninfo.get_defaults()
            if option.val is not None
        }
        said |= driver.conninfo.conninfo_to_dict(self.url)
        if found is not None:
            named = {"host": found.host, "port": found.port, "dbname": found.db, "user": found.user}
            said |= {key: value.decode() for key, value in named.items() if value}
        words = {key: said.get(key) or "not said" for key in ("host", "port", "dbname", "user")}
        return "host {host}, port {port}, database {dbname}, user {user}".format(**words)

    def _connect(self, subject: str) -> psycopg.Connection[Any]:
        driver = import_psycopg()
        said = driver.conninfo.conninfo_to_dict(self.url)
        deadline, pause_s = time.monotonic() + _PATIENCE_S, _PAUSE_S[0]
        while True:
            try:
                connection: psycopg.Connection[Any] = driver.connect(
                    self.url,
                    autocommit=True,
                    cursor_factory=driver.RawCursor,
                    client_encoding="utf8",
                    **{key: value for key, value in _DEFAULTS.items() if key not in said},
                )
                return connection
            except driver.OperationalError as error:
                reason = " ".join(str(error).split())
                if not _PASSING.search(reason) or time.monotonic() >= deadline:
                    raise WarehouseError(
                        f"{subject}: no connection to Postgres at {self.place(error.pgconn)}: {reason}; "
                        f"{_connection_remedy(reason, error.pgconn)}"
                    ) from error
            except driver.Error as error:
                raise WarehouseError(
                    f"{subject}: no connection to Postgres at {self.place()}: {error}; is [pipeline] warehouse right?"
                ) from error
            time.sleep(_jitter(pause_s))
            pause_s = min(2 * pause_s, _PAUSE_S[1])

    def _shared(self, subject: str, connection: psycopg.Connection[Any]) -> bool:
        """Whether a pooler gives the connection another session of the server for each transaction.

        Locks and settings of a session then stay behind in one that others get. A pooler tells clients a number of its
        own for the server's process. In transaction mode it gives the session that we just had to a second client.
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

    def _begin(self, subject: str, connection: psycopg.Connection[Any]) -> None:
        version = connection.info.server_version
        if version < _OLDEST:
            raise WarehouseError(
                f"{subject}: Postgres at {self.place(connection.pgconn)} is of version {version // 10000}; allowed is "
                f"{_OLDEST // 10000} or newer"
            )
        if self._shared(subject, connection):
            raise WarehouseError(
                f"{subject}: Postgres at {self.place(connection.pgconn)} is reached through a pooler (as PgBouncer) "
                "that shares the server's sessions among its clients by transaction, so that our locks would stay "
                "behind in sessions of others; name the server itself in [pipeline] warehouse, or a pool with "
                "pool_mode = session"
            )
        # By itself, as a limit of the role's or the database's own would hold for the next statement, too.
        connection.execute("SET statement_timeout = 0")
        found = connection.execute(_SESSION).fetchone()
        if found is None or found[0] is None:
            raise WarehouseError(
                f"{subject}: Postgres at {self.place(connection.pgconn)} has no schema for tables on its search_path; "
                f"GRANT USAGE, CREATE ON SCHEMA … TO {_name(connection.info.user)} where it is there, or "
                f"{elsewhere(connection)}"
            )

    def _say(self, subject: str, connection: psycopg.Connection[Any], error: psycopg.Error) -> str:
        told = error.diag
        # Of bad data: the row and the column.
        where = " ".join((told.context or "").split()) if (error.sqlstate or "").startswith("22") else ""
        parts = [told.message_primary or " ".join(str(error).split()) or type(error).__name__]
        parts += [text for text in (told.message_detail, where, told.message_hint) if text]
        remedy = _REMEDIES.get(f"{subject} {error.sqlstate}") or _REMEDIES.get(error.sqlstate or "", "")
        if remedy:
            user = connection.info.user if connection.pgconn.status == 0 else "the user"
            schema = re.search(r"schema (.+)$", parts[0])
            words = {"schema": _name(schema[1] if schema else "public"), "user": _name(user)}
            if "{elsewhere}" in remedy:
                words["elsewhere"] = elsewhere(connection)
            parts.append(remedy.format(**words))
        elif (error.sqlstate is None and connection.broken) or error.sqlstate in _RENEWED:
            parts.append("run again when the server is well; nothing of it has arrived")
        return f"{subject} in Postgres at {self.place(connection.pgconn)}: {'; '.join(parts)}"


def validate_url(url: str) -> None:
    """Let pass what libpq can read; nothing is asked of any server.

    Raises:
        UsageError: it is no such URL, or the driver is not installed.
    """
    driver = import_psycopg()
    try:
        said = driver.conninfo.conninfo_to_dict(url)
        place = f"{said.get('host', '')}{said.get('dbname', '')}"
        if "@" in place or re.search("[^0-9,]", str(said.get("port", ""))):
            # As libpq reads a password with such a sign in it; what it takes for a host would be shown.
            raise driver.ProgrammingError("host, port or database has a sign that none can have")
    except driver.Error as error:
        # The quoted part may be of a password.
        reason = re.sub(r'\s*:?\s*".*', "", str(error), flags=re.DOTALL).strip()
        raise UsageError(
            f"warehouse {url.partition('://')[0]}://…: no URL of Postgres: {reason}; allowed: "
            "postgresql://user@host:5432/database?sslmode=require, where %, @, /, ? and # in a password are written "
            "%25, %40, %2F, %3F and %23 (better: leave it out, and set PGPASSWORD or write ~/.pgpass)"
        ) from None


def elsewhere(connection: psycopg.Connection[Any]) -> str:
    """How to load into a schema of one's own: what the database's owner runs, and the URL, without a password."""
    said = {key: value for key, value in connection.info.get_parameters().items() if not re.search("pass|secret", key)}
    user, host, name, port = (said.pop(key, "") for key in ("user", "host", "dbname", "port"))
    query = {
        key: value
        for key, value in said.items()
        if key not in {*_DEFAULTS, "client_encoding", "hostaddr", "sslcertmode"}
    }
    query["options"] = f"{query.get('options', '')} -csearch_path=taxi".strip()
    place = f"{quote(user)}@{quote(host, safe='')}{f':{port}' if port else ''}/{quote(name)}"
    return (
        f"load into a schema of your own: CREATE SCHEMA taxi AUTHORIZATION {_name(user)}, then [pipeline] warehouse "
        f"postgresql://{place}?{urlencode(query, quote_via=quote)} (in luigi.cfg each % is written twice)"
    )


def import_psycopg() -> Any:
    """The driver, imported when it is needed and not before."""
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise UsageError(f"{_INSTALL} ({error})") from error
    return psycopg


@contextmanager
def transaction(connection: psycopg.Connection[Any], lock_timeout_s: float) -> Iterator[None]:
    """A transaction that waits for each lock no longer than this; then psycopg's LockNotAvailable ends it."""
    with connection.transaction():
        # Postgres takes 0 for no limit.
        limit = f"{max(1, round(1000 * lock_timeout_s))}ms"
        connection.execute("SELECT set_config('lock_timeout', $1, true)", [limit])
        yield


def _backend(connection: psycopg.Connection[Any]) -> int:
    cursor = connection.execute(_BACKEND)
    cursor.nextset()
    found: int = cursor.fetchall()[0][0]
    return found


def _name(text: str) -> str:
    """A name as SQL writes it."""
    return text if re.fullmatch("[a-z_][a-z0-9_]*", text) else '"{}"'.format(text.replace('"', '""'))


def _connection_remedy(reason: str, said: Any) -> str:
    remedies = {
        r"password|authentication": "give the password by PGPASSWORD, ~/.pgpass, a service file or the URL",
        r"permission denied for database": "its owner must admit you: GRANT CONNECT ON DATABASE {dbname} TO {user}",
        r"not permitted to log in": "ALTER ROLE {user} LOGIN, or name another user in [pipeline] warehouse",
        r"not currently accepting connections": "its owner has closed it; name another one in [pipeline] warehouse",
        r"unsupported startup parameter": "a pooler does not pass it on: leave it out of [pipeline] warehouse, and "
        "set it for the role (ALTER ROLE {user} SET search_path = …)",
        r"database .* does not exist": "make it (createdb --owner {user} {dbname}), or name another one in "
        "[pipeline] warehouse",
        r"role .* does not exist": "make it (createuser), or name another user in [pipeline] warehouse",
        r"pg_hba": "its pg_hba.conf must admit this; where it wants TLS, add ?sslmode=require to the URL",
        r"support SSL|require SSL|SSL error|certificate|TLS": "look at sslmode and sslrootcert in [pipeline] warehouse",
    }
    words = {"dbname": _name(said.db.decode()) if said else "…", "user": _name(said.user.decode()) if said else "…"}
    for pattern, remedy in remedies.items():
        if re.search(pattern, reason):
            return remedy.format(**words)
    return "is the server running, and is [pipeline] warehouse right?"


def _jitter(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1)  # noqa: S311
