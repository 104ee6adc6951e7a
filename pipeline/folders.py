"""One file out of a folder, whole: what `pipeline.source` does where there is no site to ask."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from time import monotonic

from pipeline.errors import SourceError
from pipeline.parts import Part, Version, write_all
from pipeline.transfer import Answer, Progress

_CHUNK_BYTES = 1 << 20


def state_of(path: Path) -> os.stat_result | None:
    """What the file system says of a file; None where there is none.

    Not with is_file, which takes what may not be looked at for absent, or raises, by the version of Python.
    """
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError(f"{path}: cannot be looked for: {error.strerror}; look at [pipeline] source") from error
    return state if stat.S_ISREG(state.st_mode) else None


def copy_file(
    path: Path, part: Part, subject: str, *, check: Callable[[Answer], None], progress: Progress | None = None
) -> Answer | None:
    """Copy the file at `path` to the part; None when it is not there.

    `check` raises a SourceError when the bytes are not what they should be; nothing of them is kept then.

    Raises:
        SourceError: the file cannot be read, changes meanwhile, or is not what it should be.
        StoreError: the part file cannot be written.
    """
    before = state_of(path)
    if before is None:
        return None
    modified = format_datetime(datetime.fromtimestamp(before.st_mtime, timezone.utc), usegmt=True)
    digest, began, got = hashlib.sha256(), monotonic(), 0
    try:
        with part.opened(Version(str(path), None, modified, before.st_size), anew=True) as target:
            for chunk in _pieces(path):
                digest.update(chunk)
                write_all(target, chunk)
                got += len(chunk)
                if got > before.st_size:  # It grows, perhaps faster than it is copied.
                    break
                if progress is not None:
                    progress(got, before.st_size, got / max(monotonic() - began, 1e-6))
        after = state_of(path)
        if after is None or not got == after.st_size == before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise SourceError("changed while it was copied; run again when it is at rest")
        answer = Answer(None, modified, got, digest.hexdigest())
        check(answer)
    except SourceError as error:
        part.discard()
        raise SourceError(f"{subject}: {path}: {error}") from error
    return answer


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise SourceError(f"cannot be copied: {error.strerror}; look at [pipeline] source") from error
