"""The command that a message names works in the state that raised it, with the same lake, warehouse and source."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Folder, make_folder

from pipeline.cli.progress import _print_errors
from pipeline.runs.history import Failure, counted_months
from pipeline.sample import SampleSite
from pipeline.settings import DEMO, FIELDS, adopt, child_command, resolve, suggested_command

#: Given on the command line; luigi.cfg and environment name others.
PLACES = ("--lake", "kept/lake", "--warehouse", "duckdb:///kept/warehouse.duckdb")
RAW = "raw/green/green_tripdata_2024-01.parquet"
SIDECAR = f"{RAW}.json"
TRIPS = "trips/green/month=2024-01-01/green_2024-01.parquet"
CHECKS = "checks/green/2024-01.json"
READ = (
    "import pipeline, sys; from pipeline.settings import adopt, resolve; from pipeline.errors import PipelineError\n"
    "adopt(resolve(lake=sys.argv[2], warehouse=sys.argv[4]))\n"
    "try: pipeline.read('green', '2024-01', ['total_amount'])\n"
    "except PipelineError as error: sys.exit(str(error))"
)


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A month of green and the zones in places that the command line gave."""
    with SampleSite(rows=300) as site:
        folder = make_folder(tmp_path_factory.mktemp("remedies") / "work", site.url)
        ended = folder.pipeline("backfill", "green", "2024-01", *PLACES)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def own(_filled: Folder, tmp_path: Path, site: SampleSite) -> Folder:
    """A copy for a test of its own."""
    shutil.copytree(_filled.path, tmp_path / "work")
    return Folder(tmp_path / "work", site.url)


def _without(*names: str) -> Callable[[Path], None]:
    def spoil(lake: Path) -> None:
        for name in names:
            (lake / name).unlink()

    return spoil


def _other_bytes(name: str, place: int = 0) -> Callable[[Path], None]:
    """Bytes that rotted where they are stored; the length is as before."""

    def spoil(lake: Path) -> None:
        content = bytearray((lake / name).read_bytes())
        content[place:-9] = bytes(len(content[place:-9]))
        (lake / name).write_bytes(content)

    return spoil


