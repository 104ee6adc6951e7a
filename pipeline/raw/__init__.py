"""A raw file (Parquet; CSV, gzipped or not) as a stream of Arrow batches with the file's own names and types.

Promise: every row of the file is in the stream, in the file's order, or an error says why not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

Batches = Generator[tuple[pa.RecordBatch, float], None, None]


@dataclass(frozen=True)
class RawFile(ABC):
    """An open raw file."""

    path: Path
    #: As published; empty for fields of a CSV that its header does not name.
    names: tuple[str, ...]
    #: The type of each column; strings in a CSV.
    types: tuple[pa.DataType, ...]
    #: The file metadata that is text; a CSV has none.
    metadata: Mapping[str, str]
    #: Whether it is Parquet; otherwise it is a CSV.
    parquet: bool

    @abstractmethod
    def batches(self, positions: Sequence[int], *, use_threads: bool) -> Batches:
        """All rows of the columns at these positions, each named by its position, with the share of the file read."""
