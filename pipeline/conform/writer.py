"""Writing a trips file: the row groups and encodings that make it small and quick to load, in a thread of its own.

Row groups have exactly 122,880 rows (DuckDB's own; with 131,072 its load takes twice the time and memory), however the
rows came cut. Identical rows and metadata give identical bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError

ROW_GROUP_ROWS = 122_880

#: Row groups that may wait for the encoder: enough to keep it busy, few enough to keep memory flat.
_WAITING = 2


class TripsWriter:
    """An open trips file; on leaving with an error, or when the file cannot be finished, it is gone.

    Raises:
        StoreError: the file cannot be written; at the latest on leaving.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._loose: list[pa.RecordBatch] = []
        self._running: deque[Future[None]] = deque()

    def __enter__(self) -> TripsWriter:
        with self._faults():
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression="zstd",
                compression_level=3,
                # Times hardly repeat: dictionaries make them larger. Plain is what every reader knows.
                use_dictionary=[field.name for field in self._schema if not pa.types.is_timestamp(field.type)],
            )
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="encode")
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of one batch; they are encoded while the caller goes on."""
        self._loose.append(batch)
        if sum(loose.num_rows for loose in self._loose) < ROW_GROUP_ROWS:
            return
        table = pa.Table.from_batches(self._loose)
        whole = table.num_rows - table.num_rows % ROW_GROUP_ROWS
        for start in range(0, whole, ROW_GROUP_ROWS):
            self._encode(table.slice(start, ROW_GROUP_ROWS))
        self._loose = table.slice(whole).to_batches()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        finished = False
        try:
            if kind is None:
                if self._loose:
                    self._encode(pa.Table.from_batches(self._loose))
                self._wait(0)
                self._close()
                finished = True
        finally:
            # Cancels what has not begun, and waits for the row group that has: no thread is left behind.
            self._threads.shutdown(cancel_futures=True)
            if not finished:
                self._abandon()

    def _encode(self, table: pa.Table) -> None:
        self._wait(_WAITING)
        self._running.append(self._threads.submit(self._writer.write_table, table.combine_chunks(), ROW_GROUP_ROWS))

    def _wait(self, most: int) -> None:
        """Wait until at most so many row groups are waiting; raise at once what the encoder raised."""
        while self._running and (len(self._running) > most or self._running[0].done()):
            with self._faults():
                self._running.popleft().result()

    def _close(self) -> None:
        with self._faults():
            self._writer.close()
            self._sink.close()

    def _abandon(self) -> None:
        with suppress(pa.ArrowException, OSError):
            self._writer.close()
        # Otherwise it would try once more when it is collected.
        self._writer.is_open = False
        with suppress(pa.ArrowException, OSError):
            self._sink.close()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"{self._path}: cannot be written: {error}") from error
