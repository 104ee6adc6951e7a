"""A load of rows while they are conformed: DuckDB gets the batches that are encoded, instead of decoding the file.

A thread has the database open, in one transaction, and commits it only after the trips file is published. So what it
leaves is what a load of that file leaves, or nothing; and nothing that fails in it fails the conforming.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Full, Queue, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.warehouses.base import Locked, StoredFile

if TYPE_CHECKING:
    import pyarrow as pa

#: Batches that may wait for DuckDB, which keep it busy; more would only take memory.
_WAITING = 1
_POLL_S = 0.1

_log = logging.getLogger("luigi-interface.pipeline")


class _AbandonedError(Exception):
    """The month was not published."""


class ThreadedLoad:
    """See `pipeline.warehouses.base.LoadAhead`.

    `load(batches, published)` runs in the thread: it inserts the batches, calls `published` for the file, and commits.
    """

    def __init__(self, load: Callable[[Iterator[pa.RecordBatch], Callable[[], StoredFile]], None]) -> None:
        self._load = load
        self._batches: Queue[pa.RecordBatch | None] = Queue(_WAITING)
        self._file: SimpleQueue[StoredFile | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def add(self, batch: pa.RecordBatch) -> None:
        """Hand the batch over; waits while DuckDB is behind."""
        self._put(batch)

    def finish(self, file: StoredFile) -> None:
        """Commit; after an error in the load, do nothing."""
        self._end(file)

    def close(self) -> None:
        """Roll back what is not finished."""
        self._end(None)

    def _end(self, file: StoredFile | None) -> None:
        self._file.put(file)
        self._put(None)
        self._thread.join()

    def _put(self, batch: pa.RecordBatch | None) -> None:
        while self._thread.is_alive():
            with suppress(Full):
                self._batches.put(batch, timeout=_POLL_S)
                return

    def _published(self) -> StoredFile:
        if (file := self._file.get()) is None:
            raise _AbandonedError
        return file

    def _run(self) -> None:
        try:
            self._load(iter(self._batches.get, None), self._published)
        except (_AbandonedError, Locked):
            pass
        except PipelineError as error:
            _log.info(f"{error.words}; the month is loaded in a step of its own")
