"""Real commands started in special ways: under each start method, listened to, and with a luigid."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import requests
from conftest import Folder

#: `python -c` with this, a start method of multiprocessing, and a command.
RUNNER = """
import multiprocessing, sys
method, command, *arguments = sys.argv[1:]
multiprocessing.set_start_method(method)
if command == "luigi":
    from luigi.cmdline import luigi_run as main
else:
    from pipeline.cli import main
main(arguments)
"""

_PATIENCE_S = 60


def started_by(method: str, *command: str) -> tuple[str, ...]:
    """The command, as one whose processes come about by `method`: fork, forkserver or spawn."""
    return ("python", "-c", RUNNER, method, *command)


class Heard:
    """What a process says on stderr, line by line as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._queue: Queue[str | None] = Queue()
        self._thread = threading.Thread(target=self._listen, args=(process,), daemon=True)
        self._thread.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._queue.put(line)
        self._queue.put(None)

    def until(self, wanted: Callable[[str], bool], times: int = 1) -> None:
        """Wait until so many lines were as wanted."""
        while times:
            line = self._queue.get(timeout=_PATIENCE_S)
            assert line is not None, "it ended first; it said:\n" + "".join(self.lines)
            self.lines.append(line)
            times -= wanted(line)

    def rest(self) -> str:
        """All that was said, once the process and its children have ended."""
        while (line := self._queue.get(timeout=_PATIENCE_S)) is not None:
            self.lines.append(line)
        return "".join(self.lines)


def stopped_by(process: subprocess.Popen[str], send: Callable[[], object]) -> int:
    """Send a signal until the process has ended; returns its code.

    Python drops an interrupt that comes within a hook of fork, and plain `luigi` does not notice; a person types
    Ctrl-C once more. (`pipeline` does: tests/test_kills.py.)
    """
    for _ in range(6):
        with contextlib.suppress(ProcessLookupError):
            send()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(5)
    raise AssertionError(f"still running after six signals: {process.args!r}")


class Luigid:
    """A luigid on loopback."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port, self.process = port, process
        self.url = f"http://127.0.0.1:{port}"

    @property
    def options(self) -> tuple[str, ...]:
        """What `luigi` is told to find it."""
        return ("--scheduler-host", "127.0.0.1", "--scheduler-port", str(self.port))

    def ask(self, call: str, **data: Any) -> Any:
        """The answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/{call}"
        answer = requests.post(url, data={"data": json.dumps(data)}, timeout=_PATIENCE_S)
        answer.raise_for_status()
        return answer.json()["response"]

    def tasks(self, status: str = "") -> dict[str, dict[str, Any]]:
        """The tasks it knows, by id."""
        found: dict[str, dict[str, Any]] = self.ask("task_list", status=status, upstream_status="", limit=False)
        return found


@contextmanager
def running_luigid(folder: Folder, port: int = 0) -> Iterator[Luigid]:
    """A luigid that reads the luigi.cfg of the folder and keeps its state there; at any port unless one is given."""
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    state = str(folder.path / "luigid.pickle")
    process = folder.start("luigid", "--address", "127.0.0.1", "--port", str(port), "--state-path", state)
    heard = Heard(process)
    try:
        heard.until(lambda line: "Scheduler starting up" in line)
        yield Luigid(port, process)
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)
        heard.rest()
        process.stdout and process.stdout.close()
        process.stderr and process.stderr.close()
