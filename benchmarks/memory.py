"""Memory: conforming or loading a month takes less than 500 MB however large it is, and a long run leaks nothing.

    python benchmarks/memory.py

Conform and load: months of the sample site, each conformed by `conform_file` and then loaded into a new DuckDB file
with the default bounds, each in a process of its own; the peak is the kernel's figure for the resident memory of the
whole process, interpreter and imports included.

Backfill: `pipeline backfill` of 24 months with 4 workers, looked at from outside (psutil) ten times a second: the
parent's resident memory and open files, the number of processes below it, and the largest of them. What the first
third of the run had, in the median and at most, stands beside the last third.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import psutil
from measured import BIN, PROGRAMS, Usage, environment, fresh, measure, print_table, working_folder

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.months import add_months, format_month
from pipeline.sample import sample_process
from pipeline.sample.files import order, write_parquet

PROMISE_MB = 500
EVERY_S = 0.1
MONTH = date(2024, 1, 1)
#: Dataset, rows, rows in a row group.
MONTHS = [
    ("yellow", 3_000_000, 1 << 20),
    ("fhvhv", 3_000_000, 3_000_000),
    ("fhvhv", 18_000_000, 1 << 20),
    ("fhvhv", 18_000_000, 3_000_000),
    ("fhvhv", 20_000_000, 1 << 20),
    ("fhvhv", 20_000_000, 20_000_000),
]


@dataclass(frozen=True)
class Look:
    """What a run had at one moment."""

    parent_mb: float
    open_files: int
    children: int
    largest_child_mb: float


def main() -> None:
    options = _options()
    with working_folder(options.folder) as folder:
        highest_mb = _months(folder, options)
        _backfill(folder, options)
    if highest_mb >= PROMISE_MB:
        sys.exit(f"a month took {highest_mb:,.0f} MB; less than {PROMISE_MB} are promised")


def _months(folder: Path, options: argparse.Namespace) -> float:
    """Print what each month's conform and load took; returns the highest peak."""
    lines, highest_mb = [], 0.0
    for name, *full in MONTHS:
        rows, group_rows = (round(size * options.scale) for size in full)
        conform, load = _month(folder, name, rows, group_rows, options.repeats)
        highest_mb = max(highest_mb, conform.peak_mb, load.peak_mb)
        line = (used for it in (conform, load) for used in (f"{it.wall_s:.1f}", f"{it.peak_mb:,.0f}"))
        lines.append((name, f"{rows:,}", f"{group_rows:,}", *line))
    print_table(("dataset", "rows", "in a row group", "conform s", "peak MB", "load s", "peak MB"), lines)
    print()
    return highest_mb


def _month(folder: Path, name: str, rows: int, group_rows: int, repeats: int) -> tuple[Usage, Usage]:
    """What conforming a month of the sample site takes, and loading it."""
    raw = fresh(folder) / f"{name}.parquet"
    write_parquet(replace(order(name, MONTH, rows=rows), row_group_rows=group_rows), raw)
    draft = folder / "lake" / lake.trips_key(DATASETS[name], MONTH)
    draft.parent.mkdir(parents=True)

    def conform() -> Usage:
        command = [PROGRAMS / "conform_one.py", raw, draft, name, format_month(MONTH)]
        return measure([sys.executable, *command], folder=folder)

    def load() -> Usage:
        (folder / "warehouse.duckdb").unlink(missing_ok=True)
        command = [PROGRAMS / "load_one.py", "lake", "duckdb:///warehouse.duckdb", name, format_month(MONTH)]
        return measure([sys.executable, *command], folder=folder)

    return _highest(conform, repeats), _highest(load, repeats)


def _highest(run: Callable[[], Usage], repeats: int) -> Usage:
    """The median times, and the highest peak."""
    runs = [run() for _ in range(repeats)]
    return replace(Usage.median(runs), peak_mb=max(used.peak_mb for used in runs))


def _backfill(folder: Path, options: argparse.Namespace) -> None:
    fresh(folder)
    last = add_months(MONTH, options.months - 1)
    period = f"{format_month(MONTH)}..{format_month(last)}"
    with sample_process("--rows", str(round(200_000 * options.scale)), "--last", format_month(last)) as site:
        looks = _watch([str(BIN / "pipeline"), "backfill", "yellow", period, "--workers", "4"], folder, site)
    third = len(looks) // 3
    print(f"pipeline backfill yellow {period} --workers 4: {len(looks)} looks\n")
    columns: dict[str, Callable[[Look], float]] = {
        "parent MB": lambda look: look.parent_mb,
        "open files of the parent": lambda look: look.open_files,
        "child processes": lambda look: look.children,
        "largest child MB": lambda look: look.largest_child_mb,
    }
    parts = {"first third": looks[:third], "middle third": looks[third:-third], "last third": looks[-third:]}
    print_table(
        ("median, highest", *parts),
        [(name, *(_both(part, of) for part in parts.values())) for name, of in columns.items()],
    )


def _both(looks: Sequence[Look], of: Callable[[Look], float]) -> str:
    values = [of(look) for look in looks]
    return f"{statistics.median(values):,.0f}, {max(values):,.0f}"


def _watch(command: list[str], folder: Path, site: str) -> list[Look]:
    log = folder / "backfill.log"
    with log.open("w") as output:
        settings = environment(PIPELINE_SOURCE=site)
        process = subprocess.Popen(command, cwd=folder, env=settings, stdout=output, stderr=output)
        parent, looks = psutil.Process(process.pid), []
        while process.poll() is None:
            try:
                looks.append(_look(parent))
            except psutil.NoSuchProcess:
                break
            time.sleep(EVERY_S)
    if process.wait():
        sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{log.read_text()[-4000:]}")
    return looks


def _look(parent: psutil.Process) -> Look:
    children = [_resident_mb(child) for child in parent.children(recursive=True)]
    return Look(parent.memory_info().rss / 1e6, parent.num_fds(), len(children), max(children, default=0.0))


def _resident_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each conform and load (default %(default)s)")
    parser.add_argument("--months", type=int, default=24, help="months of the backfill (default %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, to try it (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
