"""The raw file of any era becomes one schema, measured and checked on the way. No Luigi, no store, no settings.

Promise: every row is kept, in its order; a value that does not fit is an error, never a null; the same input gives the
same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.conform.month import conform_file as conform_file


def __getattr__(name: str) -> object:
    """Import `conform_file` when it is asked for: `check` is needed without pyarrow (PEP 562)."""
    if name != "conform_file":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.conform.month import conform_file

    return conform_file
