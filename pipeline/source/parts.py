"""A part file: the first bytes of a download, with a note beside it that says which version of the file they are from.

Without a matching note the bytes are discarded: bytes of two versions must never be mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, AnyStr, BinaryIO, TypeVar, get_type_hints

from pipeline.disk import translate_disk_errors

_CHUNK_BYTES = 1 << 20
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Version:
    """A version of a published file; `bytes` is its announced length, `url` holds no secrets."""

    url: str
    etag: str | None
    last_modified: str | None
    bytes: int | None

    @property
    def validator(self) -> str | None:
        """The value of an If-Range header: a strong ETag, else the date."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def matches(self, etag: str | None, last_modified: str | None, size: int | None) -> bool:
        """Whether a partial response with these headers (None: no such header) belongs to this version.

        Of the known headers, a response to If-Range must repeat only the ETag (RFC 9110, section 15.3.7).
        """
        return (
            etag == (self.etag or etag)
            and last_modified in (None, self.last_modified or last_modified)
            and size in (None, self.bytes or size)
        )


@dataclass(frozen=True)
class Part:
    """The part file at `path`, which need not exist."""

    path: Path

    @property
    def note(self) -> Path:
        """The file that holds the version."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        """Its length in bytes."""
        with self._translate_errors():
            return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """The version that the bytes belong to; if that is unknown, None, and the part is discarded."""
        try:
            version = parse_record(Version, self.note.read_bytes())
        except (OSError, ValueError, TypeError):
            version = None
        if version is None or version.url != url or version.validator is None or not self.size:
            self.discard()
            return None
        return version

    def discard(self) -> None:
        """Delete part and note."""
        with self._translate_errors():
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)

    def move(self, target: Path) -> None:
        """Rename the part, which is whole, and delete the note."""
        self.path.replace(target)
        self.note.unlink(missing_ok=True)

    @contextmanager
    def opened(self, version: Version, *, restart: bool) -> Iterator[BinaryIO]:
        """Yield the file, open at its end; `restart` empties it and notes this version."""
        with self._translate_errors(), self.path.open("w+b" if restart else "a+b") as file:
            if restart:
                # After the old bytes are deleted: if the process dies here, they must not be noted as the new version.
                self.note.write_text(json.dumps(asdict(version)))
            yield file

    def sha256(self) -> str:
        """The hash of the bytes in hexadecimal digits."""
        digest = hashlib.sha256()
        with self._translate_errors(), self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def _translate_errors(self) -> AbstractContextManager[None]:
        return translate_disk_errors(f"{self.path}: cannot be written", "[pipeline] lake (or scratch)")


def parse_record(record_class: type[_Record], text: AnyStr) -> _Record:
    """The dataclass whose fields are a JSON object; ValueError or TypeError for any other text."""
    record = record_class(**json.loads(text))
    for name, expected in _types_of(record_class).items():  # type: ignore[arg-type] # A class is hashable.
        if not isinstance(getattr(record, name), expected):
            raise TypeError(f"{name} has another type")
    return record


@cache  # Takes longer than reading the record, and the status reads hundreds.
def _types_of(record_class: type[object]) -> dict[str, Any]:
    return get_type_hints(record_class)
