"""Opens and verifies raw files; the file's name says the format: .parquet, .csv or .csv.gz.

Memory does not grow with the file. Nothing is interpreted: names and values are as published, a CSV's values are
strings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError, UsageError
from pipeline.raw import Batches, RawFile
from pipeline.raw.csv import CsvRaw, open_text, validate_line_end

#: Rows of a batch from Parquet: one row group of a trips file, so that no rows are copied later.
BATCH_ROWS = 122_880

#: How a Parquet file starts and ends, and how a gzipped file starts.
_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
#: What Arrow raises for damaged bytes; the last one is for column names that are not UTF-8.
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
#: In milliseconds: the day that INT96 counts from, and the year 287,000, up to which 64 bits hold microseconds.
_JULIAN_DAY_0, _MOST_MILLIS = -2_440_588 * 86_400_000, 2**53

#: Other content that occurs under a CSV's name, by how it starts.
_NOT_CSV = (
    ((b"version https://git-lfs",), "it is a Git LFS pointer, the address of a file instead of the file"),
    ((b"<!doctype html", b"<html"), "it is an HTML page"),
    ((b"<",), "it is an XML answer"),
    ((b"{", b"["), "it is a JSON answer"),
    ((_PARQUET,), "it is a Parquet file or a piece of one"),
    ((_GZIP,), "it is gzipped"),
)


def open_raw(path: Path, *, subject: str = "", advice: str = "") -> RawFile:
    """The raw file at `path`; errors about its rows start with `subject`, those of a CSV end with `advice`.

    Raises:
        SourceError: the content is not of the format that the name says.
        UsageError: the name has an unknown ending.
    """
    if path.name.endswith(".parquet"):
        footer = _footer(path, path.name)
        schema = footer.schema.to_arrow_schema()
        pairs = (footer.metadata or {}).items()
        metadata = {key.decode(errors="replace"): text.decode(errors="replace") for key, text in pairs}
        return ParquetRaw(path, tuple(schema.names), tuple(schema.types), metadata, parquet=True, footer=footer)
    _validate_text(path, path.name)
    return CsvRaw.open(path, subject=subject or path.name, advice=advice)


def verify_raw(path: Path, *, name: str | None = None) -> None:
    """Make sure that the content has the format that the name says; `name` is for a file stored under another name.

    Parquet: magic bytes at both ends and a readable footer. Gzip: the whole stream with its checksum. CSV, gzipped or
    not: no other known content, and a line end at the end. The rows are not parsed.

    Raises:
        SourceError: it has not.
        UsageError: the name has an unknown ending.
    """
    name = name or path.name
    if name.endswith(".parquet"):
        _footer(path, name)
        return
    _validate_text(path, name)
    if name.endswith(".gz"):
        with open_text(path, name) as (stream, _):
            while stream.read(_CHUNK_BYTES):
                pass


def verify_head(head: bytes, name: str) -> None:
    """Raise SourceError when the first KiB of a file (all of a shorter one) is not of the format of its name."""
    ending = next((ending for ending in (".parquet", ".csv", ".csv.gz") if name.endswith(ending)), None)
    if ending is None:
        raise UsageError(f"{name}: unknown format; the name of a raw file ends in .parquet, .csv or .csv.gz")
    other = _other_content(head)
    if ending == ".csv" and other:
        raise SourceError(f"{name}: not a CSV: {other}{'; name it .csv.gz' if head.startswith(_GZIP) else ''}")
    if ending != ".csv" and not head.startswith(_PARQUET if ending == ".parquet" else _GZIP):
        wrong = "not a Parquet file" if ending == ".parquet" else "not gzipped"
        raise SourceError(f"{name}: {wrong}: {other or f'it starts with {head.strip()[:16]!r}'}")


@dataclass(frozen=True)
class ParquetRaw(RawFile):
    """An open Parquet file."""

    footer: pq.FileMetaData

    def batches(self, positions: Sequence[int], *, use_threads: bool) -> Batches:
        """See `RawFile.batches`."""
        total, done = int(self.footer.num_rows), 0
        schema = self.footer.schema
        int96 = any(schema.column(leaf).physical_type == "INT96" for leaf in range(len(schema)))
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(self._file(unit)) for unit in (("us", "ms", "ns") if int96 else ("us",))]
                # All columns, in the file's order: Arrow selects by name only, and a name may occur twice.
                readers = [file.iter_batches(BATCH_ROWS, use_threads=use_threads) for file in files]
                for batches in zip(*readers, strict=True):
                    done += batches[0].num_rows
                    arrays = [_int96(*(batch.column(index) for batch in batches)) for index in positions]
                    yield pa.RecordBatch.from_arrays(arrays, [str(index) for index in positions]), done / (total or 1)
        except MemoryError:
            raise
        except _DAMAGE as error:
            raise SourceError(
                f"{self.path.name}: row {done:,} or a later one cannot be decoded: {_one_line(error)}"
            ) from error
        if done != total:
            raise SourceError(f"{self.path.name}: has {done:,} rows, its footer says {total:,}")

    def _file(self, int96_unit: str) -> pq.ParquetFile:
        # Without pre_buffer and with a buffer, a column chunk is read piece by piece: a file with one row group of
        # millions of rows then takes no more memory than one with many.
        return pq.ParquetFile(
            self.path,
            metadata=self.footer,
            pre_buffer=False,
            buffer_size=_CHUNK_BYTES,
            coerce_int96_timestamp_unit=int96_unit,
            page_checksum_verification=True,
        )


def _int96(micros: pa.Array, *others: pa.Array) -> pa.Array:
    """Times in microseconds; if one of them is not exact there, all in a unit that shows that it does not fit.

    INT96 is a Julian day and nanoseconds. Arrow wraps what exceeds 64 bits (milliseconds never do), and reads every
    time of day 0 as 1970-01-01 00:00:00, so that time is taken for one of day 0.
    """
    if not others or others[0].type == micros.type:
        return micros
    millis, nanos = others
    ticks = millis.cast(pa.int64())
    ticks = pc.if_else(pc.equal(nanos.cast(pa.int64()), 0), _JULIAN_DAY_0, ticks)
    if pc.any(pc.or_(pc.equal(ticks, _JULIAN_DAY_0), pc.greater(ticks, _MOST_MILLIS))).as_py():
        return ticks.cast(millis.type)
    return micros if micros.cast(nanos.type, safe=False).equals(nanos) else nanos


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _footer(path: Path, name: str) -> pq.FileMetaData:
    with path.open("rb") as file:
        head = file.read(1024)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_PARQUET)))
        tail = file.read()
    verify_head(head, name)
    if tail != _PARQUET or size < 12:
        raise SourceError(f"{name}: starts as a Parquet file but does not end as one ({size:,} bytes): it is cut short")
    try:
        footer = pq.read_metadata(path)
        # Decodes the names, too.
        str(footer.schema.to_arrow_schema().names)
    except _DAMAGE as error:
        raise SourceError(f"{name}: a Parquet file whose footer cannot be read: {_one_line(error)}") from error
    return footer


def _validate_text(path: Path, name: str) -> None:
    """Raise SourceError when a file named .csv or .csv.gz starts or ends like something else."""
    with path.open("rb") as file:
        verify_head(file.read(1024), name)
        file.seek(max(0, file.seek(0, 2) - 1))
        last = file.read()
    with open_text(path, name) as (stream, _):
        head = stream.peek()[:1024]
    if other := _other_content(head):
        raise SourceError(f"{name}: not a CSV: {other}")
    if (position := head.find(b"\0")) >= 0:
        line = head.count(b"\n", 0, position) + 1
        raise SourceError(f"{name}: a NUL in line {line}, at byte {position + 1:,}: damaged, or not a text in UTF-8")
    if not name.endswith(".gz"):
        validate_line_end(name, last)


def _other_content(head: bytes) -> str:
    """What a file with this start contains instead of a CSV; empty when it may be a CSV."""
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return "it contains only white space" if head else "it is empty"
    for starts, description in _NOT_CSV:
        if text.startswith(starts) or text.lower().startswith(starts):
            code = re.search(rb"<Code>(\w+)</Code>", text)
            return f"{description} ({code[1].decode()})" if code else description
    return ""
