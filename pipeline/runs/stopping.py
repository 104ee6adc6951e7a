"""How SIGINT (Ctrl-C) and SIGTERM end a command, from its first line to its last.

Promise: one signal is enough at any time, and no traceback is shown. `pipeline/__init__.py` imports this module first.
It changes the handling of signals only in the process of the command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT_S = 0.3
#: How long children may take to end cleanly; killing them loses no finished work.
_GRACE_S = 3.0


class Stopped(KeyboardInterrupt):
    """The command was stopped by the signal of this number.

    A KeyboardInterrupt, because Luigi and DuckDB pass on no other exception.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, either signal raises Stopped in the main thread of this process, but not in its children.

    The signal is repeated until the exception arrives: Python drops one that is raised in a hook of fork or in a
    finalizer, and during an import none is raised, because that can abort the process. Children that have not ended
    after some seconds are killed.
    """
    owner, first = os.getpid(), list[int]()
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or isinstance(sys.exc_info()[1], KeyboardInterrupt):
            return  # The parent ends its children, and cleaning up after the exception is not interrupted.
        if not first:
            first.append(number)
            threading.Thread(target=_repeat, args=(number, ended), daemon=True).start()
        files = (caller.f_code.co_filename for caller, _ in traceback.walk_stack(frame))
        if "<frozen importlib._bootstrap>" not in files:
            raise Stopped(first[0])

    def report_dropped(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):  # `_repeat` sends these again.
            hook(dropped)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, report_dropped
    try:
        yield
    except KeyboardInterrupt:  # DuckDB raises one without the number.
        raise Stopped(*first[:1]) from None
    finally:
        ended.set()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _repeat(number: int, ended: threading.Event) -> None:
    until = time.monotonic() + _GRACE_S
    while not ended.wait(_REPEAT_S):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        if time.monotonic() > until and (module := sys.modules.get("multiprocessing")):
            for child in module.active_children():
                child.kill()


_program = sys.argv[0].rpartition("/")[2] if sys.argv else ""
# argv[0] is "-m" only while Python imports the package of the module that it will run.
if _program == "pipeline" or (_program == "-m" and "pipeline" in sys.orig_argv):
    # Until `stoppable` begins there is nothing to clean up, and an exception would print hundreds of lines, get lost in
    # an import, or abort the process.
    for _signal in _SIGNALS:
        signal.signal(_signal, lambda number, frame: os._exit(128 + number))
