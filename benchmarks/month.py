"""One yellow month over HTTP into a Parquet file and a DuckDB table: this package against scripts that do only that.

    python benchmarks/month.py --with polars,dlt

Every way is a process of its own that downloads the month from the sample site on loopback, writes it as Parquet under
our column names, and inserts it into a table of a new DuckDB file. This package does it as `luigi Load` with one worker
and the local scheduler; the scripts are in benchmarks/programs. Ways take turns and begin with another one each round;
the table has medians, the fastest run, and the median of wall times relative to this package's in the same round. After
each run the table's rows and sums are compared with the published file's.

With `--months N`, one `pipeline backfill … --through load` with two workers is compared with the DuckDB script, which
takes the months one after the other into one file, or two at a time into two files.

polars and dlt get an environment of their own below benchmarks/.venvs, made by pip when it is first asked for.
"""

from __future__ import annotations

import argparse
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import duckdb
import requests
from measured import BIN, PROGRAMS, ROOT, Usage, fresh, interleaved, measure, print_table, ratio, working_folder

from pipeline.months import add_months, format_month, month_range, parse_month
from pipeline.sample import sample_process

MONTH_FILE = "/trip-data/yellow_tripdata_2024-01.parquet"
LOAD = "luigi --module pipeline Load --dataset yellow --month 2024-01 --local-scheduler --workers 1 --log-level WARNING"


@dataclass(frozen=True)
class Way:
    """A way from address to table, and what it promises."""

    script: str = ""
    table: str = "yellow"
    #: What its environment must have besides DuckDB, pyarrow and requests; nothing: the one we run in serves.
    package: str = ""
    #: Whether a damaged or unbelievable month is refused.
    checks: str = "no"
    #: What happens to a download that was cut.
    resumes: str = "no"
    #: Whether a kill leaves a whole file, or none, at its name; and a whole month, or none, in the table.
    whole: str = "table only"
    #: Whether a second run leaves one month in the table.
    repeatable: str = "no, doubles"


WAYS = {
    "this package": Way(checks="yes", resumes="yes", whole="both", repeatable="yes"),
    "DuckDB script": Way("duckdb_script.py"),
    "pandas script": Way("pandas_script.py"),
    "polars script": Way("polars_script.py", package="polars"),
    "dlt (no Parquet file)": Way(
        "dlt_script.py", "taxi.yellow", package="dlt", resumes="once extracted", whole="per load file"
    ),
}


def main() -> None:
    options = _options()
    if options.months:
        _several(options)
        return
    others = [name for name in options.others.split(",") if name]
    ways = {name: way for name, way in WAYS.items() if not way.package or way.package in others}
    pythons = {name: _python(way) for name, way in ways.items()}
    with sample_process("--rows", str(options.rows)) as site, working_folder(options.folder) as folder:
        url = site + MONTH_FILE
        published = folder.parent / "published.parquet"
        published.write_bytes(requests.get(url, timeout=600).content)  # The site makes the month now.
        expected = _sums(f"'{published}'")
        runs: dict[str, Callable[[], Usage]] = {
            name: partial(_run, way, pythons[name], site, folder, expected) for name, way in ways.items()
        }
        found = interleaved(runs, options.repeats)
    _print(found, ways, options)


def _run(way: Way, python: Path, site: str, folder: Path, expected: tuple[object, ...]) -> Usage:
    fresh(folder)
    if way.script:
        usage = measure([python, PROGRAMS / way.script, site + MONTH_FILE, folder], folder=folder, **QUIET)
        database = folder / "warehouse.duckdb"
    else:
        program, *arguments = LOAD.split()
        usage = measure([BIN / program, *arguments], folder=folder, PIPELINE_SOURCE=site)
        database = folder / "data" / "warehouse.duckdb"
    with duckdb.connect(database, read_only=True) as connection:
        found = _sums(way.table, connection)
    if found != expected:
        sys.exit(f"{way}: arrived as {found}, published as {expected}")
    return usage


