"""A part file: the first bytes of a download, with a note beside it of the version of the file they belong to.

Without a fitting note the bytes are worth nothing: those of two versions must never be mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path

from pipeline.errors import StoreError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Version:
    """Which version of which file bytes belong to; `bytes` is its announced length."""

    url: str
    etag: str | None
    last_modified: str | None
    bytes: int | None

    @property
    def validator(self) -> str | None:
        """What an If-Range header takes: a strong ETag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


@dataclass(frozen=True)
class Part:
    """The part file at `path`, which need not exist."""

    path: Path

    @property
    def note(self) -> Path:
        """Where the version is written down."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """The version of which the first bytes are there; None, with nothing kept, when there is no telling."""
        try:
            version = Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            version = None
        if version is None or version.url != url or version.validator is None or not self.size:
            self.discard()
            return None
        return version

    def discard(self) -> None:
        """Take part and note away."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def move(self, target: Path) -> None:
        """Rename the part, now whole, and take the note away."""
        self.path.replace(target)
        self.note.unlink(missing_ok=True)

    @contextmanager
    def continued(self, start: int, version: Version) -> Iterator[FileIO]:
        """Yield the file open for reading and writing, cut to its first `start` bytes, with the note renewed."""
        try:
            self.note.write_text(json.dumps(asdict(version)))
            with FileIO(self.path, "r+" if start else "w+") as file:
                file.truncate(start)
                yield file
        except FileNotFoundError as error:
            raise StoreError(f"{self.path}: gone while it was written; end what deletes it and run again") from error

    def sha256(self) -> str:
        """Of the bytes that are there, as hexadecimal digits."""
        with FileIO(self.path) as file:
            return hash_of(file).hexdigest()


def hash_of(file: FileIO) -> hashlib._Hash:
    """The sha256 of all that can be read from the file, still open for more."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest


def write_all(file: FileIO, chunk: bytes) -> None:
    """Write every byte of the chunk.

    Raises:
        StoreError: the disk is full, or the file cannot be written for another reason.
    """
    view = memoryview(chunk)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise StoreError(f"{file.name!s}: cannot be written: {error.strerror}; make room and run again") from error
