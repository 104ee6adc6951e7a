"""`pipeline doctor`: a line for each check, a remedy for each problem, and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from cloud import Cloud
from commands import Heard, running_luigid
from conftest import Folder, make_folder
from emulators import free_port
from loading import zones
from postgres import PASSWORD, Database
from scripted import ScriptedSite, answer

from pipeline.cli.doctor import Answer, disk, within
from pipeline.datasets import ZONES
from pipeline.errors import WarehouseError
from pipeline.sample import SampleSite
from pipeline.settings import resolve
from pipeline.warehouses import open_warehouse

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


# All checks


def test_without_problems_every_line_is_ok_and_nothing_is_created(folder: Folder) -> None:
    before = sorted(folder.path.rglob("*"))
    found = examined(folder)
    assert {status for lines in found.values() for status, _ in lines} == {"ok"}, found
    checks = "python packages luigi.cfg settings luigi_options machine lake warehouse logs source disk scheduler"
    assert [name.replace(" ", "_") for name in found] == [*checks.split(), "notification"]
    assert "does not exist yet" in only(found, "lake")[1]
    assert "does not exist yet" in only(found, "warehouse")[1]
    assert sorted(folder.path.rglob("*")) == before


def test_in_a_used_folder_it_changes_nothing(folder: Folder) -> None:
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    there = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    folders = {path for path in folder.path.rglob("*") if path.is_dir()}
    found = examined(folder)
    assert only(found, "lake") == ("ok", f"{folder.lake}: a file was written and deleted; ")
    assert only(found, "warehouse")[1].endswith("1 month loaded; ")
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == there
    assert {path for path in folder.path.rglob("*") if path.is_dir()} == folders


def test_each_check_is_a_whole_line_without_colours_when_piped(folder: Folder) -> None:
    folder.environment |= {"COLUMNS": "40", "PIPELINE_RETRIES": "many"}
    ended = folder.pipeline("doctor", "--offline")
    assert ended.returncode == 1
    assert "\x1b" not in ended.stdout
    assert {line.split()[0] for line in ended.stdout.splitlines()} == {"ok", "failed"}
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("failed"))
    assert line.startswith("failed   settings       [pipeline] retries = 'many': allowed is a whole number from 0")
    assert line.endswith("(from PIPELINE_RETRIES in the environment); correct the setting")


def test_a_check_that_hangs_or_crashes_is_a_line_and_ends_in_time() -> None:
    forever = threading.Event()

    def hang() -> Iterator[Answer]:
        forever.wait()
        yield "ok", "never", ""

    def break_off() -> Iterator[Answer]:
        yield "ok", "so far so good", ""
        raise WarehouseError("loads: missing; create it")

    def crash() -> Iterator[Answer]:
        yield "ok", str(1 // 0), ""

    try:
        assert within(0.05, "x", hang) == [
            ("failed", "no answer within 0.05 s", "check the network, and the server"),
        ]
    finally:
        forever.set()
    assert within(9, "x", break_off) == [
        ("ok", "so far so good", ""),
        ("failed", "loads: missing", "create it"),
    ]
    assert within(9, "x", crash) == [
        ("failed", "ZeroDivisionError: integer division or modulo by zero", "this is a bug: report it"),
    ]


# Installation


def test_a_package_that_is_too_old_is_named_with_the_needed_version(folder: Folder, tmp_path: Path) -> None:
    old = tmp_path / "packages" / "luigi-3.5.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: luigi\nVersion: 3.5\n")
    folder.environment["PYTHONPATH"] = str(old.parent)
    found = examined(folder, "--offline", code=1)
    status, message = only(found, "packages")
    assert (status, message) == ("failed", "luigi 3.5 is installed; needed is >=3.8; pip install 'luigi>=3.8'")


def test_what_hides_the_package_or_has_its_name_is_named(folder: Folder, tmp_path: Path) -> None:
    (folder.path / "pipeline.py").write_text("print('my own')")
    other = tmp_path / "packages" / "pipelines-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pipelines\nVersion: 1.0\n")
    (other / "top_level.txt").write_text("pipeline\n")
    folder.environment["PYTHONPATH"] = str(other.parent)
    (ours, *warnings) = examined(folder, "--offline")["packages"]
    assert ours[0] == "ok"
    assert warnings == [
        (
            "warning",
            f"{folder.path / 'pipeline.py'} hides this package from python and notebooks in this folder; "
            "rename it, or work in another folder",
        ),
        (
            "warning",
            "pipelines in this environment has a package called pipeline, too; "
            "install taxi-pipeline in an environment without pipelines",
        ),
    ]


def test_the_packages_of_an_extra_are_needed_only_with_the_warehouse_that_needs_them(folder: Folder) -> None:
    assert "psycopg" not in only(examined(folder, "--offline"), "packages")[1]
    postgres = examined(folder, "--offline", "--warehouse", "postgresql://taxi@127.0.0.1:9/x", code=1)
    status, message = only(postgres, "packages")
    assert (status, "psycopg 3" in message) == ("ok", True)
    assert "pytest" not in message


def test_too_many_workers_for_the_machine_are_a_warning(folder: Folder) -> None:
    status, message = only(examined(folder, "--offline", "--workers", "64"), "machine")
    assert status == "warning"
    assert "use --workers " in message


# Configuration


def test_all_invalid_settings_are_reported_at_once_and_the_other_checks_go_on(own: Folder, site: SampleSite) -> None:
    write(own, "[pipeline]\n", "[pipeline]\nnonsense = 1\nlake = s3://bucket\ntimeout_s = soon\n")
    assert own.pipeline("backfill", "green", "2024-01").returncode == 2
    found = examined(own, code=1)
    said = [message for _, message in found["settings"]]
    assert [status for status, _ in found["settings"]] == ["failed"] * 3
    for one, start in zip(
        said, ("unknown option 'nonsense'", "lake = 's3://bucket'", "timeout_s = 'soon'"), strict=True
    ):
        assert one.startswith(f"[pipeline] {start}")
    assert only(found, "lake") == ("warning", "not checked, because the setting is invalid; correct the setting")
    assert {only(found, name)[0] for name in ("warehouse", "source", "disk", "scheduler")} == {"ok"}
    assert [request.method for request in site.requests] == ["HEAD"]


def test_two_settings_that_do_not_fit_are_reported(folder: Folder) -> None:
    found = examined(folder, "--offline", "--warehouse", "bigquery://project/dataset?location=US", code=1)
    status, message = only(found, "settings")
    assert status == "failed"
    assert "it cannot load from lake = " in message
    assert only(found, "lake")[0] == "ok"
    assert only(found, "warehouse")[0] == "warning"


def test_without_our_luigi_cfg_it_warns_that_luigi_hides_failures(folder: Folder) -> None:
    (folder.path / "luigi.cfg").unlink()
    found = examined(folder, "--offline")
    assert only(found, "luigi.cfg")[0] == "warning"
    status, message = only(found, "luigi options")
    assert status == "warning"
    assert "without [retcode] its exit code is 0 even after a failure" in message
    assert "copy the project's luigi.cfg" in message


def test_the_file_of_the_configuration_is_named_wherever_it_is(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.cfg"
    (folder.path / "luigi.cfg").rename(file)
    folder.environment["LUIGI_CONFIG_PATH"] = str(file)
    found = examined(folder, "--offline")
    assert only(found, "luigi.cfg") == ("ok", f"{file}; ")
    assert only(found, "luigi options")[0] == "ok"


def test_changed_options_of_luigi_are_a_warning_only_if_they_break_a_promise(folder: Folder) -> None:
    write(folder, "\ncpu = 4\n", "\ncpu = 7\n")
    write(folder, "\nno_lock = true\n", "\nno_lock = True\n")
    write(folder, "\nretry_delay = 1\n", "\nretry_delay = 2\n")
    assert only(examined(folder, "--offline"), "luigi options") == (
        "ok",
        "as the package needs them; ",
    )
    write(folder, "\nkeep_alive = true\n", "\nkeep_alive = false\n")
    write(folder, "\ntask_failed = 1\n", "\n")
    message = dict(lines[::-1] for lines in examined(folder, "--offline")["luigi options"])
    assert set(message.values()) == {"warning"}
    assert any("[worker] keep_alive = false (ours is true)" in text for text in message)
    assert any("lacks [retcode] task_failed; without [retcode]" in text for text in message)


# Source


def test_the_source_is_asked_once_and_never_when_offline(own: Folder, site: SampleSite) -> None:
    found = examined(own, "--offline")
    assert "source" not in found
    assert site.requests == []
    status, message = only(examined(own), "source")
    assert status == "ok"
    assert " answered in " in message
    assert [(request.method, request.path) for request in site.requests] == [
        ("HEAD", "/trip-data/green_tripdata_2024-01.parquet")
    ]


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (403, "warning", " lacks green 2024-01"),
        (503, "failed", "HTTP 503"),
        ("delay", "failed", "imed out"),
    ],
)
def test_a_source_that_lacks_the_month_or_does_not_answer_is_reported(
    own: Folder, site: SampleSite, fault: str | int, status: str, message: str
) -> None:
    site.faults.add("*2024-01*", fault, 20 if fault == "delay" else None)
    own.environment["PIPELINE_TIMEOUT_S"] = "0.2"
    found = only(examined(own, code=int(status == "failed")), "source")
    assert found[0] == status
    assert message in found[1]


def test_a_folder_as_source_is_checked(folder: Folder, tmp_path: Path) -> None:
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
    assert f"http://source.invalid/x through the proxy http://127.0.0.1:{port}: " in ended.stdout
    assert "geheim" not in ended.stdout + ended.stderr


# Lake, warehouse and disk


def test_a_lake_or_warehouse_that_is_invalid_or_cannot_be_created_is_reported(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lake, database = str(tmp_path / "file"), f"duckdb:///{tmp_path}/file/x.duckdb"
    found = examined(folder, "--offline", "--lake", lake, "--warehouse", database, code=1)
    assert only(found, "lake")[0] == "failed"
    status, message = only(found, "warehouse")
    assert status == "failed"
    assert "cannot be created" in message
    (tmp_path / "text.duckdb").write_text("no database, but longer than the head of one" * 1000)
    found = examined(folder, "--offline", "--warehouse", f"duckdb:///{tmp_path}/text.duckdb", code=1)
    assert only(found, "warehouse")[0] == "failed"


def test_a_database_that_another_program_has_open_is_a_warning_after_a_short_wait(folder: Folder) -> None:
    assert folder.pipeline("backfill", "fhv", "2024-01").returncode == 0
    with duckdb.connect(folder.database):
        status, message = only(examined(folder, "--offline"), "warehouse")
    assert status == "warning"
    assert "is held by" in message


def test_postgres_reports_its_version_and_its_free_connections(folder: Folder, database: Database) -> None:
    folder.environment["PIPELINE_WAREHOUSE"] = database.url
    status, message = only(examined(folder, "--offline"), "warehouse")
    assert status == "ok"
    assert "; Postgres " in message
    assert " of max_connections = " in message
    write(folder, "\npostgresql = 4\n", "\npostgresql = 100000\n")
    status, message = only(examined(folder, "--offline"), "warehouse")
    assert status == "warning"
    assert "raise max_connections, or lower postgresql in [resources]" in message
    assert database.execute("SELECT count(*) FROM pg_class WHERE relname = 'loads'") == [(0,)]


def test_a_user_of_postgres_without_the_right_to_create_tables_gets_the_grant_to_ask_for(
    folder: Folder, database: Database
) -> None:
    user = f"{database.name}_reader"
    database.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    try:
        database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        folder.environment["PIPELINE_WAREHOUSE"] = database.server.url_of(database.name, user)
        status, message = only(examined(folder, "--offline", code=1), "warehouse")
        assert status == "failed"
        assert message.endswith(f"GRANT USAGE, CREATE ON SCHEMA public TO {user}")
        folder.environment["PIPELINE_WAREHOUSE"] = database.server.url_of(database.name, user, "wrong/one")
        assert "give the password by PGPASSWORD" in only(examined(folder, "--offline", code=1), "warehouse")[1]
    finally:
        database.execute(f"DROP ROLE {user}")


def test_foreign_tables_in_the_warehouse_are_named_with_a_remedy(folder: Folder, database: Database) -> None:
    database.execute("CREATE TABLE zones (a int)")
    folder.environment["PIPELINE_WAREHOUSE"] = database.url
    status, message = only(examined(folder, "--offline", code=1), "warehouse")
    assert (status, "tables ['zones'] already exist and are not of this package" in message) == ("failed", True)
    assert f"/{database.name}?options=-csearch_path%3Dtaxi" in message
    assert database.execute("SELECT count(*) FROM pg_class WHERE relname = 'loads'") == [(0,)]
    del folder.environment["PIPELINE_WAREHOUSE"]
    folder.database.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(folder.database) as connection:
        connection.execute("CREATE TABLE zones (a int)")
    status, message = only(examined(folder, "--offline", code=1), "warehouse")
    assert (status, message.endswith("name another file in [pipeline] warehouse")) == ("failed", True)


def test_a_table_of_the_users_own_under_the_name_of_a_view_is_a_warning_and_nothing_is_written(
    folder: Folder, tmp_path: Path
) -> None:
    open_warehouse(f"duckdb:///{folder.database}").replace(ZONES, None, zones(tmp_path))
    with duckdb.connect(folder.database) as connection:
        connection.execute("DROP VIEW codes; DROP VIEW yellow_tripdata; CREATE TABLE Yellow_TripData (a int)")
    before = folder.database.read_bytes()
    found = examined(folder, "--offline")
    (status, message), (other, _) = found["warehouse"]
    assert (status, other) == ("warning", "ok")
    assert message.startswith(
        "not of this package, so they stay, and our views of these names are not created: yellow_tripdata;"
    )
    assert folder.database.read_bytes() == before


def test_on_google_cloud_a_file_is_written_and_deleted_and_a_query_run(folder: Folder, cloud: Cloud) -> None:
    cloud.use(folder)
    found = examined(folder, "--offline")
    assert only(found, "lake") == ("ok", f"{cloud.lake}: a file was written and deleted; ")
    assert only(found, "warehouse")[0] == "ok"
    assert folder.files() == []
    cloud.clear()
    cloud.gcs.fail(403, method="POST", times=9)
    status, message = only(examined(folder, "--offline", code=1), "lake")
    assert status == "failed"
    assert "roles/storage.objectUser" in message


def test_without_credentials_it_says_how_to_provide_them(folder: Folder) -> None:
    folder.environment = {"HOME": str(folder.path), "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
    found = examined(folder, "--offline", "--lake", "gs://does-not-exist/lake", code=1)
    status, message = only(found, "lake")
    assert status == "failed"
    assert "in one of three ways" in message


@pytest.mark.parametrize(("free_gb", "status"), [(1, "failed"), (10, "warning"), (1000, "ok")])
def test_too_little_room_for_a_month_fails_and_too_little_for_a_year_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: int, status: str
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, free_gb * 10**9))
    settings = resolve(lake=str(tmp_path / "lake"), warehouse=f"duckdb:///{tmp_path}/w.duckdb")
    ((found, message, _),) = disk(settings)
    assert found == status, message
    assert f"{free_gb}.0 GB free for {tmp_path}/lake; " in message or free_gb == 1000


# luigid


def test_a_luigid_that_answers_and_has_our_limits_is_ok(folder: Folder) -> None:
    with running_luigid(folder) as luigid:
        url = f"http://127.0.0.1:{luigid.port}"
        status, message = only(examined(folder, "--offline", "--scheduler", url), "scheduler")
        assert status == "ok"
        assert message.startswith(f"{url} answered in ")
        write(folder, "#scheduler_url = http://127.0.0.1:8082", f"scheduler_url = {url}")
        assert only(examined(folder, "--offline"), "scheduler")[1].startswith(f"{url} answered in ")
    status, message = only(examined(folder, "--offline", code=1), "scheduler")
    assert status == "failed"
    assert "start one with: luigid --address 127.0.0.1" in message


def test_a_luigid_without_the_limits_of_our_resources_is_a_warning(folder: Folder, tmp_path: Path) -> None:
    other, port = make_folder(tmp_path / "luigid", ""), free_port()
    (other.path / "luigi.cfg").write_text("[core]\n")
    process = other.start("luigid", "--port", str(port), "--state-path", str(tmp_path / "state"))
    heard = Heard(process)
    try:
        heard.until(lambda line: "Scheduler starting up" in line)
        found = examined(folder, "--offline", "--scheduler", f"http://localhost:{port}")
    finally:
        process.terminate()
        process.wait(60)
        heard.rest()
        with contextlib.suppress(ValueError):
            process.communicate()
    status, message = only(found, "scheduler")
    assert status == "warning"
    assert "it allows only one at a time of bigquery, cpu, duckdb, postgresql, tlc; " in message


def test_notify_url_and_the_receiver_of_mail_are_named(folder: Folder) -> None:
    assert only(examined(folder, "--offline"), "notification")[1].startswith("none is configured")
    folder.environment["PIPELINE_NOTIFY_URL"] = "https://hooks.invalid/secret"
    with (folder.path / "luigi.cfg").open("a") as file:
        file.write("\n[email]\nreceiver = data@example.org\n")
    found = only(examined(folder, "--offline"), "notification")
    assert found == ("ok", "runs report to notify_url and e-mail to data@example.org; ")


def test_a_server_that_is_not_luigid_is_reported(folder: Folder) -> None:
    with ScriptedSite(answer(b"<html>")) as site:
        status, message = only(examined(folder, "--offline", "--scheduler", site.url, code=1), "scheduler")
    assert status == "failed"
    assert "no luigid answers at this address; start one with: luigid" in message
