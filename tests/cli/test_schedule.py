"""The output of `pipeline schedule` works when pasted, months of a pause are included, and a time limit holds."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import Folder, make_folder
from state import rows, works_in

from pipeline.cli.operate import _time_of_day, job_text
from pipeline.sample import SampleSite

KINDS = ("cron", "systemd", "kubernetes", "compose")
BIN = Path(sys.executable).parent
#: Each of these has a meaning for a shell, cron, systemd, Compose or YAML.
AWKWARD = '100% o\'clock "$HOME": #1'


@pytest.fixture
def awkward(tmp_path: Path, shared_site: SampleSite) -> Folder:
    """A folder with a difficult name, whose luigi.cfg has the settings of a scheduled run."""
    folder = make_folder(tmp_path / AWKWARD, "")
    file = folder.path / "luigi.cfg"
    text = file.read_text().replace("[pipeline]\n", f"[pipeline]\nsource = {shared_site.url}\n", 1)
    file.write_text(f"{text}\n[Latest]\nmonths = 2\nlast = 2024-02\n")
    return folder


def printed(folder: Folder, *arguments: str) -> dict[str, str]:
    """What is printed for each kind, below its heading."""
    ended = folder.pipeline("schedule", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert folder.files() == []
    _, *parts = re.split(r"^# --- (\w+)\n", ended.stdout, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def cron_line(text: str) -> str:
    (line,) = (line for line in text.splitlines() if line and not line.startswith("#"))
    return line


def loaded(folder: Folder) -> list[tuple[str, str]]:
    return rows(
        folder.database,
        "SELECT dataset, strftime(month, '%Y-%m') FROM loads WHERE month IS NOT NULL ORDER BY ALL",
    )


# What is printed


def test_all_four_kinds_or_the_requested_ones_are_printed(folder: Folder) -> None:
    assert tuple(printed(folder)) == KINDS
    assert tuple(printed(folder, "compose", "cron")) == ("cron", "compose")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("cronn",), "'cronn' is not one of"), (("--datasets", "blue"), "unknown datasets ['blue']")],
    ids=["kind", "dataset"],
)
def test_an_unknown_kind_or_dataset_is_an_error(folder: Folder, arguments: tuple[str, ...], message: str) -> None:
    ended = folder.pipeline("schedule", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stdout == ""


def test_the_line_for_cron_runs_as_cron_runs_it(awkward: Folder) -> None:
    line = cron_line(printed(awkward, "cron", "--datasets", "fhv,green", "--workers", "1")["cron"])
    minute, hour, *days, command = line.split(" ", 5)
    assert 0 < int(minute) < 60
    assert 2 <= int(hour) < 6
    assert days == ["*", "*", "*"]
    assert re.search(r"(?<!\\)%", command) is None, "for cron it is the end of the line"
    environment = {"HOME": "/", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "user"}
    ended = subprocess.run(
        ["/bin/sh", "-c", command.replace(r"\%", "%")], cwd="/", env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert (ended.stdout, ended.stderr) == ("", ""), "cron would send it by mail"
    assert loaded(awkward) == [(name, f"2024-0{month}") for name in ("fhv", "green") for month in (1, 2)]


def test_a_failure_of_the_line_for_cron_is_printed_and_is_its_exit_code(awkward: Folder) -> None:
    file = awkward.path / "luigi.cfg"
    file.write_text(re.sub(r"^source = .*$", "source = http://127.0.0.1:9\nretries = 0", file.read_text(), flags=re.M))
    command = cron_line(printed(awkward, "cron", "--datasets", "fhv")["cron"]).split(" ", 5)[5].replace(r"\%", "%")
    ended = subprocess.run(["/bin/sh", "-c", command], cwd="/", env={}, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "SourceError: fhv 2024-02: " in ended.stderr


def test_systemd_gets_the_number_of_the_user_which_exists_also_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    assert "User=987654\n" in job_text("systemd", Path("/bin/luigi"), Path("/srv"), (), 2)


def units(text: str) -> dict[str, str]:
    """The files that the text describes, by name."""
    _, *parts = re.split(r"^# /etc/systemd/system/(\S+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_units_for_systemd_name_folder_command_and_time(awkward: Folder) -> None:
    found = units(printed(awkward, "systemd")["systemd"])
    assert list(found) == ["taxi-latest.service", "taxi-latest.timer"]
    service = dict(line.split("=", 1) for line in found["taxi-latest.service"].splitlines() if "=" in line)
    assert service["WorkingDirectory"].replace("%%", "%") == str(awkward.path)
    assert service["ExecStart"] == (f"{BIN}/pipeline latest all --workers 2")
    assert re.search(r"^OnCalendar=\*-\*-\* 0[2-5]:[0-5]\d:00$", found["taxi-latest.timer"], re.MULTILINE)
    assert "Persistent=true" in found["taxi-latest.timer"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("name", ["plain", "with 100% spaces"])
def test_systemd_accepts_its_units_for_awkward_folders_and_programs(tmp_path: Path, name: str) -> None:
    program = tmp_path / name / "pipeline"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = job_text("systemd", program, tmp_path / AWKWARD, ("--scheduler", "http://x/?a=%20$b;"), 2)
    for file, content in units(text).items():
        (tmp_path / file).write_text(content)
    verify = ["systemd-analyze", "verify", *(str(tmp_path / file) for file in units(text))]
    ended = subprocess.run(verify, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    program.unlink()
    ended = subprocess.run(verify, capture_output=True, text=True)
    assert f"Command {program} is not executable" in ended.stderr, "it has read the exact path"


def test_the_yaml_has_what_kubernetes_and_compose_expect(awkward: Folder) -> None:
    found = printed(awkward, "--datasets", "fhv", "--scheduler", "http://luigid:8082")
    words = "pipeline latest fhv --workers 2 --scheduler http://luigid:8082"
    job = yaml.safe_load(found["kubernetes"])
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    minute, hour, *_ = cron_line(found["cron"]).split(" ")
    assert job["spec"]["schedule"] == f"{minute} {hour} * * *"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == words.split()
    assert container["image"] == "taxi-pipeline:latest"
    assert {"name": "LUIGI_CONFIG_PATH", "value": "/taxi/luigi.cfg"} in container["env"], "the image has one of its own"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"memory": "3Gi"}, "of two workers"
    assert job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 86400
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/taxi", "/tmp"}
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    service = yaml.safe_load(found["compose"])["services"]["latest"]
    assert service["entrypoint"] == ["sh", "-c"], "the image's would take the command for one of its own"
    assert service["command"] == [f"while :; do {words} && sleep 86400 || sleep 900; done"]
    assert service["image"] == "taxi-pipeline:latest"
    assert service["environment"] == {"LUIGI_CONFIG_PATH": "/taxi/luigi.cfg"}
    assert service["user"] == f"{os.getuid()}:{os.getgid()}"
    (mount,) = service["volumes"]
    assert mount["source"].replace("$$", "$") == str(awkward.path)
    assert mount["target"] == service["working_dir"]


def test_the_yaml_is_indented_by_twos_and_has_each_key_once(awkward: Folder) -> None:
    for kind in ("kubernetes", "compose"):
        lines = [line for line in printed(awkward, kind)[kind].splitlines() if line and line.lstrip()[0] != "#"]
        path: list[str] = []
        seen: set[tuple[str, ...]] = set()
        for line in lines:
            match = re.fullmatch(r"((?:  )*(?:- )?)([A-Za-z_-]+):(?: \S.*)?", line)
            assert match is not None, line
            above = path[: len(match[1]) // 2]
            if "-" in match[1]:  # Another item of a list, whose keys are its own.
                seen = {one for one in seen if [*one[: len(above)]] != above}
            path = [*above, match[2]]
            assert tuple(path) not in seen, line
            seen.add(tuple(path))


def test_with_a_luigid_in_luigi_cfg_no_scheduler_is_named(folder: Folder) -> None:
    file = folder.path / "luigi.cfg"
    file.write_text(file.read_text().replace("#scheduler_url =", "scheduler_url ="))
    assert "scheduler" not in cron_line(printed(folder, "cron")["cron"])


def test_without_a_luigi_cfg_it_reports_that_one_is_needed(folder: Folder) -> None:
    (folder.path / "luigi.cfg").unlink()
    assert f"There is no luigi.cfg in {folder.path}" in folder.pipeline("schedule", "cron").stdout


def test_the_time_is_fixed_for_a_machine_and_folder_and_spread_over_many() -> None:
    times = [_time_of_day(f"machine-{number}:/srv/taxi") for number in range(500)]
    assert times == [_time_of_day(f"machine-{number}:/srv/taxi") for number in range(500)]
    assert {hour for hour, _ in times} == {2, 3, 4, 5}
    assert {minute for _, minute in times} == set(range(1, 60))


# Latest, after a pause


def test_latest_includes_all_months_of_a_pause_longer_than_it_looks_back(folder: Folder) -> None:
    for month in ("2021-10", "2022-01"):
        load = folder.luigi("Load", "--dataset", "fhv", "--month", month)
        assert load.returncode == 0, load.stderr
    ended = folder.luigi("Latest", "--datasets", "fhv,green", "--months", "2", "--last", "2022-05")
    assert ended.returncode == 0, ended.stderr
    fhv = ["2021-10", "2022-01", "2022-02", "2022-03", "2022-04", "2022-05"]
    assert loaded(folder) == [*(("fhv", month) for month in fhv), ("green", "2022-04"), ("green", "2022-05")]


def test_latest_looks_only_so_far_back_if_newer_months_are_loaded(folder: Folder) -> None:
    load = folder.luigi("Load", "--dataset", "fhv", "--month", "2022-04")
    assert load.returncode == 0, load.stderr
    ended = folder.luigi("Latest", "--datasets", "fhv", "--months", "3", "--last", "2022-05")
    assert ended.returncode == 0, ended.stderr
    assert loaded(folder) == [("fhv", "2022-03"), ("fhv", "2022-04"), ("fhv", "2022-05")]


# The time limit


def test_a_step_beyond_the_time_limit_is_ended_and_the_others_are_done(tmp_path: Path, site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", site.url)
    file = folder.path / "luigi.cfg"
    file.write_text(file.read_text().replace("\n[worker]\n", "\n[worker]\ntimeout = 5\n"))
    site.faults.add("*2024-01*", "delay", 120, times=math.inf)
    span = ("--first", "2024-01", "--last", "2024-02")
    ended = folder.luigi("Backfill", "--datasets", "fhv", *span, "--workers", "1")
    assert ended.returncode == 1, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert re.match(r"download fhv 2024-01: .* timed out after 5 seconds and was terminated", last), ended.stderr
    assert loaded(folder) == [("fhv", "2024-02")]
    assert [process for process in psutil.process_iter() if works_in(process, folder.path)] == []
