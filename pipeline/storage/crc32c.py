"""The checksum that Cloud Storage keeps of every object."""

from __future__ import annotations

import base64
from pathlib import Path


def crc32c_of(path: Path) -> str:
    """The file's checksum as Google writes it: base64 of the four bytes."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()
