"""`pipeline doctor`: a line for each thing that a run needs, a remedy where it is missing, and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from datetime import date
from email.utils import formatdate
from pathlib import Path

import duckdb
import pytest
from cloud import Cloud
from commands import Heard, running_luigid
from conftest import Folder, make_folder
from emulators import free_port
from postgres import PASSWORD, Database
from scripted import ScriptedSite, answer

from pipeline.cli.doctor import places
from pipeline.cli.doctor.installation import fits, free_memory, needed
from pipeline.cli.doctor.line import ok, within
from pipeline.cli.doctor.services import _own_addresses, clock
from pipeline.datasets import DATASETS
from pipeline.errors import WarehouseError
from pipeline.months import month_range, parse_month
from pipeline.sample import SampleSite
from pipeline.settings import resolve

Lines = dict[str, list[tuple[str, str]]]


def examined(folder: Folder, *arguments: str, code: int = 0) -> Lines:
    """By check: status, and message with remedy."""
    ended = folder.pipeline("doctor", "--json", *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert PASSWORD not in ended.stdout
    said = json.loads(ended.stdout)
    found: Lines = {}
    for line in said["checks"]:
        assert line["status"] in ("ok", "warning", "failed")
        assert line["remedy"] or line["status"] == "ok", line
        found.setdefault(line["check"], []).append((line["status"], f"{line['message']}; {line['remedy']}"))
    assert said["failed"] == sum(status == "failed" for lines in found.values() for status, _ in lines)
    assert said["warnings"] == sum(status == "warning" for lines in found.values() for status, _ in lines)
    return found


def only(found: Lines, check: str) -> tuple[str, str]:
    (line,) = found[check]
    return line


def write(folder: Folder, old: str, new: str) -> None:
    """Change the folder's luigi.cfg."""
    file = folder.path / "luigi.cfg"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    return make_folder(tmp_path / "work", site.url)


# All of it


def test_where_all_is_well_every_line_is_ok_and_nothing_is_made(folder: Folder) -> None:
    before = sorted(folder.path.rglob("*"))
    found = examined(folder)
    assert {status for lines in found.values() for status, _ in lines} == {"ok"}, found
    checks = "python packages luigi.cfg settings luigi_options machine lake warehouse logs source clock disk scheduler"
    assert [name.replace(" ", "_") for name in found] == checks.split()
    assert "is not there yet" in only(found, "lake")[1]
    assert "is not there yet" in only(found, "warehouse")[1]
    assert sorted(folder.path.rglob("*")) == before


def test_in_a_folder_at_work_it_leaves_everything_as_it_was(folder: Folder) -> None:
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    there = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    folders = {path for path in folder.path.rglob("*") if path.is_dir()}
    found = examined(folder)
    assert only(found, "lake") == ("ok", f"{folder.lake}: a file was written and taken away; ")
    assert only(found, "warehouse")[1].endswith("1 months are there; ")
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == there
    assert {path for path in folder.path.rglob("*") if path.is_dir()} == folders


def test_each_thing_is_a_whole_line_for_people_without_colours_when_piped(folder: Folder) -> None:
    folder.environment |= {"COLUMNS": "40", "PIPELINE_RETRIES": "many"}
    ended = folder.pipeline("doctor", "--offline")
    assert ended.returncode == 1
    assert "\x1b" not in ended.stdout
    assert {line.split()[0] for line in ended.stdout.splitlines()} == {"ok", "failed"}
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("failed"))
    assert line.startswith("failed   settings       [pipeline] retries = 'many': allowed is a whole number from 0")
    assert line.endswith("(from PIPELINE_RETRIES in the environment); mend it there")


