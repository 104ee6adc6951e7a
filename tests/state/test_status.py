"""What exists of each month: every stage and every reason to be stale, in a lake that real runs made.

The output of the commands is tested in tests/cli; here is only what needs all of these states.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cloud import Cloud
from commands import bare, on_terminal
from conftest import ROOT, Folder, make_folder
from postgres import PASSWORD, Database

from pipeline import lake
from pipeline.cli.grid import print_remarks
from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.datasets.base import DECLARATION_KEY, PRESENT_KEY, SOURCE_KEY, Column, Dataset
from pipeline.datasets.published import estimated_bytes
from pipeline.lake import open_store
from pipeline.months import add_months, month_range, spans
from pipeline.runs.overview import MARKS, remarks
from pipeline.sample import SampleSite
from pipeline.source.retries import RetryPolicy
from pipeline.source.site import make_source
from pipeline.state import inventory, steps
from pipeline.state.inventory import Inventory, MonthStatus
from pipeline.state.steps import STEPS
from pipeline.units import size
from pipeline.warehouses import open_warehouse

GREEN, FHV = DATASETS["green"], DATASETS["fhv"]
JAN, FEB, MAR = (date(2024, month, 1) for month in (1, 2, 3))
TODAY = date(2024, 6, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    """Two complete months of green, one of fhv, and the zones; tests work on copies."""
    folder = make_folder(tmp_path_factory.mktemp("status") / "work", shared_site.url)
    for months in (("green", "2024-01..2024-02"), ("fhv", "2024-01")):
        ended = folder.pipeline("backfill", *months)
        assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def own(made: Folder, tmp_path: Path) -> Folder:
    """A copy for a test of its own."""
    shutil.copytree(made.path, tmp_path / "work")
    return Folder(tmp_path / "work", made.source)


def look(folder: Folder, dataset: Dataset = GREEN, *months: date | None) -> list[MonthStatus]:
    source = make_source(folder.source, "auto", 4, RetryPolicy(10, 0, 0))
    wanted = {dataset.name: months or (JAN,)}
    warehouse = open_warehouse(f"duckdb:///{folder.database}")
    return Inventory(open_store(str(folder.lake)), source, warehouse).statuses(wanted, TODAY)[dataset.name]


def _file(folder: Folder, what: str, dataset: Dataset = GREEN, month: date | None = JAN) -> Path:
    raw = lake.raw_key(dataset, f"{dataset.base_name(month)}.{'parquet' if month else 'csv'}")
    keys = {
        "raw": raw,
        "sidecar": lake.sidecar_key(raw),
        "trips": lake.trips_key(dataset, month),
        "checks": lake.checks_key(dataset, month),
    }
    return folder.lake / keys[what]


def _take(folder: Folder, *what: str, dataset: Dataset = GREEN) -> None:
    warehouse = open_warehouse(f"duckdb:///{folder.database}")
    for each in what:
        if each == "load":
            warehouse.forget(dataset, JAN)
        elif each == "marts":
            warehouse.forget_marts(dataset, JAN)
        else:
            _file(folder, each, dataset).unlink()


def _say(folder: Folder, dataset: Dataset = GREEN, month: date | None = JAN, **said: str | None) -> None:
    """Rewrite the trips file with other metadata, or without some of it."""
    path = _file(folder, "trips", dataset, month)
    table = pq.read_table(path, partitioning=None)
    known: dict[str, str | None] = {key.decode(): text.decode() for key, text in table.schema.metadata.items()}
    kept = {key: text for key, text in {**known, **said}.items() if text is not None}
    pq.write_table(table.replace_schema_metadata(kept), path)


def _execute(folder: Folder, sql: str) -> None:
    with duckdb.connect(folder.database) as connection:
        connection.execute(sql)


# --- stages


def test_a_month_after_a_run_is_complete_with_its_rows_and_raw_bytes(made: Folder) -> None:
    (january, february) = look(made, GREEN, JAN, FEB)
    raw, trips = (_file(made, kind).stat().st_size for kind in ("raw", "trips"))
    done = frozenset(STEPS)
    assert january == MonthStatus("green", JAN, "mart", done, rows=2000, raw_bytes=raw, trips_bytes=trips)
    assert (january.stage, february.stage) == ("complete", "complete")
    assert (january.missing_steps(), january.stale_from) == ((), None)


@pytest.mark.parametrize(
    ("taken", "stage", "missing"),
    [
        (["marts"], "loaded", ["mart"]),
        (["load"], "conformed", ["load", "mart"]),
        (["load", "raw"], "conformed", ["load", "mart"]),
        (["load", "trips"], "raw", ["conform", "load", "mart"]),
        (["load", "trips", "checks", "raw", "sidecar"], "missing", list(STEPS)),
        (["raw", "sidecar"], "complete", []),
        (["trips", "checks"], "complete", []),
        (["marts", "trips"], "loaded", ["mart"]),
    ],
    ids="+".join,
)
def test_the_stage_of_a_month_follows_from_what_is_left_of_it(
    own: Folder, taken: list[str], stage: str, missing: list[str]
) -> None:
    _take(own, *taken)
    (found, untouched) = look(own, GREEN, JAN, FEB)
    assert (found.stage, list(found.missing_steps())) == (stage, missing)
    assert found.stale == {}
    assert untouched.stage == "complete"


def test_a_dataset_without_marts_is_complete_once_it_is_loaded(own: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (steps, inventory):
        monkeypatch.setattr(module, "marts_of", lambda name: [])
    (found,) = look(own, FHV)
    assert (found.stage, found.last_step, found.missing_steps("mart")) == ("complete", "load", ())
    _take(own, "load", dataset=FHV)
    (found,) = look(own, FHV)
    assert (found.stage, found.missing_steps("mart")) == ("conformed", ("load",))


@pytest.mark.parametrize(
    ("taken", "through"),
    [
        (["raw", "trips"], "conform"),
        (["raw", "trips"], "load"),
        (["raw"], "download"),
        (["trips", "marts"], "conform"),
        (["trips", "marts"], "mart"),
        (["load"], "load"),
    ],
    ids=lambda of: of if isinstance(of, str) else "+".join(of),
)
def test_the_steps_up_to_one_are_those_that_a_backfill_up_to_it_does(
    own: Folder, taken: list[str], through: str
) -> None:
    _take(own, *taken)
    (found,) = look(own)
    wanted = found.missing_steps(through)
    ended = own.pipeline("backfill", "green", "2024-01", "--through", through, "-v")
    assert ended.returncode == 0, ended.stderr
    lines = [line.strip() for line in ended.stderr.splitlines()]
    assert list(wanted) == [step for step in STEPS if any(of.startswith(f"{step} green 2024-01: ") for of in lines)]
    (now,) = look(own)
    assert now.missing_steps(through) == ()


def test_a_month_of_which_nothing_exists_is_missing_or_too_young(own: Folder) -> None:
    found = look(own, GREEN, date(2024, 1, 1), date(2023, 12, 1), date(2024, 2, 1), MAR, TODAY)
    assert [of.stage for of in found] == ["complete", "missing", "complete", "not published", "not published"]
    assert [of.young for of in found] == [False, False, False, True, True]
    _take(own, "load", "trips", "marts")
    assert look(own, GREEN, JAN)[0].stage == "raw"


def test_the_zones_have_no_month(own: Folder) -> None:
    (zones,) = look(own, ZONES, None)
    assert (zones.stage, zones.rows, zones.month) == ("complete", 265, None)
    _execute(own, "DELETE FROM loads WHERE dataset = 'zones'")
    (zones,) = look(own, ZONES, None)
    assert (zones.stage, zones.missing_steps()) == ("conformed", ("load",))
    shutil.rmtree(own.lake / "zones")
    (zones,) = look(own, ZONES, None)
    assert (zones.stage, zones.missing_steps()) == ("raw", ("conform", "load"))
    shutil.rmtree(own.lake / "raw" / "zones")
    (zones,) = look(own, ZONES, None)
    assert (zones.stage, zones.young, zones.missing_steps()) == ("missing", False, ("download", "conform", "load"))


def test_without_lake_and_warehouse_everything_is_missing_and_nothing_is_created(folder: Folder) -> None:
    assert [of.stage for of in look(folder, GREEN, JAN, TODAY)] == ["missing", "not published"]
    assert [path.name for path in folder.path.iterdir()] == ["luigi.cfg"]


# --- refused


@pytest.fixture
def refused(own: Folder) -> Folder:
    """A folder where a run has refused fhv 2024-02, which has no rows."""
    published = own.path / "published"
    published.mkdir()
    empty = pa.table([pa.array([], field.type) for field in FHV.schema], schema=FHV.schema)
    pq.write_table(empty, published / "fhv_tripdata_2024-02.parquet")
    shutil.copy(_file(own, "raw", ZONES, None), published)
    own.source = str(published)
    assert own.pipeline("backfill", "fhv", "2024-02").returncode == 1
    return own


def test_a_refused_month_names_the_rules_that_it_broke(refused: Folder) -> None:
    (good, bad) = look(refused, FHV, JAN, FEB)
    assert good.stage == "complete"
    assert (bad.stage, bad.failed, bad.rows) == ("refused", ("no_rows",), 0)
    assert bad.missing_steps() == ("conform", "load", "mart")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"findings": [1]}', '{"findings": [{"rule": "no_rows"}]}'])
def test_checks_that_cannot_be_read_refuse_nothing(refused: Folder, text: str) -> None:
    _file(refused, "checks", FHV, FEB).write_text(text)
    (found,) = look(refused, FHV, FEB)
    assert (found.stage, found.failed) == ("raw", ())


def test_warnings_refuse_nothing(refused: Folder) -> None:
    path = _file(refused, "checks", FHV, FEB)
    document = json.loads(path.read_text())
    document["findings"][0]["severity"] = "warning"
    path.write_text(json.dumps(document))
    (found,) = look(refused, FHV, FEB)
    assert (found.stage, found.failed) == ("raw", ())


# --- out of date


def test_another_raw_file_makes_the_trips_stale_and_new_trips_the_load(own: Folder) -> None:
    for what in ("raw", "sidecar"):
        _file(own, what).unlink()
    with SampleSite(rows=300, seed=1) as other:
        own.source = other.url
        assert own.pipeline("backfill", "green", "2024-01", "--through", "download").returncode == 0
        (found, untouched) = look(own, GREEN, JAN, FEB)
        assert (found.stage, found.stale) == ("stale", {"conform": "conformed from older raw bytes"})
        assert (found.stale_from, found.missing_steps(), found.rows) == ("conform", (), 2000)
        assert untouched.stage == "complete"
        _file(own, "trips").unlink()
        assert own.pipeline("backfill", "green", "2024-01", "--through", "conform").returncode == 0
        (found,) = look(own)
        assert (found.stage, found.stale) == ("stale", {"load": "loaded from an older trips file"})
        open_warehouse(f"duckdb:///{own.database}").forget(GREEN, JAN)
        assert own.pipeline("backfill", "green", "2024-01").returncode == 0
    (found,) = look(own)
    assert (found.stage, found.rows) == ("complete", 300)


def test_other_trips_of_the_same_raw_file_make_the_load_stale(own: Folder) -> None:
    _say(own, note="other bytes")
    (found, untouched) = look(own, GREEN, JAN, FEB)
    assert (found.stale, found.stale_from) == ({"load": "loaded from an older trips file"}, "load")
    assert untouched.stage == "complete"


def test_marts_of_an_older_load_are_stale(own: Folder) -> None:
    _execute(own, "UPDATE mart_loads SET fingerprint = 'older' WHERE mart = 'daily_trips' AND month = '2024-01-01'")
    (found, untouched) = look(own, GREEN, JAN, FEB)
    assert (found.stale, found.stage) == ({"mart": "built from an older load"}, "stale")
    assert untouched.stage == "complete"


def test_several_stale_steps_are_redone_from_the_first(own: Folder) -> None:
    _say(own, **{SOURCE_KEY: "0" * 64})
    _execute(own, "UPDATE mart_loads SET fingerprint = 'older' WHERE month = '2024-01-01'")
    (found,) = look(own)
    assert set(found.stale) == {"conform", "load", "mart"}
    assert found.stale_from == "conform"


def _declared(**changes: dict[str, Any]) -> Dataset:
    columns = [replace(column, **changes.get(column.name, {})) for column in FHV.columns]
    return replace(FHV, columns=tuple(columns))


@pytest.mark.parametrize(
    ("declared", "is_stale"),
    [
        (_declared(sr_flag={"type": pa.int32()}), True),
        (_declared(sr_flag={"aliases": ("shared",)}), True),
        (_declared(sr_flag={"words": {"yes": 1}}), True),
        (_declared(sr_flag={"doc": "Better words.", "codes": {1: "yes"}, "unit": "yes or no"}), False),
        (replace(FHV, columns=(*FHV.columns, Column("tolls", pa.int64()))), False),
        (replace(FHV, columns=FHV.columns[:-1]), True),
    ],
    ids=["type", "alias", "word", "words for people", "column that it never had", "column less"],
)
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
def test_trips_are_stale_when_the_declaration_of_their_columns_changed(
    own: Folder, monkeypatch: pytest.MonkeyPatch, declared: Dataset, is_stale: bool, loaded: bool
) -> None:
    if not loaded:
        _take(own, "load", dataset=FHV)
    monkeypatch.setattr(inventory, "dataset_named", lambda name: declared if name == "fhv" else dataset_named(name))
    (found,) = look(own, FHV)
    assert found.stale == ({"conform": "conformed by an older declaration of the columns"} if is_stale else {})
    assert look(own, GREEN)[0].stage == "complete"


def test_zones_of_another_raw_file_are_stale(own: Folder) -> None:
    _say(own, ZONES, None, **{SOURCE_KEY: "0" * 64})
    (zones,) = look(own, ZONES, None)
    assert zones.stale_from == "conform"
    assert set(zones.stale.values()) == {"conformed from older raw bytes", "loaded from an older trips file"}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


@pytest.mark.parametrize("damage", [_cut, _foreign], ids=["cut", "foreign"])
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
def test_trips_that_do_not_say_what_they_were_made_of_are_stale(
    own: Folder, damage: Callable[[Path], None], loaded: bool
) -> None:
    if not loaded:
        _take(own, "load")
    damage(_file(own, "trips"))
    (found,) = look(own)
    assert found.stale["conform"] == "not a trips file that says what it was made of"
    assert found.stale_from == "conform"
    assert ("load" in found.stale) == loaded


@pytest.mark.parametrize("key", [SOURCE_KEY, DECLARATION_KEY, PRESENT_KEY])
def test_trips_with_incomplete_metadata_are_stale(own: Folder, key: str) -> None:
    _say(own, **{key: None})
    (found,) = look(own)
    assert (found.stage, found.stale_from) == ("stale", "conform")


@pytest.mark.parametrize("text", ["{", "[]", '{"sha256": 1}'])
def test_a_sidecar_that_cannot_be_read_requires_a_download(own: Folder, text: str) -> None:
    _file(own, "sidecar").write_text(text)
    (found,) = look(own)
    assert (found.stale, found.stale_from) == ({"download": "its sidecar is not readable"}, "download")


def test_deleted_files_make_nothing_stale(own: Folder) -> None:
    _take(own, "sidecar")
    assert look(own)[0].stage == "complete"
    _take(own, "raw", "trips")
    assert look(own)[0].stage == "complete"


# --- as the user sees it

ZONES_THERE = MonthStatus("zones", None, "load", frozenset(STEPS[:3]))


def _stale(months: list[date], step: str = "conform", why: str = "older") -> list[MonthStatus]:
    return [MonthStatus("green", month, "mart", frozenset({"conform"}), stale={step: why}) for month in months]


def test_months_in_a_row_for_the_same_reason_are_one_remark_with_one_command() -> None:
    refused = MonthStatus("green", date(2023, 5, 1), "mart", frozenset({"download"}), failed=("no_rows", "wrong_month"))
    found = [*_stale(month_range(date(2022, 11, 1), date(2023, 2, 1))), refused, *_stale([JAN], "mart", "old marts")]
    zones = replace(ZONES_THERE, stale={"load": "old zones"})
    assert [(of.subject, of.stage, of.why, of.command) for of in remarks({"green": found}, zones)] == [
        ("zones", "stale", "old zones", "pipeline redo zones --from load"),
        ("green 2022-11..2023-02", "stale", "older", "pipeline redo green 2022-11..2023-02 --from conform"),
        (
            "green 2023-05",
            "refused",
            "refused by its checks: no rows, wrong month",
            "pipeline redo green 2023-05 --from download",
        ),
        ("green 2024-01", "stale", "old marts", "pipeline redo green 2024-01 --from mart"),
    ]


def test_of_many_remarks_twenty_are_printed_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = remarks({"green": _stale([add_months(JAN, 2 * number) for number in range(23)])}, ZONES_THERE)
    print_remarks(found)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  pipeline redo")]) == 20
    assert lines[-2:] == [
        "… and 3 more; --json lists all",
        "All that is out of date, at once: pipeline refresh --apply",
    ]
    print_remarks(found[:20])
    assert "more" not in capsys.readouterr().out


def test_refresh_is_named_only_for_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    print_remarks(remarks({"green": _stale([JAN], "download")}, ZONES_THERE))
    assert "refresh" not in capsys.readouterr().out
    print_remarks(remarks({"green": [*_stale([JAN], "download"), *_stale([FEB], "load")]}, ZONES_THERE))
    assert "except for --from download: pipeline refresh --apply" in capsys.readouterr().out


def test_months_and_sizes_are_abbreviated() -> None:
    months = [date(2021, 11, 1), date(2021, 12, 1), date(2022, 1, 1), date(2022, 3, 1), date(2023, 3, 1)]
    assert spans(reversed(months)) == ["2021-11..2022-01", "2022-03", "2023-03"]
    assert spans([]) == []
    counts = (0, 999, 1000, 12_300, 999_949, 999_950, 2e6, 36_787e6, 999.96e9, 5e15)
    written = "0 bytes, 999 bytes, 1.0 kB, 12.3 kB, 999.9 kB, 1.0 MB, 2.0 MB, 36.8 GB, 1.0 TB, 5,000.0 TB"
    assert ", ".join(size(count) for count in counts) == written


SIZES = re.compile(r"/ ?\(?(1e3|1e6|1e9|1_?000_?000|1024|2 ?\*\* ?[123]0)\b|\{[^}]*:[^}]*\} (kB|MB|GB)\b")


def test_sizes_are_written_in_one_place() -> None:
    files = [path for path in (ROOT / "pipeline").rglob("*.py") if "sample" not in path.parts]
    lines = [(path.name, line) for path in files if path.name != "units.py" for line in path.read_text().split("\n")]
    assert [found for found in lines if SIZES.search(found[1]) and "nanoseconds" not in found[1]] == []


def test_the_stages_can_be_told_apart_without_colours() -> None:
    characters = [mark.character for mark in MARKS.values()]
    assert len(set(characters)) == len(characters)
    assert all(len(character) == 1 and not character.isspace() for character in characters)


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_has_colours_unless_no_color_is_set_and_shows_the_same(made: Folder, columns: int) -> None:
    coloured, code = on_terminal(made, "status", "all", "2023..2024", columns=columns)
    plain, _ = on_terminal(made, "status", "all", "2023..2024", columns=columns, NO_COLOR="1")
    assert code == 0
    assert "\x1b[32m█" in coloured
    assert "\x1b[3" not in plain
    assert bare(coloured) == bare(plain)
    assert all(len(line) <= columns for line in bare(plain) if not line.startswith("lake"))
    assert "2024  ············  ██··········  █···········  ············" in "\n".join(bare(plain))


def _break(folder: Folder, step: str) -> None:
    """Make a month of green stale, so that it must be redone from this step."""
    if step == "download":
        _file(folder, "sidecar").write_text("{")
    elif step == "conform":
        _say(folder, **{DECLARATION_KEY: "0" * 16})
    elif step == "load":
        _say(folder, note="other bytes")
    else:
        _execute(folder, "UPDATE mart_loads SET fingerprint = 'older' WHERE month = '2024-01-01'")


def test_a_plan_that_downloads_nothing_says_so(own: Folder) -> None:
    _take(own, "marts")
    said = own.pipeline("plan", "green", "2024").stdout.splitlines()
    assert said[-1].startswith("11 months to do through mart: about ")
    said = own.pipeline("plan", "green", "2024-01").stdout.splitlines()
    assert said[-1] == "1 month to do through mart: nothing to download."


@pytest.mark.parametrize("step", STEPS)
def test_the_command_shown_for_a_stale_month_fixes_it(own: Folder, step: str) -> None:
    _break(own, step)
    said = own.pipeline("status", "green", "2024-01..2024-02")
    assert "2024  ~█" in said.stdout, said.stderr
    (command,) = [line.strip() for line in said.stdout.splitlines() if line.startswith("  pipeline ")]
    assert command == f"pipeline redo green 2024-01 --from {step}"
    ended = own.run(*shlex.split(command), "--yes")
    assert ended.returncode == 0, ended.stderr
    assert [of.stage for of in look(own, GREEN, JAN, FEB)] == ["complete", "complete"]


def test_a_password_is_shown_nowhere(folder: Folder, database: Database) -> None:
    folder.environment["PIPELINE_WAREHOUSE"] = database.url
    page = folder.path / "page.html"
    for options in ([], ["--json"], ["--html", str(page)]):
        ended = folder.pipeline("status", "green", "2024", *options)
        assert ended.returncode == 0, ended.stderr
        shown = page.read_text() if "--html" in options else ended.stdout
        assert f"/{database.name}" in shown
        assert PASSWORD not in shown + ended.stderr
        assert "postgres:" not in shown


def test_a_warehouse_that_does_not_answer_is_one_message(folder: Folder) -> None:
    url = f"postgresql://me:{quote(PASSWORD, safe='')}@127.0.0.1:9/taxi"
    ended = folder.pipeline("status", "green", "2024", "--warehouse", url)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (5, "", 1)
    assert PASSWORD not in ended.stderr


# --- plans


def _plan(folder: Folder, *arguments: str) -> dict[str, Any]:
    ended = folder.pipeline("plan", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_plan_has_exactly_the_steps_that_a_backfill_then_does(own: Folder) -> None:
    _take(own, "marts")
    _take(own, "load", dataset=FHV)
    _file(own, "trips", GREEN, FEB).unlink()
    planned = _plan(own, "green", "fhv", "2023-12..2024-02")
    wanted = {
        f"{step} {of['dataset']} {month}" for of in planned["datasets"] for step in STEPS for month in of["steps"][step]
    }
    assert {of["dataset"]: of["there"] for of in planned["datasets"]} == {"green": ["2024-02"], "fhv": []}
    begins = {
        of["dataset"]: {step: months for step, months in of["begins"].items() if months} for of in planned["datasets"]
    }
    assert begins == {
        "green": {"download": ["2023-12"], "mart": ["2024-01"]},
        "fhv": {"download": ["2023-12", "2024-02"], "load": ["2024-01"]},
    }
    fetched = {"green": [date(2023, 12, 1)], "fhv": [date(2023, 12, 1), FEB]}
    for of in planned["datasets"]:
        assert of["bytes_to_download"] == pytest.approx(estimated_bytes(of["dataset"], fetched[of["dataset"]]), abs=2)
        assert of["bytes_to_keep"] >= 3 * of["bytes_to_download"]
    fetched_bytes, kept_bytes = (
        sum(of[name] for of in planned["datasets"]) for name in ("bytes_to_download", "bytes_to_keep")
    )
    said = own.pipeline("plan", "green", "fhv", "2023-12..2024-02").stdout.splitlines()[-1]
    assert said == (
        f"5 months to do through mart: about {size(fetched_bytes)} to download, about {size(kept_bytes)} "
        "to store in all."
    )
    ended = own.pipeline("backfill", "green", "fhv", "2023-12..2024-02", "-v")
    assert ended.returncode == 0, ended.stderr
    lines = [" ".join(line.split(": ")[0].split()) for line in ended.stderr.splitlines()]
    assert {line for line in lines if line.startswith(STEPS)} == wanted


def test_the_source_is_asked_only_for_young_months_without_files_and_none_of_the_future(
    own: Folder, site: SampleSite
) -> None:
    own.source = site.url
    own.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "1200"
    (green,) = _plan(own, "green", "2023-12..2024-03")["datasets"]
    assert [(of.method, of.path[-15:]) for of in sorted(site.requests, key=lambda of: of.path)] == [
        ("HEAD", "2023-12.parquet"),
        ("HEAD", "2024-03.parquet"),
    ]
    assert (green["there"], green["begins"]["download"]) == (["2024-01", "2024-02"], ["2023-12", "2024-03"])
    site.requests.clear()
    ended = own.pipeline("plan", "green", "2999")
    assert ended.stdout.splitlines()[1].split()[:5] == ["not", "published", "green", "2999-01..2999-12", "12"]
    assert ended.stdout.splitlines()[-1] == "Nothing to do."
    assert site.requests == []


def test_a_source_that_answers_with_errors_is_not_asked_for_long(own: Folder, site: SampleSite) -> None:
    own.source = site.url
    own.environment |= {"PIPELINE_PUBLICATION_LAG_MONTHS": "1200", "PIPELINE_RETRIES": "9"}
    site.faults.add("*", 503, times=math.inf)
    ended = own.pipeline("plan", "green", "2020..2021")
    assert ended.returncode == 0, ended.stderr
    assert "24 months to do through mart" in ended.stdout
    assert "HTTP 503" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert 8 <= len(site.requests) <= 16, "a few months, each once more"


def test_everything_in_the_cloud_takes_few_requests(folder: Folder, site: SampleSite, cloud: Cloud) -> None:
    cloud.use(folder)
    folder.source = site.url
    # With few rows the sample's 2023-03 has a warning, which is in the metadata of the listing.
    assert folder.pipeline("backfill", "green", "2023-03").returncode == 0
    cloud.clear()
    ended = folder.pipeline("status")
    assert ended.returncode == 0, ended.stderr
    assert re.search("^warned +1$", ended.stdout, re.MULTILINE), ended.stdout
    asked = [f"{request.method} {request.target}" for request in (*cloud.gcs.requests, *cloud.bigquery.requests)]
    assert len(asked) <= 20, asked
    assert {line.split()[0] for line in asked} == {"GET"}


def test_months_that_failed_for_one_reason_are_one_remark_and_the_command_fits_the_step() -> None:
    def failed(step: str, month: date | None, dataset: str = "green") -> MonthStatus:
        return MonthStatus(dataset, month, "load", failure=(step, "SchemaError", f"{month}: odd"))

    months = [failed("download", JAN), failed("download", FEB), failed("conform", MAR)]
    assert [(of.why, of.command) for of in remarks({"green": months}, failed("load", None, "zones"))] == [
        ("load failed: SchemaError: None: odd", "pipeline redo zones --from load"),
        ("download failed: SchemaError", "pipeline backfill green 2024-01..2024-02"),
        ("conform failed: SchemaError: 2024-03-01: odd", "pipeline redo green 2024-03 --from download"),
    ]


def test_a_failure_marks_only_what_is_neither_complete_nor_stale_nor_refused() -> None:
    failure = ("load", "WarehouseError", "gone")
    bare = MonthStatus("green", JAN, "mart", frozenset({"conform"}), failure=failure)
    assert (bare.stage, bare.mark) == ("conformed", "failed")
    done = replace(bare, done=frozenset(STEPS))
    assert (done.mark, replace(done, warnings=("stray_pickups",)).mark) == ("complete", "warned")
    assert replace(done, stale={"load": "older"}, warnings=("stray_pickups",)).mark == "stale"
    assert replace(bare, done=frozenset(), failed=("no_rows",)).mark == "refused"
