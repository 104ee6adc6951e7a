"""One yellow month of the lake into a fresh Postgres database: this package against scripts that do only that.

    python benchmarks/postgres.py
    python benchmarks/postgres.py --memory

Every way is a process of its own that puts the month (`--rows`) into a database made for that run, of a server that
syncs to the disk as one at work does (the tests' server with fsync and full_page_writes on). This package does it by
`replace`, from the month's conformed file, with checks, record and index. The scripts in
benchmarks/programs fill one plain table: two by pgpq's binary COPY of the same file, with pyarrow's batches and with
batches as this package has them, one by COPY of CSV. The last one is how a well-known course on data engineering does
it: pandas reads chunks of 100,000 rows of the gzipped CSV, SQLAlchemy inserts them. It takes minutes, so it gets only
the month's first rows (`--pandas-rows`) and fewer rounds, and is compared by seconds per row.

Ways take turns and begin with another one each round; the table has medians, the fastest run, and the median of the
seconds per row relative to this package's in the same round. CPU and memory are the client's; the server, on the same
machine, is not counted. After each run the table's rows and sums are compared with the published file's. At the
default sizes at most 1.3 x the time of a bare COPY is promised, and a twentieth of pandas' time for each row.

--memory instead loads a large month of fhvhv (`--large-rows`), and prints the peak of the process that loads; less
than 450 MB are promised.

pgpq, pandas, SQLAlchemy and psycopg2 get an environment of their own below benchmarks/.venvs, made by pip when it is
first asked for.
"""

from __future__ import annotations

import argparse
import sys
import venv
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from measured import PROGRAMS, ROOT, Usage, interleaved, measure, print_table, ratio, working_folder

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.months import format_month
from pipeline.sample.files import order, write_parquet

MONTH = date(2024, 1, 1)
#: How a server at work is set, which the tests' is not.
SETTINGS = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "4GB", "shared_buffers": "256MB"}
OURS, PANDAS = "this package", "pandas to_sql (CSV)"
#: This package takes at most so many times as long as a bare COPY; pandas at least so many times as long as it.
PROMISE_COPY, PROMISE_PANDAS = 1.3, 20.0
PROMISE_MB = 450
#: Rows and two sums that a wrong row would change; added as decimals, since a sum of doubles depends on their order.
SUMS = "SELECT count(*), sum(CAST(total_amount AS DECIMAL(18, 2))), count(passenger_count) FROM {}"

Ways = dict[str, Callable[[], Usage]]


def main() -> None:
    options = _options()
    # Imported from there, since this file has the same name.
    sys.path.insert(0, str(ROOT / "tests"))
    from postgres import postgres_server  # type: ignore[attr-defined]

    running: AbstractContextManager[Any] = postgres_server(**SETTINGS)
    with working_folder(options.folder) as folder, running as server:
        broken = _memory(folder, server, options) if options.memory else _compare(folder, server, options)
    if broken:
        sys.exit("; ".join(broken))


def _compare(folder: Path, server: Any, options: argparse.Namespace) -> list[str]:
    """Print what each way took; returns the promises that it does not keep."""
    ways = _ways(folder, server, options)
    pandas_rounds = min(options.pandas_repeats, options.repeats)
    runs = interleaved(ways, pandas_rounds)
    del ways[PANDAS]
    for name, took in interleaved(ways, options.repeats - pandas_rounds).items():
        runs[name] += took
    rows = {name: options.pandas_rows if name == PANDAS else options.rows for name in runs}
    per_row = {
        name: ratio(took, runs[OURS][: len(took)]) * options.rows / rows[name] for name, took in runs.items() if took
    }
    postgres = server.execute("SHOW server_version")[0][0].split()[0]
    print(f"A yellow month, {options.repeats} rounds ({pandas_rounds} of pandas); Postgres {postgres}, {_versions()}\n")
    print_table(
        ("way", "rows", "wall s", "fastest", "s a million", "rows/s", "a row, ours = 1", "CPU s", "peak MB"),
        [(name, *_line(runs[name], rows[name], of)) for name, of in per_row.items()],
    )
    broken = [
        f"{OURS} takes {1 / of:.2f} x as long as {name}; at most {PROMISE_COPY} x are promised"
        for name, of in per_row.items()
        if name.startswith("pgpq") and 1 / of > PROMISE_COPY
    ]
    if per_row.get(PANDAS, PROMISE_PANDAS) < PROMISE_PANDAS:
        broken.append(f"{PANDAS} takes {per_row[PANDAS]:.1f} x as long as ours; {PROMISE_PANDAS:g} x are promised")
    return broken


