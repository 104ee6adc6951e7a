"""The real files: all of them conform, with the counts, sums and nulls of the published ones.

`PIPELINE_TLC_FILES` names their folder, which is not part of the project.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from pipeline.conform.check import check, enforce
from pipeline.conform.month import conform_file
from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.datasets.base import fold
from pipeline.errors import CheckFailed, PipelineError, SchemaError, SourceError
from pipeline.months import parse_month
from pipeline.raw.reader import verify_raw
from pipeline.sample.zones import zones_csv

if "PIPELINE_TLC_FILES" not in os.environ:
    pytest.skip("real files: PIPELINE_TLC_FILES names no folder", allow_module_level=True)

FILES = Path(os.environ["PIPELINE_TLC_FILES"])

#: Rows, pickups outside the month, drop-offs before pickups.
COUNTS = {
    "trip-data/green_tripdata_2020-04.parquet": (35_644, 6, 12),
    "csv/green/green_tripdata_2020-04.csv.gz": (35_612, 6, 0),
    "csv/green/green_tripdata_2020-05.csv.gz": (57_360, 0, 1),
    "samples/green_tripdata_2020-10.csv.gz": (95_120, 9, 0),
    "samples/green_tripdata_2020-11.csv.gz": (88_605, 2, 1),
    "trip-data/green_tripdata_2020-12.parquet": (83_130, 3, 1),
    "csv/green/green_tripdata_2020-12.csv.gz": (83_130, 3, 1),
    "trip-data/green_tripdata_2021-01.parquet": (76_518, 3, 0),
    "trip-data/green_tripdata_2021-02.parquet": (64_572, 2, 0),
    "trip-data/green_tripdata_2022-01.parquet": (62_495, 4, 0),
    "trip-data/green_tripdata_2022-06.parquet": (73_718, 9, 0),
    "trip-data/green_tripdata_2023-01.parquet": (68_211, 4, 0),
    "trip-data/green_tripdata_2023-02.parquet": (64_809, 26, 0),
    "trip-data/green_tripdata_2023-03.parquet": (72_044, 9, 0),
    "trip-data/green_tripdata_2024-01.parquet": (56_551, 2, 0),
    "trip-data/green_tripdata_2024-02.parquet": (53_577, 6, 0),
    "trip-data/green_tripdata_2024-03.parquet": (57_457, 10, 0),
    "trip-data/green_tripdata_2025-01.parquet": (48_326, 43, 0),
    "trip-data/green_tripdata_2025-02.parquet": (46_621, 19, 210),
    "trip-data/green_tripdata_2025-07.parquet": (48_205, 13, 0),
    "trip-data/green_tripdata_2025-11.parquet": (46_912, 21, 3),
}

#: Of parts of months, and of the whole of green 2013-08: rows, drop-offs before pickups, negative totals.
SAMPLES = {
    "fhv_tripdata_2020-04.csv.gz": (1_000, 0, 0),
    "fhvhv_tripdata_2020-04.csv.gz": (1_000, 0, 0),
    "green_tripdata_2013-08.csv.gz": (7_623, 2, 0),
    "yellow_tripdata_2017-06.csv.gz": (10_000, 0, 5),
    "yellow_tripdata_2018-07.csv.gz": (10_000, 0, 5),
    "yellow_tripdata_2019-02.csv.gz": (10_000, 0, 15),
    "yellow_tripdata_2020-04.csv.gz": (10_000, 0, 58),
    "yellow_tripdata_2020-10.csv.gz": (10_000, 43, 45),
    "yellow_tripdata_2022-01.parquet": (100_000, 0, 640),
    "yellow_tripdata_2025-01.parquet": (10_000, 0, 0),
}

HEADS = sorted((FILES / "heads").glob("*.csv"))

#: Heads whose last line has no line end, since they were cut off there.
CUT = {f"yellow_tripdata_{month}.csv" for month in ("2015-01", "2016-01", "2016-02", "2016-03")}


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The heads, all with a line end at the end."""
    folder = tmp_path_factory.mktemp("heads")
    ended = {path: folder / path.name for path in HEADS if path.name in CUT}
    for path, whole in ended.items():
        whole.write_bytes(path.read_bytes() + b"\n")
    return [ended.get(path, path) for path in HEADS]


def _month(path: Path) -> date:
    match = re.search(r"\d{4}-\d{2}", path.name)
    assert match is not None
    return parse_month(match[0])


