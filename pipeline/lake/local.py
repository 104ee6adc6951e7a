"""A lake in a folder.

A file gets its final name by a rename within the file system, after fsync. After a kill, drafts remain only in
`.drafts/`, where `sweep` deletes them (`drafts.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from pipeline.disk import sync, translate_disk_errors
from pipeline.errors import StoreError
from pipeline.lake.drafts import Drafts

_DRAFTS = ".drafts"
_SETTING = "[pipeline] lake"
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class LocalEntry:
    """A file of a folder, which keeps no metadata. Its fingerprint covers its length and its last 64 KiB.

    In a Parquet file these hold the footer, with every column's statistics and offsets and the source's sha256:
    hundreds of months can be compared without reading them.
    """

    key: str
    uri: str
    bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        with self.open() as file:
            file.seek(max(0, self.bytes - _TAIL_BYTES))
            return hashlib.blake2b(b"%d:" % self.bytes + file.read(), digest_size=8).hexdigest()

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The file itself."""
        try:
            return Path(self.uri).open("rb")
        except OSError as error:
            raise StoreError(f"{self.key}: cannot be read at {self.uri}: {error.strerror}; run again") from error

    @contextmanager
    def open_local(self) -> Iterator[Path]:
        """The path itself."""
        yield Path(self.uri)


class LocalStore:
    """A lake in a folder of one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # In the lake's own file system, so that publishing is a rename.
        self._drafts = Drafts(root / _DRAFTS, _SETTING)

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.root)

    def exists(self, key: str) -> bool:
        """Whether the folder has this file."""
        with self._translate_errors(key, "cannot be accessed in"):
            return (self.root / key).is_file()

    def entries(self, prefix: str) -> dict[str, LocalEntry]:
        """The files below a folder, without drafts; one that is deleted during the listing is left out."""
        entries = {}
        with self._translate_errors(prefix, "cannot be listed in"):
            for key, file in _files(self.root / prefix, prefix):
                with suppress(FileNotFoundError):
                    entries[key] = LocalEntry(key, file.path, file.stat().st_size)
        return entries

    def entry(self, key: str) -> LocalEntry:
        """The file at the key."""
        path = self.root / key
        try:
            return LocalEntry(key, str(path), path.stat().st_size)
        except OSError as error:
            problem = f"not in the lake {self.root} ({error.strerror})"
            raise StoreError(f"{key}: {problem}; run the step that makes it") from error

    def delete(self, key: str) -> None:
        """Delete the file."""
        with self._translate_errors(key, "cannot be deleted from"):
            (self.root / key).unlink(missing_ok=True)

    @contextmanager
    def publish(self, key: str, metadata: Mapping[str, str] | None = None) -> Iterator[Path]:
        """Yield a draft in the lake's file system; a clean exit renames it to the key."""
        final = self.root / key
        with self._translate_errors(key, "cannot be written to"), self._drafts.own_folder() as folder:
            draft = folder / final.name
            yield draft
            sync(draft)
            final.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(final)
            sync(final.parent)

    def part(self, key: str, *, wait_s: float) -> AbstractContextManager[Path]:
        """Yield the path of the key's part file."""
        return self._drafts.part(key, wait_s=wait_s)

    def sweep(self) -> None:
        """Delete drafts whose owner is gone, and parts whose file is published."""
        with self._translate_errors(_DRAFTS, "cannot be swept in"):
            self._drafts.sweep(self.exists)

    def _translate_errors(self, key: str, problem: str) -> AbstractContextManager[None]:
        return translate_disk_errors(f"{key}: {problem} the lake {self.root}", _SETTING)


def _files(folder: Path, prefix: str, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below a folder with its key, through symbolic links, but not those to a parent or to nothing."""
    real = os.path.realpath(folder)
    try:
        entries = [] if real in parents else list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_file() and not entry.name.startswith("."):
            yield f"{prefix}{entry.name}", entry
        elif entry.is_dir():
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/", (*parents, real))
