"""How SIGINT (Ctrl-C) and SIGTERM end a command, from its first line to its last.

Promise: one signal is enough, whenever it comes, and no traceback is shown. `pipeline/__init__.py` imports this before
anything else. In the process of the command, and in no other, that changes what the two signals do.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = 0.3
#: How long children may take to end cleanly once told to; their work is safe at any moment all the same.
_GRACE_S = 3.0


class Stopped(KeyboardInterrupt):
    """The command was told to stop, by the signal of this number.

    A KeyboardInterrupt, because Luigi and DuckDB pass nothing else on.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def end_at_once() -> None:
    """Until `stoppable` begins, end the process at the first signal: there is nothing to clean up yet.

    An exception would be a traceback of hundreds of imports, is lost in some of them, and aborts the process in others.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    for number in _SIGNALS:
        signal.signal(number, end)


def _is_command() -> bool:
    """Whether this process is the `pipeline` command or `python -m pipeline`, by how it was started."""
    name = sys.argv[0].rpartition("/")[2] if sys.argv else ""
    # "-m" stands there only while Python imports the package of the module that it is to run.
    return name == "pipeline" or (name == "-m" and "pipeline" in sys.orig_argv)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block, let either signal raise Stopped in the main thread of this process, but not in its children.

    The signal is sent again until the exception has arrived: Python drops one that is raised in a hook of fork or in a
    finalizer, and within an import none is raised, because that can abort the process. Children that have not ended
    some seconds after the signal are killed.
    """
    owner, first = os.getpid(), list[int]()
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or isinstance(sys.exc_info()[1], KeyboardInterrupt):
            return  # A child is ended by its parent; and what cleans up after the exception is not disturbed.
        if not first:
            first.append(number)
            threading.Thread(target=_insist, args=(number, ended), daemon=True).start()
        if not _importing(frame):
            raise Stopped(first[0])

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, _without_interrupts(sys.unraisablehook)
    try:
        yield
    except KeyboardInterrupt:  # What DuckDB makes of it has no number.
        raise Stopped(*first[:1]) from None
    finally:
        ended.set()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _insist(number: int, ended: threading.Event) -> None:
    until = time.monotonic() + _GRACE_S
    while not ended.wait(_AGAIN_S):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        if time.monotonic() > until and (started := sys.modules.get("multiprocessing")):
            for child in started.active_children():
                child.kill()


def _without_interrupts(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The hook, but for the interrupts that Python drops: `_insist` sees to them."""
    return lambda dropped: None if isinstance(dropped.exc_value, KeyboardInterrupt) else hook(dropped)


if _is_command():
    end_at_once()
