"""Months of New York taxi trips, from TLC's site to a Parquet lake and a warehouse, as Luigi tasks.

    luigi --module pipeline Backfill --datasets green --first 2024-01 --last 2024-03
    pipeline backfill green 2024-01..2024-03

    import pipeline
    pipeline.read("green", "2024-01..2024-03", columns=["pickup_datetime", "total_amount"])   # a pandas DataFrame

Importing this opens no file and no connection.
"""

from pipeline.runs import stopping  # noqa: F401 - before slow imports: a signal ends the command immediately.

# isort: split
from pipeline.tasks import luigi_options  # noqa: F401 - before Luigi: it reports an invalid luigi.cfg in one line.

# isort: split
from pipeline.read import read
from pipeline.tasks.lake import Conform, ConformZones, Download, DownloadZones
from pipeline.tasks.runs import Backfill, Latest, RangeMonthly
from pipeline.tasks.warehouse import Expose, Load, LoadZones, Mart
from pipeline.version import __version__

__all__ = [
    "Backfill",
    "Conform",
    "ConformZones",
    "Download",
    "DownloadZones",
    "Expose",
    "Latest",
    "Load",
    "LoadZones",
    "Mart",
    "RangeMonthly",
    "__version__",
    "read",
]
