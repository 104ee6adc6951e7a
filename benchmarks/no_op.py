"""How long it takes to find out that nothing is missing, or one month of 563, and to start when all are missing.

    python benchmarks/no_op.py

Every month of yellow, green, fhv and fhvhv to 2025-12 is in the lake, the warehouse and the marts (tiny ones: twenty
rows; what is asked is the same). Then whole processes are timed, taking turns: `luigi --module pipeline Backfill` with
the local scheduler and one worker, and `pipeline backfill`, on the complete warehouse and after yellow 2025-12 was
taken out of lake and warehouse; `pipeline status`; and `pipeline backfill` in an empty folder until it connects to the
site, where it is stopped. Beside them: a process that only imports what these do. Medians; less than three seconds for
a run that finds nothing to do are promised.

Making the months takes a few minutes; --data takes those of an earlier run (a folder with `lake` and
`warehouse.duckdb`), of which a copy is used, and --keep leaves the ones that were made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path

from measured import BIN, MAXRSS_UNIT, Usage, environment, interleaved, measure, print_table, working_folder

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.datasets.base import Dataset
from pipeline.lake import open_store
from pipeline.months import month_range
from pipeline.sample import sample_process
from pipeline.warehouses import Warehouse, open_warehouse

PROMISE_S = 3.0
LAST = date(2025, 12, 1)
YELLOW = DATASETS["yellow"]
LUIGI = "luigi --module pipeline Backfill --datasets all --first 2009-01 --last 2025-12 --local-scheduler"
PIPELINE = "pipeline backfill all 2009..2025"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default %(default)s)")
    add_options(parser)
    options = parser.parse_args()
    with complete_months(options) as (folder, site):
        runs = interleaved(
            {
                "interpreter and imports": partial(_imports, folder),
                "luigi, nothing missing": partial(_run, LUIGI, folder, site, missing=False),
                "pipeline, nothing missing": partial(_run, PIPELINE, folder, site, missing=False),
                "luigi, one month missing": partial(_run, LUIGI, folder, site, missing=True),
                "pipeline, one month missing": partial(_run, PIPELINE, folder, site, missing=True),
                "pipeline, all missing, to the first request": partial(_first_request, folder),
                "pipeline status": partial(measure, [BIN / "pipeline", "status"], folder=folder, PIPELINE_SOURCE=site),
            },
            options.repeats,
        )
    print(f"{MONTHS} months\n")
    medians = {name: Usage.median(took) for name, took in runs.items()}
    print_table(
        ("run", "wall s", "fastest", "CPU s", "peak MB"),
        [
            (
                name,
                f"{used.wall_s:.2f}",
                f"{min(run.wall_s for run in runs[name]):.2f}",
                f"{used.cpu_s:.2f}",
                f"{used.peak_mb:,.0f}",
            )
            for name, used in medians.items()
        ],
    )
    slowest_s = max(it.wall_s for name, it in medians.items() if "nothing" in name)
    if slowest_s >= PROMISE_S:
        sys.exit(f"finding nothing to do took {slowest_s:.1f} s; less than {PROMISE_S:g} s are promised")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `complete_months`."""
    parser.add_argument("--data", type=Path, help="a folder with all months, of which a copy is used")
    parser.add_argument("--keep", type=Path, help="leave all months in this new folder, for --data")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")


@contextmanager
def complete_months(options: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """A folder with all months in `data`, and the address of the site that they come from."""
    with working_folder(options.folder) as folder, sample_process("--rows", "20") as site:
        data = folder / "data"
        if options.data:
            shutil.copytree(options.data, data, symlinks=True)
            take_out(data, LAST)  # So that the run below writes a copy of `loads` that is valid for these files.
        used = measure([BIN / "pipeline", *PIPELINE.split()[1:]], folder=folder, PIPELINE_SOURCE=site)
        print(f"# all months made, or found, in {used.wall_s:.0f} s", file=sys.stderr)
        if options.keep:
            shutil.copytree(data, options.keep)
        yield folder, site


def take_out(data: Path, month: date) -> None:
    """Take this yellow month out of lake and warehouse."""
    store, raw = open_store(str(data / "lake")), lake.raw_key(YELLOW, f"{YELLOW.base_name(month)}.parquet")
    for key in (raw, lake.sidecar_key(raw), lake.trips_key(YELLOW, month), lake.checks_key(YELLOW, month)):
        store.delete(key)
    warehouse_in(data).forget(YELLOW, month)


def warehouse_in(data: Path) -> Warehouse:
    """The warehouse of the folder."""
    return open_warehouse(f"duckdb:///{data}/warehouse.duckdb")


def _run(command: str, folder: Path, site: str, *, missing: bool) -> Usage:
    data = folder / "data"
    if missing:
        take_out(data, LAST)
    program, *arguments = command.split()
    used = measure([BIN / program, *arguments], folder=folder, PIPELINE_SOURCE=site)
    loads = warehouse_in(data).loads
    absent = [name for name, spec in DATASETS.items() if set(_months(spec)) - set(loads(spec))]
    if absent:
        sys.exit(f"{command}: did not load all months of {absent}")
    return used


def _first_request(folder: Path) -> Usage:
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory(dir=folder) as empty:
        server.settimeout(60)
        settings = environment(PIPELINE_SOURCE=f"http://127.0.0.1:{server.getsockname()[1]}")
        command, began = [BIN / "pipeline", *PIPELINE.split()[1:], "--no-space-check"], time.perf_counter()
        with subprocess.Popen(command, cwd=empty, env=settings, stderr=subprocess.DEVNULL) as process:
            try:
                connection, _ = server.accept()
                connection.close()
                wall_s = time.perf_counter() - began
            finally:
                process.terminate()
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * MAXRSS_UNIT / 1e6)


def _imports(folder: Path) -> Usage:
    return measure([sys.executable, "-c", "import pipeline.cli.run"], folder=folder)


def _months(spec: Dataset) -> list[date]:
    first = spec.first_parquet_month or spec.first_month
    assert first is not None
    return month_range(first, LAST)


MONTHS = sum(map(len, map(_months, DATASETS.values())))


if __name__ == "__main__":
    main()
