"""Start bqemulator offline: `<python of its environment> start_bqemulator.py OPTIONS...`.

At its start the emulator lets DuckDB install the spatial extension, which DuckDB downloads unless HOME has it.
The wheel duckdb-extension-spatial contains it, so this script puts it there; HOME must be a temporary folder.
This runs in the emulator's environment: do not import the project or pytest.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import duckdb
from bqemulator.cli import main
from sqlglot.expressions import core


def offer_extension(name: str) -> None:
    """Link the extension in the wheel to the folder in which this DuckDB looks for installed extensions."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    assert spec is not None
    assert spec.origin is not None
    version = f"v{duckdb.__version__}"
    with duckdb.connect() as connection:
        (platform,) = connection.execute("PRAGMA platform").fetchone() or ("",)
    source = Path(spec.origin).parent / "extensions" / version / f"{name}.duckdb_extension"
    installed = Path.home() / ".duckdb" / "extensions" / version / platform / source.name
    installed.parent.mkdir(parents=True)
    installed.symlink_to(source)


def copy_notes(value: Any) -> Any:
    """Copy what sqlglot notes beside a node: nearly always a dictionary of numbers, for which deepcopy is slow."""
    return value.copy() if type(value) is dict else copy.deepcopy(value)


if __name__ == "__main__":
    offer_extension("spatial")
    # The emulator parses each statement dozens of times, and copies its nodes each time.
    core.deepcopy = copy_notes
    main()
