"""Months of New York taxi trips, from TLC's site to a Parquet lake and a warehouse, as Luigi tasks.

    luigi --module pipeline Backfill --datasets green --first 2024-01 --last 2024-03
    pipeline backfill green 2024-01..2024-03

    import pipeline
    pipeline.read("green", "2024-01..2024-03", columns=["pickup_datetime", "total_amount"])   # a pandas DataFrame

Importing this opens no file and no connection. Luigi and pyarrow are imported only when a task is asked for. But a
program that imports Luigi, before or after this package, gets all tasks, because Luigi finds them by name.
"""

# ruff: noqa: F403, F405

import sys
from typing import TYPE_CHECKING

from pipeline.runs import stopping  # noqa: F401 - before slow imports: a signal ends the command immediately.

# isort: split
from pipeline.read import read
from pipeline.version import __version__

if TYPE_CHECKING or "luigi" in sys.modules:
    from pipeline.tasks.public import *
else:

    def __getattr__(name: str) -> object:
        """Import the tasks when one of them is asked for (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pipeline.tasks import public

        return getattr(public, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

    class _LuigiFinder:
        """Imports the tasks when a program imports Luigi after this package; not when a module of ours does."""

        @staticmethod
        def find_spec(name: str, *_: object) -> object:
            if name != "luigi":
                return None
            importer = sys._getframe(1)
            # Some programs put a function of their own around every finder, as marimo does.
            for machinery in (False, True):
                while importer and importer.f_code.co_filename.startswith("<frozen importlib") is machinery:
                    importer = importer.f_back
            if importer and str(importer.f_globals.get("__package__")).partition(".")[0] == __name__:
                return None
            sys.meta_path.remove(_LuigiFinder)
            from importlib.util import find_spec

            if spec := find_spec(name):
                execute = spec.loader.exec_module

                def execute_and_import_tasks(module: object) -> None:
                    execute(module)
                    from pipeline.tasks import public  # noqa: F401 - registers the tasks.

                spec.loader.exec_module = execute_and_import_tasks
            return spec

    sys.meta_path.insert(0, _LuigiFinder)

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
