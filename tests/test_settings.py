"""Settings: origin and precedence of values, invalid values, settings in other processes, documentation."""

from __future__ import annotations

import configparser
import json
import pickle
import re
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import click
import luigi
import pytest
from commands import started_by
from conftest import ROOT, Folder, make_folder
from luigi.configuration import get_config

from pipeline.cli import import_command
from pipeline.errors import UsageError
from pipeline.lake import STORES, StoreKind, store_drivers
from pipeline.lake.local import LocalStore
from pipeline.places import store_of
from pipeline.sample import SampleSite
from pipeline.settings import (
    FIELDS,
    Field,
    RunContext,
    Settings,
    adopt,
    adopt_context,
    current_settings,
    pipeline,
    resolve,
    run_context,
)
from pipeline.tasks.lake import Conform
from pipeline.tasks.luigi_options import default_options, prepare_luigi

OPTIONS: dict[str, luigi.Parameter] = dict(pipeline.get_params())
DEFAULTS = asdict(Settings())

#: By option: the texts in luigi.cfg, the environment and the command line.
TEXTS = {
    "lake": ("lake-of-file", "lake-of-environment", "lake-of-command"),
    "warehouse": ("duckdb:///file.duckdb", "postgresql://environment@host/db", "duckdb:////command.duckdb"),
    "source": ("https://file.test", "https://environment.test/{file}", "https://command.test"),
    "source_format": ("csv", "csv.gz", "parquet"),
    "publication_lag_months": ("1", "2", "3"),
    "timeout_s": ("1.5", "2.5", "3.5"),
    "download_limit_gb": ("0.5", "2", "20"),
    "retries": ("1", "2", "0"),
    "retry_wait_s": ("0.1", "0.2", "0"),
    "load_memory": ("1MB", "2 GB", "3GiB"),
    "load_threads": ("1", "3", "4"),
    "lock_timeout_s": ("1", "2", "0"),
    "scratch": ("scratch-of-file", "scratch-of-environment", "scratch-of-command"),
    "logs": ("logs-of-file", "logs-of-environment", "logs-of-command"),
    "notify_url": ("https://file.test/x", "https://environment.test/x", "https://command.test/x"),
}

#: Print the settings that a task of `luigi` with these options would have.
SHOW = """
import dataclasses, json, sys
import pipeline
from luigi.cmdline_parser import CmdlineParser
from pipeline.settings import current_settings
with CmdlineParser.global_instance(["LoadZones", *sys.argv[1:]]):
    print(json.dumps(dataclasses.asdict(current_settings())))
"""

DOWNLOAD = ("Download", "--dataset", "green", "--month", "2024-01")


@pytest.fixture
def bare(tmp_path: Path) -> Folder:
    """A folder without settings in the environment."""
    folder = make_folder(tmp_path / "work", "")
    folder.environment["PIPELINE_RETRY_WAIT_S"] = ""
    return folder


def _write(folder: Folder, *lines: str) -> None:
    """Add lines to the section [pipeline] of the folder's luigi.cfg."""
    file = folder.path / "luigi.cfg"
    file.write_text(file.read_text().replace("\n[pipeline]\n", "\n".join(["\n[pipeline]", *lines, ""]), 1))


def _shown(folder: Folder, *options: str) -> dict[str, Any]:
    ended = folder.run("python", "-c", SHOW, *options)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    shown: dict[str, Any] = json.loads(ended.stdout)
    return shown


def _values(column: int) -> dict[str, Any]:
    return {name: FIELDS[name].parse(texts[column]) for name, texts in TEXTS.items()}


def _flags(texts: dict[str, str]) -> list[str]:
    return [part for name, text in texts.items() for part in (f"--pipeline-{name.replace('_', '-')}", text)]


def test_the_command_line_overrides_the_environment_which_overrides_luigi_cfg(
    bare: Folder,
) -> None:
    assert TEXTS.keys() == OPTIONS.keys(), "the table of this test lacks a setting"
    assert _shown(bare) == DEFAULTS
    _write(bare, *(f"{name} = {texts[0]}" for name, texts in TEXTS.items()))
    assert _shown(bare) == _values(0)
    bare.environment = {f"PIPELINE_{name.upper()}": texts[1] for name, texts in TEXTS.items()}
    assert _shown(bare) == _values(1)
    assert _shown(bare, *_flags({name: texts[2] for name, texts in TEXTS.items()})) == _values(2)


