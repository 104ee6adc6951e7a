"""What file systems cannot do or refuse, and what helps."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: NFS answers EBADF where a folder is locked, or a file that is open for reading only.
_NO_LOCKS = (errno.ENOLCK, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk, so that a rename never outlives what it names.

    Not every file system can do it, least of all for folders (CIFS, FUSE, shared folders answer EINVAL), and not every
    user may open a folder that he may write: it is then left out.
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


def explained(error: OSError, setting: str) -> str:
    """The error in words, and what helps; `setting` is the one that names the folder or file."""
    elsewhere = f"set {setting} to another place"
    if error.errno in _NO_ROOM:
        remedy = f"make room, or {elsewhere}"
    elif isinstance(error, PermissionError):
        remedy = (
            f"give the user {os.geteuid()} the right to write there, or {elsewhere}; how several users share one is in "
            'docs/operating.md, "Several users"'
        )
    elif error.errno == errno.EROFS:
        remedy = f"mount it writable, or {elsewhere}"
    elif error.errno == errno.EXDEV:
        remedy = f"all of it must be on one file system: {setting} must have no links to, or mounts of, others below it"
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
    """Whether an error's text says that a file system has no locks."""
    return "not supported for this file system" in message or any(
        map(message.__contains__, map(os.strerror, _NO_LOCKS))
    )
