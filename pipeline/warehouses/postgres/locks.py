"""Waiting for locks without blocking others: short waits, repeated, and an error that names who holds the lock.

Source: https://www.postgresql.org/docs/current/explicit-locking.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import WarehouseError
from pipeline.warehouses.postgres.server import import_psycopg, jitter

if TYPE_CHECKING:
    import psycopg

#: How long the first attempt waits for a lock, and the longest one. From 1 s on (deadlock_timeout) Postgres cancels an
#: autovacuum that holds the lock.
_WAIT_S = (0.1, 1.5)
#: The pause between attempts, in which other sessions get the lock.
_PAUSE_S = (0.2, 5.0)
#: The key of an advisory lock, from the name of what it protects and the schema.
_KEY = "hashtextextended('taxi-pipeline ' || current_schema() || ' ' || $1, 0)"
#: Describes a session for the user, who may have to end it.
_HOLDER = (
    "format('PID %s (%s)', a.pid, concat_ws(', ', nullif(a.application_name, ''), a.usename, host(a.client_addr), "
    "'since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS') || ' UTC'))"
)

_T = TypeVar("_T")


@contextmanager
def transaction(connection: psycopg.Connection[Any], lock_timeout_s: float) -> Iterator[None]:
    """A transaction that fails with psycopg's LockNotAvailable when it waits longer than this for a lock."""
    with connection.transaction():
        # Postgres takes 0 for no limit.
        limit = f"{max(1, round(1000 * lock_timeout_s))}ms"
        connection.execute("SELECT set_config('lock_timeout', $1, true)", [limit])
        yield


def lock_session(connection: psycopg.Connection[Any], name: str, limit_s: float, *, shared: bool = False) -> None:
    """Take the advisory lock of this name, until the connection ends.

    Raises:
        WarehouseError: another session held it for all this time.
    """
    function = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
    try:
        with transaction(connection, limit_s):
            connection.execute(f"SELECT {function}({_KEY})", [name])
    except import_psycopg().errors.LockNotAvailable as error:
        held = f"locktype = 'advisory' AND database = a.datid AND (classid::bigint << 32) | objid::bigint = {_KEY}"
        raise _locked(connection, name, limit_s, held, name) from error


def lock_transaction(connection: psycopg.Connection[Any], name: str) -> None:
    """Take the advisory lock of this name, until the transaction ends."""
    connection.execute(f"SELECT pg_advisory_xact_lock({_KEY})", [name])


def retry_locked(
    connection: psycopg.Connection[Any], subject: str, tables: list[str], limit_s: float, change: Callable[[], _T]
) -> _T:
    """Run the change in a transaction, again and again until it gets its locks on these tables.

    Raises:
        WarehouseError: other sessions held them for all this time.
    """
    deadline, wait_s, pause_s = time.monotonic() + limit_s, _WAIT_S[0], _PAUSE_S[0]
    while True:
        try:
            with transaction(connection, wait_s):
                return change()
        except import_psycopg().errors.LockNotAvailable as error:
            if time.monotonic() >= deadline:
                held = "relation = ANY(SELECT to_regclass(quote_ident(name)) FROM unnest($1::text[]) AS name)"
                raise _locked(connection, subject, limit_s, held, tables) from error
        time.sleep(min(jitter(pause_s), max(0.0, deadline - time.monotonic())))
        wait_s, pause_s = min(2 * wait_s, _WAIT_S[1]), min(2 * pause_s, _PAUSE_S[1])


def _locked(
    connection: psycopg.Connection[Any], subject: str, limit_s: float, held: str, value: str | list[str]
) -> WarehouseError:
    """The error, with all sessions that hold the lock; `held` is a condition on it, with the value as $1."""
    holders = connection.execute(
        f"SELECT DISTINCT {_HOLDER} FROM pg_locks JOIN pg_stat_activity AS a USING (pid) "
        f"WHERE granted AND pid <> pg_backend_pid() AND {held}",
        [value],
    ).fetchall()
    names = ", ".join(sorted(name for (name,) in holders)) or "a session that has just ended"
    return WarehouseError(
        f"{subject}: locked by {names}, still after {limit_s:g} s; wait for them, or end them by "
        "SELECT pg_terminate_backend(PID), then run again (the limit is lock_timeout_s)"
    )
