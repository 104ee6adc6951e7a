"""Run a command until standard input ends, then remove a folder: `python watchdog.py [options] FOLDER COMMAND...`.

Whoever starts it holds the other end of standard input. That end closes with its owner, however the owner ends (a kill
included), on every system; so neither the command nor what it wrote outlives it. SIGTERM ends both, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Return what the command returned."""
    options = _options()
    end = getattr(signal, f"SIG{options.signal}")
    with subprocess.Popen(options.command, stdin=subprocess.DEVNULL, user=options.user, group=options.group) as child:

        def end_with_owner() -> None:
            while os.read(0, 1):  # not through sys.stdin, whose lock the interpreter wants at its end
                pass
            child.send_signal(end)

        signal.signal(signal.SIGTERM, lambda *_: child.send_signal(end))
        threading.Thread(target=end_with_owner, daemon=True).start()
        status = child.wait()
    shutil.rmtree(options.folder, ignore_errors=True)
    return status


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="KILL", help="by which the command is ended (default %(default)s)")
    parser.add_argument("--user", type=int, help="number of the user who runs the command")
    parser.add_argument("--group", type=int, help="number of that user's group")
    parser.add_argument("folder")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
