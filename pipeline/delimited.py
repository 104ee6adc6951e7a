"""The rows of a CSV, gzipped or not, as batches of strings, whatever TLC did to their shape.

Two paths give the same rows. The fast one is Arrow's reader; from the first batch with a row that is not as wide as
the first one, or that Arrow cannot take, the careful one continues: it accepts what is harmless (empty fields at the
end that the header does not name, quoted line breaks) and counts the rest for one error. Empty fields are null, blank
lines are no rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.csv as pacsv

from pipeline.errors import SchemaError, SourceError

_BLOCK_BYTES = 2 << 20
_CAREFUL_ROWS = 20_000
_LINES_SHOWN = 10


@dataclass(frozen=True)
class CsvRaw:
    """An open CSV; see `pipeline.readers.RawFile`."""

    path: Path
    subject: str
    advice: str
    #: One name per field of the header, then an empty one for each further field of the first row.
    names: tuple[str, ...]
    #: How many lines the header and the blank lines before it take.
    header_lines: int
    parquet: bool = False
    rows: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, *, subject: str, advice: str) -> CsvRaw:
        """The CSV at `path`, its header read."""
        with _stream(path) as (stream, _):
            header, header_lines = _next_row(stream, subject)
            first, _ = _next_row(stream, subject)
        names = [*header, *[""] * (len(first) - len(header))]
        return cls(path, subject, advice, tuple(names), header_lines)

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """The columns' types: strings."""
        return (pa.string(),) * len(self.names)

    def batches(
        self, positions: Sequence[int], *, use_threads: bool
    ) -> Generator[tuple[pa.RecordBatch, float], None, None]:
        """Every row of the columns at these positions; see `pipeline.readers.RawFile.batches`."""
        size, done = self.path.stat().st_size, 0
        try:
            with _stream(self.path) as (stream, bytes_read):
                for batch in self._fast(stream, positions, use_threads=use_threads):
                    done += batch.num_rows
                    yield batch, bytes_read() / size
        except _NeedsCareError:
            with _stream(self.path) as (stream, bytes_read):
                for batch in self._careful(stream, positions, skip=done):
                    yield batch, bytes_read() / size

    def _fast(self, stream: BinaryIO, positions: Sequence[int], *, use_threads: bool) -> Iterator[pa.RecordBatch]:
        ragged = False

        def note(_: pacsv.InvalidRow) -> str:
            nonlocal ragged
            ragged = True
            return "skip"

        for _ in range(self.header_lines):
            stream.readline()
        columns = [str(position) for position in range(len(self.names))]
        unnamed = [str(position) for position, name in enumerate(self.names) if not name.strip()]
        wanted = [str(position) for position in positions]
        try:
            reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(use_threads=use_threads, block_size=_BLOCK_BYTES, column_names=columns),
                parse_options=pacsv.ParseOptions(invalid_row_handler=note),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    include_columns=[*wanted, *unnamed],
                ),
            )
            # Closed before the stream below it, as it reads ahead.
            with reader:
                for batch in reader:
                    if ragged or any(batch[name].null_count < batch.num_rows for name in unnamed):
                        raise _NeedsCareError
                    yield batch.select(wanted)
        except pa.ArrowInvalid as error:
            # Arrow says so of a file without rows, too.
            raise _NeedsCareError from error
        if ragged:
            raise _NeedsCareError

    def _careful(self, stream: BinaryIO, positions: Sequence[int], *, skip: int) -> Iterator[pa.RecordBatch]:
        for _ in range(self.header_lines):
            stream.readline()
        named = [place for place, name in enumerate(self.names) if name.strip()]
        width, unnamed = max(named, default=-1) + 1, len(named) < len(self.names)
        rows: list[list[str]] = []
        ragged: list[str] = []
        count = 0
        for number, (line, row) in enumerate(_rows(stream, self.subject, self.header_lines)):
            if number < skip:
                continue
            if (len(row) != width or unnamed) and not _fits(row, width, named):
                count += 1
                if len(ragged) < _LINES_SHOWN:
                    ragged.append(f"{line} ({len(row)} fields)")
            elif not count:
                rows.append(row)
                if len(rows) == _CAREFUL_ROWS:
                    yield _batch(rows, positions)
                    rows = []
        if count:
            more = f" and {count - len(ragged):,} more" if count > len(ragged) else ""
            raise SchemaError(
                f"{self.subject}: rows that do not fit the {len(named)} columns of the header: {count:,}, "
                f"in lines {', '.join(ragged)}{more}; {self.advice}"
            )
        if rows:
            yield _batch(rows, positions)


@contextmanager
def gzip_faults(name: str) -> Iterator[None]:
    """Translate what gzip raises for damaged bytes.

    Raises:
        SourceError: the gzip stream is cut short or corrupt.
    """
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{name}: its gzip stream is cut short or corrupt: {error}") from error


class _NeedsCareError(Exception):
    """The fast path met what it cannot take; everything that it gave until then holds."""


@contextmanager
def _stream(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """The text's bytes from the start, and how many of the file's bytes have been read."""
    with path.open("rb") as file:
        if not path.name.endswith(".gz"):
            yield file, file.tell
            return
        with gzip_faults(path.name), gzip.GzipFile(fileobj=file) as stream:
            yield cast(BinaryIO, stream), file.tell


def _next_row(stream: BinaryIO, subject: str) -> tuple[list[str], int]:
    """The next row that is not blank, and how many lines were read for it; an empty row at the end of the file."""
    lines = 0
    while line := stream.readline():
        lines += 1
        if line.strip():
            try:
                return next(csv.reader([line.decode("utf-8-sig")])), lines
            except (UnicodeDecodeError, csv.Error) as error:
                raise SchemaError(f"{subject}: the first rows cannot be read as a CSV in UTF-8: {error}") from error
    return [], lines


def _rows(stream: BinaryIO, subject: str, line: int) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its last line; `line` lines have been read before."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    reader = csv.reader(text)
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield line + reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise SchemaError(f"{subject}: line {line + reader.line_num + 1} or a later one: {error}") from error
    finally:
        # Otherwise it would close the stream, which is not its own.
        text.detach()


def _fits(row: Sequence[str], width: int, named: Sequence[int]) -> bool:
    """Whether the row has all named fields, of which the last is number `width`, and nothing in the others."""
    filled = (place for place, text in enumerate(row) if text)
    return len(row) >= width and set(filled) <= set(named)


def _batch(rows: list[list[str]], positions: Sequence[int]) -> pa.RecordBatch:
    arrays = [pa.array([row[position] or None for row in rows], pa.string()) for position in positions]
    return pa.RecordBatch.from_arrays(arrays, [str(position) for position in positions])
