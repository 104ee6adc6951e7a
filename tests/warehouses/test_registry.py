"""The registry of engines, with an engine that is added as in docs/extending.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from loading import GREEN, JAN, trips

from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError
from pipeline.warehouses import open_warehouse
from pipeline.warehouses.duckdb.file import DuckDBFile
from pipeline.warehouses.duckdb.warehouse import DuckDBWarehouse
from pipeline.warehouses.registry import ENGINES, Bounds, Engine, allowed_urls, engine_of, register


def open_url(url: str, bounds: Bounds, datasets: Mapping[str, Dataset], zones: Dataset) -> DuckDBWarehouse:
    file = DuckDBFile(Path(url.removeprefix("throwaway://")), bounds.memory_limit, bounds.threads, 0)
    return DuckDBWarehouse(file, datasets, zones)


def test_an_engine_is_added_by_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "throwaway_engine", sys.modules[__name__])
    monkeypatch.setattr("pipeline.warehouses.registry.ENGINES", dict(ENGINES))
    url = f"throwaway://{tmp_path}/w"
    with pytest.raises(UsageError, match=r"no known scheme.*duckdb:///.*postgresql://.*bigquery://"):
        open_warehouse(url)
    register(Engine(("throwaway",), "throwaway:///folder/name", "throwaway_engine", "throwaway", writers=1))
    warehouse = open_warehouse(url)
    assert warehouse.replace(GREEN, JAN, trips(tmp_path, GREEN, JAN, [1.0])) == 1
    assert set(warehouse.loads(GREEN)) == {JAN}
    engine = engine_of(url)
    assert (engine.resource, engine.local_file(url)) == ("throwaway", None)
    assert list(engine.judge(warehouse.query(engine.question).to_pylist()[0], 1)) == [("ok", "", "")]
    assert "throwaway:///folder/name" in allowed_urls()


def test_every_engine_is_registered_with_all_fields() -> None:
    assert set(ENGINES) == {"duckdb", "postgresql", "postgres", "bigquery"}
    for scheme, engine in ENGINES.items():
        assert f"{engine.schemes[0]}://" in engine.example
        assert scheme in engine.schemes
        assert engine.writers >= 1
        assert engine.drivers
