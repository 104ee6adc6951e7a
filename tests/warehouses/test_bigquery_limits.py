"""Many concurrent months within BigQuery's documented limits, which bigquery_limits.py models.

The figures in docs/how-to/google-cloud.md were measured with
PIPELINE_MONTHS_OF_LIMITS=300 PIPELINE_SECOND_OF_LIMITS=0.05.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from bigquery_limits import LimitedBigQuery
from google.cloud.bigquery import retry as library_retry
from loading import GREEN, YELLOW, File, trips

from pipeline.datasets.base import Dataset
from pipeline.errors import WarehouseError
from pipeline.lake.google_cloud import bigquery_client
from pipeline.marts import marts_of
from pipeline.months import add_months
from pipeline.warehouses import Warehouse, open_warehouse
from pipeline.warehouses.bigquery import tables as bigquery_tables

log = logging.getLogger(__name__)
MONTHS = int(os.environ.get("PIPELINE_MONTHS_OF_LIMITS", "26"))
#: How many seconds a second of the modelled service takes.
SCALE = float(os.environ.get("PIPELINE_SECOND_OF_LIMITS", "0.01"))
Month = tuple[Dataset, date]


@dataclass(frozen=True)
class CloudFile:
    """A local file with the URI of an object in Cloud Storage."""

    file: File
    uri: str
    fingerprint: str

    def open(self) -> Any:
        return self.file.open()

    def open_local(self) -> Any:
        return self.file.open_local()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[LimitedBigQuery]:
    for name in ("_FIRST_WAIT_S", "_LONGEST_WAIT_S", "_PATIENCE_S", "_LONGEST_LOOK_S"):
        monkeypatch.setattr(bigquery_tables, name, getattr(bigquery_tables, name) * SCALE)
    quick = library_retry.DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.05)
    monkeypatch.setattr(library_retry, "DEFAULT_RETRY", quick)
    with LimitedBigQuery(scale=SCALE) as service:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", service.url)
        yield service


def months_of_two_datasets(number: int) -> list[Month]:
    """This number of months, yellow and green alternately."""
    first = date(2012, 1, 1)
    return [(dataset, add_months(first, index)) for index in range((number + 1) // 2) for dataset in (YELLOW, GREEN)]


def load(warehouse: Warehouse, folder: Path, month: Month, fingerprint: str = "1") -> None:
    """Load a month and build its marts, as the steps Load and Mart do."""
    dataset, first = month
    file = trips(folder, dataset, first, [float(number) for number in range(30)])
    uri = f"gs://bucket/trips/{dataset.name}/month={first}/{dataset.name}_{first:%Y-%m}.parquet"
    warehouse.replace(dataset, first, CloudFile(file, uri, fingerprint))
    warehouse.replace_mart_month(dataset, first, marts_of(dataset.name))


def concurrently(parallel: int, action: Callable[[Month], None], months: list[Month]) -> list[str]:
    """Call the action for all months, `parallel` at a time; returns the errors."""

    def attempt(month: Month) -> str:
        try:
            action(month)
        except WarehouseError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(parallel) as pool:
        return [error for error in pool.map(attempt, months) if error]


@pytest.mark.parametrize(("parallel", "number"), [(4, MONTHS // 3), (50, MONTHS)])
def test_concurrent_months_all_succeed_and_no_record_is_lost_or_doubled(
    service: LimitedBigQuery, tmp_path: Path, parallel: int, number: int
) -> None:
    warehouse = open_warehouse("bigquery://p1234567/d")
    months = months_of_two_datasets(number)
    began = time.monotonic()
    assert concurrently(parallel, lambda month: load(warehouse, tmp_path, month), months) == []
    seconds = (time.monotonic() - began) / SCALE
    keys = Counter((row["dataset"], row["month"]) for row in service.rows["loads"])
    assert keys == {(dataset.name, str(month)): 1 for dataset, month in months}
    marts = Counter((row["mart"], row["dataset"], row["month"]) for row in service.rows["mart_loads"])
    assert marts == {(mart.name, each.name, str(month)): 1 for each, month in months for mart in marts_of(each.name)}
    for dataset in (YELLOW, GREEN):
        assert len(warehouse.loads(dataset)) == len(months) // 2
        assert len(warehouse.mart_months(dataset)) == len(months) // 2
    log.info("%d months, %d at a time: %.0f s of the service, %s", len(months), parallel, seconds, dict(service.ended))


def test_concurrent_months_that_are_loaded_again_have_one_record_that_counts(
    service: LimitedBigQuery, tmp_path: Path
) -> None:
    warehouse = open_warehouse("bigquery://p1234567/d")
    months = months_of_two_datasets(MONTHS // 3)
    assert concurrently(8, lambda month: load(warehouse, tmp_path, month), months) == []
    assert concurrently(8, lambda month: load(warehouse, tmp_path, month, "2"), months) == []
    for dataset in (YELLOW, GREEN):
        loaded = warehouse.loads(dataset)
        assert {month: record.fingerprint for month, record in loaded.items()} == {
            month: "2" for each, month in months if each is dataset
        }
        marts = warehouse.mart_months(dataset)
        assert {record.fingerprint for built in marts.values() for record in built.values()} == {"2"}
        assert set(marts) == set(loaded)


def test_the_model_fails_jobs_beyond_the_documented_limits(service: LimitedBigQuery) -> None:
    service.scale = 0.1  # All requests must arrive within ten seconds of the modelled service.
    client = bigquery_client("p1234567", "US")

    def reasons(sql: str, times: int) -> Counter[str]:
        def result(_: int) -> str:
            job = client.query(sql, job_retry=None)
            try:
                job.result()
            except Exception as error:
                return str(error)
            return "done"

        with ThreadPoolExecutor(times) as pool:
            texts = list(pool.map(result, range(times)))
        expected = ("limit is 20", "too many table dml", "aborted due to concurrent", "Could not serialize", "done")
        return Counter(next(part for part in expected if part in text) for text in texts)

    assert reasons("INSERT INTO one (a) VALUES (1)", 25) == {"done": 25}
    assert reasons("INSERT INTO two (a) VALUES (1)", 30)["too many table dml"] == 5
    script = "BEGIN TRANSACTION; DELETE FROM three WHERE a = 1; INSERT INTO three (a) VALUES (1); COMMIT TRANSACTION;"
    assert reasons(script, 4)["aborted due to concurrent"] >= 2
    mutations = reasons("DELETE FROM four WHERE month = DATE '2024-01-01'", 25)
    assert mutations["limit is 20"] >= 1
