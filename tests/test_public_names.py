"""The names that users' commands, scripts and luigi.cfg hold. One may be added here; none may go or change.

A renamed one works on under its old name until the version that `pipeline.deprecation` says.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import pipeline
from pipeline.cli import import_command
from pipeline.deprecation import OLD_NAMES
from pipeline.settings import pipeline as settings_section
from pipeline.version import __version__

#: The tasks of `luigi --module pipeline`, each with its parameters.
TASKS = {
    "Download": "month dataset",
    "Conform": "month dataset",
    "Load": "month dataset",
    "Mart": "month dataset",
    "DownloadZones": "",
    "ConformZones": "",
    "LoadZones": "",
    "Backfill": "datasets first last through",
    "Latest": "datasets months last",
    "Expose": "",
    "RangeMonthly": "of of_params start stop",
}
SETTINGS = (
    "lake warehouse source source_format publication_lag_months timeout_s download_limit_gb retries retry_wait_s "
    "load_memory load_threads lock_timeout_s scratch logs notify_url"
)
_PLACES = "--lake --warehouse --source --source-format --demo"
_SAYS = "--quiet --verbose"
#: The commands of `pipeline`, each with its options.
COMMANDS = {
    "backfill": f"--workers --through --newest-first --oldest-first --keep-going --fail-fast --no-space-check"
    f" --scheduler --json {_PLACES} {_SAYS}",
    "latest": f"--months --last --workers --scheduler --json {_PLACES} {_SAYS}",
    "plan": f"--through --json {_PLACES} {_SAYS}",
    "status": f"--json --html {_PLACES} {_SAYS}",
    "report": f"--html {_PLACES} {_SAYS}",
    "redo": f"--from --yes --workers --scheduler {_PLACES} {_SAYS}",
    "refresh": f"--apply --json --workers --scheduler {_PLACES} {_SAYS}",
    "check": f"--json {_PLACES} {_SAYS}",
    "diff": f"--against --json {_PLACES} {_SAYS}",
    "describe": "--contract --dbt --json",
    "head": f"--rows --columns --csv --json {_PLACES} {_SAYS}",
    "sql": f"--format --output --force --limit {_PLACES} {_SAYS}",
    "history": f"--last --follow --json {_PLACES} {_SAYS}",
    "logs": f"--step --lines --all {_PLACES} {_SAYS}",
    "doctor": f"--json --offline --workers --scheduler {_PLACES}",
    "schedule": "--datasets --workers --scheduler",
    "demo": "--workers --scale --data",
    "completion": "",
}


def test_the_tasks_of_luigi_have_their_names_and_parameters() -> None:
    for name, parameters in TASKS.items():
        task = getattr(pipeline, name)
        assert task.get_task_family() == name
        assert set(parameters.split()) <= {known for known, _ in task.get_params()}, name


#: Ways in which a program gets the tasks: all are registered by their names after each.
WAYS = [
    "import luigi, pipeline",
    "import pipeline, luigi",
    "import pipeline.runs.history, luigi.server",
    "from luigi.cmdline_parser import CmdlineParser; CmdlineParser(['--module', 'pipeline', 'LoadZones'])",
    "from luigi.task_register import load_task; load_task('pipeline', 'LoadZones', {})",
    "import pipeline; from luigi.task_register import load_task; load_task('pipeline', 'LoadZones', {})",
    "from luigi.task_register import load_task; load_task('pipeline.tasks.warehouse', 'LoadZones', {})",
    "import pickle; pickle.loads(b'cpipeline.tasks.warehouse\\nLoadZones\\n.')",
    "import pipeline; pipeline.LoadZones",
    "from pipeline import LoadZones",
    "from pipeline import *",
]


@pytest.mark.parametrize("way", WAYS)
def test_every_public_name_is_there_however_a_program_imports_it(way: str) -> None:
    checks = (
        f"names = {[*TASKS]}",
        "import pipeline",
        "assert {*names, 'read', '__version__'} <= {*dir(pipeline), *pipeline.__all__}",
        "from luigi.task_register import Register",
        "assert all(getattr(pipeline, name) is Register.get_task_cls(name) for name in names)",
        "assert callable(pipeline.read)",
    )
    _run("; ".join([way, *checks]))


def test_luigi_run_finds_a_task_by_its_name_when_it_is_imported_after_the_package(tmp_path: Path) -> None:
    run = "luigi.run(['Backfill', '--help'])"
    assert "--datasets" in _run(f"import pipeline; import luigi; {run}", tmp_path)
    assert "--datasets" in _run(f"import luigi; import pipeline; {run}", tmp_path)


def test_read_works_where_a_program_wraps_every_finder_as_notebooks_do(tmp_path: Path) -> None:
    wrap = "finder = sys.meta_path[0]; found = finder.find_spec; finder.find_spec = lambda *names: found(*names)"
    _run(f"import sys, pipeline; {wrap}; import pipeline.settings; from luigi.task_register import Register", tmp_path)


def test_the_submodule_that_has_read_does_not_hide_it() -> None:
    _run("from pipeline.read import read; import pipeline; assert pipeline.read is read")


@pytest.mark.parametrize(
    "statement",
    [
        "import pipeline",
        "import pipeline.runs.history, pipeline.errors, pipeline.months",
        "import pipeline.cli; pipeline.cli.cli(['--help'], standalone_mode=False)",
        "import pipeline.cli; pipeline.cli.cli(['--version'], standalone_mode=False)",
    ],
)
def test_what_needs_no_task_imports_no_large_library(statement: str) -> None:
    shown = _run(
        f"import sys; {statement}; print(sorted({{'luigi', 'numpy', 'pyarrow', 'requests'}} & {{*sys.modules}}))"
    )
    assert shown.splitlines()[-1] == "[]"


def test_a_module_of_ours_that_imports_luigi_does_not_import_pyarrow() -> None:
    """The settings are read in processes that run no task."""
    assert _run("import sys, pipeline.settings, luigi.server; print('pyarrow' in sys.modules)") == "False\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    _run("import pipeline; assert not hasattr(pipeline, 'Bakfill')")


def _run(program: str, folder: Path | None = None) -> str:
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_settings_have_their_names() -> None:
    assert set(SETTINGS.split()) <= {name for name, _ in settings_section.get_params()}
    assert settings_section.get_task_family() == "pipeline"


def test_the_commands_have_their_names_and_options() -> None:
    for name, options in COMMANDS.items():
        known = {option for each in import_command(name).params for option in (*each.opts, *each.secondary_opts)}
        assert set(options.split()) <= known, name


def test_what_libraries_import_has_its_name_and_arguments() -> None:
    from pipeline.conform import conform_file
    from pipeline.datasets import DATASETS

    assert list(inspect.signature(pipeline.read).parameters)[:3] == ["dataset", "period", "columns"]
    assert list(inspect.signature(conform_file).parameters)[:4] == ["raw", "draft", "dataset", "month"]
    assert {"yellow", "green", "fhv", "fhvhv"} <= set(DATASETS)


def test_an_old_name_goes_with_the_version_that_its_warning_says() -> None:
    due = {old for old, (_, removed_in) in OLD_NAMES.items() if Version(__version__) >= Version(removed_in)}
    assert not due, "remove what reads them, and say so in CHANGELOG.md"


def test_what_luigi_cfg_names_can_be_imported() -> None:
    from pipeline.tasks.process import TaskProcessContext

    assert callable(TaskProcessContext)


@pytest.mark.parametrize("module", ["pipeline", "pipeline.sample"])
def test_the_modules_that_are_run_have_their_names(module: str) -> None:
    ended = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
