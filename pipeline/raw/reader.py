"""A raw file, Parquet or CSV, as a stream of Arrow record batches; and whether its bytes are what its name claims.

The ending of the name says which: .parquet, .csv or .csv.gz. Every row comes, in its order, in memory that does not
grow with the file. Nothing is interpreted here: names and values are as published, a CSV's values are strings.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError, UsageError
from pipeline.raw.csv import CsvRaw, gzip_faults, validate_line_end, whole_gzip

#: Rows of a batch from Parquet: one row group of a trips file, so that nothing needs to be copied together later.
BATCH_ROWS = 122_880

_MAGIC = b"PAR1"
_CHUNK_BYTES = 1 << 20
#: What Arrow raises for damaged bytes; the last one is for column names that are no text.
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
#: In milliseconds: the day that INT96 counts from, and the year 287,000, up to which 64 bits hold microseconds.
_JULIAN_DAY_0, _MOST_MILLIS = -2_440_588 * 86_400_000, 2**53


class RawFile(Protocol):
    """What conforming needs to know of an open raw file."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names as published; empty for fields of a CSV that its header does not name."""

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """The columns' types; a CSV's are all strings."""

    @property
    def parquet(self) -> bool:
        """Whether it is Parquet; otherwise it is a CSV."""

    @property
    def rows(self) -> int | None:
        """How many rows it says it has; a CSV does not say."""

    @property
    def metadata(self) -> dict[str, str]:
        """The file metadata, as far as it is text; a CSV has none."""

    def batches(
        self, positions: Sequence[int], *, use_threads: bool
    ) -> Generator[tuple[pa.RecordBatch, float], None, None]:
        """Every row of the columns at these positions, each named by its position, with the share read so far."""


def open_raw(path: Path, *, subject: str = "", advice: str = "") -> RawFile:
    """The raw file at `path`; `subject` and `advice` are for the errors of its rows.

    Raises:
        SourceError: the file is not what its name claims.
        UsageError: the name has none of the known endings.
    """
    if _ending(path.name) == ".parquet":
        return ParquetRaw(path, _footer(path, path.name))
    _refuse_impostor(path, path.name)
    return CsvRaw.open(path, subject=subject or path.name, advice=advice)


def verify_raw(path: Path, *, name: str | None = None) -> None:
    """Make sure that the bytes are what the name claims; `name` is the published one where `path` has another.

    Parquet: its magic at both ends and a readable footer. Gzip: to its end, with its checksum. CSV, gzipped or not: no
    other kind of file that servers send in its place, and a line end at its end. The rows are not looked at.

    Raises:
        SourceError: they are not.
        UsageError: the name has none of the known endings.
    """
    name = name or path.name
    ending = _ending(name)
    if ending == ".parquet":
        _footer(path, name)
        return
    _refuse_impostor(path, name)
    if ending == ".csv.gz":
        with path.open("rb") as file, whole_gzip(file, name) as stream:
            while stream.read(_CHUNK_BYTES):
                pass


def verify_head(head: bytes, name: str) -> None:
    """Make sure that a file may be what its name claims, by its first KiB or what there is of it.

    Raises:
        SourceError: it starts like something else.
    """
    ending, zipped = _ending(name), head.startswith(b"\x1f\x8b")
    if ending == ".parquet" and not head.startswith(_MAGIC):
        raise SourceError(f"{name}: not a Parquet file: {_describe(head)}")
    if ending == ".csv.gz" and not zipped:
        raise SourceError(f"{name}: not gzipped: {_describe(head)}")
    if ending == ".csv" and zipped:
        raise SourceError(f"{name}: not a CSV: it is gzipped; name it .csv.gz")
    if ending == ".csv" and not _looks_like_csv(head):
        raise SourceError(f"{name}: not a CSV: {_describe(head)}")


