"""Checks: a month breaks each error rule, limits are inclusive, and the document is plain JSON."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from published_eras import fhv, fhvhv, green, table, times, write, yellow

from pipeline.conform.check import Finding, check, checks_document, enforce, findings_in
from pipeline.conform.month import conform_file
from pipeline.conform.profile import Measures
from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset, Rule
from pipeline.errors import CheckFailed

MONTH = date(2025, 1, 1)
MONTHS = {
    "yellow": table(yellow(MONTH)),
    "green": table(green(MONTH, "C")),
    "fhv": table(fhv(MONTH)),
    "fhvhv": table(fhvhv(MONTH)),
}
EVERY = [*DATASETS.values(), ZONES]


def _findings(folder: Path, dataset: Dataset, content: pa.Table, month: date = MONTH) -> list[Finding]:
    raw = write(folder, f"{dataset.base_name(month)}.parquet", content)
    return check(dataset, month, conform_file(raw, folder / "draft", dataset, month))


def _judge(rule: Rule, count: int, rows: int = 1_000) -> list[Finding]:
    dataset = Dataset("x", file_name="x", first_month=None, columns=(), doc="", rules=(rule,))
    return check(dataset, None, Measures("x", None, rows=rows, counts={"odd": count}))


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_a_month_without_rows_fails_its_checks(tmp_path: Path, dataset: Dataset) -> None:
    findings = _findings(tmp_path, dataset, MONTHS[dataset.name].slice(0, 0))
    with pytest.raises(CheckFailed) as caught:
        enforce(dataset, MONTH, findings)
    assert str(caught.value) == (
        f"{dataset.name} 2025-01: failed its checks, so not published: no_rows: rows in the month: "
        f"found 0, allowed at least 1; the limits are in {dataset.declared_in} and pipeline/datasets/rules.py"
    )


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_the_file_of_another_month_fails_its_checks(tmp_path: Path, dataset: Dataset) -> None:
    name = {"yellow": "tpep_", "green": "lpep_"}.get(dataset.name, "") + "pickup_datetime"
    other = MONTHS[dataset.name]
    place = other.schema.get_field_index(name)
    findings = _findings(tmp_path, dataset, other.set_column(place, name, pa.array(times(date(2025, 2, 1)))))
    assert "wrong_month" in [finding.rule for finding in findings]
    with pytest.raises(CheckFailed, match=r"wrong_month: pickups outside the month \(another month's file\?\): "):
        enforce(dataset, MONTH, findings)


def test_zones_without_rows_fail_their_checks(tmp_path: Path) -> None:
    raw = tmp_path / "taxi_zone_lookup.csv"
    raw.write_text("LocationID,Borough,Zone,service_zone\n")
    findings = check(ZONES, None, conform_file(raw, tmp_path / "draft", ZONES, None))
    assert [finding.severity for finding in findings] == ["error", "warning"]
    with pytest.raises(CheckFailed, match=r"^zones: failed its checks, so not published: no_rows: "):
        enforce(ZONES, None, findings)


def test_every_error_rule_is_broken_in_a_test_above() -> None:
    names = {rule.name for dataset in EVERY for rule in dataset.rules if rule.severity == "error"}
    assert names == {"no_rows", "wrong_month"}


@pytest.mark.parametrize("dataset", EVERY, ids=[dataset.name for dataset in EVERY])
def test_every_rule_is_about_a_count_that_is_measured(tmp_path: Path, dataset: Dataset) -> None:
    if dataset is ZONES:
        raw = tmp_path / "taxi_zone_lookup.csv"
        raw.write_text("LocationID,Borough,Zone,service_zone\n1,EWR,Newark Airport,EWR\n")
        measures = conform_file(raw, tmp_path / "draft", ZONES, None)
    else:
        raw = write(tmp_path, "a.parquet", MONTHS[dataset.name])
        measures = conform_file(raw, tmp_path / "draft", dataset, MONTH)
    assert {rule.measure for rule in dataset.rules} <= set(measures.counts)
    assert len({rule.name for rule in dataset.rules}) == len(dataset.rules)


def test_a_month_that_differs_from_the_published_count_gets_a_warning_and_passes(tmp_path: Path) -> None:
    findings = _findings(tmp_path, DATASETS["fhv"], MONTHS["fhv"])
    assert findings == [
        Finding(
            "published_rows",
            "warning",
            "1,898,105 (3 instead of 1,898,108)",
            "at most 0",
            "fhv 2025-01: rows more or fewer than TLC published: found 1,898,105 (3 instead of 1,898,108), "
            "allowed at most 0",
        )
    ]
    enforce(DATASETS["fhv"], MONTH, findings)


def test_numbers_that_the_marts_leave_out_are_a_warning_that_names_their_rows(tmp_path: Path) -> None:
    month = MONTHS["green"].take([0, 1, 2] * 50_000)
    for name, numbers in {"fare_amount": [1e9, 1e16, -1e9 - 1], "passenger_count": [10**9, 1, 2**62]}.items():
        values = pa.array([1, *numbers[:2], *[None] * 149_996, numbers[2]])
        month = month.set_column(month.schema.get_field_index(name), name, values)
    findings = {finding.rule: finding for finding in _findings(tmp_path, DATASETS["green"], month)}
    finding = findings["huge_numbers"]
    assert (finding.severity, finding.message) == (
        "warning",
        "green 2025-01: numbers beyond ±1,000,000,000, which the marts leave out: found 3 (row 3: fare_amount 1e+16; "
        "row 150,000: fare_amount -1,000,000,001.0; row 150,000: passenger_count 4,611,686,018,427,387,904), "
        "allowed at most 0",
    )
    month = month.set_column(9, "fare_amount", pa.array([1e16] * 150_000))
    findings = {finding.rule: finding for finding in _findings(tmp_path, DATASETS["green"], month)}
    assert findings["huge_numbers"].found.startswith("150,001 (row 1: fare_amount 1e+16; row 2: ")
    assert findings["huge_numbers"].found.endswith("row 5: fare_amount 1e+16; ...)")


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (Rule("r", "warning", "odd", at_most_share=0.25, doc="odd rows"), 250, 251),
        (Rule("r", "warning", "odd", at_most=5, doc="odd rows"), 5, 6),
        (Rule("r", "warning", "odd", at_least=5, doc="odd rows"), 5, 4),
        (Rule("r", "warning", "odd", at_most_share=0, doc="odd rows"), 0, 1),
    ],
)
def test_limits_are_inclusive(rule: Rule, good: int, bad: int) -> None:
    assert _judge(rule, good) == []
    assert len(_judge(rule, bad)) == 1


def test_a_rule_whose_count_is_missing_is_skipped() -> None:
    assert _judge(Rule("r", "error", "never counted", at_most=0, doc="odd"), 1) == []


def test_every_broken_error_rule_is_in_one_message_and_no_warning() -> None:
    findings = [
        Finding("one", "error", "1", "0", "x 2025-01: first: found 1, allowed 0"),
        Finding("two", "warning", "1", "0", "x 2025-01: second: found 1, allowed 0"),
        Finding("three", "error", "1", "0", "x 2025-01: third: found 1, allowed 0"),
    ]
    with pytest.raises(CheckFailed) as caught:
        enforce(DATASETS["green"], MONTH, findings)
    assert "one: first: found 1, allowed 0; three: third: found 1, allowed 0" in str(caught.value)
    assert "second" not in str(caught.value)
    enforce(DATASETS["green"], MONTH, findings[1:2])


def test_the_document_is_json_from_which_the_findings_can_be_read(tmp_path: Path) -> None:
    raw = write(tmp_path, "a.parquet", MONTHS["green"])
    measures = conform_file(raw, tmp_path / "draft", "green", MONTH, source_sha256="abc")
    findings = check(DATASETS["green"], MONTH, measures)
    text = json.dumps(checks_document(measures, findings), allow_nan=False)
    document = json.loads(text)
    assert findings_in(document) == findings != []
    assert (document["dataset"], document["month"], document["rows"]) == ("green", "2025-01", 3)
    assert document["source_sha256"] == "abc"
    assert document["columns"]["pickup_datetime"] == {
        "nulls": 0,
        "min": "2025-01-03 12:00:05",
        "max": "2025-01-05 12:00:05",
    }
    assert document["columns"]["store_and_fwd_flag"] == {"nulls": 1, "min": "N", "max": "Y"}
    assert list(document["columns"]) == list(DATASETS["green"].by_name)


def test_long_texts_are_cut_in_the_document_and_show_their_length(tmp_path: Path) -> None:
    texts = pa.array(["A" * 9_000, "B", "C" * 9_000])
    raw = write(tmp_path, "a.parquet", table(fhvhv(MONTH), dispatching_base_num=texts))
    document = checks_document(conform_file(raw, tmp_path / "draft", "fhvhv", MONTH), [])
    bounds = document["columns"]["dispatching_base_num"]
    assert [bounds["min"], bounds["max"]] == [f"{sign * 100}… (9,000 characters)" for sign in "AC"]


def test_the_same_month_gives_the_same_document(tmp_path: Path) -> None:
    raw = write(tmp_path, "a.parquet", MONTHS["yellow"])
    texts = []
    for draft in ("one", "two"):
        measures = conform_file(raw, tmp_path / draft, "yellow", MONTH)
        texts.append(json.dumps(checks_document(measures, check(DATASETS["yellow"], MONTH, measures))))
    assert texts[0] == texts[1]
