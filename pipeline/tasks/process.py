"""What surrounds the run of a step in its process: it stops when it is told to, and does not outlive its parent.

Luigi loads `TaskProcessContext` by its name, from [worker] task_process_context.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from pipeline.lake.planning import step_begins

_PR_SET_PDEATHSIG = 1  # prctl(2)
#: As proc(5) says, 1000 is a process that is ended before all others when memory runs out.
_BEFORE_OTHERS = "500"


class TaskProcessContext:
    """In a child, turn SIGTERM into a clean exit, and let the parent's death have the same effect.

    Luigi ends its children with SIGTERM, whose default action would leave drafts behind; and it does not end them at
    all when it is killed itself. With one worker a step runs in the parent, where nothing is changed.
    """

    def __init__(self, process: Any) -> None:
        self._parent = multiprocessing.parent_process()
        self._process = process

    def __enter__(self) -> None:
        step_begins()
        if self._parent is None:
            return
        with suppress(
            OSError
        ):  # When memory runs out, the parent stays, which says so. Elsewhere than in Linux it may not.
            Path("/proc/self/oom_score_adj").write_text(_BEFORE_OTHERS)
        # Ctrl-C reaches the whole group at once; the parent decides, and ends its children by SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._stop)
        _die_with(self._parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parent is None:
            return
        # The process is about to end; an exception in what Python does then would be a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind is KeyboardInterrupt:
            sys.exit(128 + signal.SIGTERM)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        # Luigi passes KeyboardInterrupt on; any other exception it would report as a failure of the step.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Else Luigi reports a step that is not done, and a parent that stopped it for its time limit begins it anew.
        self._process.result_queue = _Nowhere()
        raise KeyboardInterrupt


class _Nowhere:
    """In place of the queue of results."""

    def put(self, result: object) -> None:
        """Tell nobody."""


def _die_with(parent: BaseProcess) -> None:
    if sys.platform.startswith("linux") and multiprocessing.get_start_method() == "fork":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        # The parent may have died before the call, and then no signal comes.
        if os.getppid() != parent.pid:
            raise KeyboardInterrupt
    else:
        # A forkserver's child has the server for its parent in the system's eyes, and elsewhere there is no such call.
        # Here the parent is known by a pipe of which it alone has the other end. (Forked siblings would have it, too.)
        threading.Thread(target=_stop_after, args=(parent,), daemon=True).start()


def _stop_after(parent: BaseProcess) -> None:
    parent.join()
    # To the main thread, so that what it waits for is interrupted.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
