"""A month on its way into Postgres: copied into a table of its own, then put in place in a moment.

The copy is a transaction for itself and touches nothing that anybody reads. The swap waits for each lock but a moment,
as all who come after it in the queue wait, too; when somebody reads for longer, it lets them pass and tries again.
A crash between the two leaves a table `…_incoming`, which the next load of that month removes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import date
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.months import add_months, label
from pipeline.warehouses.postgres.copy import encode
from pipeline.warehouses.postgres.schema import partition_of
from pipeline.warehouses.postgres.server import import_psycopg, transaction
from pipeline.warehouses.schema import Table, changes_to
from pipeline.warehouses.tables import MONTH

if TYPE_CHECKING:
    import psycopg

#: Small batches stay in the processor's cache: of 2,048 to 122,880 rows these were among the fastest.
_BATCH_ROWS = 8_192
#: How long one attempt waits for a lock; from 1 s on (deadlock_timeout) Postgres takes an autovacuum out of the way.
_WAIT_S = (0.1, 1.5)
#: The pause after a failed attempt, in which readers have their way.
_PAUSE_S = (0.2, 5.0)

_INCOMING = "_incoming"

_T = TypeVar("_T")


def copy_rows(connection: psycopg.Connection[Any], table: str, path: Path) -> int:
    """Copy the file's rows, in Postgres's binary form; a column that the file lacks has its default. Returns rows."""
    import pyarrow.parquet as pq

    # pre_buffer would hold whole row groups in memory, twice.
    with pq.ParquetFile(path, pre_buffer=False) as file, connection.cursor() as cursor:
        names = ", ".join(f'"{name}"' for name in file.schema_arrow.names)
        freeze = ", FREEZE" if table.endswith(_INCOMING) else ""
        with cursor.copy(f'COPY "{table}" ({names}) FROM STDIN (FORMAT binary{freeze})') as copy:
            for piece in encode(file.iter_batches(_BATCH_ROWS)):
                copy.write(piece)
        return int(cursor.rowcount)


def stage(
    connection: psycopg.Connection[Any], dataset: Dataset, table: Table, month: date, path: Path, limit_s: float
) -> int:
    """Make the table `<partition>_incoming` of the file's rows, ready to be put in place; returns their number."""
    incoming = partition_of(dataset.name, month) + _INCOMING

    def prepare() -> list[str]:
        connection.execute(f'DROP TABLE IF EXISTS "{incoming}"')
        # By itself: pg_get_indexdef locks the parent, too.
        return _indexes(connection, dataset.name, onto=incoming)

    indexes = insisting(connection, label(dataset.name, month), [dataset.name, incoming], limit_s, prepare)
    with connection.transaction():
        # Not LIKE, which locks the parent until the copy is through, while another month's swap wants it alone.
        named = Table(f"{dataset.name} of {month:%Y-%m}.", table.columns)
        for statement in changes_to(incoming, named, None):
            connection.execute(statement)
        # Implies the partition's bounds, so that attaching reads no row.
        connection.execute(f"ALTER TABLE \"{incoming}\" ADD CONSTRAINT {MONTH} CHECK ({MONTH} = DATE '{month}')")
        connection.execute(f"ALTER TABLE \"{incoming}\" ALTER COLUMN {MONTH} SET DEFAULT DATE '{month}'")
        rows = copy_rows(connection, incoming, path)
        connection.execute(f'ALTER TABLE "{incoming}" ALTER COLUMN {MONTH} DROP DEFAULT')
        # After the rows, which is faster, and before attaching, which else would make them while others wait.
        for statement in indexes:
            connection.execute(statement)
    return rows


def attach_partition(connection: psycopg.Connection[Any], dataset: Dataset, month: date) -> None:
    """Make the incoming table the month's partition, in place of the one that may be there; in a transaction."""
    partition = partition_of(dataset.name, month)
    incoming = partition + _INCOMING
    drop_partition(connection, dataset, month)
    connection.execute(f'ALTER TABLE "{incoming}" RENAME TO "{partition}"')
    for (index,) in connection.execute(
        "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = to_regclass($1)", [partition]
    ).fetchall():
        name = _free_name(connection, index.replace(_INCOMING, ""))
        connection.execute(f'ALTER INDEX "{index}" RENAME TO "{name}"')
    connection.execute(
        f'ALTER TABLE "{dataset.name}" ATTACH PARTITION "{partition}" '
        f"FOR VALUES FROM ('{month}') TO ('{add_months(month, 1)}')"
    )


