"""A lake in a folder.

A file comes to its final name by a rename within the file system, after fsync. After a kill, drafts remain only in
`.drafts/`, each in a folder whose living owner holds it locked; `sweep` removes the unlocked ones. Parts of downloads
are kept there too, to be resumed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from pipeline.errors import StoreError

_DRAFTS = ".drafts"
_LOCK = "lock"
_PART = ".part"
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class LocalEntry:
    """A file of a folder. Its fingerprint covers its length and its last 64 KiB.

    In a Parquet file those hold the footer with every column's statistics, offsets and the source's sha256, so that
    hundreds of months can be compared without reading them.
    """

    key: str
    path: Path
    bytes: int

    @property
    def uri(self) -> str:
        """The absolute path."""
        return str(self.path)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        with self.path.open("rb") as file:
            file.seek(max(0, self.bytes - _TAIL_BYTES))
            return hashlib.blake2b(b"%d:" % self.bytes + file.read(), digest_size=8).hexdigest()

    @contextmanager
    def open_local(self) -> Iterator[Path]:
        """The path itself."""
        yield self.path


class LocalStore:
    """A lake in a folder of one file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"LocalStore({self.location!r})"

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.root)

    def exists(self, key: str) -> bool:
        """Whether a whole file lies there."""
        with self._faults(key, "cannot be looked for in"):
            try:
                # Not is_file, which takes a folder that may not be entered for an absent file from Python 3.14 on.
                return stat.S_ISREG((self.root / key).stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def keys(self, prefix: str) -> set[str]:
        """The keys below a folder, drafts left out."""
        with self._faults(prefix, "cannot be listed in"):
            return {
                (Path(folder) / name).relative_to(self.root).as_posix()
                for folder, _, names in os.walk(self.root / prefix, onerror=_raise_unless_absent)
                for name in names
                if not name.startswith(".")
            }

    def entry(self, key: str) -> LocalEntry:
        """The file at the key."""
        path = self.root / key
        try:
            return LocalEntry(key, path, path.stat().st_size)
        except OSError as error:
            raise StoreError(
                f"{key}: not in the lake {self.root} ({error.strerror}); run the step that makes it"
            ) from error

    def delete(self, key: str) -> None:
        """Take the file away."""
        with self._faults(key, "cannot be deleted from"):
            (self.root / key).unlink(missing_ok=True)

    @contextmanager
    def publish(self, key: str) -> Iterator[Path]:
        """Yield a draft beside the lake's files; a clean exit renames it to the key."""
        final = self.root / key
        with self._faults(key, "cannot be written to"), self._own_folder() as folder:
            draft = folder / final.name
            yield draft
            _sync(draft)
            final.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(final)
            _sync(final.parent)

    @contextmanager
    def part(self, key: str, *, wait_s: float) -> Iterator[Path]:
        """Yield the path of the key's part file, which stays until it is moved away; waits while someone holds it."""
        path = self.root / _DRAFTS / (key.replace("/", "~") + _PART)
        lock_path = path.with_name(path.name + "." + _LOCK)
        lock = _wait_for(lock_path, wait_s, key)
        try:
            yield path
        finally:
            if not path.exists():
                lock_path.unlink(missing_ok=True)
            lock.close()

    def sweep(self) -> None:
        """Remove drafts whose owner is gone, and parts whose file has arrived."""
        drafts = self.root / _DRAFTS
        with self._faults(_DRAFTS, "cannot be swept in"):
            try:
                names = os.listdir(drafts)  # noqa: PTH208 - of a name that may be no folder, which iterdir tells late
            except (FileNotFoundError, NotADirectoryError):
                return
            for name in names:
                if name.endswith(f"{_PART}.{_LOCK}"):
                    self._sweep_part(drafts / name)
                elif _PART not in name:
                    _sweep_folder(drafts / name)

    def _sweep_part(self, lock_path: Path) -> None:
        lock = _try_lock(lock_path)
        if lock is None:
            return
        part = lock_path.with_suffix("")
        arrived = self.exists(part.name.removesuffix(_PART).replace("~", "/"))
        if arrived or not part.exists():
            for path in (part, part.with_name(part.name + ".json"), lock_path):
                path.unlink(missing_ok=True)
        lock.close()

    @contextmanager
    def _faults(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{key}: {what} the lake {self.root}: {error.strerror or error}") from error

    @contextmanager
    def _own_folder(self) -> Iterator[Path]:
        """A fresh folder in `.drafts`, held locked, gone after the block."""
        lock = None
        # A sweep may take the folder in the moment before its lock is held; then there is a next one.
        while lock is None:
            folder = self.root / _DRAFTS / f"{os.getpid()}-{secrets.token_hex(4)}"
            folder.mkdir(parents=True)
            lock = _try_lock(folder / _LOCK)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _sweep_folder(folder: Path) -> None:
    lock = _try_lock(folder / _LOCK)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _try_lock(path: Path) -> IO[bytes] | None:
    """An open file that holds the lock at the path; None when someone else holds it or has just removed it."""
    try:
        file = path.open("ab")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


def _wait_for(path: Path, wait_s: float, key: str) -> IO[bytes]:
    end = time.monotonic() + wait_s
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _try_lock(path)
        except OSError as error:
            raise StoreError(f"{key}: cannot be locked in the lake, {path.parent}: {error.strerror}") from error
        if lock is not None:
            return lock
        if time.monotonic() > end:
            raise StoreError(f"{key}: another process has held {path} for {wait_s:g} s; end it, or wait and run again")
        time.sleep(0.1)


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk, so that a rename never outlives what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
