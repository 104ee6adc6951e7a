"""What steps tell the process that watches a run, while they run: datagrams from wherever they are.

Luigi's local scheduler hears nothing from a step that runs in a process of its own. A report is a small datagram to a
socket of the watching process, whose path the settings carry; nobody waits for it, and one that is lost is not missed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

_MOST_BYTES = 8_192
_PREFIX, _NAME = "taxi-", "reports"
#: How long a step waits with its last report while the socket is full, which it is after ten on some systems.
_LAST_S = 2.0


@dataclass(frozen=True)
class Report:
    """How far a step is: a share of 1 (None when unknown), a short text, and what it has moved so far."""

    step: str
    dataset: str
    month: str
    fraction: float | None
    message: str
    rows: int = 0
    bytes: int = 0
    #: began, goes, done or failed; or unlogged, of a step whose log cannot be written.
    state: str = "goes"
    #: Of a step that failed: `PipelineError.to_dict()`.
    error: dict[str, Any] | None = None
    #: The rules about which a month that passed its checks has warnings.
    warnings: list[str] = field(default_factory=list)


class Inbox:
    """Where a run's reports arrive; in use as a context.

    A step of this very process, as there are with one worker, calls `heard` whenever it has put one in.
    """

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self._heard = heard
        self._own: deque[Report] = deque()

    def __enter__(self) -> Inbox:
        # Not TMPDIR as it is: a socket's path may have 108 characters at most.
        folder = tempfile.gettempdir()
        folder = folder if len(folder) < 60 else "/tmp"  # noqa: S108
        _sweep(Path(folder))
        self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder)
        self.path = str(Path(self._folder.name) / _NAME)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        _inboxes[self.path] = os.getpid(), self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _inboxes.pop(self.path, None)
        self._socket.close()
        self._folder.cleanup()

    def read(self) -> list[Report]:
        """What has arrived since the last call."""
        reports = []
        while self._own:
            reports.append(self._own.popleft())
        while True:
            try:
                reports.append(Report(**json.loads(self._socket.recv(_MOST_BYTES))))
            except BlockingIOError:
                return reports
            except (ValueError, TypeError):
                continue

    def put(self, report: Report) -> None:
        """Put in a report of this process itself, past the socket, which nobody reads while the step runs."""
        self._own.append(report)
        self._heard()


def _sweep(folder: Path) -> None:
    """Remove the inboxes of killed runs: those at which nobody listens."""
    for path in folder.glob(f"{_PREFIX}*/{_NAME}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect(str(path))
            except ConnectionRefusedError:
                shutil.rmtree(path.parent, ignore_errors=True)
            except OSError:  # Another user's.
                continue


#: By path: the inboxes that this process has open, or had a process that it was forked from, which their numbers tell.
_inboxes: dict[str, tuple[int, Inbox]] = {}


def send(path: str, report: Report) -> None:
    """Tell the process whose inbox is at the path, if there is one."""
    if not path:
        return
    process, inbox = _inboxes.get(path, (0, None))
    if inbox is not None and process == os.getpid():
        inbox.put(report)
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_LAST_S if report.state in ("done", "failed") else 0.0)
        sender.sendto(json.dumps(asdict(report)).encode()[:_MOST_BYTES], path)
