"""What tests share: a sample site, a folder of their own, and the real commands in a process of their own."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from forked import Forks

from pipeline.sample import SampleSite

pytest.register_assert_rewrite("warehouse_contract")
pytest_plugins = ["emulators", "cloud", "postgres", "browsers"]

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
_forks = Forks()
#: Of a test that fails, pytest shows every command with the end of what it printed: it may not happen again.
_log = logging.getLogger("tests.commands")
_log.setLevel(logging.INFO)
_SHOWN = 20_000

# Tests start the commands thousands of times; without compiled modules each of them would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell starts what runs in its background with Ctrl-C ignored, and every process below would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Files of few tests that take long; one that begins last would keep the others waiting at the end.
_LONGEST = (
    "test_kills.py",
    "test_plan_equals_run.py",
    "test_cloud_runs.py",
    "test_postgres_server.py",
    "test_luigi.py",
    "test_luigid.py",
    "test_runs.py",
    "test_extending.py",
    "test_refresh.py",
    "test_operating.py",
    "test_data_commands.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the others have the order of pytest-randomly."""
    rank = {name: index for index, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_unconfigure() -> None:
    _forks.close()


@pytest.fixture(scope="session")
def shared_site() -> Iterator[SampleSite]:
    """A sample site of small months, without faults."""
    with SampleSite(rows=2_000) as site:
        yield site


@pytest.fixture
def site() -> Iterator[SampleSite]:
    """A sample site of its own for a test that orders faults or counts requests."""
    with SampleSite(rows=500) as site:
        yield site


@dataclass
class Folder:
    """A working folder with the project's luigi.cfg, and the commands run in it as a user would."""

    path: Path
    source: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def lake(self) -> Path:
        return self.path / "data" / "lake"

    @property
    def database(self) -> Path:
        return self.path / "data" / "warehouse.duckdb"

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
        return {**kept, "PIPELINE_SOURCE": self.source, "PIPELINE_RETRY_WAIT_S": "0.05", **self.environment}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command of this environment; its processes form a group of their own."""
        return subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            cwd=self.path,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; see forked.py."""
        environment = self._environment()
        if _forks.can_run(command, environment):
            ended = _forks.run((str(BIN / command[0]), *command[1:]), self.path, environment, timeout_s)
        else:
            process = self.start(*command)
            out, err = process.communicate(timeout=timeout_s)
            ended = subprocess.CompletedProcess(command, process.returncode, out, err)
        said = "".join(text[-_SHOWN:] for text in (ended.stdout, ended.stderr))
        shown = f"$ {shlex.join(command)}\n{said}exit code {ended.returncode}"
        _log.info(shown.encode(errors="backslashreplace").decode())  # A path may have bytes that are no UTF-8.
        return ended

    def pipeline(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("pipeline", *arguments)

    def luigi(self, *arguments: str, local: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("luigi", "--module", "pipeline", *arguments, *(["--local-scheduler"] if local else []))

    def copy(self, path: Path) -> Folder:
        """A copy of the folder, for a test that changes something."""
        shutil.copytree(self.path, path)
        return Folder(path, self.source, {**self.environment})

    def files(self) -> list[str]:
        """Every file below data but logs, as paths relative to it, sorted; the database's own included."""
        data = self.path / "data"
        files = (path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file())
        return sorted(name for name in files if not name.startswith("logs/"))


def make_folder(path: Path, source: str) -> Folder:
    path.mkdir(parents=True, exist_ok=True)
    (path / "luigi.cfg").write_text((ROOT / "luigi.cfg").read_text())
    return Folder(path, source)


@pytest.fixture
def folder(tmp_path: Path, shared_site: SampleSite) -> Folder:
    """A working folder whose source is the shared sample site."""
    return make_folder(tmp_path / "work", shared_site.url)
