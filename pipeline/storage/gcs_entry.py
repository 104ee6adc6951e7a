"""An object of the lake in Cloud Storage, as the other parts see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pipeline.storage.gcs import GcsStore


@dataclass(frozen=True)
class GcsEntry:
    """An object of the bucket. Its fingerprint is its length and the crc32c that Google keeps of it."""

    key: str
    bytes: int
    uri: str
    fingerprint: str
    _store: GcsStore
    _blob: Any

    @property
    def facts(self) -> dict[str, str]:
        """The object's metadata."""
        return dict(self._blob.metadata or {})

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The object, read in pieces of 1 MiB."""
        only = {"if_generation_match": self._blob.generation}
        with self._store.faults(self.key), self._blob.open("rb", chunk_size=1 << 20, **only) as file:
            yield file

    @contextmanager
    def open_local(self) -> Iterator[Path]:
        """A verified copy on the local disk, gone after the block."""
        with self._store.drafts.own_folder() as folder:
            path = folder / Path(self.key).name
            self._store.download(self._blob, path)
            yield path