def _ways(folder: Path, server: Any, options: argparse.Namespace) -> Ways:
    """The files that the ways begin with, made here; and each way as a run of it."""
    published, trips = _conformed(folder, "yellow", options.rows)
    some, text = f"(SELECT * FROM '{published}' LIMIT {options.pandas_rows})", folder / "yellow.csv.gz"
    with duckdb.connect() as connection:
        connection.execute(f"COPY {some} TO '{text}' (FORMAT csv, HEADER, COMPRESSION gzip)")
        whole, part = (connection.execute(SUMS.format(of)).fetchone() for of in (f"'{published}'", some))
    others = _python_of_others()

    def way(
        expected: Any, program: str, *arguments: object, python: str | Path = sys.executable
    ) -> Callable[[], Usage]:
        return lambda: _run(folder, server, expected, [str(python), str(PROGRAMS / program), *map(str, arguments)])

    return {
        OURS: way(whole, "load_one.py", "lake", URL, "yellow", format_month(MONTH)),
        "pgpq, batches of 65,536": way(whole, "pgpq_script.py", URL, trips, python=others),
        "pgpq, batches of 8,192": way(whole, "pgpq_script.py", URL, trips, 8_192, python=others),
        "COPY of CSV": way(whole, "csv_copy_script.py", URL, trips),
        PANDAS: way(part, "to_sql_script.py", URL, text, python=others),
    }


#: Stands in a command for the database that its run gets.
URL = "URL"


def _run(folder: Path, server: Any, expected: Any, command: list[str]) -> Usage:
    """Run the command on a new database, and compare what it has then, unless nothing is expected."""
    # What the run before left to be written is not this one's.
    server.execute("CHECKPOINT")
    server.execute("CREATE DATABASE taxi")
    try:
        usage = measure([server.url_of("taxi") if word == URL else word for word in command], folder=folder)
        if expected is not None:
            (found,) = server.execute(SUMS.format("yellow"), "taxi")
            if found != expected:
                sys.exit(f"{command}: arrived as {found}, published as {expected}")
    finally:
        server.execute("DROP DATABASE taxi WITH (FORCE)")
    return usage


def _memory(folder: Path, server: Any, options: argparse.Namespace) -> list[str]:
    """Print what loading a large month took; returns the promise if it does not keep it."""
    published, _ = _conformed(folder, "fhvhv", options.large_rows)
    published.unlink()
    load = [sys.executable, str(PROGRAMS / "load_one.py"), "lake", URL, "fhvhv", format_month(MONTH)]
    runs = [_run(folder, server, None, load) for _ in range(options.large_repeats)]
    used, highest_mb = Usage.median(runs), max(run.peak_mb for run in runs)
    print_table(
        ("dataset", "rows", "load s", "CPU s", "peak MB"),
        [("fhvhv", f"{options.large_rows:,}", f"{used.wall_s:.1f}", f"{used.cpu_s:.1f}", f"{highest_mb:,.0f}")],
    )
    return [f"the load took {highest_mb:,.0f} MB; less than {PROMISE_MB} are promised"] * (highest_mb >= PROMISE_MB)


def _conformed(folder: Path, name: str, rows: int) -> tuple[Path, Path]:
    """A month as the sample site publishes it, and its file in the lake."""
    published, trips = folder / "published.parquet", folder / "lake" / lake.trips_key(DATASETS[name], MONTH)
    write_parquet(order(name, MONTH, rows=rows), published)
    trips.parent.mkdir(parents=True)
    command: list[str | Path] = [
        sys.executable,
        PROGRAMS / "conform_one.py",
        published,
        trips,
        name,
        format_month(MONTH),
    ]
    measure(command, folder=folder)
    return published, trips


def _line(runs: list[Usage], rows: int, per_row: float) -> tuple[str, ...]:
    used = Usage.median(runs)
    return (
        f"{rows:,}",
        f"{used.wall_s:.1f}",
        f"{min(run.wall_s for run in runs):.1f}",
        f"{used.wall_s / rows * 1e6:.2f}",
        f"{rows / used.wall_s:,.0f}",
        f"{per_row:.2f}",
        f"{used.cpu_s:.1f}",
        f"{used.peak_mb:,.0f}",
    )


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("psycopg", "pyarrow", "pandas"))


def _python_of_others() -> Path:
    """The interpreter of the environment for pgpq and pandas, which is made when it is not there yet."""
    home = ROOT / "benchmarks" / ".venvs" / "postgres"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"# making {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        same = [f"{name}=={version(name)}" for name in ("pandas", "pyarrow", "psycopg", "psycopg-binary")]
        measure(
            [python, "-m", "pip", "install", "--quiet", *same, "pgpq", "sqlalchemy", "psycopg2-binary"], folder=home
        )
        (home / "ready").touch()
    return python


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000, help="rows of the month (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--pandas-rows", type=int, default=300_000, help="of these, for pandas (default %(default)s)")
    parser.add_argument("--pandas-repeats", type=int, default=2, help="rounds with pandas (default %(default)s)")
    parser.add_argument("--memory", action="store_true", help="load a large month, and print its peak, instead")
    parser.add_argument("--large-rows", type=int, default=18_000_000, help="rows of it (default %(default)s)")
    parser.add_argument("--large-repeats", type=int, default=1, help="loads of it (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
