"""The sample site in a process of its own, for whoever forks.

A process that serves in a thread must not fork workers: one that is forked while the thread holds a lock (pyarrow's,
while it looks for pandas) waits for that lock for ever.
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

    The site ends with the block, and with this process however that ends. A Ctrl-C in the terminal does not reach it.

    Raises:
        UsageError: it did not start; what it said is on stderr.
    """
    command = [sys.executable, "-m", "pipeline.sample", "--port", "0", "--stop-with", str(os.getpid()), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said:
                raise UsageError(f"the sample site did not start: {' '.join(command[1:])}")
            yield said.split()[-1]
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
