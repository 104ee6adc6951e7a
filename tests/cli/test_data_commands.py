"""The commands that show data: `check`, `diff`, `describe`, `head` and `sql`, on a terminal and for programs."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cloud import Cloud
from commands import bare, on_terminal
from conftest import ROOT, Folder, make_folder
from loading import FEB, GREEN, JAN, YELLOW, File, many_trips, trips, write, zones
from postgres import Database

from pipeline import lake
from pipeline.cli.output import column_texts, draft_of, write_rows
from pipeline.conform.check import check, checks_document
from pipeline.conform.profile import ColumnMeasures, Measures
from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import UsageError, visible
from pipeline.lake import open_store
from pipeline.marts import all_marts
from pipeline.months import add_months
from pipeline.settings import suggested_command
from pipeline.state.checks import compare_months
from pipeline.state.trips import first_rows
from pipeline.warehouses import open_warehouse

TOTALS = [12.5, 8.0, 30.25]


@pytest.fixture
def lone(tmp_path: Path) -> Folder:
    """A working folder without a source."""
    return make_folder(tmp_path / "work", "http://127.0.0.1:9")


@pytest.fixture
def loaded(lone: Folder, tmp_path: Path) -> Folder:
    """A folder whose DuckDB has three trips of green in 2024-01, with zones."""
    fill(f"duckdb:///{lone.database}", tmp_path)
    return lone


def fill(url: str, folder: Path) -> None:
    warehouse = open_warehouse(url)
    warehouse.replace(ZONES, None, zones(folder))
    warehouse.replace(GREEN, JAN, trips(folder, GREEN, JAN, TOTALS))


# --- check


def measured(
    dataset: Dataset,
    month: date,
    rows: int = 1000,
    nulls: dict[str, int] | None = None,
    types: dict[str, str] | None = None,
    codes: dict[str, dict[str, int]] | None = None,
    **counts: int,
) -> Any:
    """The checks document of a month with these measures."""
    columns = {name: ColumnMeasures(nulls=(nulls or {}).get(name, 0)) for name in dataset.by_name}
    usual = {"pickups_outside_month": 0, "dropoffs_before_pickups": 0, "unknown_zones": 0, "negative_totals": 4}
    found = {"rows": rows, **usual, "unknown_codes": 0, "unknown_vendor_id": 0, "unknown_payment_type": 0, **counts}
    parts = {"types_in_source": types or {}, "codes": codes or {}}
    measures = Measures(dataset.name, month, rows=rows, columns=columns, counts=found, **parts)
    return checks_document(measures, check(dataset, month, measures))


def keep(folder: Folder, dataset: Dataset, month: date, **what: Any) -> None:
    with open_store(str(folder.lake)).publish(lake.checks_key(dataset, month)) as draft:
        draft.write_text(json.dumps(measured(dataset, month, **what)))


@pytest.fixture
def judged(lone: Folder) -> Folder:
    """A folder with the checks of 2023-09 to 2024-02, of which 2024-01 is odd, and 2024-02 refused."""
    for back, rows in enumerate((1100, 1000, 900, 5)):
        keep(lone, GREEN, add_months(JAN, -1 - back), rows=rows, nulls={"vendor_id": 50, "extra": 3})
    odd = {"pickups_outside_month": 5, "negative_totals": 6, "unknown_codes": 30, "unknown_vendor_id": 30}
    keep(lone, GREEN, JAN, rows=1500, nulls={"vendor_id": 450, "extra": 4}, **odd)
    keep(lone, GREEN, FEB, rows=1000, pickups_outside_month=900)
    return lone


def line_of(text: str, name: str) -> list[str]:
    """The cells of the one line that begins with the name, without empty ones."""
    (cells,) = (cells for cells in cells_of(text) if cells[0] == name)
    return cells[1:]


def cells_of(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()]


def test_check_compares_a_month_with_the_three_before_it(judged: Folder) -> None:
    ended = judged.pipeline("check", "green", "2024-01")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert line_of(ended.stdout, "measure") == ["2023-10", "2023-11", "2023-12", "2024-01", "change"]
    assert line_of(ended.stdout, "rows") == ["900", "1,000", "1,100", "1,500", "+50.0 %"]
    assert line_of(ended.stdout, "negative totals") == ["4", "4", "4", "6", "+50.0 %"]
    assert line_of(ended.stdout, "unknown codes") == ["0", "0", "0", "30", "new"]
    assert line_of(ended.stdout, "unknown vendor id") == ["0", "0", "0", "30", "new"]
    assert line_of(ended.stdout, "unknown zones") == ["0", "0", "0", "0", "0.0 %"]
    assert "unknown payment type" not in ended.stdout, "no month has any"
    assert line_of(ended.stdout, "vendor_id") == ["5.6%", "5.0%", "4.5%", "30.0%", "+25.0 points"]
    assert "extra" not in ended.stdout, "the share of nulls hardly changes"


def test_check_ignores_earlier_months_that_were_refused(lone: Folder) -> None:
    for back, rows in enumerate((900, 1000, 1100), 1):
        keep(lone, GREEN, add_months(JAN, -back), rows=rows)
    keep(lone, GREEN, add_months(JAN, -1), rows=1_000_000, pickups_outside_month=900_000)
    keep(lone, GREEN, JAN, rows=1500)
    (found,) = compare_months(open_store(str(lone.lake)), GREEN, [JAN], command=suggested_command)
    assert (found["months_before"], found["months_apart"]) == (["2023-10", "2023-11"], [3, 2])
    (rows_of,) = [line for line in found["counts"] if line["measure"] == "rows"]
    assert rows_of["before"] == [1100, 1000]


def test_check_names_the_earlier_month_and_its_distance(lone: Folder) -> None:
    for back in (9, 10):
        keep(lone, GREEN, add_months(JAN, -back))
    keep(lone, GREEN, JAN, rows=1500)
    keep(lone, GREEN, FEB)
    store = open_store(str(lone.lake))
    found = compare_months(store, GREEN, [JAN, FEB], command=suggested_command)
    assert [(month["months_before"], month["months_apart"]) for month in found] == [
        (["2023-04"], [9]),
        (["2024-01"], [1]),
    ]
    said = lone.pipeline("check", "green", "2024-01").stdout
    assert "The month, and its change from the mean of 2023-04 (9 months before)" in said
    said = lone.pipeline("check", "green", "2024-01..2024-02").stdout
    assert ["green 2024-01", "1,500", "+50.0 %", "0", "0", "2023-04 (9 months before)"] in cells_of(said)


def test_check_shows_each_finding_with_the_description_of_its_rule(judged: Folder) -> None:
    ended = judged.pipeline("check", "green", "2024-01")
    lines = cells_of(ended.stdout)
    assert ["stray_pickups", "warning", "5 of 1,500 (0.33%)", "at most 0.20%", "pickups outside the month"] in lines
    assert [
        "unknown_codes",
        "warning",
        "30 of 1,500 (2.00%)",
        "at most 0.10%",
        "codes that the code lists lack",
    ] in lines


def test_check_of_a_month_with_an_error_exits_with_1(judged: Folder) -> None:
    ended = judged.pipeline("check", "green", "2024-02")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert re.search(r"^wrong_month +error +900 of 1,000 \(90.00%\) +at most 50.00% ", ended.stdout, re.MULTILINE)


def test_check_of_a_month_without_findings_says_that_its_rules_hold(judged: Folder) -> None:
    ended = judged.pipeline("check", "green", "2023-10")
    assert ended.stdout.splitlines()[0] == "green 2023-10: no findings; all of its 9 rules hold"
    first = judged.pipeline("check", "green", "2023-09")
    assert first.returncode == 0
    assert "Nothing to compare with" in first.stdout
    assert line_of(first.stdout, "rows") == ["5"]


def test_check_of_a_period_prints_one_line_per_month(judged: Folder) -> None:
    keep(judged, YELLOW, JAN)
    ended = judged.pipeline("check", "green", "yellow", "all")
    assert (ended.returncode, ended.stderr) == (1, ""), "`all` means the months that have checks"
    lines = cells_of(ended.stdout)
    assert len(lines) == 8
    assert ["green 2023-12", "1,100", "+73.2 %", "0", "0", "2023-09..2023-11"] in lines
    before = "2023-10..2023-12"
    assert ["green 2024-01", "1,500", "+50.0 %", "0", "2", before, "stray pickups, unknown codes"] in lines
    before = "2023-11..2024-01"
    assert ["green 2024-02", "1,000", "-16.7 %", "1", "1", before, "wrong month, stray pickups"] in lines


def test_check_as_json_has_the_numbers(judged: Folder) -> None:
    ended = judged.pipeline("check", "green", "2024-01", "--json")
    (found,) = json.loads(ended.stdout)
    assert (found["dataset"], found["month"], found["rows"]) == ("green", "2024-01", 1500)
    assert found["months_before"] == ["2023-10", "2023-11", "2023-12"]
    assert {finding["rule"]: finding["severity"] for finding in found["findings"]} == {
        "stray_pickups": "warning",
        "unknown_codes": "warning",
    }
    assert found["findings"][0]["purpose"] == "pickups outside the month"
    counts = {line.pop("measure"): line for line in found["counts"]}
    assert counts["rows"] == {"value": 1500, "before": [900, 1000, 1100], "change_percent": 50.0}
    assert counts["unknown_codes"] == {"value": 30, "before": [0, 0, 0], "change_percent": None}
    (nulls,) = found["changed_nulls"]
    assert (nulls["column"], nulls["nulls"], nulls["share"]) == ("vendor_id", 450, 0.3)


def test_check_of_months_without_checks_names_the_command_that_creates_them(judged: Folder) -> None:
    ended = judged.pipeline("check", "green", "2024-05")
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "green 2024-05" in ended.stderr
    assert "to create them, run: pipeline backfill green 2024-05 --through conform" in ended.stderr
    some = judged.pipeline("check", "green", "2023-12..2024-01", "--json")
    assert (some.returncode, some.stderr) == (0, "")
    assert len(json.loads(some.stdout)) == 2
    some = judged.pipeline("check", "green", "2023-07..2023-12")
    assert some.returncode == 5
    assert "pipeline backfill green 2023-07..2023-08" in some.stderr
    assert len(some.stdout.splitlines()) == 5, "a heading, and the months that have checks"


def test_check_reports_a_file_that_is_not_a_checks_document(judged: Folder) -> None:
    path = judged.lake / lake.checks_key(GREEN, JAN)
    for text in ("{", "[]", '{"rows": 1}'):
        path.write_text(text)
        ended = judged.pipeline("check", "green", "2024-01")
        assert ended.returncode == 5
        assert f"{path} is not a checks document" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", [("green",), ("pink", "2024-01"), ("green", "2024-13")])
def test_check_of_an_invalid_dataset_or_month_is_a_usage_error(lone: Folder, words: tuple[str, ...]) -> None:
    ended = lone.pipeline("check", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


def test_check_fits_a_terminal_of_80_columns_and_loses_nothing(judged: Folder) -> None:
    said, code = on_terminal(judged, "check", "green", "2024-01")
    lines = bare(said)
    assert code == 0
    assert max(map(len, lines)) <= 80
    words = " ".join(said.split())
    for part in ("stray_pickups", "1,500", "(0.33%)", "0.20%", "+25.0 points"):
        assert part in words


def test_only_terminals_that_allow_colours_get_them(judged: Folder) -> None:
    said, code = on_terminal(judged, "check", "green", "2024-02")
    assert code == 1
    assert "\x1b[31merror" in said
    said, _ = on_terminal(judged, "check", "green", "2024-02", NO_COLOR="1")
    assert "error" in said
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", said)
    assert "\x1b" not in judged.pipeline("check", "green", "2024-02").stdout


# --- diff


def test_diff_shows_a_new_column_and_all_else_that_differs(folder: Folder) -> None:
    assert folder.pipeline("backfill", "green", "2024-12..2025-01", "--through", "conform").returncode == 0
    ended = folder.pipeline("diff", "green", "2025-01")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == "green 2025-01 and 2024-12: what differs"
    (fee,) = (line for line in ended.stdout.splitlines() if line.startswith("cbd_congestion_fee"))
    assert re.fullmatch(r"cbd_congestion_fee {10,}yes", fee), (
        "in the later file only, and not also as a change of nulls"
    )
    ranges = [line[:2] for line in cells_of(ended.stdout) if line[0] == "pickup_datetime"]
    assert ranges == [["pickup_datetime", "min"], ["pickup_datetime", "max"]]
    found = json.loads(folder.pipeline("diff", "green", "2024-12", "--against", "2025-01", "--json").stdout)
    assert (found["dataset"], found["month"], found["against"]) == ("green", "2024-12", "2025-01")
    assert (found["columns_only_in_month"], found["columns_only_in_against"]) == ([], ["cbd_congestion_fee"])
    (least,) = (
        line for line in found["changed_ranges"] if (line["column"], line["limit"]) == ("pickup_datetime", "min")
    )
    assert least["value"] < least["against"]
    said, code = on_terminal(folder, "diff", "green", "2025-01")
    assert code == 0
    assert max(map(len, bare(said))) <= 80
    assert "…" not in said, "no value is cut"


def test_diff_compares_with_the_nearest_earlier_month_that_passed(judged: Folder) -> None:
    keep(judged, GREEN, add_months(JAN, 3), rows=750, nulls={"vendor_id": 225}, unknown_vendor_id=3)
    ended = judged.pipeline("diff", "green", "2024-04")
    assert ended.stdout.splitlines()[0] == "green 2024-04 and 2024-01: what differs", "2024-02 failed its checks"
    assert line_of(ended.stdout, "rows") == ["1,500", "750", "-50.0 %"]
    assert line_of(ended.stdout, "unknown vendor id") == ["30", "3", "-90.0 %"]
    assert "unknown zones" not in ended.stdout, "no month has any"
    assert "vendor_id" not in ended.stdout, "the share of nulls is the same"
    ended = judged.pipeline("diff", "green", "2024-04", "--against", "2024-02")
    assert line_of(ended.stdout, "pickups outside month") == ["900", "0", "-100.0 %"], "a month with errors, if named"


def test_diff_as_json_has_only_what_differs(judged: Folder) -> None:
    found = json.loads(judged.pipeline("diff", "green", "2024-01", "--against", "2023-12", "--json").stdout)
    counts = {line.pop("measure"): line for line in found["counts"]}
    assert counts == {
        "rows": {"value": 1500, "against": 1100, "change_percent": 36.36},
        "pickups_outside_month": {"value": 5, "against": 0, "change_percent": None},
        "negative_totals": {"value": 6, "against": 4, "change_percent": 50.0},
        "unknown_codes": {"value": 30, "against": 0, "change_percent": None},
        "unknown_vendor_id": {"value": 30, "against": 0, "change_percent": None},
    }
    (nulls,) = found["changed_nulls"]
    assert nulls == {"column": "vendor_id", "nulls": 450, "share": 0.3, "against": 50 / 1100, "change_points": 25.45}
    others = ("columns_only_in_month", "columns_only_in_against", "changed_types", "changed_codes", "changed_ranges")
    assert [found[key] for key in others] == [[]] * 5


def test_diff_shows_types_that_changed_and_codes_whose_share_did(lone: Folder) -> None:
    keep(
        lone,
        GREEN,
        JAN,
        rows=1000,
        types={"vendor_id": "int64", "extra": "double"},
        codes={"trip_type": {"1": 900, "2": 100}},
    )
    keep(
        lone,
        GREEN,
        FEB,
        rows=2000,
        types={"vendor_id": "int32", "extra": "double"},
        codes={"trip_type": {"1": 1700, "2": 219}},
    )
    found = json.loads(lone.pipeline("diff", "green", "2024-02", "--json").stdout)
    assert found["changed_types"] == [{"column": "vendor_id", "value": "int32", "against": "int64"}]
    (code,) = found["changed_codes"]
    shares = {"rows": 1700, "share": 0.85, "against": 0.9, "change_points": -5.0}
    assert code == {"column": "trip_type", "code": "1", "meaning": "street hail", **shares}, (
        "2 has nearly the same share"
    )
    lines = cells_of(lone.pipeline("diff", "green", "2024-02").stdout)
    assert ["vendor_id", "int64", "int32"] in lines
    assert ["trip_type", "1 street hail", "90.0%", "85.0%", "-5.0 points"] in lines


def test_diff_with_a_document_of_an_older_version_has_no_types_and_codes(lone: Folder) -> None:
    keep(lone, GREEN, JAN)
    keep(lone, GREEN, FEB, types={"vendor_id": "int32"}, codes={"trip_type": {"1": 1000}})
    path = lone.lake / "checks/green/2024-01.json"
    document = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: each for name, each in document.items() if name not in ("codes", "types_in_source")})
    )
    found = json.loads(lone.pipeline("diff", "green", "2024-02", "--json").stdout)
    assert (found["changed_types"], found["changed_codes"]) == ([], [])
    assert lone.pipeline("diff", "green", "2024-01", "--against", "2024-02").returncode == 0


def test_diff_of_equal_months_says_that_nothing_differs(lone: Folder) -> None:
    keep(lone, GREEN, JAN)
    keep(lone, GREEN, FEB)
    ended = lone.pipeline("diff", "green", "2024-02")
    assert (ended.returncode, ended.stdout) == (0, "green 2024-02 and 2024-01: nothing differs\n")


def test_diff_of_months_without_checks_names_the_command_that_creates_them(judged: Folder) -> None:
    ended = judged.pipeline("diff", "green", "2024-05", "--against", "2024-04")
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "to create them, run: pipeline backfill green 2024-04..2024-05 --through conform" in ended.stderr
    ended = judged.pipeline("diff", "green", "2023-09")
    assert ended.returncode == 5
    assert "no earlier month has passed its checks" in ended.stderr
    assert "run: pipeline check green all" in ended.stderr
    assert "green 2023-10" in judged.pipeline("check", "green", "all").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("green", "2024-01", "--against", "2024-01"),
        ("green", "2024-01", "--against", "2024-13"),
        ("green", "2013-07"),
        ("green", "2024"),
        ("green", "previous"),
        ("green",),
        ("pink", "2024-01"),
        ("zones", "2024-01"),
    ],
)
def test_diff_of_an_invalid_dataset_or_month_is_a_usage_error(judged: Folder, words: tuple[str, ...]) -> None:
    ended = judged.pipeline("diff", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


# --- describe


def test_describe_lists_the_datasets(lone: Folder) -> None:
    ended = lone.pipeline("describe")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert line_of(ended.stdout, "green")[:3] == ["2013-08", "2014-01", str(len(GREEN.columns))]
    found = json.loads(lone.pipeline("describe", "--json").stdout)
    assert [one["name"] for one in found] == [*DATASETS, "zones"]
    assert {one["name"]: one["first_month"] for one in found}["zones"] is None
    assert lone.files() == [], "nothing is read and nothing is created"


@pytest.mark.parametrize("name", [*DATASETS, "zones"])
def test_describe_shows_everything_that_is_declared(lone: Folder, name: str) -> None:
    spec = {**DATASETS, "zones": ZONES}[name]
    ended = lone.pipeline("describe", name)
    assert ended.returncode == 0, ended.stderr
    for column in spec.columns:
        assert re.search(rf"^{column.name} .*{re.escape(column.doc)}$", ended.stdout, re.MULTILINE), column.name
        assert all(alias in ended.stdout for alias in column.aliases)
        for code, meaning in column.codes.items():
            shown = "' '" if code == " " else str(code)
            assert re.search(rf" {shown} +{re.escape(meaning)}", ended.stdout), (column.name, code)
        assert all(word in ended.stdout for word in column.words)
    for rule in spec.rules:
        assert re.search(rf"^{rule.name} +{rule.severity} .*{re.escape(rule.doc)}$", ended.stdout, re.MULTILINE)


def test_describe_shows_since_when_files_must_have_a_column(lone: Folder) -> None:
    eras = lone.pipeline("describe", "green").stdout.partition("Spellings")[2]
    assert line_of(eras, "pickup_location_id") == ["PULocationID", "2016-07 on", "2014-01 on"]
    assert line_of(eras, "request_source") == ["may lack it"]
    found = json.loads(lone.pipeline("describe", "green", "--json").stdout)
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["pickup_location_id"]["expected_from"] == "2016-07"
    assert columns["pickup_location_id"]["parquet_from"] == "2014-01"
    assert columns["pickup_datetime"]["type"] == "timestamp[us]"
    assert columns["pickup_datetime"]["required"] is True
    assert {"code": 2, "meaning": "cash"} in columns["payment_type"]["codes"]
    assert columns["payment_type"]["words"]["csh"] == 2
    limits = {rule["name"]: rule for rule in found["rules"]}
    assert (limits["wrong_month"]["severity"], limits["wrong_month"]["at_most_share"]) == ("error", 0.5)


@pytest.mark.parametrize("name", [*DATASETS, "zones"])
def test_describe_fits_a_terminal_of_80_columns_with_whole_names(lone: Folder, name: str) -> None:
    said, code = on_terminal(lone, "describe", name)
    lines = bare(said)
    assert code == 0
    assert max(map(len, lines)) <= 80
    first_words = {line.split()[0] for line in lines if line.strip()}
    spec = {**DATASETS, "zones": ZONES}[name]
    assert {*spec.by_name, *(rule.name for rule in spec.rules)} <= first_words
    words = " ".join(" ".join(lines).split())
    assert "…" not in words, "a cell was cut"


def test_describe_of_a_mart_shows_its_columns_and_what_it_leaves_out(lone: Folder) -> None:
    for mart in all_marts().values():
        words = " ".join(lone.pipeline("describe", mart.name).stdout.split())
        assert mart.doc in words
        assert all(f"{name} {doc[:20]}" in words for name, doc in mart.columns.items())
        assert "A total beyond 10,000 dollars is a mistyped fare: the trip is left out." in words
    found = json.loads(lone.pipeline("describe", "daily_trips", "--json").stdout)
    assert (found["name"], found["datasets"]) == ("daily_trips", ["yellow", "green"])
    assert found["columns"]["day"] == all_marts()["daily_trips"].columns["day"]
    ended = lone.pipeline("describe", "daily_trips", "--contract")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--contract is for datasets, and daily_trips is a mart" in ended.stderr


def test_describe_of_an_unknown_dataset_is_a_usage_error(lone: Folder) -> None:
    ended = lone.pipeline("describe", "pink")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "fhvhv" in ended.stderr


# --- head


def put(folder: Folder, dataset: Dataset, month: date | None, file: File) -> Path:
    """Move the file to its key in the lake."""
    path = folder.lake / lake.trips_key(dataset, month)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.path.rename(path)
    return path


@pytest.fixture
def stored(lone: Folder, tmp_path: Path) -> Folder:
    """A folder whose lake has 30 trips of green in 2024-01, without the column request_source, and two zones."""
    put(lone, GREEN, JAN, trips(tmp_path, GREEN, JAN, [float(n) for n in range(30)], drop=("request_source",)))
    put(lone, ZONES, None, zones(tmp_path))
    return lone


def test_head_shows_ten_rows_in_whole_lines(stored: Folder) -> None:
    ended = stored.pipeline("head", "green", "2024-01")
    assert (ended.returncode, ended.stderr) == (0, "")
    names, *rows, last = ended.stdout.splitlines()
    assert names.split() == [name for name in GREEN.by_name if name != "request_source"], "the columns of the file"
    assert len(rows) == 10
    assert "2024-01-01 08:00:00  2024-01-01 08:10:00" in rows[0]
    assert last == "… and 20 more rows"
    assert len({len(line) for line in (names, *rows)}) <= 2


def test_head_for_programs_is_json_lines_or_csv(stored: Folder) -> None:
    asked = ("head", "green", "2024-01", "--rows", "2", "--columns", "total_amount, request_source,pickup_datetime")
    lines = stored.pipeline(*asked, "--json").stdout.splitlines()
    first = {"total_amount": 0.0, "request_source": None, "pickup_datetime": "2024-01-01T08:00:00"}
    assert [json.loads(line) for line in lines] == [
        first,
        first | {"total_amount": 1.0, "pickup_datetime": "2024-01-02T08:00:00"},
    ]
    assert stored.pipeline(*asked, "--csv").stdout.splitlines() == [
        "total_amount,request_source,pickup_datetime",
        "0.0,,2024-01-01 08:00:00",
        "1.0,,2024-01-02 08:00:00",
    ]


def test_head_of_the_zones_needs_no_month_and_shows_all_when_there_are_few(stored: Folder) -> None:
    ended = stored.pipeline("head", "zones", "--rows", "5")
    assert ended.stdout.splitlines() == [
        "location_id  borough  zone     service_zone",
        "          1  Queens   Astoria  Boro Zone",
        "          2  Queens   Corona   Boro Zone",
    ]


def test_head_is_turned_where_the_terminal_is_too_narrow(stored: Folder) -> None:
    said, code = on_terminal(stored, "head", "green", "2024-01")
    lines = bare(said)
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["row", "1", "2"]
    assert [line.split()[0] for line in lines[1:-1]] == [name for name in GREEN.by_name if name != "request_source"]
    (total,) = (line for line in lines if line.startswith("total_amount"))
    assert total.split() == ["total_amount", "0.0", "1.0"]
    assert lines[-1] == "… and 28 more rows"
    said, _ = on_terminal(stored, "head", "green", "2024-01", "--rows", "5")
    assert [line.split()[1:] for line in bare(said) if line.startswith("row ")] == [["1", "2"], ["3", "4"], ["5"]]
    said, _ = on_terminal(stored, "head", "green", "2024-01", columns=500)
    assert bare(said)[0].split()[0] == "vendor_id"
    said, _ = on_terminal(stored, "head", "green", "2024-01", "--columns", "total_amount,pickup_datetime")
    assert bare(said)[0].split() == ["total_amount", "pickup_datetime"]


def test_head_of_a_missing_month_or_an_invalid_argument_is_one_message(stored: Folder) -> None:
    for words, code, message in (
        (("green", "2024-02"), 5, "pipeline backfill green 2024-02"),
        (("green",), 2, "a month is missing"),
        (("zones", "2024-01"), 2, "no months"),
        (("green", "2024-01", "--columns", "vendor_id,colour"), 2, "no column colour; it has vendor_id, "),
        (("green", "2024-01", "--json", "--csv"), 2, "one of them"),
    ):
        ended = stored.pipeline("head", *words)
        assert (ended.returncode, ended.stdout) == (code, ""), words
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
    (stored.lake / lake.trips_key(GREEN, JAN)).write_text("no Parquet")
    ended = stored.pipeline("head", "green", "2024-01")
    assert ended.returncode == 5
    assert re.search(r"cannot be read as Parquet: .*; to conform it again, run: pipeline redo green", ended.stderr)
    assert stored.pipeline("describe", "daily_trip").stderr.count("; did you mean daily_trips?; see ") == 1


def test_a_month_without_rows_has_an_empty_head(lone: Folder) -> None:
    write(lone.lake / lake.trips_key(GREEN, JAN), GREEN, JAN, GREEN.schema.empty_table())
    assert lone.pipeline("head", "green", "2024-01", "--columns", "extra").stdout.splitlines() == ["extra", "no rows"]
    assert lone.pipeline("head", "green", "2024-01", "--json").stdout == ""


@dataclass(frozen=True)
class Counted(File):
    """A file that counts the bytes that are read from it."""

    sizes: list[int]

    @property
    def key(self) -> str:
        return self.path.name

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def facts(self) -> dict[str, str]:
        return {}

    def open(self) -> Any:
        @contextmanager
        def opened() -> Iterator[BinaryIO]:
            with self.path.open("rb") as file, io.BufferedReader(_Counting(file, self.sizes)) as counting:
                yield counting

        return opened()


class _Counting(io.RawIOBase):
    def __init__(self, file: BinaryIO, sizes: list[int]) -> None:
        self._file, self._sizes = file, sizes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._sizes.append(len(data))
        return len(data)


def test_head_reads_no_more_of_a_file_than_its_beginning(tmp_path: Path) -> None:
    path = many_trips(tmp_path, GREEN, JAN, 600_000).path
    file = Counted(path, [])
    found, total = first_rows(file, GREEN, None, None, 10, command=suggested_command)
    assert (found.num_rows, total) == (10, 600_000)
    assert sum(file.sizes) < path.stat().st_size / 3
    file.sizes.clear()
    found, _ = first_rows(file, GREEN, None, "extra", 10, command=suggested_command)
    assert sum(file.sizes) < path.stat().st_size / 20
    found, _ = first_rows(file, GREEN, None, "total_amount", 200_000, command=suggested_command)
    assert found["total_amount"].to_pylist() == [float(n) for n in range(200_000)], "on to the next row group"


def test_head_check_and_sql_work_on_google_cloud(tmp_path: Path, folder: Folder, cloud: Cloud) -> None:
    cloud.use(folder)
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    ended = folder.pipeline("head", "green", "2024-01", "--rows", "3", "--json")
    assert [json.loads(line)["pickup_datetime"][:7] for line in ended.stdout.splitlines()] == ["2024-01"] * 3
    ended = folder.pipeline("check", "green", "2024-01")
    assert (ended.returncode, line_of(ended.stdout, "rows")) == (0, ["2,000"])
    ended = folder.pipeline("sql", "SELECT month, COUNT(*) AS n FROM trips GROUP BY month", "--format", "json")
    assert json.loads(ended.stdout) == [{"month": "2024-01-01", "n": 2000}]
    ended = folder.pipeline("head", "green", "2024-02")
    assert ended.returncode == 5
    assert cloud.lake in ended.stderr
    assert folder.files() == []


# --- sql


def test_sql_shows_a_table_with_numbers_on_the_right(loaded: Folder) -> None:
    ended = loaded.pipeline("sql", "SELECT month, total_amount AS total, vendor_id FROM green ORDER BY 2")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "month       total  vendor_id",
        "2024-01-01    8.0       NULL",
        "2024-01-01   12.5       NULL",
        "2024-01-01  30.25       NULL",
    ]


def test_sql_shows_fifty_rows_or_the_limit_and_counts_the_others(loaded: Folder) -> None:
    for limit, shown in (((), 50), (("--limit", "3"), 3)):
        lines = loaded.pipeline("sql", "SELECT i FROM range(2000) AS numbers(i)", *limit).stdout.splitlines()
        assert lines[-2].strip() == str(shown - 1)
        assert (len(lines), lines[-1]) == (shown + 2, f"… and {2000 - shown:,} more rows")
    assert loaded.pipeline("sql", "SELECT i FROM range(51) AS n(i)").stdout.endswith("\n… and 1 more row\n")
    assert len(loaded.pipeline("sql", "SELECT i FROM range(50) AS n(i)").stdout.splitlines()) == 51
    assert loaded.pipeline("sql", "SELECT 1 AS a WHERE false").stdout.splitlines() == ["a", "no rows"]


def test_sql_writes_whole_lines_to_a_pipe_and_turns_them_on_a_terminal(loaded: Folder) -> None:
    wide = "SELECT repeat('x', 70) AS first, 1 AS number, repeat('y', 90) AS long FROM range(2)"
    assert loaded.pipeline("sql", wide).stdout.splitlines()[1] == f"{'x' * 70}       1  {'y' * 90}"
    said, code = on_terminal(loaded, "sql", wide)
    assert code == 0
    assert max(map(len, bare(said))) <= 80
    assert "".join(bare(said)).count("y") == 180
    assert [line.split()[-1] for line in bare(said) if line.startswith(("row", "number"))] == ["1", "1", "2", "1"]


def test_texts_cannot_send_control_characters_to_the_terminal(loaded: Folder) -> None:
    text = "SELECT chr(27) || '[31mred' || chr(7) AS a, 'two' || chr(10) || 'lines' AS b, '[bold]' AS c"
    said, _ = on_terminal(loaded, "sql", text)
    assert "\x1b[31m" not in said
    assert "\x07" not in said
    lines = loaded.pipeline("sql", text).stdout.splitlines()
    assert lines[1].split() == [r"\x1b[31mred\x07", "two", "[bold]"]
    assert visible("Ünïcode\tÆ ☃\n") == "Ünïcode Æ ☃\n"


EVERYTHING = """
    SELECT 'a "b", c' || chr(10) || 'd' AS words, '' AS empty, NULL::VARCHAR AS nothing, true AS yes,
        CAST(1.50 AS DECIMAL(9, 2)) AS price, CAST(12345678901234567890 AS DECIMAL(38, 0)) AS big,
        'nan'::DOUBLE AS unreal, 0.1::DOUBLE AS tenth, DATE '2024-01-31' AS day,
        TIMESTAMP '2024-01-31 23:59:59' AS whole, TIMESTAMP '2024-01-31 23:59:59.25' AS split,
        TIMESTAMPTZ '2024-01-31 23:59:59+00' AS zoned, TIME '10:00:00' AS clock, [1, 2] AS list, {'k': 'é'} AS struct
