"""One yellow month of the lake into a fresh Postgres database: this package against scripts that do only that.

    python benchmarks/postgres.py
    python benchmarks/postgres.py --memory
    python benchmarks/postgres.py --months 12

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

--months instead brings so many months (`--month-rows` each) from the sample site into the lake and the database:
`pipeline backfill … --through load` with two workers, against a script that downloads each month, writes it as Parquet
by DuckDB and copies it by pgpq. The script takes all months in a loop, or runs as two processes at a time, each with
half of the months and a table of its own.

pgpq, pandas, SQLAlchemy and psycopg2 get an environment of their own below benchmarks/.venvs, made by pip when it is
first asked for.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import venv
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import requests
from measured import BIN, PROGRAMS, ROOT, Usage, fresh, interleaved, measure, print_table, ratio, working_folder

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.months import add_months, format_month
from pipeline.sample import sample_process
from pipeline.sample.files import order, write_parquet

MONTH = date(2024, 1, 1)
#: How a server at work is set, which the tests' is not.
SETTINGS = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "4GB", "shared_buffers": "256MB"}
OURS, PANDAS = "this package", "pandas to_sql (CSV)"
#: This package takes at most so many times as long as a bare COPY; pandas at least so many times as long as it.
PROMISE_COPY, PROMISE_PANDAS = 1.3, 20.0
PROMISE_MB = 450
#: Of two workers, for months from site to table.
PROMISE_MONTHS = {"pgpq script, in a loop": 0.8, "pgpq script, two at a time": 1.0}
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
        compare = _memory if options.memory else _compare_months if options.months else _compare
        broken = compare(folder, server, options)
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
URL = "{URL}"


def _run(folder: Path, server: Any, expected: Any, command: list[str], rows: str = "yellow", **settings: str) -> Usage:
    """Run the command on a new database, and compare what it has then (in `rows`), unless nothing is expected."""
    # What the run before left to be written is not this one's.
    server.execute("CHECKPOINT")
    server.execute("CREATE DATABASE taxi")
    try:
        database = server.url_of("taxi")
        usage = measure([word.replace(URL, database) for word in command], folder=folder, **settings)
        if expected is not None:
            (found,) = server.execute(SUMS.format(rows), "taxi")
            if found != expected:
                sys.exit(f"{command}: arrived as {found}, published as {expected}")
    finally:
        server.execute("DROP DATABASE taxi WITH (FORCE)")
    return usage


def _compare_months(folder: Path, server: Any, options: argparse.Namespace) -> list[str]:
    """Print what the months took each way; returns the promises that are not kept."""
    months = [format_month(add_months(MONTH, number)) for number in range(options.months)]
    loop, pair = PROMISE_MONTHS
    with sample_process("--rows", str(options.month_rows), "--last", months[-1]) as site:
        published = fresh(folder / "published")
        for month in months:  # The site makes the month now.
            name = f"yellow_tripdata_{month}.parquet"
            (published / name).write_bytes(requests.get(f"{site}/trip-data/{name}", timeout=600).content)
        with duckdb.connect() as connection:
            expected = connection.execute(SUMS.format(f"'{published}/*.parquet'")).fetchone()
        others = _python_of_others()

        def script(table: str, some: list[str]) -> list[str]:
            program = PROGRAMS / "pgpq_months_script.py"
            return [str(others), str(program), site, URL, str(folder / "work"), table, *some]

        def run(command: list[str], rows: str = "yellow") -> Usage:
            fresh(folder / "work")
            return _run(folder / "work", server, expected, command, rows, PIPELINE_SOURCE=site)

        backfill = f"backfill yellow {months[0]}..{months[-1]} --through load --workers 2 --quiet --warehouse"
        half = [shlex.join(script(f"yellow_{number}", months[number::2])) for number in (0, 1)]
        both = "(SELECT * FROM yellow_0 UNION ALL SELECT * FROM yellow_1)"
        ways: Ways = {
            OURS: lambda: run([str(BIN / "pipeline"), *backfill.split(), URL]),
            loop: lambda: run(script("yellow", months)),
            pair: lambda: run(["sh", "-c", f"{half[0]} & {half[1]} && wait $!"], f"{both} AS rows"),
        }
        runs = interleaved(ways, options.repeats)
    print(f"{len(months)} yellow months of {options.month_rows:,} rows, {options.repeats} rounds; {_versions()}\n")
    print_table(
        ("way", "wall s", "fastest", "wall, ours = 1", "CPU s", "peak MB"),
        [
            (
                name,
                *(f"{used.wall_s:.1f}", f"{min(run.wall_s for run in took):.1f}", f"{ratio(took, runs[OURS]):.2f}"),
                *(f"{used.cpu_s:.1f}", f"{used.peak_mb:,.0f}"),
            )
            for name, took in runs.items()
            for used in [Usage.median(took)]
        ],
    )
    return [
        f"{OURS} takes {found:.2f} x as long as the {name}; at most {most} x are promised"
        for name, most in PROMISE_MONTHS.items()
        if (found := ratio(runs[OURS], runs[name])) > most
    ]


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
        same = ("pandas", "pyarrow", "duckdb", "requests", "psycopg", "psycopg-binary")
        packages = [*(f"{name}=={version(name)}" for name in same), "pgpq", "sqlalchemy", "psycopg2-binary"]
        measure([python, "-m", "pip", "install", "--quiet", *packages], folder=home)
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
    parser.add_argument("--months", type=int, default=0, help="bring so many months from the site, instead")
    parser.add_argument("--month-rows", type=int, default=500_000, help="rows of each (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work below this folder (default: where temporary files go)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
