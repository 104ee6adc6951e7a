"""Load a month of a lake into a warehouse, by default bounds: load_one.py LAKE WAREHOUSE DATASET MONTH."""

import sys

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.lake import open_store
from pipeline.months import parse_month
from pipeline.warehouses import open_warehouse

folder, warehouse, name, text = sys.argv[1:]
dataset, month = DATASETS[name], parse_month(text)
trips = open_store(folder).entry(lake.trips_key(dataset, month))
open_warehouse(warehouse).replace(dataset, month, trips)
