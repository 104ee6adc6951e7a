"""Warehouses: where months of trips arrive as tables, one class per engine behind one contract (`base.py`).

`registry.py` has the engines. Importing this imports no engine's driver.
"""

from pipeline.warehouses.base import LoadRecord, Mart, MartRecord, StoredFile, Warehouse
from pipeline.warehouses.registry import open_warehouse

__all__ = ["LoadRecord", "Mart", "MartRecord", "StoredFile", "Warehouse", "open_warehouse"]
