"""Run a command until standard input ends, then delete a folder: `python watchdog.py [options] FOLDER COMMAND...`.

The parent process holds the other end of standard input. It closes when the parent ends, even by a kill, on every
system. So the command and its files never outlive the parent. SIGTERM ends the command, too.
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
    """Return the command's exit code."""
    options = _options()
    end = getattr(signal, f"SIG{options.signal}")
    with subprocess.Popen(options.command, stdin=subprocess.DEVNULL, user=options.user, group=options.group) as child:

        def end_with_parent() -> None:
            while os.read(0, 1):  # not sys.stdin: the interpreter needs its lock at exit
                pass
            child.send_signal(end)

        signal.signal(signal.SIGTERM, lambda *_: child.send_signal(end))
        threading.Thread(target=end_with_parent, daemon=True).start()
        status = child.wait()
    shutil.rmtree(options.folder, ignore_errors=True)
    return status


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="KILL", help="signal that ends the command (default %(default)s)")
    parser.add_argument("--user", type=int, help="uid of the command")
    parser.add_argument("--group", type=int, help="gid of the command")
    parser.add_argument("folder")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
