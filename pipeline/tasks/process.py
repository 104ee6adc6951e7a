"""What surrounds the run of a step in its process: it stops when it is told to, and does not outlive its parent.

Luigi loads `TaskProcessContext` by its name, from [worker] task_process_context.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)

log = logging.getLogger("luigi-interface.pipeline")


class TaskProcessContext:
    """In a child, turn SIGTERM into a clean exit, and ask Linux for a SIGTERM when the parent dies.

    Luigi ends its children with SIGTERM, whose default action would leave drafts behind; and it does not end them at
    all when it is killed itself. With one worker a step runs in the parent, where nothing is changed.
    """

    def __init__(self, process: Any) -> None:
        self._in_child = multiprocessing.parent_process() is not None

    def __enter__(self) -> None:
        if not self._in_child:
            return
        # Ctrl-C reaches the whole group at once; the parent decides, and ends its children by SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _stop)
        _die_with_parent()
        if not log.hasHandlers():  # A spawned child inherits no logging set-up.
            logging.basicConfig(level=logging.INFO, format="%(message)s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_child and kind is KeyboardInterrupt:
            sys.exit(128 + signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:
    # Luigi passes KeyboardInterrupt on; any other exception it would report as a failure of the step.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    parent = multiprocessing.parent_process()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have died before the call, and then no signal comes. A forkserver's child has the server as parent.
    if multiprocessing.get_start_method() == "fork" and parent is not None and os.getppid() != parent.pid:
        raise KeyboardInterrupt
