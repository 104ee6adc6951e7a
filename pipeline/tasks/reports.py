"""How the events of steps reach the process that watches a run: as datagrams, from the process of each step.

Luigi's local scheduler gets nothing from a step that runs in a process of its own. An event is a small datagram to a
socket of the watching process; the run context has its path. Nothing waits for it, and the run works without it.
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

from pipeline.runs.events import StepEvent, StepFailed, StepFinished, step_event, to_json

_MOST_BYTES = 8_192
_PREFIX, _NAME = "taxi-", "reports"
#: How long a step waits with its last event while the socket is full; some systems hold only ten datagrams.
_LAST_S = 2.0


class Inbox:
    """Receives the events of a run's steps; in use as a context.

    `on_event` is called after each event of a step that runs in this process, as steps do with one worker.
    """

    def __init__(self, on_event: Callable[[], None] = lambda: None) -> None:
        self._on_event = on_event
        self._own: deque[StepEvent] = deque()

    def __enter__(self) -> Inbox:
        # A socket's path may have 108 characters at most, and TMPDIR may be longer.
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

    def __exit__(self, *_: object) -> None:
        _inboxes.pop(self.path, None)
        self._socket.close()
        self._folder.cleanup()

    def read(self) -> list[StepEvent]:
        """The events since the last call."""
        events: list[StepEvent] = []
        while self._own:
            events.append(self._own.popleft())
        while True:
            try:
                events.append(step_event(self._socket.recv(_MOST_BYTES)))
            except BlockingIOError:
                return events
            except (ValueError, TypeError, KeyError):  # Cut, or of another version.
                continue

    def put(self, event: StepEvent) -> None:
        """Add an event of this process, without the socket, which would fill up while the step runs."""
        self._own.append(event)
        self._on_event()


def _sweep(folder: Path) -> None:
    """Remove the inboxes of killed runs: those whose socket has no listener."""
    for path in folder.glob(f"{_PREFIX}*/{_NAME}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, suppress(OSError):  # Another user's.
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                shutil.rmtree(path.parent, ignore_errors=True)


#: By path: the inboxes that are open, with the process that opened them, which may be a parent of this one.
_inboxes: dict[str, tuple[int, Inbox]] = {}


def send(path: str, event: StepEvent) -> None:
    """Send an event to the process whose inbox has this path, if there is one."""
    process, inbox = _inboxes.get(path, (0, None))
    if inbox is not None and process == os.getpid():
        inbox.put(event)
    elif path:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_LAST_S if isinstance(event, (StepFinished, StepFailed)) else 0.0)
            sender.sendto(to_json(event).encode()[:_MOST_BYTES], path)
