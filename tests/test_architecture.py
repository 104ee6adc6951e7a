"""Which part may import which: the arrows, and what importing the package does not do.

The tables below are the rule. A part is a module of `pipeline/`, or a package with all that is in it.
"""

from __future__ import annotations

import ast
import configparser
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Everyone may import these, and each part itself.
FOR_EVERYONE = ("deprecation", "disk", "errors", "months", "units", "version")

#: A part, then those that it may import besides; `a.b` allows that module of the package alone.
#: `settings` reads the settings, and `places` opens what they name; the rooms below get values, not settings.
ARROWS = """
    pipeline    read runs.stopping tasks
    __main__    cli

    cli         board runs report state tasks conform places settings datasets lake marts source warehouses
    cli         sample.process
    board       runs report state tasks.logs tasks.luigi_options tasks.workers places settings datasets lake marts
    board       source.retries
    runs        tasks lake state places settings source.retries datasets marts warehouses.base
    report      state.inventory datasets marts settings
    tasks       runs.events state conform places settings datasets lake marts source warehouses
    read        places settings datasets lake state.inventory state.trips
    state       conform.check datasets lake marts source warehouses.base
    places      settings lake source warehouses state
    settings    tasks.luigi_options

    conform     raw datasets
    source      raw datasets
    raw
    marts       warehouses.base
    warehouses  datasets lake.google_cloud lake.planning
    lake        datasets source.retries

    sample      datasets.published

    datasets
    deprecation
    disk
    months
    errors
    units
    version
"""

#: What others have made, and the parts that may import it.
OTHERS = {
    "luigi": "pipeline settings tasks runs cli board",
    "pyarrow": "datasets raw conform state warehouses read sample cli",
    "requests": "source lake.google_cloud runs cli",
    "urllib3": "source",
    "click": "cli",
    "tornado": "board",
    "rich": "cli",
    "packaging": "cli",
    "numpy": "sample warehouses",
    "pandas": "read",
    "polars": "read",
    "duckdb": "warehouses read cli",
    "psycopg": "warehouses",
    "google": "lake warehouses",
    "google_crc32c": "lake",
    "sqlglot": "warehouses",
    "yaml": "cli",
    "altair": "report",
    "vl_convert": "report",
}

#: Slow to import, or absent: imported only in the functions that need them.
DRIVERS = ("pandas", "polars", "duckdb", "psycopg", "google", "google_crc32c", "sqlglot", "altair", "vl_convert")

#: Those that setup.cfg has under another name, or not at all since another one, which is there, needs it.
BROUGHT_BY = {"google_crc32c": "google", "yaml": "pyyaml", "vl_convert": "vl-convert-python"}

#: Who reads the environment: for settings, for what Google's own libraries, Luigi and requests read there, and whether
#: there is a desktop.
ENVIRONMENT = ("settings", "lake", "source", "tasks", "cli")

MOST_LINES = 400

#: Modules that are longer, and why.
LONGER: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """One name that a module imports, and where: in the module itself, in a function, or for type checkers only."""

    module: str
    target: str
    line: int
    where: str

    @property
    def part(self) -> str:
        return part_of(self.module)

    def __str__(self) -> str:
        return f"{modules()[self.module].relative_to(ROOT)}:{self.line} imports {self.target}"


