"""Work in progress on the local disk: drafts that go with their block, parts of downloads that outlive it.

Each draft lies in a folder that its living owner holds locked (flock), so that after a kill `sweep` can tell the dead
ones. A part is held by one process at a time.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.disk import explained
from pipeline.errors import StoreError

_LOCK = "lock"
_PART = ".part"


@dataclass(frozen=True)
class Drafts:
    """The drafts and parts in one folder, which is made when it is needed; `setting` says where it is."""

    root: Path
    setting: str

    @contextmanager
    def own_folder(self) -> Iterator[Path]:
        """A fresh folder, held locked, gone after the block."""
        lock = None
        # A sweep may take the folder in the moment before its lock is held; then there is a next one.
        while lock is None:
            folder = self.root / f"{os.getpid()}-{secrets.token_hex(4)}"
            folder.mkdir(parents=True)
            try:
                lock = _try_lock(folder / _LOCK)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()

    @contextmanager
    def part(self, key: str, *, wait_s: float) -> Iterator[Path]:
        """Yield the path of the key's part file, which stays until it is moved away; waits while someone holds it."""
        path = self.root / (key.replace("/", "~") + _PART)
        lock_path = path.with_name(path.name + "." + _LOCK)
        lock = _wait_for(lock_path, wait_s, key, self.setting)
        try:
            yield path
        finally:
            if not path.exists():
                lock_path.unlink(missing_ok=True)
            lock.close()

    def sweep(self, arrived: Callable[[str], bool]) -> None:
        """Remove drafts whose owner is gone, and parts whose file has arrived."""
        try:
            names = os.listdir(self.root)  # noqa: PTH208 - iterdir tells late that there is no such folder
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if name.endswith(f"{_PART}.{_LOCK}"):
                self._sweep_part(self.root / name, arrived)
            elif _PART not in name:
                _sweep_folder(self.root / name)

    def _sweep_part(self, lock_path: Path, arrived: Callable[[str], bool]) -> None:
        lock = _try_lock(lock_path)
        if lock is None:
            return
        part = lock_path.with_suffix("")
        if not part.exists() or arrived(part.name.removesuffix(_PART).replace("~", "/")):
            for path in (part, part.with_name(part.name + ".json"), lock_path):
                path.unlink(missing_ok=True)
        lock.close()


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
    except OSError:
        file.close()
        raise
    file.close()
    return None


def _wait_for(path: Path, wait_s: float, key: str, setting: str) -> IO[bytes]:
    end = time.monotonic() + wait_s
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _try_lock(path)
        except OSError as error:
            raise StoreError(f"{key}: cannot be locked in {path.parent}: {explained(error, setting)}") from error
        if lock is not None:
            return lock
        if time.monotonic() > end:
            raise StoreError(f"{key}: another process has held {path} for {wait_s:g} s; end it, or wait and run again")
        time.sleep(0.1)
