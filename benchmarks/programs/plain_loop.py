"""What a backfill of yellow does, by the same functions in one process and a loop, without Luigi.

plain_loop.py SITE FOLDER FIRST LAST; leaves the seconds that each kind of step took in FOLDER/seconds.json.
"""

import json
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from pipeline import lake
from pipeline.conform.check import check, checks_document, enforce
from pipeline.conform.month import conform_file
from pipeline.datasets import DATASETS, ZONES
from pipeline.lake import open_store
from pipeline.marts import marts_of
from pipeline.months import month_range, parse_month
from pipeline.source.parts import Part
from pipeline.source.site import make_source
from pipeline.source.transfer import RetryPolicy
from pipeline.warehouses import open_warehouse

site, folder, first, last = sys.argv[1:]
source = make_source(site, "parquet", 4, RetryPolicy(60, 5, 1))
store = open_store(f"{folder}/data/lake")
warehouse = open_warehouse(f"duckdb:///{folder}/data/warehouse.duckdb")
seconds = Counter()


@contextmanager
def step(name):
    """Add up how long it takes."""
    began = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - began


def to_lake(dataset, month):
    """Download and conform, each published as the tasks do."""
    raw_key = lake.raw_key(dataset, source.file_name(dataset, month))
    with step("download"), store.part(raw_key, wait_s=60) as part:
        sidecar = source.fetch(dataset, month, part)
        with store.publish(raw_key) as draft:
            Part(part).move(draft)
            with store.publish(lake.sidecar_key(raw_key)) as text:
                text.write_text(sidecar.to_json())
    with step("conform"), store.publish(lake.trips_key(dataset, month)) as draft:
        raw = store.root / raw_key
        measures = conform_file(raw, draft, dataset, month, source_sha256=Part(raw).sha256())
        findings = check(dataset, month, measures)
        with store.publish(lake.checks_key(dataset, month)) as text:
            text.write_text(json.dumps(checks_document(measures, findings), indent=2))
        enforce(dataset, month, findings)


to_lake(ZONES, None)
with step("load"):
    warehouse.replace(ZONES, None, store.entry(lake.trips_key(ZONES, None)))
yellow = DATASETS["yellow"]
for month in reversed(month_range(parse_month(first), parse_month(last))):
    to_lake(yellow, month)
    with step("load"):
        warehouse.replace(yellow, month, store.entry(lake.trips_key(yellow, month)))
    with step("mart"):
        warehouse.replace_mart_month(yellow, month, marts_of("yellow"))
Path(folder, "seconds.json").write_text(json.dumps(seconds))
