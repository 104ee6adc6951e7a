"""The rows of a CSV, gzipped or not, as batches of strings, for every shape in which TLC has published them.

Two readers give the same rows. Arrow's fast one comes first; from the first batch with a row that is not as wide as the
first row, or that Arrow cannot parse, the careful one continues. It accepts empty fields at the end of a row that the
header does not name; all other misshapen rows are counted for one error with their line numbers. So are rows with a
line break inside quotes: no column holds one. Empty fields are null, blank lines are skipped.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from pipeline.errors import SchemaError, SourceError
from pipeline.raw import Batches, RawFile

_BLOCK_BYTES = 2 << 20
_BUFFER_BYTES = 1 << 16
_CAREFUL_ROWS = 20_000
_LINES_SHOWN = 10
#: A longer line is an error, so that memory is bounded; TLC's have at most 300 bytes.
_LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class CsvRaw(RawFile):
    """An open CSV; `names` has an empty one for each field of the first row that the header does not name."""

    subject: str
    advice: str
    #: How many lines the header and the blank lines before it take.
    header_lines: int

    @classmethod
    def open(cls, path: Path, *, subject: str, advice: str) -> CsvRaw:
        """Read the header of the CSV at `path`."""
        with open_text(path, path.name) as (stream, _):
            header, header_lines = _next_row(stream, subject)
            first, _ = _next_row(stream, subject, header_lines)
        if header and _ends_in_line_break(header):
            raise SchemaError(f"{subject}: line {header_lines}, the header, has a quote that is not closed in it")
        names = (*header, *[""] * (len(first) - len(header)))
        return cls(path, names, (pa.string(),) * len(names), {}, False, subject, advice, header_lines)

    def batches(self, positions: Sequence[int], *, use_threads: bool) -> Batches:
        """See `RawFile.batches`."""
        size, done = self.path.stat().st_size, 0
        try:
            with self._body() as (stream, bytes_read):
                for batch in self._fast(stream, positions, use_threads=use_threads):
                    done += batch.num_rows
                    yield batch, bytes_read() / size
        except _NeedsCareError:
            with self._body() as (stream, bytes_read):
                for batch in self._careful(stream, positions, skip=done):
                    yield batch, bytes_read() / size

    @contextmanager
    def _body(self) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
        with open_text(self.path, self.path.name) as (stream, bytes_read):
            for _ in range(self.header_lines):
                stream.readline()
            yield stream, bytes_read

    def _fast(self, stream: BinaryIO, positions: Sequence[int], *, use_threads: bool) -> Iterator[pa.RecordBatch]:
        ragged = False

        def skip(_: pacsv.InvalidRow) -> str:
            nonlocal ragged
            ragged = True
            return "skip"

        columns = [str(position) for position in range(len(self.names))]
        unnamed = [str(position) for position, name in enumerate(self.names) if not name.strip()]
        try:
            reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(use_threads=use_threads, block_size=_BLOCK_BYTES, column_names=columns),
                parse_options=pacsv.ParseOptions(invalid_row_handler=skip),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()), null_values=[""], strings_can_be_null=True
                ),
            )
            # The reader reads ahead, so it is closed before the stream.
            with reader:
                for batch in reader:
                    filled = any(batch[name].null_count < batch.num_rows for name in unnamed)
                    if ragged or filled or any(map(_has_line_break, batch.columns)):
                        raise _NeedsCareError
                    yield batch.select([str(position) for position in positions])
        except pa.ArrowInvalid as error:
            # Arrow also raises it for a file without rows.
            raise _NeedsCareError from error
        if ragged:
            raise _NeedsCareError

    def _careful(self, stream: BinaryIO, positions: Sequence[int], *, skip: int) -> Iterator[pa.RecordBatch]:
        named = {position for position, name in enumerate(self.names) if name.strip()}
        width, unnamed = max(named, default=-1) + 1, len(named) < len(self.names)
        rows: list[list[str]] = []
        ragged = _BadRows(f"rows that do not fit the {len(named)} columns of the header")
        broken = _BadRows("rows with a line break inside quotes, which no column holds")
        for number, (first, last, row) in enumerate(_rows(stream, self.subject, self.header_lines)):
            if number < skip:
                continue
            if last > first or _ends_in_line_break(row):
                broken.add(f"{first} to {last}" if last > first else str(first))
            elif (len(row) != width or unnamed) and not _fits(row, width, named):
                ragged.add(f"{first} ({len(row)} fields)")
            elif not ragged.count + broken.count:
                rows.append(row)
                if len(rows) == _CAREFUL_ROWS:
                    yield _batch(rows, positions)
                    rows = []
        if problems := [str(bad) for bad in (ragged, broken) if bad.count]:
            raise SchemaError(f"{self.subject}: {'; '.join(problems)}; {self.advice}")
        if rows:
            yield _batch(rows, positions)


@dataclass
class _BadRows:
    """Rows with the same problem: how many, and in which lines the first of them are."""

    title: str
    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.count += 1
        if self.count <= _LINES_SHOWN:
            self.lines.append(line)

    def __str__(self) -> str:
        more = f" and {self.count - _LINES_SHOWN:,} more" if self.count > _LINES_SHOWN else ""
        return f"{self.title}: {self.count:,}, in lines {', '.join(self.lines)}{more}"


class _NeedsCareError(Exception):
    """The fast reader met something that it cannot parse; the batches that it gave before are valid."""


def validate_line_end(name: str, last: bytes) -> None:
    """Raise SourceError when the last byte of a text does not end a line."""
    if last != b"\n":
        raise SourceError(
            f"{name}: cut short: its last line has no line end; download it again, or add the line end in the source's "
            "copy if you know that the copy is complete"
        )


@contextmanager
def open_text(path: Path, name: str) -> Iterator[tuple[io.BufferedReader, Callable[[], int]]]:
    """The bytes of a text, unzipped if `name` ends in .gz, and a function that says how much of the file was read.

    Raises:
        SourceError: the gzip stream, or the text in it, is cut short or corrupt; raised where that is read.
    """
    with path.open("rb") as file:
        if not name.endswith(".gz"):
            yield file, file.tell
            return
        try:
            with _GzippedText(name, "rb", fileobj=file) as stream:
                yield io.BufferedReader(stream, _BUFFER_BYTES), file.tell
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"{name}: its gzip stream is cut short or corrupt: {error}") from error


class _GzippedText(gzip.GzipFile):
    """A gzipped text; reading its end raises SourceError when the last line has no line end."""

    _last = b"\n"

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = super().readinto(buffer)
        if count:
            self._last = bytes(buffer[count - 1 : count])
        else:
            validate_line_end(str(self.name), self._last)
        return count


def _next_row(stream: BinaryIO, subject: str, before: int = 0) -> tuple[list[str], int]:
    """The next row that is not blank, and how many lines were read for it; the row is empty at the end of the file."""
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
            raise SchemaError(
                f"{subject}: line {number} has more than {_LINE_BYTES:,} bytes, so it is not a row of a CSV"
            )
        yield line


def _texts(stream: BinaryIO, subject: str, number: int) -> Iterator[str]:
    """The lines after line `number`, decoded; a single carriage return also ends a line, as for Arrow."""
    try:
        for line in _lines(stream, subject, number):
            for piece in line.splitlines(keepends=True):
                number += 1
                yield piece.decode()
    except UnicodeDecodeError as error:
        raise SchemaError(f"{subject}: line {number} is not CSV in UTF-8: {error}") from error


def _ends_in_line_break(row: Sequence[str]) -> bool:
    """Whether a quote was still open at the end of the row's last line."""
    return row[-1].endswith(("\n", "\r"))


def _has_line_break(column: pa.Array) -> bool:
    """Whether any of the texts has a line break; all their bytes are searched at once."""
    buffer = column.buffers()[2]
    text = buffer.to_pybytes() if buffer is not None else b""
    return b"\n" in text or b"\r" in text


def _fits(row: Sequence[str], width: int, named: set[int]) -> bool:
    """Whether the row has all named fields, the last of which is number `width`, and no value in the others."""
    return len(row) >= width and all(position in named for position, text in enumerate(row) if text)


def _batch(rows: list[list[str]], positions: Sequence[int]) -> pa.RecordBatch:
    arrays = [pa.array([row[position] or None for row in rows], pa.string()) for position in positions]
    return pa.RecordBatch.from_arrays(arrays, [str(position) for position in positions])
