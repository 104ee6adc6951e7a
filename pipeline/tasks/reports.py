"""How the events of steps reach the process that watches a run: as datagrams, from whichever process runs a step.

Luigi's local scheduler hears nothing from a step that runs in a process of its own. An event is a small datagram to a
socket of the watching process, whose path the run context has. Nothing waits for it; the run does without one that is
lost.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pipeline.runs.events import StepEvent, StepFailed, StepFinished, step_event, to_json

_MOST_BYTES = 8_192
_PREFIX, _NAME = "taxi-", "reports"
#: How long a step waits with its last event while the socket is full, which it is after ten on some systems.
_LAST_S = 2.0


class Inbox:
    """Where the events of a run's steps arrive; in use as a context.

    A step of this very process, as there are with one worker, calls `heard` whenever it has put one in.
    """

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self._heard = heard
        self._own: deque[StepEvent] = deque()

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

    def read(self) -> list[StepEvent]:
        """What has arrived since the last call."""
        events: list[StepEvent] = []
        while self._own:
            events.append(self._own.popleft())
        while True:
            try:
                events.append(step_event(self._socket.recv(_MOST_BYTES)))
            except BlockingIOError:
                return events
            except (ValueError, TypeError, KeyError):
                continue

    def put(self, event: StepEvent) -> None:
        """Put in an event of this process itself, past the socket, which nobody reads while the step runs."""
        self._own.append(event)
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


def send(path: str, event: StepEvent) -> None:
    """Tell the process whose inbox is at the path, if there is one."""
    if not path:
        return
    process, inbox = _inboxes.get(path, (0, None))
    if inbox is not None and process == os.getpid():
        inbox.put(event)
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(_LAST_S if isinstance(event, (StepFinished, StepFailed)) else 0.0)
        sender.sendto(to_json(event).encode()[:_MOST_BYTES], path)