def test_a_check_that_hangs_or_breaks_is_a_line_and_ends_in_time() -> None:
    forever = threading.Event()

    def hang() -> Iterator[places.Line]:
        forever.wait()
        yield ok("x", "never")

    def break_off() -> Iterator[places.Line]:
        yield ok("x", "so far so good")
        raise WarehouseError("loads: not there; make it")

    def fall() -> Iterator[places.Line]:
        yield from [ok("x", str(1 // 0))]

    try:
        assert [(line.status, line.message) for line in within(0.05, "x", hang)] == [
            ("failed", "no answer within 0.05 s")
        ]
    finally:
        forever.set()
    assert [(line.status, line.message, line.remedy) for line in within(9, "x", break_off)] == [
        ("ok", "so far so good", ""),
        ("failed", "loads: not there", "make it"),
    ]
    (line,) = within(9, "x", fall)
    assert (line.status, line.message) == ("failed", "ZeroDivisionError: integer division or modulo by zero")


# Installation


def test_a_package_that_is_too_old_is_named_with_what_is_needed(folder: Folder, tmp_path: Path) -> None:
    old = tmp_path / "packages" / "luigi-3.5.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: luigi\nVersion: 3.5\n")
    folder.environment["PYTHONPATH"] = str(old.parent)
    found = examined(folder, "--offline", code=1)
    status, told = only(found, "packages")
    assert (status, told) == ("failed", "luigi 3.5 is installed; needed is >=3.8; pip install 'luigi>=3.8'")


@pytest.mark.parametrize(
    ("version", "bounds", "wanted"),
    [
        ("3.8.1", ">=3.8", True),
        ("3.8", ">=3.8.0", True),
        ("3.10", ">=3.9", True),
        ("3.7.9", ">=3.8", False),
        ("3.11.0", "!=3.11.0,>=3.7", False),
        ("3.11.1", "!=3.11.0,>=3.7", True),
        ("3.14.0", ">=3.10, <3.14", False),
        ("3.13.9", "<3.14,>=3.10", True),
        ("2.4rc1", ">=2.4", True),
        ("1", "", True),
        ("", "", False),
        ("", ">=1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, bounds: str, wanted: bool) -> None:
    assert fits(version, bounds) is wanted


def test_an_extra_s_packages_are_needed_only_with_the_warehouse_that_needs_them() -> None:
    required = ["luigi>=3.8", 'psycopg[binary]>=3.2.2; extra == "postgres"', 'pytest>=8.2; extra == "dev"', "x (>=1)"]
    assert needed(required, "") == {"luigi": ">=3.8", "x": ">=1"}
    assert needed(required, "postgres") == {"luigi": ">=3.8", "psycopg": ">=3.2.2", "x": ">=1"}


def test_more_workers_than_the_machine_bears_are_a_warning(folder: Folder) -> None:
    assert (free_memory() or 0) > 0
    status, told = only(examined(folder, "--offline", "--workers", "64"), "machine")
    assert status == "warning"
    assert "use --workers " in told


# Configuration


def test_settings_that_cannot_be_are_told_all_at_once_and_the_other_checks_go_on(own: Folder, site: SampleSite) -> None:
    write(own, "[pipeline]\n", "[pipeline]\nnonsense = 1\nlake = s3://bucket\ntimeout_s = soon\n")
    assert own.pipeline("backfill", "green", "2024-01").returncode == 2
    found = examined(own, code=1)
    said = [told for _, told in found["settings"]]
    assert [status for status, _ in found["settings"]] == ["failed"] * 3
    for one, start in zip(
        said, ("unknown option 'nonsense'", "lake = 's3://bucket'", "timeout_s = 'soon'"), strict=True
    ):
        assert one.startswith(f"[pipeline] {start}")
    assert only(found, "lake") == ("warning", "not looked at, since the setting cannot be; mend the setting")
    assert {only(found, name)[0] for name in ("warehouse", "source", "disk", "scheduler")} == {"ok"}
    assert [request.method for request in site.requests] == ["HEAD"]


def test_two_settings_that_do_not_go_together_are_told(folder: Folder) -> None:
    found = examined(folder, "--offline", "--warehouse", "bigquery://project/dataset?location=US", code=1)
    status, told = only(found, "settings")
    assert status == "failed"
    assert "BigQuery loads from a lake in Cloud Storage only" in told
    assert only(found, "lake")[0] == "ok"
    assert only(found, "warehouse")[0] == "warning"


def test_without_our_luigi_cfg_it_warns_that_luigi_hides_failures(folder: Folder) -> None:
    (folder.path / "luigi.cfg").unlink()
    found = examined(folder, "--offline")
    assert only(found, "luigi.cfg")[0] == "warning"
    status, told = only(found, "luigi options")
    assert status == "warning"
    assert "without [retcode] it ends with 0 whatever failed" in told
    assert "copy the project's luigi.cfg" in told


def test_the_configuration_that_was_read_is_named_wherever_it_lies(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.cfg"
    (folder.path / "luigi.cfg").rename(file)
    folder.environment["LUIGI_CONFIG_PATH"] = str(file)
    found = examined(folder, "--offline")
    assert only(found, "luigi.cfg") == ("ok", f"{file}; ")
    assert only(found, "luigi options")[0] == "ok"


def test_options_of_luigi_that_break_a_promise_are_warned_of_and_others_only_told(folder: Folder) -> None:
    write(folder, "\ncpu = 4\n", "\ncpu = 7\n")
    write(folder, "\nno_lock = true\n", "\nno_lock = True\n")
    assert only(examined(folder, "--offline"), "luigi options") == (
        "ok",
        "as the package needs them; of your own: [resources] cpu = 7 (ours is 4); ",
    )
    write(folder, "\nkeep_alive = true\n", "\nkeep_alive = false\n")
    write(folder, "\ntask_failed = 1\n", "\n")
    told = dict(lines[::-1] for lines in examined(folder, "--offline")["luigi options"])
    assert set(told.values()) == {"warning"}
    assert any("[worker] keep_alive = false (ours is true)" in text for text in told)
    assert any("lacks [retcode] task_failed; without [retcode]" in text for text in told)


# Source and clock


def test_the_source_is_asked_once_and_not_at_all_when_offline(own: Folder, site: SampleSite) -> None:
    found = examined(own, "--offline")
    assert "source" not in found
    assert "clock" not in found
    assert site.requests == []
    status, told = only(examined(own), "source")
    assert status == "ok"
    assert " answered in " in told
    assert [(request.method, request.path) for request in site.requests] == [
        ("HEAD", "/trip-data/green_tripdata_2024-01.parquet")
    ]


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (403, "warning", "but lacks green 2024-01 (HTTP 403)"),
        (503, "failed", "HTTP 503"),
        ("delay", "failed", "imed out"),
    ],
)
def test_a_source_that_lacks_the_month_or_does_not_answer_is_told(
    own: Folder, site: SampleSite, fault: str | int, status: str, message: str
) -> None:
    site.faults.add("*2024-01*", fault, 20 if fault == "delay" else None)
    own.environment["PIPELINE_TIMEOUT_S"] = "0.2"
    found = only(examined(own, code=int(status == "failed")), "source")
    assert found[0] == status
    assert message in found[1]


def test_a_folder_as_source_is_looked_into(folder: Folder, tmp_path: Path) -> None:
    assert only(examined(folder, "--source", str(tmp_path)), "source")[0] == "warning"
    (tmp_path / "green_tripdata_2024-01.parquet").touch()
    assert only(examined(folder, "--source", str(tmp_path)), "source")[0] == "ok"


def test_a_proxy_is_named_and_no_secret_of_an_address_is_shown(folder: Folder) -> None:
    folder.environment |= {"PIPELINE_SOURCE": "http://me:geheim@source.invalid/x", "http_proxy": ""}
    folder.environment |= {"HTTP_PROXY": "", "NO_PROXY": "", "no_proxy": ""}
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    folder.environment["http_proxy"] = f"http://you:geheim@127.0.0.1:{port}"
    ended = folder.pipeline("doctor", "--scheduler", "http://her:geheim@127.0.0.1:9")
    assert ended.returncode == 1
    assert (
        f"http://source.invalid/x/trip-data/green_tripdata_2024-01.parquet through the proxy http://127.0.0.1:{port}"
        in (ended.stdout)
    )
    assert "geheim" not in ended.stdout + ended.stderr


def test_a_clock_that_is_off_is_a_warning(folder: Folder) -> None:
    with ScriptedSite(answer(b"", "200 OK", "Date: Mon, 01 Jan 2024 00:00:00 GMT")) as site:
        status, told = only(examined(folder, "--source", site.url), "clock")
    assert status == "warning"
    assert " s ahead of the source's" in told


@pytest.mark.parametrize(
    ("off_s", "age", "status"),
    [(0, "", "ok"), (59, "", "ok"), (-59, "", "ok"), (62, "", "warning"), (-62, "", "warning"), (-7200, "7200", "ok")],
)
def test_a_minute_is_allowed_and_what_a_cache_adds_is_counted(off_s: int, age: str, status: str) -> None:
    now = 1_700_000_000.0
    assert clock(formatdate(now + off_s, usegmt=True), age, now).status == status


@pytest.mark.parametrize("said", ["", "yesterday"])
def test_a_site_that_tells_no_time_is_no_reason_to_warn(said: str) -> None:
    assert clock(said, "", 0).status == "ok"


# Lake, warehouse and disk


def test_a_lake_or_warehouse_that_cannot_be_made_or_is_none_is_told(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lake, database = str(tmp_path / "file"), f"duckdb:///{tmp_path}/file/x.duckdb"
    found = examined(folder, "--offline", "--lake", lake, "--warehouse", database, code=1)
    assert only(found, "lake")[0] == "failed"
    status, told = only(found, "warehouse")
    assert status == "failed"
    assert "cannot be made" in told
    (tmp_path / "text.duckdb").write_text("no database, but longer than the head of one" * 1000)
    found = examined(folder, "--offline", "--warehouse", f"duckdb:///{tmp_path}/text.duckdb", code=1)
    assert only(found, "warehouse")[0] == "failed"


def test_a_database_that_another_program_has_open_is_a_warning_and_not_waited_for_long(folder: Folder) -> None:
    assert folder.pipeline("backfill", "fhv", "2024-01").returncode == 0
    with duckdb.connect(folder.database):
        status, told = only(examined(folder, "--offline"), "warehouse")
    assert status == "warning"
    assert "is held by" in told


def test_postgres_says_its_version_and_what_is_free(folder: Folder, database: Database) -> None:
    folder.environment["PIPELINE_WAREHOUSE"] = database.url
    status, told = only(examined(folder, "--offline"), "warehouse")
    assert status == "ok"
    assert "; Postgres " in told
    assert " of max_connections = " in told
    write(folder, "\npostgresql = 4\n", "\npostgresql = 100000\n")
    status, told = only(examined(folder, "--offline"), "warehouse")
    assert status == "warning"
    assert "raise max_connections, or lower postgresql in [resources]" in told
    assert database.execute("SELECT count(*) FROM pg_class WHERE relname = 'loads'") == [(0,)]


def test_a_user_of_postgres_who_may_make_nothing_is_told_what_to_ask_for(folder: Folder, database: Database) -> None:
    user = f"{database.name}_reader"
    database.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    try:
        database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        folder.environment["PIPELINE_WAREHOUSE"] = database.server.url_of(database.name, user)
        status, told = only(examined(folder, "--offline", code=1), "warehouse")
        assert status == "failed"
        assert told.endswith(f"GRANT USAGE, CREATE ON SCHEMA public TO {user}")
        folder.environment["PIPELINE_WAREHOUSE"] = database.server.url_of(database.name, user, "wrong/one")
        assert "give the password by PGPASSWORD" in only(examined(folder, "--offline", code=1), "warehouse")[1]
    finally:
        database.execute(f"DROP ROLE {user}")


def test_tables_of_others_in_the_warehouse_are_named_with_what_to_do(folder: Folder, database: Database) -> None:
    database.execute("CREATE TABLE zones (a int)")
    folder.environment["PIPELINE_WAREHOUSE"] = database.url
    status, told = only(examined(folder, "--offline", code=1), "warehouse")
    assert (status, "tables ['zones'] already exist and are not of this package" in told) == ("failed", True)
    assert f"/{database.name}?options=-csearch_path%3Dtaxi" in told
    assert database.execute("SELECT count(*) FROM pg_class WHERE relname = 'loads'") == [(0,)]
    del folder.environment["PIPELINE_WAREHOUSE"]
    folder.database.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(folder.database) as connection:
        connection.execute("CREATE TABLE zones (a int)")
    status, told = only(examined(folder, "--offline", code=1), "warehouse")
    assert (status, told.endswith("name another file in [pipeline] warehouse")) == ("failed", True)


def test_on_google_cloud_a_file_is_written_and_taken_away_and_a_query_run(folder: Folder, cloud: Cloud) -> None:
    cloud.use(folder)
    found = examined(folder, "--offline")
    assert only(found, "lake") == ("ok", f"{cloud.lake}: a file was written and taken away; ")
    assert only(found, "warehouse")[0] == "ok"
    assert folder.files() == []
    cloud.clear()
    cloud.gcs.fail(403, method="POST", times=9)
    status, told = only(examined(folder, "--offline", code=1), "lake")
    assert status == "failed"
    assert "roles/storage.objectUser" in told


def test_without_credentials_it_says_how_to_give_them(folder: Folder) -> None:
    folder.environment = {"HOME": str(folder.path), "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
    found = examined(folder, "--offline", "--lake", "gs://nobody-has-this/lake", code=1)
    status, told = only(found, "lake")
    assert status == "failed"
    assert "in one of three ways" in told


def test_missing_are_the_due_months_of_the_last_year_of_what_is_there() -> None:
    today, all_of = date(2024, 7, 15), set(month_range(parse_month("2023-01"), parse_month("2024-02")))
    found = places.missing_months({"green": all_of}, today, 4)
    assert found == {"green": [parse_month("2024-03")]}
    nothing = places.missing_months({}, today, 4)
    assert set(nothing) == set(DATASETS)
    assert {(months[0], months[-1], len(months)) for months in nothing.values()} == {
        (parse_month("2023-04"), parse_month("2024-03"), 12)
    }


@pytest.mark.parametrize(("free_gb", "status"), [(1, "failed"), (10, "warning"), (1000, "ok")])
def test_too_little_room_for_a_month_fails_and_too_little_for_a_year_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, status: str
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free_gb * 10**9))
    settings = resolve(lake=str(tmp_path / "lake"), warehouse=f"duckdb:///{tmp_path}/w.duckdb")
    (line,) = places.disk(settings, {})
    assert line.status == status, line
    assert f"{tmp_path}/lake and {tmp_path}" in line.message


# luigid


def test_a_luigid_that_knows_the_limits_and_listens_here_alone_is_well(folder: Folder) -> None:
    with running_luigid(folder) as luigid:
        url = f"http://127.0.0.1:{luigid.port}"
        status, told = only(examined(folder, "--offline", "--scheduler", url), "scheduler")
        assert status == "ok"
        assert told.startswith(f"{url} answered in ")
        write(folder, "#scheduler_url = http://127.0.0.1:8082", f"scheduler_url = {url}")
        assert only(examined(folder, "--offline"), "scheduler")[1].startswith(f"{url} answered in ")
    status, told = only(examined(folder, "--offline", code=1), "scheduler")
    assert status == "failed"
    assert "start it: luigid --address 127.0.0.1" in told


def test_a_luigid_without_limits_that_answers_the_whole_network_is_warned_of(folder: Folder, tmp_path: Path) -> None:
    if not (addresses := _own_addresses()):
        pytest.skip("this machine has no address but loopback")
    other, port = make_folder(tmp_path / "luigid", ""), free_port()
    (other.path / "luigi.cfg").write_text("[core]\n")
    process = other.start("luigid", "--port", str(port), "--state-path", str(tmp_path / "state"))
    heard = Heard(process)
    try:
        heard.until(lambda line: "Scheduler starting up" in line)
        found = examined(folder, "--offline", "--scheduler", f"http://localhost:{port}")["scheduler"]
    finally:
        process.terminate()
        process.wait(60)
        heard.rest()
        with contextlib.suppress(ValueError):
            process.communicate()
    assert [status for status, _ in found] == ["warning", "warning"]
    assert "of bigquery, cpu, duckdb, postgresql, tlc it allows one at a time" in found[0][1]
    assert "it has no passwords, and answers at " in found[1][1]
    assert any(address in found[1][1] for address in addresses)


def test_what_is_no_luigid_is_told(folder: Folder) -> None:
    with ScriptedSite(answer(b"<html>")) as site:
        status, told = only(examined(folder, "--offline", "--scheduler", site.url, code=1), "scheduler")
    assert status == "failed"
    assert "what answers there is no luigid" in told
