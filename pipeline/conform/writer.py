"""Writes a trips file: small and quick to load, encoded in a thread of its own.

Row groups have exactly 122,880 rows (DuckDB's own size; with 131,072 its load takes twice the time and memory),
whatever the sizes of the batches. Identical rows and metadata give identical bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError

ROW_GROUP_ROWS = 122_880
#: Row groups that may wait for the encoder: enough to keep it busy, few enough to keep memory flat.
_WAITING = 2


class TripsWriter:
    """An open trips file; after an error the file is incomplete, and the caller deletes it.

    Raises:
        StoreError: the file cannot be written; raised by `write` or at the end of the `with` block.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._batches: list[pa.RecordBatch] = []
        self._waiting: deque[Future[None]] = deque()
        with self._store_errors():
            self._sink = pa.OSFile(str(path), "wb")
            # Times hardly repeat: dictionaries make them larger. Every reader knows plain values.
            repeating = [field.name for field in schema if not pa.types.is_timestamp(field.type)]
            self._writer = pq.ParquetWriter(
                self._sink, schema, compression="zstd", compression_level=1, use_dictionary=repeating
            )
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        # Start the thread now. If a signal interrupts that, the pool does not know its thread, and never waits for it;
        # a thread that encodes would then use the closed writer.
        self._encoder.submit(int)

    def __enter__(self) -> TripsWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                if self._batches:
                    self._encode(pa.Table.from_batches(self._batches))
                self._wait(0)
                with self._store_errors():
                    self._writer.close()
                    self._sink.close()
        finally:
            # Cancels what has not started and waits for the row group being encoded, so that no thread is left.
            self._encoder.shutdown(cancel_futures=True)
            with suppress(pa.ArrowException, OSError):
                self._writer.close()
            # After a failed close, it would try to close again when it is collected.
            self._writer.is_open = False
            with suppress(pa.ArrowException, OSError):
                self._sink.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of one batch; returns before they are encoded."""
        self._batches.append(batch)
        if sum(batch.num_rows for batch in self._batches) < ROW_GROUP_ROWS:
            return
        table = pa.Table.from_batches(self._batches)
        whole = table.num_rows - table.num_rows % ROW_GROUP_ROWS
        for start in range(0, whole, ROW_GROUP_ROWS):
            self._encode(table.slice(start, ROW_GROUP_ROWS))
        self._batches = table.slice(whole).to_batches()

    def _encode(self, table: pa.Table) -> None:
        self._wait(_WAITING)
        self._waiting.append(self._encoder.submit(self._writer.write_table, table.combine_chunks(), ROW_GROUP_ROWS))

    def _wait(self, limit: int) -> None:
        """Wait until at most `limit` row groups are waiting; raise what the encoder raised."""
        while self._waiting and (len(self._waiting) > limit or self._waiting[0].done()):
            with self._store_errors():
                self._waiting.popleft().result()

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{self._path}: cannot be written: {error}") from error
