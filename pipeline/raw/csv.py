"""The rows of a CSV, gzipped or not, as batches of strings, whatever TLC did to their shape.

Two paths give the same rows. The fast one is Arrow's reader; from the first batch with a row that is not as wide as
the first one, or that Arrow cannot take, the careful one continues: it accepts what is harmless (empty fields at the
end that the header does not name) and counts the rest for one error, with its line numbers. A line break inside quotes
is such an error: no column holds one, so a quote has swallowed the end of a row. Empty fields are null, blank lines are
no rows. The text ends with a line end; without one it is cut short.
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
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from pipeline.errors import SchemaError, SourceError

_BLOCK_BYTES = 2 << 20
_BUFFER_BYTES = 1 << 16
_CAREFUL_ROWS = 20_000
_LINES_SHOWN = 10
#: A longer line is an error, so that memory is bounded; TLC's have at most 300 bytes.
_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class CsvRaw:
    """An open CSV; see `pipeline.raw.reader.RawFile`."""

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
            first, _ = _next_row(stream, subject, header_lines)
        if header and _spread(header):
            raise SchemaError(f"{subject}: line {header_lines}, the header, has a quote that is not closed in it")
        names = [*header, *[""] * (len(first) - len(header))]
        return cls(path, subject, advice, tuple(names), header_lines)

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """The columns' types: strings."""
        return (pa.string(),) * len(self.names)

    def batches(
        self, positions: Sequence[int], *, use_threads: bool
    ) -> Generator[tuple[pa.RecordBatch, float], None, None]:
        """Every row of the columns at these positions; see `pipeline.raw.reader.RawFile.batches`."""
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
                ),
            )
            # Closed before the stream below it, as it reads ahead.
            with reader:
                for batch in reader:
                    filled = any(batch[name].null_count < batch.num_rows for name in unnamed)
                    if ragged or filled or any(map(_has_line_break, batch.columns)):
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
        ragged = _Lines(f"rows that do not fit the {len(named)} columns of the header")
        broken = _Lines("rows with a line break inside quotes, which no column holds")
        for number, (first, last, row) in enumerate(_rows(stream, self.subject, self.header_lines)):
            if number < skip:
                continue
            if last > first or _spread(row):
                broken.add(f"{first} to {last}" if last > first else str(first))
            elif (len(row) != width or unnamed) and not _fits(row, width, named):
                ragged.add(f"{first} ({len(row)} fields)")
            elif not ragged.count + broken.count:
                rows.append(row)
                if len(rows) == _CAREFUL_ROWS:
                    yield _batch(rows, positions)
                    rows = []
        if found := [str(lines) for lines in (ragged, broken) if lines.count]:
            raise SchemaError(f"{self.subject}: {'; '.join(found)}; {self.advice}")
        if rows:
            yield _batch(rows, positions)


@dataclass
class _Lines:
    """Rows with one kind of problem: how many, and the first of their lines."""

    title: str
    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.count += 1
        if self.count <= _LINES_SHOWN:
            self.shown.append(line)

    def __str__(self) -> str:
        more = f" and {self.count - _LINES_SHOWN:,} more" if self.count > _LINES_SHOWN else ""
        return f"{self.title}: {self.count:,}, in lines {', '.join(self.shown)}{more}"


def validate_line_end(name: str, last: bytes) -> None:
    """Raise SourceError when the last byte of a text does not end a line."""
    if last != b"\n":
        raise SourceError(
            f"{name}: cut short: its last line has no line end; fetch it again, or end that line in the source's copy "
            "if the copy is known to be whole"
        )


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
        with whole_gzip(file, path.name) as stream:
            yield stream, file.tell


@contextmanager
def whole_gzip(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The text in a gzipped file; at its end it is checked to be whole.

    Raises:
        SourceError: the gzip stream, or the text in it, is cut short or corrupt.
    """
    with gzip_faults(name), gzip.GzipFile(fileobj=file) as stream:
        yield io.BufferedReader(_WholeText(name, stream), _BUFFER_BYTES)


class _WholeText(io.RawIOBase):
    """The bytes of a text whose end can only be seen by reading to it."""

    def __init__(self, name: str, stream: gzip.GzipFile) -> None:
        self._name, self._stream, self._last = name, stream, b"\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        got = self._stream.readinto(buffer)
        if got:
            self._last = bytes(buffer[got - 1 : got])
        else:
            validate_line_end(self._name, self._last)
        return got


def _next_row(stream: BinaryIO, subject: str, before: int = 0) -> tuple[list[str], int]:
    """The next row that is not blank, and how many lines were read for it; an empty row at the end of the file."""
    lines = 0
    for line in _lines(stream, subject, before):
        lines += 1
        if line.strip():
            try:
                return next(csv.reader([line.decode("utf-8-sig")])), lines
            except (UnicodeDecodeError, csv.Error) as error:
                raise SchemaError(f"{subject}: line {before + lines} is not CSV in UTF-8: {error}") from error
    return [], lines


def _rows(stream: BinaryIO, subject: str, before: int) -> Iterator[tuple[int, int, list[str]]]:
    """The rows that are not blank, each with its first and last line; `before` lines have been read already."""
    reader = csv.reader(_texts(stream, subject, before))
    first = before + 1
    try:
        for row in reader:
            last = before + reader.line_num
            if len(row) > 1 or (row and row[0].strip()):
                yield first, last, row
            first = last + 1
    except csv.Error as error:
        last = before + reader.line_num
        opened = f": its quote is still open in line {last}" if last > first else ""
        raise SchemaError(f"{subject}: line {first} is not CSV in UTF-8{opened}: {error}") from error


def _lines(stream: BinaryIO, subject: str, before: int) -> Iterator[bytes]:
    """The lines of the text, none of them longer than the limit."""
    for number, line in enumerate(iter(lambda: stream.readline(_LINE_BYTES + 1), b""), before + 1):
        if len(line) > _LINE_BYTES:
            raise SchemaError(f"{subject}: line {number} has more than {_LINE_BYTES:,} bytes, so it is no row of a CSV")
        yield line


def _texts(stream: BinaryIO, subject: str, number: int) -> Iterator[str]:
    """The lines that follow line `number`, decoded; a lone carriage return ends one, too, as it does for Arrow."""
    try:
        for line in _lines(stream, subject, number):
            for piece in line.splitlines(keepends=True):
                number += 1
                yield piece.decode()
    except UnicodeDecodeError as error:
        raise SchemaError(f"{subject}: line {number} is not CSV in UTF-8: {error}") from error


def _spread(row: Sequence[str]) -> bool:
    """Whether a quote was still open at the end of the row's last line."""
    return row[-1].endswith(("\n", "\r"))


def _has_line_break(column: pa.Array) -> bool:
    """Whether a line break is in any of the texts: one look at all of their bytes."""
    buffer = column.buffers()[2]
    text = buffer.to_pybytes() if buffer is not None else b""
    return b"\n" in text or b"\r" in text


def _fits(row: Sequence[str], width: int, named: Sequence[int]) -> bool:
    """Whether the row has all named fields, of which the last is number `width`, and nothing in the others."""
    filled = (place for place, text in enumerate(row) if text)
    return len(row) >= width and set(filled) <= set(named)


def _batch(rows: list[list[str]], positions: Sequence[int]) -> pa.RecordBatch:
    arrays = [pa.array([row[position] or None for row in rows], pa.string()) for position in positions]
    return pa.RecordBatch.from_arrays(arrays, [str(position) for position in positions])
