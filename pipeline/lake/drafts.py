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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.disk import translate_disk_errors
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
        folder = self.root / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            lock = None
            while lock is None:  # Another process's sweep may delete the folder before it is locked.
                with suppress(FileExistsError):  # Deleted between mkdir's two looks, although exist_ok.
                    folder.mkdir(parents=True, exist_ok=True)
                lock = _try_lock(folder / _LOCK)
            with lock:
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def part(self, key: str, *, wait_s: float) -> Iterator[Path]:
        """Yield the path of the key's part file, which stays until it is moved; waits while another process has it."""
        path = self.root / (key.replace("/", "~") + _PART)
        lock_path = path.with_name(f"{path.name}.{_LOCK}")
        end = time.monotonic() + wait_s
        with translate_disk_errors(f"{key}: cannot be locked in {self.root}", self.setting):
            self.root.mkdir(parents=True, exist_ok=True)
            while (lock := _try_lock(lock_path)) is None:
                if time.monotonic() > end:
                    problem = f"another process has held {lock_path} for {wait_s:g} s"
                    raise StoreError(f"{key}: {problem}; end it, or wait and run again")
                time.sleep(0.1)
        with lock:
            try:
                yield path
            finally:
                if not path.exists():
                    lock_path.unlink(missing_ok=True)

    def sweep(self, is_published: Callable[[str], bool]) -> None:
        """Delete drafts whose owner is gone, and parts whose file is published."""
        try:
            paths = list(self.root.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for path in paths:
            is_part = path.name.endswith(f"{_PART}.{_LOCK}")
            lock_path = path if is_part else path / _LOCK
            lock = _try_lock(lock_path) if is_part or _PART not in path.name else None
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


def _try_lock(path: Path) -> IO[bytes] | None:
    """An open file that holds the lock; None when another process holds it or has just deleted it."""
    with suppress(BlockingIOError, FileNotFoundError), ExitStack() as stack:
        file = stack.enter_context(path.open("ab"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            stack.pop_all()  # The file stays open.
            return file
    return None