"""


def test_sql_as_csv_can_be_read_back(loaded: Folder) -> None:
    ended = loaded.pipeline("sql", EVERYTHING, "--format", "csv")
    names, values = csv.reader(io.StringIO(ended.stdout))
    found = dict(zip(names, values, strict=True))
    zoned = datetime.fromisoformat(found.pop("zoned"))
    assert zoned.timestamp() == datetime.fromisoformat("2024-01-31T23:59:59+00:00").timestamp()
    assert found == {
        "words": 'a "b", c\nd',
        "empty": "",
        "nothing": "",
        "yes": "true",
        "price": "1.50",
        "big": "12345678901234567890",
        "unreal": "nan",
        "tenth": "0.1",
        "day": "2024-01-31",
        "whole": "2024-01-31 23:59:59",
        "split": "2024-01-31 23:59:59.25",
        "clock": "10:00:00",
        "list": "[1,2]",
        "struct": '{"k":"é"}',
    }
    assert ',"",,true,' in ended.stdout, "an empty text is not a null"


def test_sql_as_json_has_numbers_nulls_and_iso_times(loaded: Folder) -> None:
    ended = loaded.pipeline("sql", EVERYTHING, "--format", "json")
    (found,) = json.loads(ended.stdout)
    zoned = datetime.fromisoformat(found.pop("zoned"))
    assert zoned.timestamp() == datetime.fromisoformat("2024-01-31T23:59:59+00:00").timestamp()
    assert found == {
        "words": 'a "b", c\nd',
        "empty": "",
        "nothing": None,
        "yes": True,
        "price": 1.5,
        "big": 12345678901234567890,
        "unreal": None,
        "tenth": 0.1,
        "day": "2024-01-31",
        "whole": "2024-01-31T23:59:59",
        "split": "2024-01-31T23:59:59.250000",
        "clock": "10:00:00",
        "list": [1, 2],
        "struct": {"k": "é"},
    }
    assert json.loads(loaded.pipeline("sql", "SELECT 1 AS a WHERE false", "--format", "json").stdout) == []
    many = json.loads(loaded.pipeline("sql", "SELECT i FROM range(25000) AS n(i)", "--format", "json").stdout)
    assert [row["i"] for row in many] == list(range(25_000))


def test_values_of_any_type_are_written_and_shown() -> None:
    values = {
        "wide": pa.array([Decimal("1e40")]),
        "infinite": pa.array([float("inf")]),
        "bytes": pa.array([b"\x01\xff"]),
        "interval": pa.array([pa.MonthDayNano([1, 2, 1_500_000_000])]),
        'a "name"': pa.array([{"k": datetime(2024, 1, 1), "NaN": ["Infinity"]}]),
        "zoned": pa.array([datetime(2024, 1, 31, 23, 59, 59, 250_000)], pa.timestamp("us", "America/New_York")),
    }
    rows = pa.table(values)
    texts = column_texts(rows)
    nested = {"k": "2024-01-01 00:00:00", "NaN": ["Infinity"]}
    assert texts[:4] == [["1" + "0" * 40], ["inf"], ["01ff"], ["1 month 2 days 00:00:01.5"]]
    assert json.loads(texts[4][0] or "") == nested
    assert texts[5] == ["2024-01-31T23:59:59.250000+00:00"]
    out = io.BytesIO()
    write_rows(rows, "json", out, lines=True)
    assert list(json.loads(out.getvalue()).items()) == [
        ("wide", 10**40),
        ("infinite", None),
        ("bytes", "01ff"),
        ("interval", "1 month 2 days 00:00:01.5"),
        ('a "name"', nested),
        ("zoned", "2024-01-31T23:59:59.250000+00:00"),
    ]
    out = io.BytesIO()
    write_rows(rows, "parquet", out)
    assert pq.read_table(io.BytesIO(out.getvalue()))["wide"].to_pylist() == ["1" + "0" * 40]


def test_json_refuses_nan_in_a_list_or_struct_which_has_no_json() -> None:
    for rows in ([[1.0, float("nan")]], [{"a b": [float("-inf")]}]):
        with pytest.raises(UsageError, match="json cannot hold this: .*NaN or an infinity; CAST the column to VARCHAR"):
            write_rows(pa.table({"a": rows}), "json", io.BytesIO())
    out = io.BytesIO()
    write_rows(pa.table({"a": [[1.5, None]], "b": [{'NaN "': "x, NaN, -Infinity"}]}), "json", out)
    assert json.loads(out.getvalue()) == [{"a": [1.5, None], "b": {'NaN "': "x, NaN, -Infinity"}}]


def test_json_refuses_columns_whose_names_differ_only_in_case() -> None:
    with pytest.raises(UsageError, match="more than one column is called A, a"):
        write_rows(pa.table({"a": [1], "A": [2]}), "json", io.BytesIO())


def test_sql_writes_parquet_to_a_file_or_a_pipe_and_never_to_a_terminal(loaded: Folder, tmp_path: Path) -> None:
    said, code = on_terminal(loaded, "sql", "SELECT 1 AS a", "--format", "parquet")
    assert (code, "PAR1" in said) == (2, False)
    assert "--output" in said
    piped = subprocess.run(
        [Path(sys.executable).parent / "pipeline", "sql", "SELECT * FROM green", "--format", "parquet"],
        cwd=loaded.path,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert pq.read_table(io.BytesIO(piped.stdout)).num_rows == 3
    file = tmp_path / "green.parquet"
    ended = loaded.pipeline("sql", "SELECT * FROM green", "--output", str(file))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == f"3 rows in {file}\n"
    assert sorted(pq.read_table(file)["total_amount"].to_pylist()) == sorted(TOTALS)


def test_an_output_file_is_complete_or_absent_and_replaced_only_by_force(loaded: Folder) -> None:
    file = loaded.path / "totals.csv"
    before = sorted(loaded.path.iterdir())
    assert loaded.pipeline("sql", "SELECT nothing FROM green", "--output", "totals.csv").returncode == 5
    assert sorted(loaded.path.iterdir()) == before, "a query that fails leaves nothing"
    assert loaded.pipeline("sql", "SELECT 1 AS a", "--output", "totals.csv", "-q").returncode == 0
    assert file.read_text() == "a\n1\n"
    ended = loaded.pipeline("sql", "SELECT 2 AS a", "--output", "totals.csv")
    assert (ended.returncode, file.read_text()) == (2, "a\n1\n")
    assert "--force" in ended.stderr
    assert loaded.pipeline("sql", "SELECT 2 AS a", "--output", "totals.csv", "--force").returncode == 0
    assert file.read_text() == "a\n2\n"
    assert loaded.pipeline("sql", "SELECT 3 AS a", "--output", "a.txt", "--format", "table").returncode == 0
    assert (loaded.path / "a.txt").read_text() == "a\n3\n"
    assert sorted(loaded.path.iterdir()) == sorted([*before, file, loaded.path / "a.txt"])


def test_a_draft_that_cannot_be_finished_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), draft_of(file) as draft:
        draft.write(b"ne")
        raise KeyboardInterrupt
    with pytest.raises(UsageError, match="cannot be written: No space left"), draft_of(file) as draft:
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert file.read_text() == "old"


def test_sql_reads_the_statement_from_standard_input(loaded: Folder) -> None:
    asked = subprocess.run(
        [Path(sys.executable).parent / "pipeline", "sql", "-", "--format", "csv"],
        cwd=loaded.path,
        input="-- how many\nSELECT COUNT(*) AS n\nFROM green;\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (asked.returncode, asked.stdout) == (0, "n\n3\n"), asked.stderr


def test_invalid_sql_is_one_message(loaded: Folder) -> None:
    for words, code, message in (
        (("  ;\n",), 2, "the statement is empty"),
        (("SELECT nothing FROM green",), 5, "nothing"),
        (("DROP TABLE green",), 2, "only reads"),
        (("SELECT 1 AS a", "--output", "a.txt"), 2, "--format"),
        (("SELECT 1 AS a", "--output", "nowhere/a.csv"), 2, "no folder nowhere"),
        (("SELECT 1 AS a", "--format", "csv", "--limit", "2"), 2, "--limit is for the table"),
        (("SELECT 1 AS a, 2 AS a", "--format", "json"), 2, "called a; give them different names"),
    ):
        ended = loaded.pipeline("sql", *words)
        assert (ended.returncode, ended.stdout) == (code, ""), words
        assert ended.stderr.count("pipeline: ") == 1
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
    assert loaded.pipeline("sql", "SELECT COUNT(*) AS n FROM green").stdout.split() == ["n", "3"]


def test_sql_ends_quietly_when_its_reader_has_left(loaded: Folder) -> None:
    for form in ("table", "csv", "json"):
        many = ("sql", "SELECT i, i::VARCHAR AS t FROM range(200000) AS n(i)", "--format", form)
        process = loaded.start("pipeline", *many, *(["--limit", "3000"] if form == "table" else []))
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        process.wait(60)


def test_sql_without_a_warehouse_is_an_error_and_creates_none(lone: Folder) -> None:
    ended = lone.pipeline("sql", "SELECT 1")
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "there is no warehouse" in ended.stderr
    assert lone.files() == []


def test_sql_works_with_postgres(lone: Folder, tmp_path: Path, database: Database) -> None:
    fill(database.url, tmp_path)
    lone.environment["PIPELINE_WAREHOUSE"] = database.url
    ended = lone.pipeline("sql", "SELECT month, total_amount AS total, vendor_id FROM green ORDER BY 2")
    assert ended.stdout.splitlines()[1:3] == ["2024-01-01    8.0       NULL", "2024-01-01   12.5       NULL"], (
        ended.stderr
    )
    question = (
        "SELECT pickup_datetime AS at, CAST(1.50 AS NUMERIC(9, 2)) AS price, NULL AS none FROM green ORDER BY 1 LIMIT 1"
    )
    assert json.loads(lone.pipeline("sql", question, "--format", "json").stdout) == [
        {"at": "2024-01-01T08:00:00", "price": 1.5, "none": None}
    ]
    for statement, code, message in (
        ("DELETE FROM green", 2, "DELETE: allowed is one statement that only reads"),
        ("SELECT nothing FROM green", 5, "nothing"),
    ):
        ended = lone.pipeline("sql", statement)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
    assert lone.pipeline("sql", "SELECT COUNT(*) AS n FROM green").stdout.split() == ["n", "3"]


# --- all of them


def test_all_four_commands_work_after_a_real_run(folder: Folder) -> None:
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    ended = folder.pipeline("check", "green", "2024-01")
    assert (ended.returncode, line_of(ended.stdout, "rows")) == (0, ["2,000"])
    assert line_of(folder.pipeline("check", "zones").stdout, "rows") == ["265"]
    assert len(folder.pipeline("head", "green", "2024-01", "--csv").stdout.splitlines()) == 11
    found = folder.pipeline("sql", "SELECT dataset, rows FROM loads ORDER BY 1", "--format", "csv").stdout
    assert found.splitlines() == ["dataset,rows", "green,2000", "zones,265"]


def test_the_commands_load_no_driver_before_they_need_one() -> None:
    late = ("pandas", "duckdb", "psycopg", "google.cloud")
    asked = f"import sys, pipeline.cli; print([name for name in {late!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
