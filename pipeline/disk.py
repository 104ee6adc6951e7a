"""Errors of file systems, and their remedies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: NFS answers EBADF when a folder is locked, or a file that is open for reading only.
_NO_LOCKS = (errno.ENOLCK, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def nearest_folder(path: str | Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    absolute = Path(path).absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def sync(path: Path) -> None:
    """Write a file or a folder to the disk, so that no rename survives a crash without the renamed content.

    Some file systems do not support it for folders (CIFS and FUSE answer EINVAL), and some users may not open a folder
    that they may write to: these are no errors.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED and not (isinstance(error, PermissionError) and path.is_dir()):
            raise


@contextmanager
def translate_disk_errors(subject: str, setting: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that begins with the subject; `setting` as in `explained`."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{subject}: {explained(error, setting)}") from error


def explained(error: OSError, setting: str) -> str:
    """The error and its remedy; `setting` is the one that names the folder or file."""
    elsewhere = f"set {setting} to another place"
    if error.errno in _NO_ROOM:
        remedy = f"make room, or {elsewhere}"
    elif isinstance(error, PermissionError):
        share = 'how several users share one is in docs/how-to/monitor.md, "Several users"'
        remedy = f"give the user {os.geteuid()} the right to write there, or {elsewhere}; {share}"
    elif error.errno == errno.EXDEV:
        remedy = f"all of it must be on one file system: {setting} must have no links or mounts to others below it"
    elif error.errno in _NO_LOCKS:
        remedy = f"its file system must have locks: mount it with them (NFS: without nolock), or {elsewhere}"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        path = Path(os.fsdecode(error.filename or "."))
        file = next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), path)
        remedy = f"move away the file {file}, which is where a folder must be, or {elsewhere}"
    else:
        remedy = f"correct that, or {elsewhere}"
    return f"{error.strerror or error}; {remedy}"


def has_no_locks(message: str) -> bool:
    """Whether the text of an error says that a file system has no locks."""
    texts = ("not supported for this file system", *map(os.strerror, _NO_LOCKS))
    return any(text in message for text in texts)
