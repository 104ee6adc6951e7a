"""`pipeline refresh`: it reports what is new, republished, gone or stale, and redoes exactly that."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import Folder, make_folder
from state import rows, state
from test_redo import CONFORM, DOWNLOAD, DYING, FILES, LOAD, MART, seen, touched

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import DECLARATION_KEY
from pipeline.months import parse_month
from pipeline.sample import SampleSite
from pipeline.source.retries import RetryPolicy
from pipeline.source.site import make_source

MONTH = "/trip-data/green_tripdata_2024-01.parquet"


@pytest.fixture(scope="module")
def module_site() -> Iterator[SampleSite]:
    with SampleSite(rows=300, last=parse_month("2024-02")) as site:
        yield site


@pytest.fixture
def site(module_site: SampleSite) -> Iterator[SampleSite]:
    """A site that has nothing after February 2024; a test may inject faults and count requests."""
    module_site.requests.clear()
    yield module_site
    module_site.faults.clear()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, module_site: SampleSite) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("refresh") / "work", module_site.url)
    folder.environment["PIPELINE_RETRIES"] = "0"
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def own(filled: Folder, site: SampleSite, tmp_path: Path) -> Folder:
    """A folder whose source is that site, with its two last months of green."""
    own = filled.copy(tmp_path / "work")
    site.requests.clear()
    return own


def findings(folder: Folder, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    ended = folder.pipeline("refresh", *arguments, "--json")
    assert ended.returncode == code, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)["findings"]
    return found


def _asked(site: SampleSite, method: str) -> list[str]:
    return [request.path for request in site.requests if request.method == method]


# --- the source


def test_when_all_equals_the_source_there_is_nothing_to_do(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    ended = own.pipeline("refresh", "green", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "Nothing to do: 2 of 2 months match the source, and nothing is out of date.\n"
    assert own.pipeline("refresh", "--apply").returncode == 0
    assert touched(own, before) == set()
    assert {request.method for request in site.requests} == {"HEAD"}
    assert "/misc/taxi_zone_lookup.csv" in _asked(site, "HEAD")
    assert min(_asked(site, "HEAD")[2:]) == "/misc/taxi_zone_lookup.csv"
    assert not [path for path in _asked(site, "HEAD") if "yellow" in path or "2023" in path], "from the oldest here on"


def test_months_that_neither_the_source_nor_the_lake_has_do_not_count_as_equal(own: Folder) -> None:
    ended = own.pipeline("refresh", "green", "2024")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        "Neither at the source nor in the lake: 10 months (green 2024-03..2024-12).\n"
        "Nothing to do: 2 of 12 months match the source, and nothing is out of date.\n"
    )
    (own.lake / FILES["raw"]).unlink()
    (own.lake / FILES["sidecar"]).unlink()
    found = json.loads(own.pipeline("refresh", "--json").stdout)
    assert (found["as_at_source"], found["without_raw"]) == (2, ["green 2024-01"])
    assert "zones" not in found["absent"]


def test_a_republished_month_is_reported_and_not_changed(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    site.faults.add("green*2024-01*", "republished")
    (found,) = findings(own, "green", "2024")
    assert found["why"].startswith("another ETag, another date")
    reported = {name: found[name] for name in ("dataset", "month", "finding", "dated", "redo_from")}
    assert reported == {
        "dataset": "green",
        "month": "2024-01",
        "finding": "republished",
        "dated": "2024-03-21T00:00:00+00:00",
        "redo_from": "download",
    }
    ended = own.pipeline("refresh")
    assert ended.returncode == 0
    assert "green 2024-01  republished: another ETag" in ended.stdout
    assert "2024-03-21  from download on" in ended.stdout
    assert ended.stdout.endswith("Nothing was changed. To run these steps, add --apply.\n")
    assert touched(own, before) == set()
    assert _asked(site, "GET") == []


def test_only_a_republished_month_is_redone_and_it_is_downloaded_once(
    own: Folder, site: SampleSite, tmp_path: Path
) -> None:
    before = seen(own)
    site.faults.add("green*2024-01*", "republished")
    ended = own.pipeline("refresh", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert touched(own, before) == DOWNLOAD
    assert [(seen.path, seen.status) for seen in site.requests if seen.method == "GET"] == [(MONTH, 200), (MONTH, 416)]
    fresh = make_folder(tmp_path / "fresh", site.url)
    assert fresh.pipeline("backfill", "green", "2024-01..2024-02").returncode == 0
    assert state(own.path / "data") == state(fresh.path / "data")
    assert findings(own) == []


def test_republished_bytes_that_cannot_be_fetched_leave_the_month_and_the_others_are_done(
    own: Folder, site: SampleSite
) -> None:
    before = seen(own)
    site.faults.add("green*", "republished")
    site.faults.add("green*2024-01*", "cut", 0, times=math.inf)
    ended = own.pipeline("refresh", "green", "2024-01..2024-02", "--apply")
    assert ended.returncode == 1
    assert "SourceError: green 2024-01" in ended.stderr
    assert "what exists of green 2024-01 stays as it is" in ended.stderr
    assert touched(own, before) == {name.replace("2024-01", "2024-02") for name in DOWNLOAD}


def test_the_same_bytes_under_another_tag_cost_a_new_sidecar_only(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    site.faults.add("taxi_zone*", "republished")
    assert [(found["dataset"], found["month"], found["finding"]) for found in findings(own)] == [
        ("zones", None, "republished")
    ]
    ended = own.pipeline("refresh", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert "zones: the source's bytes are those of the lake; their sidecar is renewed" in ended.stderr
    assert touched(own, before) == {"raw/zones/taxi_zone_lookup.csv.json"}
    assert findings(own) == []
    drafts = own.lake / ".drafts"
    assert [path for path in drafts.rglob("*") if path.is_file()] == []


def test_a_month_that_is_gone_is_reported_and_never_deleted(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    site.faults.add("green*2024-01*", 403, times=math.inf)
    (found,) = findings(own, "--apply")
    assert (found["month"], found["finding"], found["redo_from"]) == ("2024-01", "gone", None)
    assert touched(own, before) == set()


def test_a_new_month_is_reported_and_fetched_with_apply(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    assert [found["month"] for found in findings(own, "green", "2023-12..2024-03")] == ["2023-12"]
    assert seen(own) == before
    ended = own.pipeline("refresh", "green", "2023-12..2024-03", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert "green 2023-12  new: the source has it, nothing of it exists locally  2024-02-20  all steps" in ended.stdout
    assert {name for name in before if seen(own)[name] != before[name]} == set()
    assert _asked(site, "GET") == [MONTH.replace("2024-01", "2023-12")]
    assert rows(own.database, "SELECT COUNT(*) FROM green WHERE month = DATE '2023-12-01'") == [(300,)]


def test_json_is_one_document_whatever_is_applied(own: Folder, site: SampleSite) -> None:
    site.faults.add("green*2024-01*", "republished")
    ended = own.pipeline("refresh", "green", "2024-01..2024-02", "--apply", "--json")
    document = json.loads(ended.stdout)
    assert (document["compared"], document["applied"], document["errors"]) == (2, True, [])
    assert [found["finding"] for found in document["findings"]] == ["republished"]


def test_a_source_that_does_not_answer_is_not_asked_for_long(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    site.faults.add("*", 500, times=math.inf)
    found = findings(own, "green", "2023-01..2024-02", "--apply", code=1)
    assert {of["finding"] for of in found} == {"unanswered"}
    assert len(found) == 14
    assert "HTTP 500" in found[0]["why"]
    assert "not asked, since the source did not answer" in found[13]["why"]
    # Those that are under way when enough have failed are finished.
    assert 4 <= len(site.requests) <= 7
    assert touched(own, before) == set()


@pytest.mark.parametrize("damage", [None, "{", '{"url": 1}'], ids=["absent", "cut", "other"])
def test_an_unreadable_sidecar_is_reported_and_the_month_not_changed(own: Folder, damage: str | None) -> None:
    sidecar = own.lake / FILES["sidecar"]
    sidecar.unlink() if damage is None else sidecar.write_text(damage)
    before = seen(own)
    (found,) = findings(own, "--apply")
    assert (found["month"], found["finding"], found["redo_from"]) == ("2024-01", "unknown", None)
    assert "pipeline redo green 2024-01 --from download" in found["why"]
    assert touched(own, before) == set()


def test_an_empty_lake_has_nothing_to_compare(folder: Folder) -> None:
    ended = folder.pipeline("refresh", "--apply")
    assert (ended.returncode, folder.files()) == (0, []), ended.stderr
    assert "There are no months to compare yet" in ended.stdout


def test_an_unknown_dataset_is_a_usage_error(folder: Folder) -> None:
    ended = folder.pipeline("refresh", "gren", "2024")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)


# --- a folder as source


def test_files_of_a_folder_are_compared_by_size_and_time(own: Folder) -> None:
    published = own.path / "published"
    published.mkdir()
    for path in (own.lake / "raw/green").glob("*.parquet"):
        shutil.copy(path, published)
    own.environment["PIPELINE_SOURCE"] = str(published)
    assert findings(own, "green", "2024-01..2024-02") == [], "of the same length, from elsewhere"
    assert own.pipeline("redo", "green", "2024-01..2024-02", "--from", "download", "--yes").returncode == 0
    before = seen(own)
    first, second = sorted(published.iterdir())
    os.utime(first, (1_700_000_000, 1_700_000_000))
    pq.write_table(pq.read_table(second), second, compression="gzip")
    found = {of["month"]: of["why"] for of in findings(own, "green", "2024-01..2024-02")}
    assert found["2024-01"] == "another date"
    assert f"{second.stat().st_size:,} bytes, not " in found["2024-02"]
    ended = own.pipeline("refresh", "green", "2024-01..2024-02", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert touched(own, before) == {FILES["sidecar"], *(name.replace("2024-01", "2024-02") for name in DOWNLOAD)}
    assert findings(own, "green", "2024-01..2024-02") == []


@pytest.mark.parametrize("dataset", [DATASETS["green"], ZONES], ids=lambda dataset: dataset.name)
@pytest.mark.parametrize("kind", ["site", "folder"])
def test_the_version_of_a_source_is_what_the_sidecar_says_after_the_download(
    site: SampleSite, tmp_path: Path, kind: str, dataset: Any
) -> None:
    policy = RetryPolicy(timeout_s=10, retries=0, first_wait_s=0)
    source = make_source(site.url, "auto", 4, policy)
    month = parse_month("2024-01") if dataset.first_month else None
    sidecar = source.fetch(dataset, month, tmp_path / source.file_name(dataset, month))
    if kind == "folder":
        source = make_source(str(tmp_path), "parquet", 4, policy)
        sidecar = source.fetch(dataset, month, tmp_path / "part")
    version = source.version(dataset, month)
    assert version is not None
    known = (version.url, version.etag, version.last_modified, version.bytes)
    assert known == (sidecar.url, sidecar.etag, sidecar.last_modified, sidecar.bytes)


# --- what is out of date here


def _rewrite_trips(folder: Folder, **said: str) -> None:
    """Rewrite the trips file with other metadata, as a run of another version would have left it."""
    path = folder.lake / FILES["trips"]
    table = pq.read_table(path, partitioning=None)
    metadata = {**table.schema.metadata, **{key.encode(): text.encode() for key, text in said.items()}}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def _make_stale(folder: Folder, step: str) -> None:
    if step == "mart":
        with duckdb.connect(folder.database) as connection:
            connection.execute("UPDATE mart_loads SET fingerprint = 'older' WHERE month = DATE '2024-01-01'")
    elif step == "load":
        _rewrite_trips(folder, note="other bytes")
    elif step == "conform":
        _rewrite_trips(folder, **{DECLARATION_KEY: "0" * 16})
    else:
        _rewrite_trips(folder, source_sha256="0" * 64)


@pytest.mark.parametrize(
    ("made", "why", "redo_from", "redone"),
    [
        ("mart", "built from an older load", "mart", MART),
        ("load", "loaded from an older trips file", "load", LOAD),
        ("conform", "by an older declaration", "conform", CONFORM),
        ("raw", "conformed from older raw bytes", "conform", CONFORM),
    ],
)
def test_stale_months_are_reported_and_only_their_stale_steps_are_done(
    own: Folder, site: SampleSite, made: str, why: str, redo_from: str, redone: set[str]
) -> None:
    _make_stale(own, made)
    before = seen(own)
    (found,) = findings(own)
    assert (found["month"], found["finding"], found["redo_from"]) == ("2024-01", "stale", redo_from)
    assert why in found["why"]
    assert found["dated"] is not None
    ended = own.pipeline("refresh", "--apply")
    assert ended.returncode == 0, ended.stderr
    assert touched(own, before) == redone
    assert _asked(site, "GET") == []
    assert findings(own) == []


def test_a_dropped_table_and_deleted_rows_are_reported_and_loaded_again(own: Folder) -> None:
    with duckdb.connect(str(own.database)) as connection:
        connection.execute("DELETE FROM green WHERE month = DATE '2024-01-01' AND trip_distance > 1")
        (left,) = connection.execute("SELECT COUNT(*) FROM green WHERE month = DATE '2024-01-01'").fetchall()[0]
        connection.execute("DELETE FROM zones WHERE location_id = 1")
    deleted = findings(own)
    assert [(each["dataset"], each["month"], each["finding"], each["redo_from"]) for each in deleted] == [
        ("green", "2024-01", "rows", "load"),
        ("zones", None, "rows", "load"),
    ]
    assert deleted[0]["why"] == f"the table has {left:,} rows of it, 300 were loaded"
    assert own.pipeline("refresh", "--apply").returncode == 0
    assert findings(own) == []
    with duckdb.connect(str(own.database)) as connection:
        connection.execute("DROP TABLE green")
    dropped = findings(own, "green", "2024-01..2024-02")
    assert [(each["month"], each["finding"]) for each in dropped] == [("2024-01", "rows"), ("2024-02", "rows")]
    assert dropped[0]["why"] == "the table of its rows in green was dropped"
    assert own.pipeline("refresh", "--apply").returncode == 0
    assert findings(own) == []
    assert rows(own.database, "SELECT month, COUNT(*) FROM green GROUP BY month ORDER BY month") == [
        (parse_month("2024-01"), 300),
        (parse_month("2024-02"), 300),
    ]


def test_rows_are_not_counted_while_another_process_has_the_database(own: Folder) -> None:
    # A copied database has no copy of its ledger, which is read while it is open elsewhere; a load writes one.
    assert own.pipeline("redo", "green", "2024-02", "--from", "load", "--yes").returncode == 0
    with duckdb.connect(str(own.database)):
        ended = own.pipeline("refresh", "green", "2024-01..2024-02", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["findings"] == []
    assert "the rows in the warehouse were not counted: " in ended.stderr
    assert f"PID {os.getpid()}" in ended.stderr


def test_a_month_whose_file_cannot_be_fetched_stays_as_it_is(own: Folder, site: SampleSite) -> None:
    _make_stale(own, "conform")
    for name in ("raw", "sidecar"):
        (own.lake / FILES[name]).unlink()
    site.faults.add("green*2024-01*", 403, times=math.inf)
    before = seen(own)
    ended = own.pipeline("refresh", "--apply")
    assert (ended.returncode, "green 2024-01 stays as it is" in ended.stderr) == (1, True), ended.stderr
    assert touched(own, before) == set()


# --- killed


@pytest.mark.parametrize(("deletions", "then"), [(0, "refresh"), (2, "backfill"), (3, "backfill"), (3, "refresh")])
def test_killed_while_it_applies_a_backfill_or_the_same_command_finishes_the_month(
    own: Folder, site: SampleSite, tmp_path: Path, deletions: int, then: str
) -> None:
    before = state(own.path / "data")
    site.faults.add("green*2024-01*", "republished")
    refresh = ("refresh", "green", "2024-01..2024-02", "--apply")
    ended = own.run("python", "-c", DYING, str(deletions), str(int(signal.SIGKILL)), *refresh)
    assert ended.returncode == -signal.SIGKILL
    ended = own.pipeline(*(refresh if then == "refresh" else ("backfill", "green", "2024-01..2024-02")))
    assert ended.returncode == 0, ended.stderr
    fresh = make_folder(tmp_path / "fresh", site.url)
    assert fresh.pipeline("backfill", "green", "2024-01..2024-02").returncode == 0
    # A backfill continues with old raw bytes that are not deleted yet, and a later refresh reports the month again.
    old = then == "backfill" and deletions < 3
    assert state(own.path / "data") == (before if old else state(fresh.path / "data"))
    assert [found["finding"] for found in findings(own, "green", "2024-01..2024-02")] == ["republished"] * old


def test_ctrl_c_while_the_source_is_slow_ends_at_once_and_changes_nothing(own: Folder, site: SampleSite) -> None:
    before = seen(own)
    site.faults.add("*", "delay", 60, times=math.inf)
    process = own.start("pipeline", "refresh", "--apply")
    assert process.stderr is not None
    process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert touched(own, before) == set()