def test_an_empty_environment_variable_is_ignored(bare: Folder) -> None:
    _write(bare, *(f"{name} = {texts[0]}" for name, texts in TEXTS.items()))
    bare.environment = {f"PIPELINE_{name.upper()}": "" for name in TEXTS}
    assert _shown(bare) == _values(0)


def test_luigi_cfg_may_take_a_value_from_any_variable(bare: Folder) -> None:
    _write(bare, "lake = ${SCRATCH}/lake", "source = https://host/100%%25/{file}")
    bare.environment["SCRATCH"] = "/scratch"
    shown = _shown(bare)
    assert (shown["lake"], shown["source"]) == ("/scratch/lake", "https://host/100%25/{file}")
    bare.environment.clear()
    ended = bare.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 2
    assert re.search(r"nonexisting environment variable SCRATCH.* option lake=", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_a_change_of_the_environment_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_RETRIES", "7")
    assert current_settings().retries == current_settings().retries == 7
    monkeypatch.setenv("PIPELINE_RETRIES", "8")
    assert current_settings().retries == 8


def test_luigi_runs_with_settings_of_command_line_environment_and_luigi_cfg(folder: Folder) -> None:
    _write(folder, "lake = one")
    assert folder.luigi(*DOWNLOAD).returncode == 0
    folder.environment["PIPELINE_LAKE"] = "two"
    assert folder.luigi(*DOWNLOAD).returncode == 0
    assert folder.luigi(*DOWNLOAD, "--pipeline-lake", "three").returncode == 0
    raw = "raw/green/green_tripdata_2024-01.parquet"
    files = [path for path in folder.path.rglob("*") if path.is_file() and path.suffix in (".parquet", ".json")]
    assert sorted(path.relative_to(folder.path).as_posix() for path in files) == sorted(
        f"{lake}/{raw}{ending}" for lake in ("one", "two", "three") for ending in ("", ".json")
    )


def test_the_options_of_the_pipeline_command_override_all(tmp_path: Path, site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", "/no/such/folder")
    _write(folder, "lake = one", "source_format = parquet")
    folder.environment = {"PIPELINE_WAREHOUSE": "mysql://nowhere", "PIPELINE_SOURCE_FORMAT": "csv"}
    folder.environment["PIPELINE_LOGS"] = "here/logs"
    options = ("--lake", "here/lake", "--warehouse", "duckdb:///here/trips.duckdb", "--source", site.url)
    ended = folder.pipeline("backfill", "fhv", "2024-01", *options, "--source-format", "parquet", "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in folder.path.iterdir()} == {"here", "luigi.cfg"}
    assert (folder.path / "here" / "trips.duckdb").is_file()
    assert any(request.path.endswith("fhv_tripdata_2024-01.parquet") for request in site.requests)


@pytest.mark.parametrize("option", ["laek", "source-format", "Lake", "workers"])
def test_an_unknown_option_is_an_error_that_names_the_known_ones(folder: Folder, option: str) -> None:
    _write(folder, f"{option} = csv")
    by_pipeline = folder.pipeline("backfill", "green", "2024-01")
    assert by_pipeline.returncode == 2
    assert by_pipeline.stderr == f"pipeline: [pipeline] unknown option {option!r}, known are {', '.join(OPTIONS)}\n"
    by_luigi = folder.luigi(*DOWNLOAD)
    assert by_luigi.returncode == 5
    assert by_luigi.stderr.splitlines()[-1].startswith(f"UsageError: [pipeline] unknown option {option!r}, known are")
    assert "Traceback" not in by_luigi.stderr
    assert folder.files() == []


def test_an_option_that_luigi_does_not_know_on_its_command_line_is_an_error(folder: Folder) -> None:
    ended = folder.luigi(*DOWNLOAD, "--pipeline-laek", "x")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "luigi: error: unrecognized arguments: --pipeline-laek x"


WRONG = {
    "lake": "s3://bucket",
    "warehouse": "mysql://host/x",
    "source": "/no/such/folder",
    "source_format": "zip",
    "publication_lag_months": "four",
    "timeout_s": "0",
    "download_limit_gb": "0",
    "retries": "-1",
    "retry_wait_s": "nan",
    "load_memory": "lots",
    "load_threads": "0",
    "lock_timeout_s": "inf",
    "scratch": "gs://bucket",
    "logs": "gs://bucket",
    "notify_url": "ftp://host/x",
}


def test_all_invalid_settings_are_reported_together_with_origin_and_allowed_values(bare: Folder) -> None:
    assert WRONG.keys() == OPTIONS.keys(), "the table of this test lacks a setting"
    in_file = dict(list(WRONG.items())[:5])
    in_environment = dict(list(WRONG.items())[5:])
    _write(bare, "laek = x", *(f"{name} = {text}" for name, text in in_file.items()))
    bare.environment = {f"PIPELINE_{name.upper()}": text for name, text in in_environment.items()}
    ended = bare.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 2
    first, *others = [line.strip() for line in ended.stderr.splitlines()]
    assert first.startswith("pipeline: [pipeline] unknown option 'laek'")
    assert [re.match(r"\w+", line)[0] for line in others] == list(WRONG)  # type: ignore[index]
    assert all("allowed" in line or "write, for instance" in line for line in others)
    for name, line in zip(WRONG, others, strict=True):
        assert line.endswith(f"(from PIPELINE_{name.upper()} in the environment)") == (name in in_environment)
        assert (repr(WRONG[name]) in line) == (name != "notify_url"), "a secret URL is not shown"
    by_luigi = bare.luigi(*DOWNLOAD)
    assert by_luigi.returncode == 5
    assert [line.strip() for line in by_luigi.stderr.splitlines()[-len(others) :]] == others
    assert bare.files() == []


def test_an_invalid_value_on_the_command_line_of_luigi_is_named_with_its_option(bare: Folder) -> None:
    ended = bare.luigi(*DOWNLOAD, "--pipeline-retry-wait-s", "soon", "--pipeline-load-threads", "1.5")
    assert ended.returncode == 5
    assert [line.strip() for line in ended.stderr.splitlines()[-2:]] == [
        "UsageError: [pipeline] retry_wait_s = 'soon': allowed is a number from 0 to 1,000,000 "
        "(from --pipeline-retry-wait-s)",
        "load_threads = '1.5': allowed is a whole number from 1 to 1,000 (from --pipeline-load-threads)",
    ]


def test_luigi_cfg_works_in_any_folder_and_by_luigi_config_path(tmp_path: Path, shared_site: SampleSite) -> None:
    copied = make_folder(tmp_path / "a folder" / "ñ", shared_site.url)
    assert copied.luigi(*DOWNLOAD, "--workers", "2").returncode == 0
    elsewhere = make_folder(tmp_path / "elsewhere", shared_site.url)
    (elsewhere.path / "luigi.cfg").unlink()
    elsewhere.environment["LUIGI_CONFIG_PATH"] = str(copied.path / "luigi.cfg")
    assert elsewhere.luigi(*DOWNLOAD, "--workers", "2").returncode == 0
    assert elsewhere.files() == copied.files() != []
    failed = elsewhere.luigi("Download", "--dataset", "green", "--month", "2013-08")
    assert failed.returncode == 1


def test_the_pipeline_command_needs_no_luigi_cfg(tmp_path: Path, shared_site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", shared_site.url)
    (folder.path / "luigi.cfg").unlink()
    ended = folder.pipeline("backfill", "fhv", "2024-01", "--workers", "3")
    assert ended.returncode == 0, ended.stderr
    folder.environment["PIPELINE_SOURCE"] = "http://127.0.0.1:9"
    folder.environment["PIPELINE_RETRIES"] = "0"
    assert folder.pipeline("backfill", "fhv", "2024-02").returncode == 1


def test_luigi_options_that_luigi_cfg_lacks_are_filled_in() -> None:
    settings = get_config()
    before = {section: dict(settings.items(section, raw=True)) for section in settings.sections()}
    try:
        for section in default_options():
            settings.remove_section(section)
        settings.set("resources", "tlc", "9")
        prepare_luigi()
        found = {section: dict(settings.items(section, raw=True)) for section in default_options()}
        assert found == {**default_options(), "resources": {**default_options()["resources"], "tlc": "9"}}
    finally:
        for section in default_options():
            settings.remove_section(section)
        settings.read_dict(before)


PLACES = ("--pipeline-lake", "here/lake", "--pipeline-warehouse", "duckdb:///here/trips.duckdb")
HERE = (*PLACES, "--pipeline-logs", "here/logs", "--local-scheduler")
BACKFILL = ("Backfill", "--datasets", "fhv", "--first", "2024-01", "--last", "2024-01", "--workers", "2")
RANGE = ("RangeMonthly", "--of", "Conform", "--of-params", '{"dataset": "fhv"}', "--start", "2024-01")
LIMITS = ("--stop", "2024-02", "--months-back", "5000", "--workers", "2")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_backfill_with_settings_on_the_command_line_has_them_in_every_process(folder: Folder, method: str) -> None:
    ended = folder.run(*started_by(method, "luigi", "--module", "pipeline", *BACKFILL, *HERE))
    assert ended.returncode == 0, ended.stderr
    assert "* 8 ran successfully" in ended.stderr
    assert "failed" not in ended.stderr.replace("no failed tasks", ""), "no step failed and was repeated"
    assert {path.name for path in folder.path.iterdir()} == {"here", "luigi.cfg"}, (
        "there is no default lake or warehouse"
    )
    assert {path.name for path in (folder.path / "here").iterdir()} == {
        "lake",
        "logs",
        "trips.duckdb",
        "trips.duckdb.loads.json",
    }


def test_a_luigi_range_has_the_settings_of_the_command_line_in_every_process(folder: Folder) -> None:
    ended = folder.run(*started_by("spawn", "luigi", "--module", "pipeline", *RANGE, *LIMITS, *HERE))
    assert ended.returncode == 0, ended.stderr
    assert "* 3 ran successfully" in ended.stderr
    assert "failed" not in ended.stderr.replace("no failed tasks", "")
    assert {path.name for path in folder.path.iterdir()} == {"here", "luigi.cfg"}


def test_the_pipeline_command_has_its_options_in_every_process_under_forkserver(
    folder: Folder,
) -> None:
    folder.environment["PIPELINE_LOGS"] = "here/logs"
    options = ("--lake", "here/lake", "--warehouse", "duckdb:///here/trips.duckdb", "--workers", "2")
    ended = folder.run(*started_by("forkserver", "pipeline", "backfill", "fhv", "2024-01", *options))
    assert ended.returncode == 0, ended.stderr
    steps = [line for line in ended.stderr.splitlines() if re.match(r"(download|conform|load) (fhv|zones)", line)]
    assert len(steps) == 6
    assert "Worker" not in ended.stderr, "no lines of Luigi itself"
    assert {path.name for path in folder.path.iterdir()} == {"here", "luigi.cfg"}


def _configured() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "luigi.cfg")
    return parser


def test_luigi_cfg_sets_the_same_luigi_options_as_the_pipeline_command() -> None:
    parser = _configured()
    assert {
        section: dict(parser[section]) for section in parser.sections() if section != "pipeline"
    } == default_options()
    assert dict(parser["pipeline"]) == {}, "the file shows the defaults, and sets none"


def _explained() -> dict[str, tuple[str, str]]:
    """By option of the section [pipeline]: the comment above it, and the default behind it."""
    text = (ROOT / "luigi.cfg").read_text()
    section = text[text.index("\n[pipeline]\n") : text.index("\n[core]\n")]
    found = re.finditer(r"# ((?:.*\n# )*.*)\n#(\w+) = ?(.*)$", section, re.MULTILINE)
    return {match[2]: (match[1].replace("\n# ", " "), match[3]) for match in found}


def _type(row: Field) -> str:
    if row.choices:
        return f"One of {', '.join(row.choices)}"
    return {int: "Whole number", float: "Number", str: "Text"}[type(row.default)]


def test_luigi_cfg_explains_every_setting_as_the_table_does_with_type_default_and_example() -> None:
    explained = _explained()
    assert list(explained) == list(FIELDS)
    for name, row in FIELDS.items():
        comment, default = explained[name]
        assert comment.startswith(f"{row.help[0].upper()}{row.help[1:]}. {_type(row)}."), name
        assert row.parse(default) == row.default, name
        example = re.search(r"Example: (\S+)", comment)
        assert example is not None, name
        assert row.parse(example[1]) != row.default, name


def test_the_command_line_of_luigi_and_of_pipeline_describe_settings_as_the_table_does() -> None:
    assert list(OPTIONS) == list(FIELDS)
    assert all(str(OPTIONS[name].description).startswith(row.help) for name, row in FIELDS.items())
    helps = {
        option: each.help
        for each in import_command("status").params
        if isinstance(each, click.Option)
        for option in each.opts
    }
    options = [(name, row) for name, row in FIELDS.items() if row.option]
    assert [name for name, _ in options] == ["lake", "warehouse", "source", "source_format"]
    for name, row in options:
        assert helps[row.flag] == f"{row.help[0].upper()}{row.help[1:]} ([pipeline] {name})."


def test_a_value_outside_the_choices_is_an_error_that_lists_them() -> None:
    with pytest.raises(UsageError, match=r"source_format = 'xls': allowed are auto, parquet, csv, csv\.gz$"):
        resolve(source_format="xls")


def test_settings_are_shown_without_secrets() -> None:
    secret = Settings(warehouse="postgresql://u:secret@h/d", source="https://u:secret@h", notify_url="https://h/secret")
    assert "secret" not in repr(secret)


# --- the run's context


def test_the_context_of_a_run_travels_with_a_task_and_changes_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.settings._adopted", None)
    monkeypatch.setattr("pipeline.settings._context", None)
    adopt(Settings(retries=7))
    store = store_of(current_settings())
    adopt_context(RunContext(workers=3, oldest_first=True, reports="/socket"))
    assert store_of(current_settings()) is store, "the opened lake is reused when the display begins"
    sent = pickle.dumps(Conform(dataset="green", month=date(2024, 1, 1)))
    adopt(None)
    adopt_context(None)
    assert run_context() == RunContext()
    pickle.loads(sent)
    assert current_settings() == Settings(retries=7)
    assert run_context() == RunContext(workers=3, oldest_first=True, reports="/socket")


def test_the_run_context_has_the_workers_of_the_command_line(bare: Folder) -> None:
    show = SHOW.replace("current_settings", "run_context")
    ended = bare.run("python", "-c", show, "--workers", "3")
    assert json.loads(ended.stdout) == {"workers": 3, "oldest_first": False, "reports": ""}


def test_zero_workers_is_an_error_together_with_all_others(bare: Folder) -> None:
    ended = bare.luigi(*DOWNLOAD, "--workers", "0", "--pipeline-retries", "x")
    assert [line.strip() for line in ended.stderr.splitlines()[-2:]] == [
        "UsageError: [pipeline] retries = 'x': allowed is a whole number from 0 to 1,000,000 (from --pipeline-retries)",
        "--workers 0: allowed is a whole number from 1 upwards",
    ]


# --- places


def test_a_relative_path_is_relative_to_the_current_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "inner"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert store_of(Settings()).location == str(folder / "data" / "lake")
        assert store_of(Settings()) is store_of(Settings()), "the same object with its caches"


def open_url(url: str, scratch: Path) -> LocalStore:
    return LocalStore(Path(url.partition("://")[2]))


def test_another_kind_of_lake_is_an_entry_of_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shelf_store", sys.modules[__name__])
    kind = StoreKind("shelf:///folder", "shelf_store", drivers=("sqlite3",))
    with pytest.raises(
        UsageError, match=r"shelf is not a supported kind of lake; allowed are a folder and gs://bucket/prefix"
    ):
        resolve(lake=f"shelf://{tmp_path}")
    monkeypatch.setitem(STORES, "shelf", kind)
    settings = resolve(lake=f"shelf://{tmp_path}")
    assert store_of(settings).location == str(tmp_path)
    assert store_drivers(settings.lake) == ("sqlite3",)
    with pytest.raises(UsageError, match="allowed are a folder and gs://bucket/prefix and shelf:///folder"):
        resolve(lake="s3://bucket")


def test_every_setting_is_in_the_help_of_luigi(bare: Folder) -> None:
    ended = bare.luigi("LoadZones", "--help-all")
    assert ended.returncode == 0
    assert all(f"--pipeline-{name.replace('_', '-')} " in ended.stdout for name in OPTIONS)


#: By setting: a path in the home folder as written, and as expanded.
AT_HOME = {
    "lake": ("~/lake", "HOME/lake"),
    "warehouse": ("duckdb:///~/trips.duckdb", "duckdb:///HOME/trips.duckdb"),
    "source": ("~", "HOME"),
    "scratch": ("~/scratch", "HOME/scratch"),
    "logs": ("~/logs", "HOME/logs"),
}


def test_the_home_folder_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = resolve(**{name: texts[0] for name, texts in AT_HOME.items()})
    for name, (_, meant) in AT_HOME.items():
        assert getattr(found, name) == meant.replace("HOME", str(tmp_path)), name
    assert resolve(lake="./~/lake", warehouse="duckdb:///a~b.duckdb").lake == "./~/lake"


@pytest.mark.parametrize("path", ["~/x", "~no-such-user/x"])
def test_an_unknown_home_folder_is_one_clear_message(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("HOME", "")
    written = dict.fromkeys(AT_HOME, path) | {"warehouse": f"duckdb:///{path}"}
    with pytest.raises(UsageError) as caught:
        resolve(**written)
    assert [line.strip() for line in str(caught.value).removeprefix("[pipeline] ").splitlines()] == [
        f"{name} = {path!r}: the home folder for its ~ is unknown; allowed is a full path"
        for name in OPTIONS
        if name in AT_HOME
    ]


def test_outputs_of_commands_expand_the_home_folder(bare: Folder) -> None:
    for command in (("sql", "SELECT 1", "--output=~/x.csv"), ("status", "--html=~/x.html")):
        bare.environment["HOME"] = str(bare.path)
        assert bare.pipeline(*command, "--force" if command[0] == "sql" else "--json").returncode in (0, 5)
        bare.environment["HOME"] = ""
        ended = bare.pipeline(*command)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "the home folder for its ~ is unknown" in ended.stderr
    assert (bare.path / "x.html").is_file()
    assert not (bare.path / "~").exists()


@pytest.mark.parametrize("name", ["lake", "warehouse", "scratch", "logs"])
@pytest.mark.parametrize("address", ["s3://bucket/x", "s3:/bucket/x", "https://host/x", "file:///x"])
def test_an_address_never_becomes_a_folder(name: str, address: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        resolve(**{name: f"duckdb:///{address}" if name == "warehouse" else address})


def test_quotes_and_comments_after_values_in_luigi_cfg_are_refused_without_the_value(bare: Folder) -> None:
    _write(
        bare, 'lake = "data/lake"', "logs = data/logs  # ours", "notify_url = 'https://host/secret'", "retries = 5 ; x"
    )
    ended = bare.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 2
    assert [line.strip() for line in ended.stderr.removeprefix("pipeline: [pipeline] ").splitlines()] == [
        "lake: the quotes would be part of the value; allowed is the value without them",
        *(
            f"{name}: {sign!r} does not begin a comment here and would be part of the value; allowed are comments on "
            "lines of their own (a path with it can be given in the environment or on the command line)"
            for name, sign in (("retries", " ;"), ("logs", " #"))
        ),
        "notify_url: the quotes would be part of the value; allowed is the value without them",
    ]
    assert bare.files() == []


def test_a_folder_with_a_hash_in_its_name_can_be_given_as_the_message_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_LAKE", " trips #1 ")
    assert resolve(logs="logs #2").lake == "trips #1"
