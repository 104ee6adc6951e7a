"""The raw file of any era becomes one schema, measured and checked on the way. No Luigi, no store, no settings.

Promise: every row is kept, in its order; a value that does not fit is an error, never a null; the same input gives the
same bytes.
"""

from __future__ import annotations

from pipeline.conform.month import conform_file as conform_file
