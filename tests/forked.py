"""The package's commands as forks of a process that has imported the libraries, which are most of a command's start.

Such a process has its own folder, environment, streams and session, as a started program has, and imports the package
itself. What it does not show is a library that the command forgets to import: so `Forks` starts each kind of command
once as a program. Tests about the process itself use `Folder.start`. `python forked.py FD` is the process that forks;
it ends with the other end of that socket.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

_MAX_BYTES = 1 << 20
_LIBRARIES = [
    "click",
    "google.cloud.bigquery",
    "google.cloud.storage",
    "duckdb",
    "jinja2",
    "numpy",
    "psycopg",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "requests",
    "rich.console",
    "rich.progress",
    "rich.table",
    "tornado.httpclient",
    "tornado.web",
]
#: Variables that Python reads when it starts.
_READ_EARLY = ("PYTHON", "LC_", "LANG")


class Forks:
    """The process that forks, started with the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._started: set[tuple[str, ...]] = set()

    def can_run(self, command: tuple[str, ...], environment: dict[str, str]) -> bool:
        """Whether the command is one of the package's and has run as a program before."""
        kind = (command[0], next((word for word in command[1:] if not word.startswith("-")), ""))
        if command[0] not in ("pipeline", "luigi"):
            return False
        if kind not in self._started:
            self._started.add(kind)
            return False
        changed = {name for name, _ in set(environment.items()) ^ set(os.environ.items())}
        return not any(name.startswith(_READ_EARLY) for name in changed)

    def run(
        self, command: tuple[str, ...], folder: Path, environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self._lock:
            if self._process is None:
                self._start()
            mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            out, err = os.pipe(), os.pipe()
            asked = json.dumps([command, str(folder), environment]).encode()
            socket.send_fds(self._socket, [asked], [its.fileno(), out[1], err[1]])
        its.close()
        os.close(out[1])
        os.close(err[1])
        with mine:
            pid = int(mine.recv(_MAX_BYTES))
            try:
                texts = _read_all((out[0], err[0]), time.monotonic() + timeout_s)
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout_s) from None
            finally:
                os.close(out[0])
                os.close(err[0])
            return subprocess.CompletedProcess(command, int(mine.recv(_MAX_BYTES)), *texts)

    def _start(self) -> None:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_BYTES)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                pass_fds=[its.fileno()],
                cwd="/",
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End the process that forks."""
        if self._process:
            self._socket.close()
            self._process.wait()


def _read_all(pipes: tuple[int, int], until: float) -> list[str]:
    texts = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(until - time.monotonic())
            if not ready and time.monotonic() >= until:
                raise TimeoutError
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                texts[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
    return [text.decode().replace("\r\n", "\n").replace("\r", "\n") for text in texts.values()]


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each request; returns the command line in the fork, which becomes that command."""
    while True:
        asked, descriptors, _, _ = socket.recv_fds(requests, _MAX_BYTES, 3)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not asked:
            sys.exit()
        command, folder, environment = json.loads(asked)
        answer, *streams = descriptors
        # One process waits for the command, so that commands may overlap.
        if _fork() == 0:
            requests.close()
            pid = _fork()
            if pid == 0:
                os.setsid()
                os.close(answer)
                for stream, number in zip(streams, (1, 2), strict=True):
                    os.dup2(stream, number)
                    os.close(stream)
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environment)
                return command
            for stream in streams:
                os.close(stream)
            with socket.socket(fileno=answer) as client:
                client.send(str(pid).encode())
                client.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns if a library has threads; those of OpenBLAS and jemalloc may be forked.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _main() -> None:
    sys.path[0] = str(Path(sys.executable).parent)  # As a program has it: no test's module.
    for name in _LIBRARIES:
        # A fork of a process with DuckDB 1.4 or 1.5 that opens a database is aborted by C++ when Python ends. Steps and
        # the board's answering process end before that, with os._exit.
        if name != "duckdb" or not importlib.metadata.version(name).startswith("1."):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        sys.argv = _serve(requests)
    if Path(sys.argv[0]).name == "luigi":
        from luigi.cmdline import luigi_run as main
    else:
        from pipeline.cli import main
    sys.exit(main())


if __name__ == "__main__":
    _main()