def _several(options: argparse.Namespace) -> None:
    """Print what several months take."""
    first = parse_month(MONTH_FILE[-15:-8])
    months = [format_month(month) for month in month_range(first, add_months(first, options.months - 1))]
    chain = f'for url; do "{sys.executable}" "{PROGRAMS}/duckdb_script.py" "$url" "$folder" || exit; done'
    with sample_process("--rows", str(options.rows)) as site, working_folder(options.folder) as folder:
        urls = [site + MONTH_FILE.replace(months[0], month) for month in months]
        for url in urls:
            requests.get(url, timeout=600).raise_for_status()  # The site makes the month now.

        def script(*parts: list[str]) -> Usage:
            fresh(folder)
            names = [str(folder / f"part-{number}") for number in range(len(parts))]
            for name in names:
                Path(name).mkdir()
            chains = [
                f'(folder={name}; set -- {" ".join(part)}; {chain}) & pids="$pids $!"'
                for name, part in zip(names, parts, strict=True)
            ]
            ended = 'for pid in $pids; do wait "$pid" || exit; done'
            return measure(["sh", "-c", "\n".join([*chains, ended])], folder=folder)

        def ours() -> Usage:
            backfill = ("backfill", "yellow", f"{months[0]}..{months[-1]}", "--workers", "2", "--through", "load")
            return measure([BIN / "pipeline", *backfill], folder=fresh(folder), PIPELINE_SOURCE=site)

        found = interleaved(
            {
                "pipeline backfill, 2 workers": ours,
                "DuckDB script, one at a time": lambda: script(urls),
                "DuckDB script, two at a time": lambda: script(urls[::2], urls[1::2]),
            },
            options.repeats,
        )
    print(f"{options.months} yellow months of {options.rows:,} rows, {options.repeats} rounds\n")
    reference = found["pipeline backfill, 2 workers"]
    lines = [
        (name, f"{Usage.median(took).wall_s:.1f}", f"{ratio(took, reference):.2f}", f"{Usage.median(took).cpu_s:.1f}")
        for name, took in found.items()
    ]
    print_table(("way", "wall s", "wall, ours = 1", "CPU s"), lines)


def _sums(table: str, connection: duckdb.DuckDBPyConnection | None = None) -> tuple[object, ...]:
    """Rows and two sums that a wrong row would change."""
    # Added as decimals, since a sum of doubles depends on their order.
    sql = f"SELECT count(*), sum(total_amount::DECIMAL(18, 2)), count(passenger_count) FROM {table}"
    with connection.cursor() if connection else duckdb.connect() as cursor:
        found = cursor.execute(sql).fetchone()
    assert found is not None
    return found


def _print(runs: dict[str, list[Usage]], ways: dict[str, Way], options: argparse.Namespace) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "pyarrow", "pandas"))
    print(f"A yellow month of {options.rows:,} rows, {options.repeats} rounds; {versions}\n")
    lines = []
    for name, took in runs.items():
        used, way = Usage.median(took), ways[name]
        lines.append(
            (
                name,
                f"{used.wall_s:.1f}",
                f"{min(run.wall_s for run in took):.1f}",
                f"{ratio(took, runs['this package']):.2f}",
                f"{used.cpu_s:.1f}",
                f"{used.peak_mb:,.0f}",
                *(way.checks, way.resumes, way.whole, way.repeatable),
            )
        )
    measured = ("wall s", "fastest", "wall, ours = 1", "CPU s", "peak MB")
    print_table(("way", *measured, "checks", "resumes", "whole or nothing", "repeatable"), lines)


#: dlt reports each run to its makers by default.
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false"}


def _python(way: Way) -> Path:
    """The interpreter of the way's environment, which is made when it is not there yet."""
    if not way.package:
        return Path(sys.executable)
    home = ROOT / "benchmarks" / ".venvs" / way.package
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"# making {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        same = [f"{name}=={version(name)}" for name in ("duckdb", "pyarrow", "requests")]
        measure([python, "-m", "pip", "install", "--quiet", way.package, *same], folder=home)
        (home / "ready").touch()
    return python


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000, help="rows of the month (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--with", dest="others", default="", metavar="NAMES", help="polars, dlt, or polars,dlt")
    parser.add_argument("--months", type=int, default=0, help="compare so many months instead of one")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
