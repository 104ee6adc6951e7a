"""Start bqemulator offline: `<python of its environment> start_bqemulator.py OPTIONS...`.

At its start the emulator lets DuckDB install the spatial extension, which DuckDB downloads unless HOME has it.
The wheel duckdb-extension-spatial contains it, so this script puts it there; HOME must be a temporary folder.
This runs in the emulator's environment: do not import the project or pytest.
"""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
from bqemulator.cli import main
from sqlglot.dialects.dialect import Dialect
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


def remember_parsed() -> None:
    """Parse each text once: the emulator parses each statement dozens of times. Its callers change what they get."""
    parse = Dialect.parse

    @lru_cache(maxsize=256)
    def parsed(dialect: type[Dialect], sql: str) -> list[Any]:
        return parse(dialect(), sql)

    def parse_or_copy(self: Dialect, sql: str, **options: Any) -> list[Any]:
        if options or self.settings:
            return parse(self, sql, **options)
        return [node and node.copy() for node in parsed(type(self), sql)]

    Dialect.parse = parse_or_copy


def collect_rarely() -> None:
    """Look for garbage rarely, and not in what is imported: sqlglot's many small nodes let Python look all the time."""
    importlib.import_module("bqemulator.server")
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


if __name__ == "__main__":
    offer_extension("spatial")
    core.deepcopy = copy_notes
    remember_parsed()
    collect_rarely()
    main()
