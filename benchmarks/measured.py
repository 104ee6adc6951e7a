"""What the benchmarks share: a command measured as a process of its own, medians of interleaved runs, tables.

A command is started by a small process in between, which is this file run as a program: on Linux a process's peak
memory begins at what its parent had at the fork, and the benchmarks themselves have imported much by then.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "benchmarks" / "programs"
BIN = Path(sys.executable).parent

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Usage:
    """What a command took with all processes that it started; the peak is that of the largest single one."""

    wall_s: float
    cpu_s: float
    peak_mb: float

    @staticmethod
    def median(runs: Sequence[Usage]) -> Usage:
        """The medians, each of its own column."""
        return Usage(
            statistics.median(run.wall_s for run in runs),
            statistics.median(run.cpu_s for run in runs),
            statistics.median(run.peak_mb for run in runs),
        )


def measure(command: Sequence[str | Path], *, folder: Path, **settings: str) -> Usage:
    """Run a command to its end in `folder`; `settings` are environment variables. A failure ends the benchmark."""
    report = folder / "usage.json"
    between = [sys.executable, "-I", "-S", __file__, report, *command]
    done = subprocess.run(
        list(map(str, between)), cwd=folder, env=environment(**settings), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return Usage(**json.loads(report.read_text()))


def environment(**settings: str) -> dict[str, str]:
    """That of this process, without what would change the pipeline's settings, and with these variables."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
    return kept | settings


def interleaved(ways: Mapping[str, Callable[[], Usage]], repeats: int) -> dict[str, list[Usage]]:
    """Run every way once, then every way once more, beginning with another one each time; what each run took."""
    names = list(ways)
    runs: dict[str, list[Usage]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(ways[name]())
            print(f"# {turn + 1}/{repeats} {name}: {runs[name][-1].wall_s:.2f} s", file=sys.stderr)
    return runs


def ratio(runs: Sequence[Usage], reference: Sequence[Usage], of: str = "wall_s") -> float:
    """How many times as much as the reference of the same round, in the median: what drifts, drifts for both."""
    return statistics.median(float(getattr(a, of) / getattr(b, of)) for a, b in zip(runs, reference, strict=True))


@contextmanager
def working_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is gone after the block, with the project's luigi.cfg in it."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=parent) as name:
        yield fresh(Path(name) / "work")


def fresh(folder: Path) -> Path:
    """The folder, empty but for the project's luigi.cfg."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "luigi.cfg", folder)
    return folder


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table in Markdown, the first column to the left, the others to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for row in [cells[0], rule, *cells[1:]]:
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("|", " | ".join([first, *others]), "|")


def _measure_here(report: str, command: Sequence[str]) -> int:
    """Run the command as a child of this small process, and write down what it took."""
    began = time.perf_counter()
    with subprocess.Popen(command) as process:
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    usage = {
        "wall_s": wall_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss * MAXRSS_UNIT / 1e6,
    }
    Path(report).write_text(json.dumps(usage))
    return process.returncode


if __name__ == "__main__":
    sys.exit(_measure_here(sys.argv[1], sys.argv[2:]))
