"""Run a command until standard input ends, then remove a folder: `python watchdog.py FOLDER COMMAND...`.

Whoever starts it holds the other end of standard input. That end closes with its owner, however the owner ends (a kill
included), on every system; so neither the command nor what it wrote outlives it. SIGTERM ends both, too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Return what the command returned."""
    folder, *command = sys.argv[1:]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:

        def end_with_owner() -> None:
            while os.read(0, 1):  # not through sys.stdin, whose lock the interpreter wants at its end
                pass
            child.kill()

        signal.signal(signal.SIGTERM, lambda *_: child.kill())
        threading.Thread(target=end_with_owner, daemon=True).start()
        status = child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