def _published(path: Path) -> pa.Table:
    """The file as read by another reader, with the declared column names."""
    if path.suffix == ".parquet":
        content = pq.read_table(path)
    else:
        options = pacsv.ConvertOptions(strings_can_be_null=True, null_values=[""])
        content = pacsv.read_csv(path, convert_options=options)
    owners = {spelling: column.name for column in DATASETS["green"].columns for spelling in column.spellings()}
    return content.rename_columns([owners[fold(name)] for name in content.column_names])


def _sum(values: pa.ChunkedArray) -> Decimal:
    return sum((Decimal(str(value)) for value in values.to_pylist() if value is not None), Decimal())


@pytest.mark.parametrize("name", COUNTS)
def test_a_whole_month_conforms_to_what_was_published(tmp_path: Path, name: str) -> None:
    path, month = FILES / name, _month(Path(name))
    measures = conform_file(path, tmp_path / "draft", "green", month)
    counts = measures.counts
    assert (measures.rows, counts["pickups_outside_month"], counts["dropoffs_before_pickups"]) == COUNTS[name]
    assert counts["unknown_zones"] == counts["unknown_codes"] == counts.get("rows_off_published", 0) == 0
    published, trips = _published(path), pq.read_table(tmp_path / "draft")
    assert _sum(trips["total_amount"]) == _sum(published["total_amount"])
    assert Counter(trips["vendor_id"].to_pylist()) == Counter(published["vendor_id"].to_pylist())
    for column in trips.column_names:
        nulls = published[column].null_count if column in published.column_names else measures.rows
        assert trips[column].null_count == measures.columns[column].nulls == nulls, column


def test_real_months_raise_one_warning_the_wrong_minutes_of_vendor_6(tmp_path: Path) -> None:
    raised = []
    for name in COUNTS:
        month = _month(Path(name))
        findings = check(DATASETS["green"], month, conform_file(FILES / name, tmp_path / "draft", "green", month))
        raised += [(name, finding.rule, finding.severity) for finding in findings]
    assert raised == [("trip-data/green_tripdata_2025-02.parquet", "negative_durations", "warning")]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_part_of_a_month_conforms_to_what_was_published(tmp_path: Path, name: str) -> None:
    dataset, month = name.partition("_")[0], _month(Path(name))
    measures = conform_file(FILES / "samples" / name, tmp_path / "draft", dataset, month)
    counts = measures.counts
    assert (measures.rows, counts["dropoffs_before_pickups"], counts.get("negative_totals", 0)) == SAMPLES[name]
    assert counts["unknown_zones"] == counts["unknown_codes"] == 0
    findings = [finding.rule for finding in check(DATASETS[dataset], month, measures)]
    wrong_minutes = ["negative_durations"] if name == "yellow_tripdata_2020-10.csv.gz" else []
    assert findings == [*wrong_minutes, *(["published_rows"] if name.endswith(".parquet") else [])]


def test_the_wrong_minutes_are_in_yellow_too_in_rows_without_a_vendor(tmp_path: Path) -> None:
    conform_file(FILES / "samples/yellow_tripdata_2020-10.csv.gz", tmp_path / "draft", "yellow", date(2020, 10, 1))
    backwards = [row for row in _rows(tmp_path / "draft") if row["dropoff_datetime"] < row["pickup_datetime"]]
    minutes = {(row["vendor_id"], row["pickup_datetime"].minute, row["dropoff_datetime"].minute) for row in backwards}
    assert minutes == {(None, 10, 10)}


@pytest.mark.parametrize("name", ["yellow", "green", "fhv", "fhvhv"])
def test_the_head_of_every_month_of_the_csv_era_conforms(tmp_path: Path, heads: list[Path], name: str) -> None:
    those = [path for path in heads if path.name.startswith(f"{name}_")]
    assert those
    for path in those:
        measures = conform_file(path, tmp_path / "draft", name, _month(path))
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert measures.rows == len(lines) - 1, path.name
        enforce(DATASETS[name], _month(path), check(DATASETS[name], _month(path), measures))


def test_there_are_304_heads() -> None:
    assert len(HEADS) == 304


@pytest.mark.parametrize("name", sorted(CUT))
def test_a_head_that_was_cut_in_its_last_line_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=rf"^{name}: cut short: its last line has no line end"):
        conform_file(FILES / "heads" / name, tmp_path / "draft", "yellow", _month(Path(name)))