def part_of(module: str) -> str:
    """The part that a module of ours belongs to."""
    return module.split(".")[1] if "." in module else module


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of every module."""
    return tuple(
        found for module, path in modules().items() for found in _imports(module, ast.parse(path.read_text()), "module")
    )


def _imports(module: str, node: ast.AST, where: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = "function"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inside = "types"
        elif isinstance(child, ast.Import):
            yield from (Import(module, name.name, child.lineno, where) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno} imports by a relative name"
            for name in child.names:
                full = f"{child.module}.{name.name}"
                yield Import(module, full if full in modules() else str(child.module), child.lineno, where)
        yield from _imports(module, child, inside)


def _arrows() -> dict[str, list[str]]:
    arrows: dict[str, list[str]] = {}
    for part, *allowed in (line.split() for line in ARROWS.splitlines() if line.strip()):
        arrows.setdefault(part, []).extend(allowed)
    return arrows


def _allowed(one: Import) -> bool:
    """Whether an import of our own is in the table."""
    target = one.target.removeprefix("pipeline.")
    if part_of(one.target) in (one.part, *FOR_EVERYONE):
        return True
    return any(target == allowed or target.startswith(f"{allowed}.") for allowed in _arrows()[one.part])


def _is_ours(one: Import) -> bool:
    return one.target.split(".")[0] == "pipeline"


def test_every_part_is_in_the_table() -> None:
    assert {part_of(module) for module in modules()} - set(_arrows()) == set()
    assert {name.split(".")[0] for allowed in _arrows().values() for name in allowed} <= set(_arrows())


def test_no_import_goes_against_the_arrows() -> None:
    against = [str(one) for one in imports() if _is_ours(one) and not _allowed(one)]
    assert not against, "\n".join(["against the arrows at the top of this file:", *against])


def test_a_forbidden_import_would_be_found() -> None:
    source = "def f():\n    if x:\n        from pipeline import lake\nimport pipeline.tasks.lake\n"
    found = list(_imports("pipeline.conform", ast.parse(source), "module"))
    assert [(one.target, one.line, one.where) for one in found] == [
        ("pipeline.lake", 3, "function"),
        ("pipeline.tasks.lake", 4, "module"),
    ]
    assert not any(_allowed(one) for one in found)
    assert _allowed(Import("pipeline.marts", "pipeline.warehouses.base", 1, "module"))
    assert not _allowed(Import("pipeline.marts", "pipeline.warehouses.duckdb", 1, "module"))


def test_no_module_needs_itself_to_be_imported() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for one in imports():
        # Wherever it is: one in a function, or for type checkers, only hides a circle.
        if _is_ours(one) and one.target != one.module:
            graph[one.module].add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_what_others_made_is_imported_only_where_the_table_says() -> None:
    for one in imports():
        name = one.target.split(".")[0]
        if not _is_ours(one) and name not in sys.stdlib_module_names:
            assert name in OTHERS, f"{one}, which the table of others lacks"
            inside = one.module.removeprefix("pipeline.")
            allowed = any(f"{inside}.".startswith(f"{part}.") for part in OTHERS[name].split())
            assert allowed, f"{one}; allowed in {OTHERS[name]}"


def test_what_others_made_is_declared_in_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    declared = {line.split()[0].split("[")[0].lower() for text in texts for line in text.splitlines() if line.strip()}
    used = {one.target.split(".")[0] for one in imports()} & set(OTHERS)
    for name in sorted(used - set(BROUGHT_BY)) + [BROUGHT_BY[name] for name in sorted(used & set(BROUGHT_BY))]:
        assert any(found == name or found.startswith(f"{name}-") for found in declared), name


def test_a_driver_is_imported_only_in_the_function_that_needs_it() -> None:
    early = [str(one) for one in imports() if one.target.split(".")[0] in DRIVERS and one.where == "module"]
    assert not early, "\n".join(["a driver that everyone would pay for:", *early])


def test_the_environment_is_read_where_the_settings_are() -> None:
    readers = [
        part_of(module)
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    ]
    assert set(readers) <= set(ENVIRONMENT)


def test_no_module_is_long_without_a_reason() -> None:
    lines = {
        module.removeprefix("pipeline."): len(path.read_text(encoding="utf-8").splitlines())
        for module, path in modules().items()
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES and name not in LONGER} == {}
    assert set(LONGER) <= set(lines)


#: Imports the libraries first: Luigi itself reads luigi.cfg, and urllib3 tries whether there is IPv6.
_WATCHED = """
import json, sys
import luigi, luigi.tools.range, pyarrow, pyarrow.compute, pyarrow.csv, pyarrow.parquet, requests

events = []

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".py", ".pyc")):
        return
    if event in WATCHED or event.startswith(("socket.", "subprocess.", "shutil.")):
        events.append(f"{event} {arguments!r}")
    if event.startswith("socket."):
        raise OSError("there is no network here")

WATCHED = ("open", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir", "os.rename", "os.remove")
sys.addaudithook(note)
before = set(sys.modules)
import pipeline
loaded = sorted(set(sys.modules) - before)
print(json.dumps({"events": events, "loaded": loaded, "all": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a fresh process did while it imported the package, in a folder with a luigi.cfg that cannot be."""
    folder = tmp_path_factory.mktemp("import")
    (folder / "luigi.cfg").write_text("[pipeline]\nsource = nowhere\nno_such_option = 1\n")
    done = subprocess.run(
        # In a new environment, the first process would write what it compiles.
        [sys.executable, "-B", "-c", _WATCHED],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["luigi.cfg"]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_importing_the_package_opens_no_file_and_no_socket_and_starts_nothing(watched: dict[str, list[str]]) -> None:
    assert watched["events"] == []


def test_importing_the_package_imports_no_driver_and_nothing_that_a_command_needs(
    watched: dict[str, list[str]],
) -> None:
    late = {*DRIVERS, "click", "rich", "pipeline.cli", "pipeline.runs.history", "pipeline.sample", "http.server"}
    assert late.isdisjoint(watched["all"])
    engines = ("pipeline.warehouses.duckdb", "pipeline.warehouses.postgres", "pipeline.warehouses.bigquery")
    assert [name for name in watched["all"] if name.startswith((*engines, "pipeline.lake.gcs"))] == []


def test_importing_the_package_brings_no_library_but_those_that_every_run_needs(
    watched: dict[str, list[str]],
) -> None:
    foreign = {name.split(".")[0] for name in watched["loaded"]} - set(sys.stdlib_module_names)
    assert foreign == {"pipeline"}


#: Runs the command of its arguments and then prints, as the last line, what was imported.
_COMMAND = """
import atexit, json, os, sys
atexit.register(lambda: os.write(1, ("\\n" + json.dumps(sorted(sys.modules))).encode()))
from pipeline.cli import main
main(sys.argv[1:])
"""


def _imported_by(folder: Path, *command: str) -> set[str]:
    """The libraries that a command imports, and what they import."""
    source = {"PIPELINE_SOURCE": str(folder), "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", _COMMAND, *command]
    done = subprocess.run(arguments, cwd=folder, env={**os.environ, **source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_the_help_and_the_version_import_no_library_but_click(tmp_path: Path) -> None:
    for option in ("--help", "--version"):
        assert set(OTHERS) & _imported_by(tmp_path, option) == {"click"}


@pytest.mark.parametrize("command", ["status", "history", "describe", "schedule cron", "backfill --help"])
def test_a_command_that_opens_no_trips_file_imports_no_library_that_reads_one(command: str, tmp_path: Path) -> None:
    assert _imported_by(tmp_path, *command.split()) & {*DRIVERS, "pyarrow", "numpy", "yaml"} == set()
