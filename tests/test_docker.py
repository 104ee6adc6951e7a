"""The folder docker/: the files define images and services as promised; tested without an engine."""

from __future__ import annotations

import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import ROOT
from emulators import BigQueryEmulator, free_port

from pipeline.cli.board import board
from pipeline.tasks.luigi_options import default_options

DOCKER = ROOT / "docker"
SCRIPTS = sorted([*DOCKER.rglob("*.sh"), *(ROOT / "docs").glob("*.sh")])
TEXTS = sorted(
    path
    for path in (ROOT / ".dockerignore", *DOCKER.rglob("*"))
    if path.is_file() and path.name != ".env" and not {"data", "secrets", "__pycache__"} & {*path.parts}
)
SERVICES = (
    *("setup", "luigid", "postgres", "worker", "schedule", "cli", "sample"),
    *("gcp", "gcp-schedule", "gcloud", "emulators", "emulated"),
)
_VARIABLE = re.compile(r"\$\{(\w+)(?::?[-?]([^}]*))?\}")


def tool(name: str) -> str:
    """A program in this environment or on the PATH."""
    program = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


def passes(*command: str | Path) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def compose_text() -> str:
    return (DOCKER / "compose.yaml").read_text(encoding="utf-8")


def example_settings() -> dict[str, str]:
    lines = (DOCKER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def compose() -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load(compose_text())


@pytest.fixture
def service(compose: Any, request: pytest.FixtureRequest) -> Any:
    return compose["services"][request.param]


each_service = pytest.mark.parametrize("service", SERVICES, indirect=True)


# Linters


def test_hadolint_accepts_the_dockerfile() -> None:
    passes(tool("hadolint"), "--no-color", DOCKER / "Dockerfile")


def test_shellcheck_accepts_the_scripts() -> None:
    passes(tool("shellcheck"), *SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_and_starts_with_a_comment(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shebang, comment, *_ = script.read_text(encoding="utf-8").splitlines()
    assert shebang in ("#!/bin/sh", "#!/bin/bash")
    assert comment.startswith("# ")


@pytest.mark.parametrize("profile", ["", "sample", "cli", "gcp", "gcp-schedule", "emulators", "*"])
def test_compose_accepts_the_file_with_each_profile(profile: str) -> None:
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    file, example = DOCKER / "compose.yaml", DOCKER / ".env.example"
    passes(docker, "compose", "--file", file, "--env-file", example, "--profile", profile, "config", "--quiet")


def resolved(clone: Path, *command: str, **environment: str) -> Any:
    """The output of `docker compose config`, or of the command given for it, in a clone."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if subprocess.run([tool("docker"), "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    (clone / "docker").mkdir(parents=True, exist_ok=True)
    for name in ("compose.yaml", "taxi.sh"):
        shutil.copy(DOCKER / name, clone / "docker")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("COMPOSE_", "PIPELINE_", "SUDO_"))}
    ended = subprocess.run(
        [*command, "config"], cwd=clone, env={**kept, "PWD": str(clone), **environment}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return yaml.safe_load(ended.stdout)


def test_containers_and_volumes_are_named_after_the_folder_of_the_clone(tmp_path: Path) -> None:
    compose = (tool("docker"), "compose", "--file", "docker/compose.yaml")
    one, two = (resolved(tmp_path / parent / "nyc", *compose) for parent in ("one", "two"))
    assert one["name"].endswith("onenyc")
    assert two["name"].endswith("twonyc")
    assert one["volumes"]["postgres"]["name"] == f"{one['name']}_postgres"
    for folder in (tmp_path / "one" / "nyc" / "docker", tmp_path):
        by_script = resolved(
            tmp_path / "one" / "nyc", "sh", "-c", f"cd '{folder}' && '{tmp_path}/one/nyc/docker/taxi.sh' config"
        )
        assert by_script["name"] == one["name"], "from any working folder"
    assert resolved(tmp_path / "one" / "nyc", *compose, COMPOSE_PROJECT_NAME="taxi")["name"] == "taxi"


def test_files_belong_to_the_calling_user_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    def user(**environment: str) -> str:
        return str(resolved(tmp_path, "docker/taxi.sh", **environment)["services"]["worker"]["user"])

    own = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1000:1000"
    assert user() == own
    assert user(SUDO_UID="1234", SUDO_GID="1235") == "1234:1235"
    assert user(PIPELINE_UID="7", PIPELINE_GID="8") == "7:8"
    (tmp_path / "docker" / ".env").write_text("PIPELINE_UID=5\nPIPELINE_GID=6\n")
    assert user() == "5:6"


# The services


def test_these_are_all_services(compose: Any) -> None:
    assert sorted(compose["services"]) == sorted(SERVICES)


def test_without_a_profile_the_stack_is_complete(compose: Any) -> None:
    started = {name for name, service in compose["services"].items() if not service.get("profiles")}
    assert started == {"setup", "luigid", "postgres", "worker", "schedule"}


@each_service
def test_a_service_has_no_privileges(service: Any) -> None:
    assert service["user"] == "postgres" or "PIPELINE_UID" in service["user"] or service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"/tmp:size=\d+[mg]", service["tmpfs"][0])
    assert not {"privileged", "cap_add", "pid", "ipc"} & service.keys()
    assert service.get("network_mode", "none") == "none"


@each_service
def test_a_service_has_limits(service: Any) -> None:
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] <= 200
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@each_service
def test_the_health_check_of_a_service_is_a_program_without_a_shell(service: Any) -> None:
    form, program, *_ = service["healthcheck"]["test"]
    assert form == "CMD"
    assert program in ("pg_isready", "test") or os.access(
        DOCKER / "health" / program.removeprefix("/opt/taxi/health/"), os.X_OK
    )


@pytest.mark.parametrize(
    "service", ["luigid", "postgres", "worker", "schedule", "sample", "gcp-schedule"], indirect=True
)
def test_a_running_service_is_restarted_and_has_time_to_stop(service: Any) -> None:
    assert service["restart"] == "unless-stopped"
    assert int(service["stop_grace_period"].removesuffix("s")) >= 15


@each_service
def test_a_service_waits_for_the_services_that_it_needs(compose: Any, service: Any) -> None:
    for name, dependency in service.get("depends_on", {}).items():
        finishes = "restart" not in compose["services"][name] and name == "setup"
        assert dependency["condition"] == ("service_completed_successfully" if finishes else "service_healthy")


@each_service
def test_ports_are_published_to_this_machine_only(service: Any) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_a_service_is_only_in_the_networks_that_it_needs(compose: Any) -> None:
    networks = {name: {*service.get("networks", ["default"])} for name, service in compose["services"].items()}
    assert networks["luigid"] == {"steps", "warehouse"}
    assert networks["postgres"] == {"warehouse"}
    assert compose["networks"] == {"steps": None, "warehouse": {"internal": True}}
    for name, service in compose["services"].items():
        needs = service.get("depends_on", {})
        if name not in ("luigid", "postgres", "setup"):
            assert ("steps" in networks[name]) == ("luigid" in needs), name
            assert ("warehouse" in networks[name]) == ("postgres" in needs), name


@each_service
def test_no_mounted_folder_is_created_as_root_and_the_key_is_read_only(service: Any) -> None:
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            assert not volume.startswith((".", "/", "~", "$"))
            continue
        assert volume["bind"] == {"create_host_path": False}
        assert volume["target"] == "/taxi/data" or volume.get("read_only") or service["mem_limit"] == "32m"
        if "credentials" in volume["target"]:
            assert volume["read_only"] is True


def test_workers_the_command_and_the_schedule_share_luigid_and_postgres(compose: Any) -> None:
    for name in ("luigid", "worker", "schedule", "cli"):
        environment = compose["services"][name]["environment"]
        assert environment["LUIGI_SCHEDULER_URL"] == "http://luigid:${LUIGID_PORT:-8082}"
        assert environment["PIPELINE_WAREHOUSE"] == "postgresql://taxi@postgres/ny_taxi"
    for name in ("gcp", "gcp-schedule", "emulated"):
        assert compose["services"][name]["environment"]["LUIGI_SCHEDULER_URL"] == "", "its workers use Postgres"


def test_the_board_of_the_stack_only_shows_and_prints_no_link_into_its_log(compose: Any) -> None:
    service = compose["services"]["luigid"]
    port = "${LUIGID_PORT:-8082}"
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    read = board.make_context("board", [part.replace(port, "8082") for part in service["command"][1:]], obj=None).params
    assert (read["luigid"], read["allow_runs"], read["is_quiet"]) == (True, False, True)
    assert (read["address"], read["port"], read["names"]) == ("0.0.0.0", 8082, ("luigid",))
    assert int(service["mem_limit"].removesuffix("m")) <= 252


# Settings in several files


def test_the_example_settings_have_every_variable_with_its_default() -> None:
    defaults = {name: default or "" for name, default in _VARIABLE.findall(compose_text()) if name != "PWD"}
    example = example_settings()
    assert {name: example.get(name) for name in defaults} == defaults
    assert set(example) - set(defaults) == {"COMPOSE_PROFILES"}


def test_variables_have_one_default_wherever_they_are_used() -> None:
    assert len({*_VARIABLE.findall(compose_text())}) == len({name for name, _ in _VARIABLE.findall(compose_text())})


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_contains_no_secret(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"(?i)^\s*-?\s*\w*(password|pwd|token|secret_?key|webhook)\w*\s*[:=]\s*[\"']?\w", text, re.M
    ) or (path.name == "verify.sh")
    assert not re.search(r"://\w+:[^@/\s]+@|-----BEGIN|POSTGRES_PASSWORD:|PGPASSWORD", text)


def test_data_passwords_and_settings_are_neither_committed_nor_sent_to_a_build() -> None:
    for folder in ("data", "secrets"):
        assert (DOCKER / folder / ".gitignore").read_text(encoding="utf-8") == "*\n!.gitignore\n"
    assert (DOCKER / ".gitignore").read_text(encoding="utf-8") == ".env\n"
    first, *lines = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
    ]
    assert first == "*"
    assert {"docker/data", "docker/secrets", "docker/.env"} <= {*lines}


def test_luigi_in_containers_has_the_options_that_the_package_needs() -> None:
    written = configparser.ConfigParser(interpolation=None)
    written.read(DOCKER / "luigi.cfg", encoding="utf-8")
    assert written["core"]["scheduler_url"] == "${LUIGI_SCHEDULER_URL}"
    del written["core"]["scheduler_url"]
    assert {section: dict(written[section]) for section in written.sections()} == default_options()


def scheduled(tmp_path: Path, seconds: float, **environment: str) -> str:
    """The output of the schedule until it is stopped; its programs are the ones in `tmp_path`."""
    script = tmp_path / "schedule.sh"
    text = (DOCKER / "schedule.sh").read_text(encoding="utf-8").replace("/tmp/schedule", f"{tmp_path}/state")
    script.write_text(text.replace("retry=60", "retry=1"))
    folder = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.Popen(["sh", script], env={**folder, **environment}, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
        assert process.stdout is not None
        return process.stdout.read()


def test_after_a_failure_the_schedule_runs_again_soon_at_growing_intervals(tmp_path: Path) -> None:
    (tmp_path / "pipeline").write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n[ $(wc -l < {tmp_path}/runs) = 3 ]\n")
    (tmp_path / "pipeline").chmod(0o755)
    output = scheduled(tmp_path, 4.5, TAXI_EVERY="9000").splitlines()
    assert output == [
        "schedule: exit code 1; next run in 1 s",
        "schedule: exit code 1; next run in 2 s",
        "schedule: exit code 0; next run in 9000 s",
    ]


def test_requests_to_bigquery_s_emulator_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    concurrent, maximum, lock = 0, 0, threading.Lock()

    class Emulator(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_POST(self) -> None:
            nonlocal concurrent, maximum
            with lock:
                concurrent += 1
                maximum = max(maximum, concurrent)
            time.sleep(0.05)
            with lock:
                concurrent -= 1
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    monkeypatch.setattr(sys, "path", [*sys.path, str(DOCKER)])
    serve = importlib.import_module("serve_emulators")
    monkeypatch.setattr(serve, "ADDRESS", "127.0.0.1")
    monkeypatch.setattr(serve._BigQuery, "port", free_port())
    monkeypatch.setattr(serve, "HOST", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Emulator) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with serve._BigQuery(BigQueryEmulator(url, DOCKER)) as gateway, ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda n: requests.post(f"{gateway.url}/anything/{n}", json={}, timeout=30), range(8))
            assert [answer.status_code for answer in answers] == [200] * 8
        server.shutdown()
    assert maximum == 1


def test_base_images_are_arguments_with_their_full_names() -> None:
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    stages = {line.split()[3] for line in lines if line.startswith("FROM ")}
    for line in lines:
        if line.startswith("FROM "):
            assert line.split()[1] in {*stages, "${PYTHON_IMAGE}"}, line
    assert f"ARG PYTHON_IMAGE={example_settings()['PYTHON_IMAGE']}" in lines
    assert "USER 10001:10001" in lines


def test_the_readme_is_short_and_names_every_service_and_setting() -> None:
    text = (DOCKER / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    missing = {*SERVICES, *example_settings()} - {*re.findall(r"[\w-]+", text)}
    assert missing == set()