def _rows(path: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return listed


def test_december_2020_is_the_same_from_csv_and_parquet_but_for_the_vendor(tmp_path: Path) -> None:
    month = date(2020, 12, 1)
    conform_file(FILES / "csv/green/green_tripdata_2020-12.csv.gz", tmp_path / "csv", "green", month)
    conform_file(FILES / "trip-data/green_tripdata_2020-12.parquet", tmp_path / "parquet", "green", month)
    first, second = (pq.read_table(tmp_path / name).drop_columns(["vendor_id"]) for name in ("csv", "parquet"))
    assert first.equals(second)


def test_a_faithful_copy_of_a_file_gives_the_same_trips(tmp_path: Path) -> None:
    month, name = date(2023, 2, 1), "green_tripdata_2023-02.parquet"
    conform_file(FILES / "trip-data" / name, tmp_path / "published", "green", month)
    conform_file(FILES / "resaved" / name, tmp_path / "resaved", "green", month)
    assert _rows(tmp_path / "published") == _rows(tmp_path / "resaved")


def test_a_copy_with_an_added_column_is_refused(tmp_path: Path) -> None:
    path = FILES / "resaved/green_tripdata_2021-01.parquet"
    with pytest.raises(SchemaError, match=r"^green 2021-01: unknown columns \['duration'\]; declare them in "):
        conform_file(path, tmp_path / "draft", "green", date(2021, 1, 1))


@pytest.mark.parametrize("path", sorted((FILES / "broken").iterdir()), ids=lambda path: path.name)
def test_a_broken_file_is_refused_with_a_clear_message(tmp_path: Path, path: Path) -> None:
    name = path.name.split("__")[1]
    with pytest.raises(SourceError, match=r": not a (CSV|Parquet file): it is an? "):
        verify_raw(path)
    with pytest.raises(SourceError):
        conform_file(path, tmp_path / "draft", "yellow" if "yellow" in name else "green", date(2019, 2, 1))
    with pytest.raises(SourceError, match="not end as one" if name == "head.csv" else "not a Parquet file"):
        verify_raw(path, name="green_tripdata_2022-01.parquet")
    assert list(tmp_path.iterdir()) == []


def test_another_months_file_under_the_name_fails_its_checks(tmp_path: Path) -> None:
    month = date(2024, 2, 1)
    path = FILES / "trip-data/green_tripdata_2024-01.parquet"
    measures = conform_file(path, tmp_path / "draft", "green", month)
    with pytest.raises(CheckFailed, match=r"wrong_month: .* found 56,551 of 56,551"):
        enforce(DATASETS["green"], month, check(DATASETS["green"], month, measures))


@pytest.mark.parametrize("name", ["taxi_zone_lookup.csv", "taxi_zone_lookup_older.csv"])
def test_both_zone_tables_have_265_zones_and_no_nulls(tmp_path: Path, name: str) -> None:
    measures = conform_file(FILES / "misc" / name, tmp_path / "draft", ZONES, None)
    assert check(ZONES, None, measures) == []
    assert [column.nulls for column in measures.columns.values()] == [0] * 4
    zones = {row["location_id"]: row for row in _rows(tmp_path / "draft")}
    assert list(zones) == list(range(1, 266))
    assert zones[56]["zone"] == zones[57]["zone"] == "Corona"
    assert zones[265]["service_zone"] == "N/A"


def test_the_zone_table_of_the_sample_site_is_tlc_s() -> None:
    assert zones_csv() == (FILES / "misc" / "taxi_zone_lookup.csv").read_bytes()


def test_every_real_file_has_the_format_of_its_name(heads: list[Path]) -> None:
    whole = [FILES / name for name in COUNTS]
    for path in [*heads, *whole, *(FILES / "samples").iterdir(), *(FILES / "resaved").iterdir()]:
        verify_raw(path)


def test_a_dataset_by_its_name_and_by_itself_are_the_same(tmp_path: Path) -> None:
    path, month = HEADS[0], _month(HEADS[0])
    by_name = conform_file(path, tmp_path / "one", "fhv", month)
    assert by_name == conform_file(path, tmp_path / "two", dataset_named("fhv"), month)
    assert issubclass(SchemaError, PipelineError)
