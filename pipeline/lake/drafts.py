"""Work in progress on the local disk: drafts, which end with their block, and parts of downloads, which outlive it.

The process that owns a draft's folder holds a lock on it (flock), so that `sweep` can recognise drafts of killed
processes. A part is locked by one process at a time.
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
    """The drafts and parts in one folder, which is made when it is needed; `setting` names the folder in errors."""

    root: Path
    setting: str

    @contextmanager
    def own_folder(self) -> Iterator[Path]:
        """Yield a new, locked folder that is deleted after the block."""
        lock = None
        # Another process's sweep may delete the folder before it is locked; then make the next one.
        while lock is None:
            folder = self.root / f"{os.getpid()}-{secrets.token_hex(4)}"
            folder.mkdir(parents=True)
            try:
                lock = _try_lock(folder / _LOCK)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        with lock:
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def part(self, key: str, *, wait_s: float) -> Iterator[Path]:
        """Yield the path of the key's part file, which stays until it is moved; waits while another process has it."""
        path = self.root / (key.replace("/", "~") + _PART)
        lock_path = path.with_name(f"{path.name}.{_LOCK}")
        with self._wait_for(lock_path, wait_s, key):
            try:
                yield path
            finally:
                if not path.exists():
                    lock_path.unlink(missing_ok=True)

    def sweep(self, is_published: Callable[[str], bool]) -> None:
        """Delete drafts whose owner is gone, and parts whose file is published."""
        try:
            names = os.listdir(self.root)  # noqa: PTH208 - iterdir would fail only later when there is no such folder
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            is_part = name.endswith(f"{_PART}.{_LOCK}")
            lock_path = self.root / name if is_part else self.root / name / _LOCK
            lock = _try_lock(lock_path) if is_part or _PART not in name else None
            if lock is None:
                continue
            with lock:
                if not is_part:
                    shutil.rmtree(lock_path.parent, ignore_errors=True)
                    continue
                part = lock_path.with_suffix("")
                if not part.exists() or is_published(part.name.removesuffix(_PART).replace("~", "/")):
                    for path in (part, part.with_name(part.name + ".json"), lock_path):
                        path.unlink(missing_ok=True)

    def _wait_for(self, path: Path, wait_s: float, key: str) -> IO[bytes]:
        end = time.monotonic() + wait_s
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = _try_lock(path)
            except OSError as error:
                reason = explained(error, self.setting)
                raise StoreError(f"{key}: cannot be locked in {path.parent}: {reason}") from error
            if lock is not None:
                return lock
            if time.monotonic() > end:
                problem = f"another process has held {path} for {wait_s:g} s"
                raise StoreError(f"{key}: {problem}; end it, or wait and run again")
            time.sleep(0.1)


def _try_lock(path: Path) -> IO[bytes] | None:
    """An open file that holds the lock; None when another process holds it or has just deleted it."""
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
