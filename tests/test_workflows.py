"""The files for GitHub, pre-commit and dev containers are valid, and name what there is."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BIN, ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
RUNS = [(name, step["run"]) for name, job in JOBS.items() for step in job["steps"] if "run" in step]
#: Of the Makefile: each target, with those that are files.
TARGETS = {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), ".venv/ready"}
DEVCONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
#: Tried before it is supported.
NEXT_PYTHON = "3.14"


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup


def _pythons() -> list[str]:
    return re.findall(r"Python :: (3\.\d+)$", _setup()["metadata"]["classifiers"], re.MULTILINE)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/*.yml"),
        ("dependabot", ".github/dependabot.yml"),
    ],
)
def test_the_files_for_github_are_valid_by_their_schemas(schema: str, files: str) -> None:
    paths = [str(path) for path in sorted(ROOT.glob(files)) if path.name != "config.yml"]
    assert paths
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *paths]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_every_job_of_the_workflow_has_a_time_limit() -> None:
    assert [name for name, job in JOBS.items() if "timeout-minutes" not in job] == []


def test_the_workflow_tests_the_pythons_that_setup_cfg_names() -> None:
    assert JOBS["test"]["strategy"]["matrix"]["python"] == _pythons()


def test_every_image_of_a_job_and_of_the_dev_container_has_a_python_that_is_known() -> None:
    containers = [job["container"] for job in JOBS.values() if "container" in job]
    images = [container["image"] if isinstance(container, dict) else container for container in containers]
    for image in [*images, DEVCONTAINER["image"]]:
        (python,) = re.findall(r"^python:(.+)-bookworm$", image)
        assert python in [*_pythons(), NEXT_PYTHON, "${{ matrix.python }}"], image


def test_every_make_target_that_is_named_exists() -> None:
    commands = [*(run for _, run in RUNS), DEVCONTAINER["postCreateCommand"]]
    words = " ".join(re.findall(r"\bmake ([^&|;\n]+)", re.sub(r"\$\{\{.*?\}\}", "", "\n".join(commands)))).split()
    named = [word for word in words if "=" not in word and word != "make"]
    assert "lint" in named
    assert [target for target in named if target not in TARGETS] == []


def test_every_file_that_a_step_names_exists() -> None:
    tops = "|".join(
        re.escape(path.name) for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".venv")
    )
    named = re.findall(rf"(?<![\w/$.-])((?:{tops})/[\w./-]+)", "\n".join(run for _, run in RUNS))
    assert {".ci/run", "docker/verify.sh"} <= {*named}
    # Made by the steps themselves.
    missing = [name for name in named if not name.startswith(("build/", "dist/")) and not (ROOT / name).exists()]
    assert missing == []


def test_the_extras_that_a_step_installs_are_those_of_the_makefile_and_exist() -> None:
    extras = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["env"]["EXTRAS"]
    assert extras in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {*extras.split(",")} <= {*_setup()["options.extras_require"]}


@pytest.mark.skipif(not (BIN / "shellcheck").exists(), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say_about_the_steps(tmp_path: Path) -> None:
    for index, (name, run) in enumerate(RUNS):
        (tmp_path / f"{name}-{index}.sh").write_text("#!/bin/bash\n" + re.sub(r"\$\{\{.*?\}\}", "lowest", run) + "\n")
    # PYTEST and EXTRAS come from the workflow; PYTEST is several words.
    command = [str(BIN / "shellcheck"), "--exclude", "SC2086,SC2154", *map(str, sorted(tmp_path.iterdir()))]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_the_hooks_of_pre_commit_are_commands_that_the_dev_extra_installs(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    dev = _setup()["options.extras_require"]["dev"]
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert {"id", "name", "entry", "language"} <= {*hook}
        command = Path(hook["entry"].split()[0])
        assert command.parent == Path(".venv/bin")
        assert re.search(rf"^{command.name} ", dev, re.MULTILINE), command
        assert shutil.which(BIN / command.name)
