"""The process of a step: it stops cleanly on SIGTERM, and ends when its parent ends.

Luigi loads `TaskProcessContext` by its name, from [worker] task_process_context.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from pipeline.lake.planning import step_begins

_POLL_S = 0.5
#: proc(5): from -1000 (never) to 1000, how likely the kernel kills the process when memory runs out.
_OOM_SCORE = "500"


class TaskProcessContext:
    """In a child, turn SIGTERM into a clean exit, and let the parent's death have the same effect.

    Luigi ends its children with SIGTERM, whose default action would leave drafts behind; and when Luigi is killed, it
    does not end them at all. With one worker a step runs in the parent, where nothing is changed.
    """

    def __init__(self, process: Any) -> None:
        self._parent = multiprocessing.parent_process()
        self._process = process

    def __enter__(self) -> None:
        step_begins()
        if self._parent is None:
            return
        with suppress(OSError):  # Linux only: when memory runs out, the parent survives and reports it.
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        # Ctrl-C reaches the whole process group; the parent decides, and ends its children with SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._stop)
        threading.Thread(target=_stop_with, args=(self._parent,), daemon=True).start()

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if self._parent is None:
            return
        # A signal while Python shuts down would print a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if error_type is KeyboardInterrupt:
            sys.exit(128 + signal.SIGTERM)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Otherwise Luigi reports the step as not done, and a parent that stopped it at its time limit starts it again.
        self._process.result_queue = SimpleQueue()
        # Luigi passes KeyboardInterrupt on; it would report any other exception as a failure of the step.
        raise KeyboardInterrupt


def _stop_with(parent: BaseProcess) -> None:
    if multiprocessing.get_start_method() == "fork":
        # Forked siblings inherit the pipe on which `join` waits, so that it would wait for them, too.
        while os.getppid() == parent.pid:
            time.sleep(_POLL_S)
    else:  # The system sees the forkserver as the parent.
        parent.join()
    # To the main thread, to interrupt what it waits for.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
