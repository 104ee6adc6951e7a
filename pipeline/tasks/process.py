"""The process of a step: it stops cleanly on SIGTERM, and ends when its parent ends.

Luigi loads `TaskProcessContext` by its name, from [worker] task_process_context. In a run of `pipeline`, a process can
run several short steps, one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from luigi.worker import ContextManagedTaskProcess

from pipeline.lake.planning import step_begins

_POLL_S = 0.5
#: A process takes no further step after this much CPU time. So it returns the memory of large months.
_CPU_S = 1.0
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
        _watch(self._parent)

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


class StepProcess(ContextManagedTaskProcess):
    """Runs a step in an idle process, or else in a new one.

    To fork a process takes about 45 ms of CPU time, most of it for what a process does the first time: it copies
    memory pages and starts the threads of DuckDB and Arrow. That is more than a step of a small month.
    """

    _popen: Any

    def __init__(self, idle: list[StepProcess], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._idle = idle
        #: The ends of the parent and of the child.
        self._tasks: Connection | None = None
        self._inbox: Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for a process that is not forked."""
        return {**self.__dict__, "_idle": [], "_tasks": None}

    def start(self) -> None:
        """Give the step to a process whose step is done."""
        while self._idle:
            other = self._idle.pop()
            if other._tasks is not None:
                with suppress(EOFError, OSError):  # It has ended.
                    other._tasks.recv()
                    other._tasks.send(self.task)
                    self._popen, self._tasks = other._popen, other._tasks
                    return
        self._tasks, self._inbox = multiprocessing.Pipe()
        super().start()
        self._inbox.close()

    def run(self) -> None:
        """In the child: run the step, and then those that the parent sends."""
        if self._tasks is not None:  # The parent's end; without it, the parent's death would not end `recv`.
            self._tasks.close()
        began = time.process_time()
        super().run()
        with suppress(EOFError, OSError):  # The parent has ended.
            while self._inbox is not None and time.process_time() - began < _CPU_S:
                self._inbox.send(None)
                self.task = self._inbox.recv()
                if self.task is None:
                    return
                self.status_reporter._task_id = self.task.task_id
                super().run()

    def dismiss(self) -> None:
        """Let the process end after its step."""
        if self._tasks is not None:
            with suppress(OSError):
                self._tasks.send(None)
        self._tasks = None

    def terminate(self) -> None:
        """End the process; one that is between two steps ignores SIGTERM."""
        self.dismiss()
        super().terminate()


@cache
def _watch(parent: BaseProcess) -> None:
    """Start the thread that ends this process with its parent."""
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()


def _stop_with(parent: BaseProcess) -> None:
    if multiprocessing.get_start_method() == "fork":
        # Forked siblings inherit the pipe on which `join` waits, so that it would wait for them, too.
        while os.getppid() == parent.pid:
            time.sleep(_POLL_S)
    else:  # The system sees the forkserver as the parent.
        parent.join()
    while True:  # Between two steps the signal is ignored.
        # To the main thread, to interrupt what it waits for.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(_POLL_S)