def _all(*spoil: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda lake: [one(lake) for one in spoil] and None


def commands_in(said: str) -> list[str]:
    """The command lines of `pipeline` that a message names."""
    return re.findall(r"run: (pipeline [^;\n]+?)(?:;.*|\s*\(.*)?$", said, re.MULTILINE)


def obey(folder: Folder, said: str) -> subprocess.CompletedProcess[str]:
    (command,) = set(commands_in(said))
    words = shlex.split(command)
    return folder.run(*words, *(["--yes"] if words[1] == "redo" else []))


@pytest.mark.parametrize(
    ("spoil", "asked"),
    [
        pytest.param(_without(TRIPS), ("head", "green", "2024-01"), id="head, trips deleted"),
        pytest.param(_without(TRIPS), ("python", "-c", READ), id="read, trips deleted"),
        pytest.param(_other_bytes(TRIPS, 4), ("head", "green", "2024-01"), id="head, trips rotten"),
        pytest.param(_other_bytes(TRIPS, 4), ("python", "-c", READ), id="read, trips rotten"),
        pytest.param(_without("zones/zones.parquet"), ("head", "zones"), id="head, zones deleted"),
        pytest.param(_without(CHECKS), ("check", "green", "2024-01"), id="check, checks deleted"),
        pytest.param(_without(CHECKS, TRIPS), ("check", "green", "2024-01"), id="check, trips and checks deleted"),
        pytest.param(_without("checks/zones/zones.json"), ("check", "zones"), id="check, zones' checks deleted"),
        pytest.param(_without(), ("diff", "green", "2024-01", "--against", "2023-12"), id="diff, no other month"),
        pytest.param(_other_bytes(CHECKS), ("check", "green", "2024-01"), id="check, checks rotten"),
        pytest.param(
            _all(_without(TRIPS), _other_bytes(RAW)),
            ("backfill", "green", "2024-01", "--through", "conform"),
            id="backfill, raw bytes rotten",
        ),
        pytest.param(
            _without(TRIPS, SIDECAR),
            ("backfill", "green", "2024-01", "--through", "conform"),
            id="backfill, no sidecar",
        ),
        pytest.param(
            _other_bytes(RAW), ("redo", "green", "2024-01", "--from", "conform", "--yes"), id="redo, raw bytes rotten"
        ),
        pytest.param(
            _other_bytes(SIDECAR), ("redo", "green", "2024-01", "--from", "conform", "--yes"), id="redo, sidecar rotten"
        ),
        pytest.param(
            _other_bytes(TRIPS, 4), ("redo", "green", "2024-01", "--from", "load", "--yes"), id="redo, trips rotten"
        ),
    ],
)
def test_the_command_that_a_message_names_fixes_the_state_that_raised_it(
    own: Folder, spoil: Callable[[Path], None], asked: tuple[str, ...]
) -> None:
    spoil(own.path / "kept" / "lake")
    asked = asked if asked[0] == "python" else ("pipeline", *asked)
    ended = own.run(*asked, *PLACES)
    assert ended.returncode != 0
    fixed = obey(own, ended.stdout + ended.stderr)
    assert fixed.returncode == 0, ended.stderr + fixed.stdout + fixed.stderr
    again = own.run(*asked, *PLACES)
    assert again.returncode == 0, again.stderr
    assert not (own.path / "data" / "lake").exists(), "the places that luigi.cfg names were left alone"


def test_a_redo_deletes_nothing_before_its_replacement_is_verified(own: Folder, site: SampleSite) -> None:
    lake = own.path / "kept" / "lake"
    _other_bytes(TRIPS, 4)(lake)
    _other_bytes(RAW)(lake)
    site.faults.add("*", 403, times=100)
    files = {path: path.read_bytes() for path in (own.path / "kept").rglob("*") if path.suffix in (".parquet", ".json")}
    for step in ("download", "conform", "load"):
        ended = own.pipeline("redo", "green", "2024-01", "--from", step, "--yes", *PLACES)
        assert ended.returncode == 1, ended.stderr
        assert "what exists of green 2024-01 stays as it is" in ended.stderr
        assert {path: path.read_bytes() for path in files} == files
    counted = own.pipeline("sql", "SELECT COUNT(*) AS n FROM green", "--format", "csv", *PLACES)
    assert counted.stdout.split() == ["n", "300"]


def test_a_load_without_trips_and_raw_file_stays_until_the_source_has_sent_it(own: Folder, site: SampleSite) -> None:
    _without(TRIPS, RAW, SIDECAR)(own.path / "kept" / "lake")
    site.faults.add("*green*", 403, times=1)
    redo = ("redo", "green", "2024-01", "--from", "load", "--yes", *PLACES)
    ended = own.pipeline(*redo)
    assert (ended.returncode, "stays as it is" in ended.stderr) == (1, True), ended.stderr
    asked = own.pipeline("sql", "SELECT COUNT(*) AS n FROM green", "--format", "csv", *PLACES)
    assert asked.stdout.split() == ["n", "300"]
    assert own.pipeline(*redo).returncode == 0


def test_a_corrected_file_of_a_folder_is_fetched_again_by_the_command_that_the_summary_names(own: Folder) -> None:
    published = own.path / "published"
    (published / "misc").mkdir(parents=True)
    lake = own.path / "kept" / "lake"
    shutil.copy(lake / "raw/zones/taxi_zone_lookup.csv", published / "misc")
    good = pq.read_table(lake / RAW)
    file = published / "green_tripdata_2024-02.parquet"
    pq.write_table(good.append_column("surprise", pa.array([1] * good.num_rows)), file)
    shutil.rmtree(own.path / "kept")
    places = (*PLACES, "--source", str(published))
    backfill = ("backfill", "green", "2024-02", "--through", "load", *places)
    ended = own.pipeline(*backfill)
    assert (ended.returncode, "SchemaError" in ended.stdout) == (1, True), ended.stdout
    shown = own.pipeline("status", "green", "2024-02", *places).stdout
    assert "2024   x" in shown, shown
    assert re.search("^green 2024-02: conform failed: SchemaError: ", shown, re.MULTILINE), shown
    _, _, after = ended.stdout.partition("first run:\n")
    command = after.splitlines()[0].strip()
    assert f"  {command}" in shown.splitlines(), "status names the same command"
    days = [date(2024, 2, 1)] * good.num_rows
    for name in ("lpep_pickup_datetime", "lpep_dropoff_datetime"):
        place = good.schema.get_field_index(name)
        good = good.set_column(place, name, pa.array(days).cast(good.schema.field(name).type))
    pq.write_table(good, file)
    assert own.pipeline(*backfill).returncode == 1, "it conforms the old raw bytes"
    assert command.startswith("pipeline redo green 2024-02 --from download --lake kept/lake --warehouse ")
    fixed = own.run(*shlex.split(command), "--yes")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    (month,) = json.loads(own.pipeline("status", "green", "2024-02", "--json", *places).stdout)["datasets"][0]["months"]
    assert (month["stage"], month["failure"]) == ("complete", None)


# --- the command lines themselves


@pytest.fixture
def adopted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Sets the settings of this process as the command line would, without a luigi.cfg."""
    monkeypatch.chdir(tmp_path)
    for row in FIELDS.values():
        monkeypatch.delenv(row.variable, raising=False)
    monkeypatch.setattr("pipeline.settings._adopted", None)
    usual = resolve()
    return lambda **given: adopt(replace(usual, **given))


def test_a_suggested_command_has_the_settings_that_were_given_and_no_others(
    adopted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted()
    assert suggested_command("backfill", "green", "2024-01") == "pipeline backfill green 2024-01"
    adopted(lake="my lake", source_format="csv")
    assert suggested_command("status") == "pipeline status --lake 'my lake' --source-format csv"
    monkeypatch.setenv("PIPELINE_LAKE", "my lake")
    assert suggested_command("status") == "pipeline status --source-format csv"


def test_a_suggested_command_about_the_sample_has_demo_alone(adopted: Callable[..., None]) -> None:
    adopted(**DEMO, source="http://127.0.0.1:40000", source_format="parquet")
    assert suggested_command("redo", "green", "--from", "load") == "pipeline redo --demo green --from load"
    assert child_command("latest")[0][1:] == ["-m", "pipeline", "latest", "--demo"]
    adopted(**{**DEMO, "lake": "my lake"})
    assert suggested_command("status").startswith("pipeline status --lake 'my lake' --warehouse ")


@pytest.mark.parametrize(
    ("warehouse", "shown"),
    [
        ("postgresql://taxi@host/ny?sslmode=require", "'postgresql://taxi@host/ny?sslmode=require'"),
        ("postgresql://taxi:secret@host/ny", "…"),
        ("postgresql://host/ny?password=secret", "…"),
        ("bigquery://project/taxi?location=US", "'bigquery://project/taxi?location=US'"),
    ],
)
def test_a_suggested_command_has_no_secrets(adopted: Callable[..., None], warehouse: str, shown: str) -> None:
    adopted(warehouse=warehouse)
    assert suggested_command("status") in (
        f"pipeline status --warehouse {shown}",
        f"pipeline status --warehouse '{shown}'",
    )


# --- how many


def test_months_and_zones_are_counted_separately() -> None:
    jan, feb = date(2024, 1, 1), date(2024, 2, 1)
    assert counted_months([("green", jan)]) == "1 month"
    assert counted_months([("green", jan), ("green", feb), ("green", feb), ("zones", None)]) == "2 months and the zones"
    assert counted_months([("zones", None)]) == "the zones"
    assert counted_months([]) == "0 months"


def test_the_summary_counts_months_not_steps(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [
        Failure("download", dataset, month, "SourceError", "no")
        for dataset, month in (("green", "2024-01"), ("green", "2024-02"), ("zones", ""))
    ]
    _print_errors(failed)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "2 months and the zones failed. The same command runs only the missing steps."
    )
