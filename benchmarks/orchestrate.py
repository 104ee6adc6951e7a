"""What the workflow costs: a backfill of many tiny months against the same functions called in a loop.

    python benchmarks/orchestrate.py

100 yellow months of twenty rows each go from the sample site to the marts: by `pipeline backfill` with one and with two
workers, and by benchmarks/programs/plain_loop.py, which calls the same functions (fetch, conform, check, publish,
load, mart) in one process. All are whole processes that take turns; the table has medians, the fastest run, and the
median of wall times relative to the loop's in the same round. The second table splits the loop's time by step: the work
without Luigi.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from datetime import date
from functools import partial
from pathlib import Path

from measured import BIN, PROGRAMS, Usage, fresh, interleaved, measure, print_table, ratio, working_folder

from pipeline.datasets import DATASETS
from pipeline.months import add_months, format_month
from pipeline.sample import sample_process
from pipeline.warehouses import open_warehouse

LAST = date(2025, 12, 1)
YELLOW = DATASETS["yellow"]


def main() -> None:
    options = _options()
    first, last = format_month(add_months(LAST, 1 - options.months)), format_month(LAST)
    backfill = [BIN / "pipeline", "backfill", "yellow", f"{first}..{last}", "--workers"]
    seconds: dict[str, list[float]] = defaultdict(list)
    with working_folder(options.folder) as folder, sample_process("--rows", str(options.rows)) as site:
        loop = [sys.executable, PROGRAMS / "plain_loop.py", site, folder, first, last]
        run = partial(_run, folder, site, options.months)
        run(loop)  # The site makes the months now.
        runs = interleaved(
            {
                "plain loop": lambda: _noting(run(loop), folder, seconds),
                "pipeline backfill, 1 worker": partial(run, [*backfill, "1"]),
                "pipeline backfill, 2 workers": partial(run, [*backfill, "2"]),
            },
            options.repeats,
        )
    _print(runs, seconds, options)


def _run(folder: Path, site: str, months: int, command: list[str | Path]) -> Usage:
    fresh(folder)
    used = measure(command, folder=folder, PIPELINE_SOURCE=site)
    warehouse = open_warehouse(f"duckdb:///{folder}/data/warehouse.duckdb")
    if not len(warehouse.loads(YELLOW)) == len(warehouse.mart_months(YELLOW)) == months:
        sys.exit(f"{command}: did not load {months} months")
    return used


def _noting(used: Usage, folder: Path, seconds: dict[str, list[float]]) -> Usage:
    """Note what the loop says of its steps."""
    for step, took_s in json.loads((folder / "seconds.json").read_text()).items():
        seconds[step].append(took_s)
    return used


def _print(runs: dict[str, list[Usage]], seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    plain = runs["plain loop"]
    print(f"{options.months} months of {options.rows} rows, {options.repeats} rounds\n")
    lines = []
    for name, took in runs.items():
        used = Usage.median(took)
        lines.append(
            (
                name,
                f"{used.wall_s:.1f}",
                f"{min(run.wall_s for run in took):.1f}",
                f"{ratio(took, plain):.2f}",
                f"{used.cpu_s:.1f}",
                f"{1000 * used.wall_s / options.months:.0f}",
                f"{1000 * used.cpu_s / options.months:.0f}",
            )
        )
    print_table(("way", "wall s", "fastest", "wall, loop = 1", "CPU s", "ms a month", "CPU ms a month"), lines)
    print()
    print_table(
        ("step of the loop", "ms a month"),
        [(step, f"{1000 * statistics.median(took) / options.months:.0f}") for step, took in seconds.items()],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=100, help="months, the last being 2025-12 (default %(default)s)")
    parser.add_argument("--rows", type=int, default=20, help="rows of a month (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
