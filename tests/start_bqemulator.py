"""Start bqemulator offline: `<python of its environment> start_bqemulator.py OPTIONS...`.

At its start the emulator has DuckDB install the spatial extension, which is fetched from DuckDB's site unless it lies
in the home folder. The wheel duckdb-extension-spatial carries it, so it is put there; HOME must be a folder of its own.
This runs in the emulator's environment: nothing of the project or of pytest may be imported here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb
from bqemulator.cli import main


def offer_extension(name: str) -> None:
    """Put the extension that the wheel carries where this DuckDB looks for installed ones."""
    found = importlib.util.find_spec(f"duckdb_extension_{name}")
    assert found is not None
    assert found.origin is not None
    version = f"v{duckdb.__version__}"
    with duckdb.connect() as connection:
        (platform,) = connection.execute("PRAGMA platform").fetchone() or ("",)
    carried = Path(found.origin).parent / "extensions" / version / f"{name}.duckdb_extension"
    installed = Path.home() / ".duckdb" / "extensions" / version / platform / carried.name
    installed.parent.mkdir(parents=True)
    installed.symlink_to(carried)


if __name__ == "__main__":
    offer_extension("spatial")
    main()