def _free_name(connection: psycopg.Connection[Any], wanted: str) -> str:
    """The name, or the next one that nothing has: a month that a person has detached keeps its index's name."""
    for number in count():
        name = f"{wanted}{number or ''}"
        if connection.execute("SELECT to_regclass($1)", [f'"{name}"']).fetchone() == (None,):
            break
    return name


def drop_partition(connection: psycopg.Connection[Any], dataset: Dataset, month: date) -> None:
    """Drop the month's partition if it is there; in a transaction."""
    connection.execute(f'DROP TABLE IF EXISTS "{partition_of(dataset.name, month)}"')


def hold(connection: psycopg.Connection[Any], what: str, limit_s: float, *, shared: bool = False) -> None:
    """Keep others from what is called so until the connection ends, by an advisory lock; wait for those who do.

    Raises:
        WarehouseError: they did not end in time.
    """
    function = "pg_advisory_lock_shared" if shared else "pg_advisory_lock"
    try:
        with transaction(connection, limit_s):
            connection.execute(f"SELECT {function}({_KEY})", [what])
    except import_psycopg().errors.LockNotAvailable as error:
        holders = connection.execute(
            f"SELECT {_HOLDER} FROM pg_locks JOIN pg_stat_activity AS a USING (pid) WHERE locktype = 'advisory' "
            f"AND granted AND database = a.datid AND (classid::bigint << 32) | objid::bigint = {_KEY}",
            [what],
        ).fetchall()
        raise WarehouseError(f"{what}: {_held(holders, limit_s)}") from error


#: The number of an advisory lock: of what is locked, in this schema.
_KEY = "hashtextextended('taxi-pipeline ' || current_schema() || ' ' || $1, 0)"
#: Who it is, for a person who must find them.
_HOLDER = (
    "format('PID %s (%s)', a.pid, concat_ws(', ', nullif(a.application_name, ''), a.usename, host(a.client_addr), "
    "'since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS') || ' UTC'))"
)


def insisting(
    connection: psycopg.Connection[Any], subject: str, tables: list[str], limit_s: float, change: Callable[[], _T]
) -> _T:
    """Make the change in a transaction of its own, again and again until it gets its locks on these tables.

    Raises:
        WarehouseError: others had them all the time; says who.
    """
    deadline, (wait_s, pause_s) = time.monotonic() + limit_s, (_WAIT_S[0], _PAUSE_S[0])
    while True:
        try:
            with transaction(connection, wait_s):
                return change()
        except import_psycopg().errors.LockNotAvailable as error:
            if time.monotonic() >= deadline:
                holders = connection.execute(
                    f"SELECT DISTINCT {_HOLDER} FROM pg_locks JOIN pg_stat_activity AS a USING (pid) "
                    "WHERE relation = ANY(SELECT to_regclass(quote_ident(name)) FROM unnest($1::text[]) AS name) "
                    "AND granted AND a.pid <> pg_backend_pid()",
                    [tables],
                ).fetchall()
                raise WarehouseError(f"{subject}: {_held(holders, limit_s)}") from error
        remaining_s = max(0.0, deadline - time.monotonic())
        time.sleep(min(pause_s * random.uniform(0.5, 1), remaining_s))  # noqa: S311
        wait_s, pause_s = min(2 * wait_s, _WAIT_S[1]), min(2 * pause_s, _PAUSE_S[1])


def alone(connection: psycopg.Connection[Any], what: str) -> None:
    """Keep others from it for the rest of the transaction."""
    connection.execute(f"SELECT pg_advisory_xact_lock({_KEY})", [what])


def _held(holders: list[tuple[str]], limit_s: float) -> str:
    who = ", ".join(sorted(name for (name,) in holders)) or "somebody who has just gone"
    return (
        f"locked by {who}, still after {limit_s:g} s; wait for them, or end them by SELECT pg_terminate_backend(PID), "
        "then run again (the limit is lock_timeout_s)"
    )


def _indexes(connection: psycopg.Connection[Any], table: str, onto: str) -> list[str]:
    """Statements that give another table the indexes of this one; those of constraints are left out."""
    found = connection.execute(
        "SELECT indisunique, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass($1) "
        "AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid) ORDER BY indexrelid",
        [f'"{table}"'],
    ).fetchall()
    return [
        f'CREATE {"UNIQUE " if unique else ""}INDEX ON "{onto}" USING {text.partition(" USING ")[2]}'
        for unique, text in found
    ]
