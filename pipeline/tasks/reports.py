"""What steps tell the process that watches a run, while they run: datagrams from wherever they are.

Luigi's local scheduler hears nothing from a step that runs in a process of its own. A report is a small datagram to a
socket of the watching process, whose path the settings carry; nobody waits for it, and one that is lost is not missed.
"""

from __future__ import annotations

import json
import socket
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

_MOST_BYTES = 8_192


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
    #: began, goes, done or failed.
    state: str = "goes"


class Inbox:
    """Where a run's reports arrive; in use as a context."""

    def __enter__(self) -> Inbox:
        # Not TMPDIR as it is: a socket's path may have 108 characters at most.
        folder = tempfile.gettempdir()
        self._folder = tempfile.TemporaryDirectory(prefix="taxi-", dir=folder if len(folder) < 60 else "/tmp")  # noqa: S108
        self.path = str(Path(self._folder.name) / "reports")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._folder.cleanup()

    def read(self) -> list[Report]:
        """What has arrived since the last call."""
        reports = []
        while True:
            try:
                reports.append(Report(**json.loads(self._socket.recv(_MOST_BYTES))))
            except BlockingIOError:
                return reports
            except (ValueError, TypeError):
                continue


def send(path: str, report: Report) -> None:
    """Tell the process whose inbox is at the path, if there is one."""
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(json.dumps(asdict(report)).encode()[:_MOST_BYTES], path)
