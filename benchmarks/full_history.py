"""All months of all datasets into the lake and a DuckDB file: a measured sample of their rows, and what all rows take.

    python benchmarks/full_history.py                    # a twentieth of TLC's rows in each month, some 210 million

The sample site makes the files, with the share `--scale` of the rows that TLC published in each month; this and the
download are not counted. Then one `pipeline backfill all … --through load` conforms and loads all of them. A month's
time is from the start of its conform to the end of its load, without the time between the two; months overlap.

The projection takes a month's time as a constant plus a time for each row, by least squares for each dataset, and
multiplies the run's wall time by the ratio of the sums for all rows and for the sample's rows. The picture has each
month as a point, and these lines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import altair
from measured import BIN, ROOT, environment, measure, print_table, working_folder

from pipeline.datasets import DATASETS
from pipeline.datasets.published import published_months
from pipeline.months import parse_month
from pipeline.sample import sample_process

PERIOD = "2009-01..2025-12"
PICTURE = ROOT / "benchmarks" / "full_history.svg"


@dataclass
class Month:
    """A month of the sample: its rows, and the seconds of its steps."""

    dataset: str
    month: str
    rows: int = 0
    seconds: float = 0.0

    @property
    def published_rows(self) -> int:
        """The rows that TLC published, or those of the sample if that is not known."""
        published = published_months(self.dataset).get(parse_month(self.month))
        return published.rows if published else self.rows


def main() -> None:
    options = _options()
    with working_folder(options.folder) as folder, sample_process("--scale", str(options.scale)) as site:
        backfill = [BIN / "pipeline", "backfill", "all", options.period, "--workers", options.workers]
        used = measure([*backfill, "--through", "download"], folder=folder, PIPELINE_SOURCE=site)
        print(f"# made and downloaded in {used.wall_s:,.0f} s", file=sys.stderr)
        began = time.perf_counter()
        months = _run([*map(str, backfill), "--through", "load", "--json"], folder, site)
        wall_s = time.perf_counter() - began
        status = measure([BIN / "pipeline", "status"], folder=folder, PIPELINE_SOURCE=site)
        sizes = {name: _size(folder / "data" / name) for name in ("lake/raw", "lake/trips", "warehouse.duckdb")}
    rows, all_rows = sum(it.rows for it in months), sum(it.published_rows for it in months)
    lines = {name: _line([it for it in months if it.dataset == name]) for name in DATASETS}
    sample_s, all_s = (
        sum(lines[it.dataset][0] + lines[it.dataset][1] * getattr(it, of) for it in months)
        for of in ("rows", "published_rows")
    )
    print(f"{len(months)} months, {options.workers} workers\n")
    print_table(
        ("", "sample", "all rows, projected"),
        [
            ("rows", f"{rows:,}", f"{all_rows:,}"),
            ("conform and load, minutes", f"{wall_s / 60:.1f}", f"{wall_s * all_s / sample_s / 60:.0f}"),
            *(
                (f"{name}, MB", f"{size / 1e6:,.0f}", f"{size * all_rows / rows / 1e6:,.0f}")
                for name, size in sizes.items()
            ),
            ("status afterwards, s", f"{status.wall_s:.2f}", ""),
        ],
    )
    print()
    print_table(
        ("dataset", "months", "s a month", "s a million rows"),
        [
            (name, str(sum(it.dataset == name for it in months)), f"{constant:.2f}", f"{slope * 1e6:.2f}")
            for name, (constant, slope) in lines.items()
        ],
    )
    _draw(months, options.picture)


def _run(command: list[str], folder: Path, site: str) -> list[Month]:
    """Run it, and take the times of its steps from its events."""
    months: dict[tuple[str, str], Month] = {}
    started: dict[tuple[str, ...], float] = {}
    with subprocess.Popen(
        command, cwd=folder, env=environment(PIPELINE_SOURCE=site), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            key = tuple(event.get(name, "") for name in ("dataset", "month", "step"))
            if event["event"] == "step_started":
                started[key] = time.perf_counter()
            elif event["event"] == "step_finished" and key[1]:
                month = months.setdefault(key[:2], Month(*key[:2]))
                month.rows = max(month.rows, event["rows"])
                month.seconds += time.perf_counter() - started[key]
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}")
    return list(months.values())


def _line(months: list[Month]) -> tuple[float, float]:
    """Seconds a month and seconds a row, by least squares; neither is below 0."""
    rows, seconds = ([getattr(it, of) for it in months] for of in ("rows", "seconds"))
    mean_rows, mean_s = sum(rows) / len(rows), sum(seconds) / len(seconds)
    spread = sum((count - mean_rows) ** 2 for count in rows)
    slope = max(0.0, sum((c - mean_rows) * (s - mean_s) for c, s in zip(rows, seconds, strict=True)) / (spread or 1))
    return max(0.0, mean_s - slope * mean_rows), slope


def _draw(months: list[Month], picture: Path) -> None:
    points = defaultdict(list)
    for month in months:
        for name in ("dataset", "rows", "seconds"):
            points[name].append(getattr(month, name))
    values = [dict(zip(points, point, strict=True)) for point in zip(*points.values(), strict=True)]
    chart = altair.Chart(altair.Data(values=values)).encode(
        x=altair.X("rows:Q", title="rows of the month"),
        y=altair.Y("seconds:Q", title="seconds to conform and load it"),
        color=altair.Color("dataset:N", title=None),
    )
    line = chart.transform_regression("rows", "seconds", groupby=["dataset"]).mark_line()
    (chart.mark_circle(size=18, opacity=0.6) + line).properties(width=640, height=360).save(picture)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.05, help="share of TLC's rows (default %(default)s)")
    parser.add_argument("--period", default=PERIOD, help="which months (default %(default)s)")
    parser.add_argument("--workers", default="auto", help="processes (default %(default)s)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to draw (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