@dataclass(frozen=True)
class ParquetRaw:
    """An open Parquet file; see `RawFile`."""

    path: Path
    footer: pq.FileMetaData
    parquet: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names as published."""
        return tuple(self.footer.schema.to_arrow_schema().names)

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """The columns' types in Arrow's words."""
        return tuple(self.footer.schema.to_arrow_schema().types)

    @property
    def rows(self) -> int | None:
        """How many rows the footer claims."""
        return int(self.footer.num_rows)

    @property
    def metadata(self) -> dict[str, str]:
        """The file metadata, as far as it is text."""
        pairs = (self.footer.metadata or {}).items()
        return {key.decode(errors="replace"): text.decode(errors="replace") for key, text in pairs}

    def batches(
        self, positions: Sequence[int], *, use_threads: bool
    ) -> Generator[tuple[pa.RecordBatch, float], None, None]:
        """Every row of the columns at these positions; see `RawFile.batches`."""
        total, done = int(self.footer.num_rows), 0
        schema = self.footer.schema
        int96 = any(schema.column(leaf).physical_type == "INT96" for leaf in range(len(schema)))
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(self._file(unit)) for unit in (("us", "ms", "ns") if int96 else ("us",))]
                # All columns, in the file's order: Arrow selects by name only, and a name may be doubled.
                readers = [file.iter_batches(BATCH_ROWS, use_threads=use_threads) for file in files]
                for batch, *others in zip(*readers, strict=True):
                    done += batch.num_rows
                    arrays = [
                        _int96(batch.column(place), *(other.column(place) for other in others)) for place in positions
                    ]
                    yield pa.RecordBatch.from_arrays(arrays, [str(place) for place in positions]), done / (total or 1)
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
    """Times in microseconds, unless that changes one: then in a unit in which it is seen not to fit.

    INT96 is a Julian day and nanoseconds. Arrow cuts what exceeds 64 bits (milliseconds never do), and reads every time
    of day 0 as 1970-01-01 00:00:00: that time is therefore taken for one of day 0.
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


def _ending(name: str) -> str:
    for ending in (".parquet", ".csv", ".csv.gz"):
        if name.endswith(ending):
            return ending
    raise UsageError(f"{name}: cannot tell what it is; a raw file ends in .parquet, .csv or .csv.gz")


def _footer(path: Path, name: str) -> pq.FileMetaData:
    with path.open("rb") as file:
        head = file.read(1024)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_MAGIC)))
        tail = file.read()
    verify_head(head, name)
    if tail != _MAGIC or size < 12:
        raise SourceError(f"{name}: starts as a Parquet file but does not end as one ({size:,} bytes): it is cut short")
    try:
        footer = pq.read_metadata(path)
        # Decodes the names, too.
        str(footer.schema.to_arrow_schema().names)
    except _DAMAGE as error:
        raise SourceError(f"{name}: a Parquet file whose footer cannot be read: {_one_line(error)}") from error
    return footer


def _refuse_impostor(path: Path, name: str) -> None:
    """Raise SourceError when what is named .csv or .csv.gz starts or ends like something else."""
    with path.open("rb") as file:
        head = file.read(1024)
        file.seek(max(0, file.seek(0, 2) - 1))
        last = file.read()
    verify_head(head, name)
    if name.endswith(".gz"):
        with gzip_faults(name), gzip.open(path) as stream:
            head = stream.read(1024)
        if not _looks_like_csv(head):
            raise SourceError(f"{name}: not a CSV: {_describe(head)}")
    if (place := head.find(b"\0")) >= 0:
        line = head.count(b"\n", 0, place) + 1
        raise SourceError(f"{name}: a NUL in line {line}, at byte {place + 1:,}: damaged, or not a text in UTF-8")
    if not name.endswith(".gz"):
        validate_line_end(name, last)


def _looks_like_csv(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    other = text.startswith((b"<", b"{", b"[", b"version https://git-lfs", b"\x1f\x8b", _MAGIC))
    return bool(text) and not other


def _describe(head: bytes) -> str:
    """What a file that starts with these bytes seems to be, in words that follow a colon."""
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    lower = text.lower()
    if not text:
        return "it is empty" if not head else "it holds nothing but white space"
    if lower.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, the address of a file instead of the file"
    if lower.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page"
    if text.startswith(b"<"):
        code = re.search(rb"<Code>(\w+)</Code>", text)
        return f"it is an XML answer{f' ({code[1].decode()})' if code else ''}"
    if text.startswith((b"{", b"[")):
        return "it is a JSON answer"
    if text.startswith(_MAGIC):
        return "it is a Parquet file or a piece of one"
    if text.startswith(b"\x1f\x8b"):
        return "it is gzipped"
    return f"it starts with {text[:16]!r}"
