"""The sample site from a shell: `python -m pipeline.sample --port 8000`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.months import parse_month
from pipeline.sample.faults import KINDS, add_fault
from pipeline.sample.shelf import LAST
from pipeline.sample.site import SampleSite

_WATCH_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives, or until the process named by --stop-with has ended."""
    options = _parser().parse_args(arguments)
    try:
        site = SampleSite(
            scale=options.scale,
            rows=options.rows,
            last=parse_month(options.last),
            seed=options.seed,
            folder=options.folder,
            cache=options.cache,
            row_group_rows=options.row_group_rows,
            address=options.address,
            port=options.port,
        )
        for text in options.fault:
            add_fault(site.faults, text)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        with site:
            print(f"sample site (a stand-in for TLC's site) on {site.url}", flush=True)  # noqa: T201  (the address, for the user)
            while not ended.wait(_WATCH_S) and (options.stop_with is None or _is_running(options.stop_with)):
                pass
    except (UsageError, OSError) as error:
        print(f"sample site: {error}", file=sys.stderr)  # noqa: T201  (errors of a command belong on its stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sample",
        description="A stand-in for TLC's site: made-up trips in its layout, for demonstrations, tests and benchmarks.",
        epilog="Kinds of --fault: " + "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items()),
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any (default %(default)s)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of TLC's rows in each month (default %(default)s)"
    )
    parser.add_argument("--rows", type=int, help="rows in each month, instead of --scale")
    parser.add_argument("--last", default=f"{LAST:%Y-%m}", help="last month that is published (default %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="a different number gives different trips (default %(default)s)"
    )
    parser.add_argument("--row-group-rows", type=int, default=1 << 20, help="rows in a row group (default %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="serve the files of this folder instead; it has the layout of TLC's site"
    )
    parser.add_argument("--cache", type=Path, help="keep the made files here (default: in a temporary folder)")
    parser.add_argument("--stop-with", type=int, metavar="PID", help="stop when the process with this number has ended")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND:GLOB[:VALUE][:times=N][:skip=N]",
        help="fail on purpose, for instance cut:yellow*2024-01*:50000:times=2; can be given several times",
    )
    return parser


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
