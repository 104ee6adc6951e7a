"""The sample site in a process of its own, for programs that fork.

A process that serves in a thread must not fork workers: a worker that is forked while the thread holds a lock
(pyarrow's, while it looks for pandas) waits for that lock forever.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import UsageError

_STOP_S = 10


@contextmanager
def sample_process(*options: str) -> Iterator[str]:
    """Yield the site's address; `options` are those of `python -m pipeline.sample`.

    The site ends with the block, and with this process, also if that is killed. Ctrl-C does not reach it.

    Raises:
        UsageError: it did not start; its message is on stderr.
    """
    command = [sys.executable, "-m", "pipeline.sample", "--port", "0", "--stop-with", str(os.getpid()), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise UsageError(f"the sample site did not start: {' '.join(command[1:])}")
            yield line.split()[-1]
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
