"""Real commands started in special ways: under each start method, listened to, and with a luigid."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def read_to_end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The rest of stdout and stderr of a process whose lines were read; `communicate()` loses what is buffered."""
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        return process.stdout.read(), process.stderr.read()


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
    Ctrl-C once more. (`pipeline` does: tests/runs/test_kills.py.)
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
        """The options with which `luigi` finds it."""
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
        for _ in range(6):
            # Python drops the exception of a signal that comes within a finalizer: then it is sent again.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S / 6)
                break
        else:
            process.kill()
            process.wait()
        heard.rest()
        process.stdout and process.stdout.close()
        process.stderr and process.stderr.close()


def on_terminal(folder: Folder, *arguments: str, columns: int = 80, **environment: str) -> tuple[str, int]:
    """What the command shows on a terminal of that width, as it comes, and its exit code."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    ours = ("PIPELINE_", "LUIGI_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    command = [str(Path(sys.executable).parent / "pipeline"), *arguments]
    environment = {**kept, "TERM": "xterm-256color", **folder.environment, **environment}
    said = b""
    with subprocess.Popen(command, cwd=folder.path, env=environment, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        try:
            while part := os.read(mine, 1 << 16):
                said += part
        except OSError:  # how Linux says that the other side is closed
            pass
    os.close(mine)
    return said.decode().replace("\r\n", "\n"), process.returncode


def bare(text: str) -> list[str]:
    """The lines without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
