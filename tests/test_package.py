"""What a user installs: a wheel that works without the repository, and an sdist that is the repository."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.sample import SampleSite
from pipeline.version import __version__

FOLDERS = (".ci", ".devcontainer", ".github", "benchmarks", "docker", "docs", "pipeline", "tests")
#: How uv says that it did not come as far as the index.
UNREACHABLE = re.compile(r"error sending request|failed to fetch|connection refused|dns error|timed? ?out", re.I)
#: What runs, tools and users leave in a checkout.
RUBBISH = (
    *("data/lake/trips.parquet", ".venv/pyvenv.cfg", "docs/_build/index.html", ".mypy_cache/3.10/cache.json"),
    *("docker/.env", "docker/secrets/google_credentials.json", "docker/data/lake/trips.parquet"),
    *("tests/__pycache__/conftest.cpython-310.pyc", "pipeline/__pycache__/read.cpython-310.pyc"),
)
#: What setuptools adds to an sdist.
ADDED = {"PKG-INFO", "taxi_pipeline.egg-info"}


def checkout() -> set[str]:
    """The files of the repository; without git, those in its folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    paths = [path for path in ROOT.iterdir() if path.name != "PKG-INFO"]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    names = {path.relative_to(ROOT).as_posix() for path in paths if path.is_file()}
    return {name for name in names if not re.search(r"__pycache__|_cache/|^docs/_build/|\.venvs/|\.env$", name)}


class Built:
    """A wheel and an sdist, made from a copy of the repository with rubbish in it."""

    def __init__(self, folder: Path) -> None:
        for name in checkout():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        for name in RUBBISH:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("rubbish")
        # The wheel is made from the sdist.
        command = [sys.executable, "-m", "build", "--installer", "uv", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        said = done.stdout + done.stderr
        if done.returncode and UNREACHABLE.search(said):
            pytest.skip("the package index, which has setuptools for the build, cannot be reached")
        assert done.returncode == 0, said
        dist = folder / "dist"
        self.sdist, self.wheel = sorted(dist.iterdir(), key=lambda path: path.suffix)
        with tarfile.open(self.sdist) as archive:
            self.in_sdist = {member.name.partition("/")[2] for member in archive if member.isfile()}
        with zipfile.ZipFile(self.wheel) as archive:
            self.in_wheel = set(archive.namelist())
            metadata = next(name for name in self.in_wheel if name.endswith(".dist-info/METADATA"))
            self.metadata = email.message_from_bytes(archive.read(metadata))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("checkout"))


class Environment:
    """A virtual environment of its own that has the wheel, and sees the libraries of the environment of the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.before = self.files()
        # Before the libraries are seen, because the environment of the tests has the package, too: installed to edit.
        self.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel))
        self.libraries = next(folder.glob("lib/python*/site-packages")) / "libraries.pth"
        seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        # Python ignores .pth files in a folder that a .pth file names, such as that of the package in the checkout.
        self.libraries.write_text("\n".join(seen))

    def files(self) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """What the command prints, run without any environment variable."""
        words = [str(self.folder / "bin" / command[0]), *command[1:]]
        done = subprocess.run(words, cwd=cwd, env={}, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The wheel in an environment; at the end, it is uninstalled and nothing of it is left."""
    environment = Environment(tmp_path_factory.mktemp("venv"), built.wheel)
    yield environment
    environment.libraries.unlink()
    environment.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "taxi-pipeline")
    left = environment.files() - environment.before
    assert {name for name in left if not re.search(r"/(pip|setuptools|pkg_resources|_distutils_hack)/", name)} == set()


def test_the_sdist_has_every_file_of_the_repository_and_nothing_else(built: Built) -> None:
    assert {name for name in built.in_sdist if name.partition("/")[0] not in ADDED} == checkout()


def test_the_wheel_has_every_file_of_the_package_its_licence_and_nothing_else(built: Built) -> None:
    package = {name for name in checkout() if name.startswith("pipeline/")}
    assert {"pipeline/py.typed", "pipeline/marts/daily_trips.sql", "pipeline/board/locale/ko.csv"} <= package
    assert {name for name in built.in_wheel if not re.match(r"taxi_pipeline-[^/]+\.dist-info/", name)} == package
    assert any(name.endswith("LICENSE") for name in built.in_wheel)


def test_an_index_can_show_the_description_which_links_to_no_file_of_the_repository(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
    assert built.metadata["Version"] == __version__
    description = built.metadata.get_payload()
    assert "pipeline demo" in description
    assert "](" not in description


def test_an_installed_wheel_is_what_runs(installed: Environment, tmp_path: Path) -> None:
    assert installed.run("pipeline", "--version", cwd=tmp_path) == f"pipeline, version {__version__}\n"
    program = (
        "import pipeline; from importlib.metadata import version; print(pipeline.__file__, version('taxi-pipeline'))"
    )
    file, version = installed.run("python", "-c", program, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.folder)
    assert version == __version__


def test_the_demo_runs_in_an_empty_folder_without_a_luigi_cfg(installed: Environment, tmp_path: Path) -> None:
    shown = installed.run("pipeline", "demo", "--workers", "2", "--scale", "0.001", cwd=tmp_path)
    assert "2024-01" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert installed.run("pipeline", "sql", "--demo", "SELECT COUNT(*) FROM monthly_summary", cwd=tmp_path)


def test_luigi_runs_a_task_of_the_wheel(installed: Environment, tmp_path: Path, shared_site: SampleSite) -> None:
    task = ["Load", "--dataset", "green", "--month", "2024-01", "--pipeline-source", shared_site.url]
    installed.run("python", "-m", "luigi", "--module", "pipeline", *task, "--local-scheduler", cwd=tmp_path)
    assert (tmp_path / "data" / "warehouse.duckdb").is_file()
