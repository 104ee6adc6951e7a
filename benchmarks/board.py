"""What the board costs: the time to a page, the delay of an event, its memory, and what open pages cost a run.

    python benchmarks/board.py

`pipeline board` serves every month of yellow, green, fhv and fhvhv to 2025-12 (tiny ones, as in no_op.py, which says
what --data and --keep are for). It is used as browsers use it: by HTTP, with a stream of events for each open page,
which fetches the grid again when the stream says so. Linux only: memory and CPU time are those that /proc has.

- First byte of the grid: from the request. Cold is the first request after a start.
- Event to page: from the time in an event that `pipeline backfill` writes to its arrival on the stream of an open page.
- Memory of the board: before anybody asks, beside the process that answers, and when that has ended.
- Open pages: the same backfill with and without them, taking turns; then the board with nothing to do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from measured import BIN, Usage, environment, interleaved, measure, print_table, ratio
from no_op import LAST, MONTHS, add_options, complete_months, take_out

from pipeline.months import add_months, format_month, month_range
from pipeline.runs.history import History

WARM_MS, COLD_MS, EVENT_MS, MEMORY_MB = 150, 1_500, 500, 70
PAGES = 20
#: The board ends the process that answers a minute after the last question.
ANSWERING_S = 65
RUN = month_range(add_months(LAST, -23), LAST)
BACKFILL = [str(BIN / "pipeline"), "backfill", "yellow", f"{format_month(RUN[0])}..{format_month(RUN[-1])}"]


class Board:
    """A running board, and the cookie of a browser."""

    def __init__(self, folder: Path, site: str) -> None:
        self.folder, self.site, self._cookie = folder, site, ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [str(BIN / "pipeline"), "board", "--no-open", "--port", str(self._port)],
            cwd=folder,
            env=environment(PIPELINE_SOURCE=site),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        link = self._process.stdout.readline().split()[-1]
        with self.connection(f"/?{link.partition('?')[2]}") as (_, answer):
            self._cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    @contextmanager
    def connection(self, path: str) -> Iterator[tuple[HTTPConnection, HTTPResponse]]:
        """An answer of which the headers were read, and its connection."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.request("GET", path, headers={"Cookie": self._cookie, "Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            if answer.status != 200:
                sys.exit(f"{path}: {answer.status} {answer.reason}")
            yield connection, answer

    def grid_ms(self) -> float:
        """How long the grid takes until its first byte; it is read to its end."""
        began = time.perf_counter()
        with self.connection("/") as (_, answer):
            answer.read(1)
            took_s = time.perf_counter() - began
            answer.read()
        return took_s * 1000

    @contextmanager
    def page(self) -> Iterator[None]:
        """An open page: a stream of events, after some of which it fetches the grid again."""

        def follow() -> None:
            for line in answer:
                if line in (b"event: grid\n", b"event: runs\n"):
                    self.grid_ms()

        with self.connection("/events") as (connection, answer):
            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            yield
            connection.sock.shutdown(socket.SHUT_RDWR)
            thread.join()

    @contextmanager
    def pages(self, count: int) -> Iterator[None]:
        """So many open pages."""
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(self.page())
            yield

    def processes(self) -> list[int]:
        """The board, and the process that answers while there is one."""
        own = self._process.pid
        return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())]

    def cpu_s(self) -> float:
        """CPU time so far, with that of processes that answer."""
        stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in self.processes()]
        return sum(int(ticks) for stat in stats for ticks in stat[11:15]) / os.sysconf("SC_CLK_TCK")

    def take_out(self) -> None:
        """Take the months of a run out of lake and warehouse."""
        for month in RUN:
            take_out(self.folder / "data", month)

    def run(self) -> Usage:
        """Run the backfill of these months."""
        return measure(BACKFILL, folder=self.folder, PIPELINE_SOURCE=self.site)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="cold starts, and rounds of runs (default %(default)s)")
    add_options(parser)
    options = parser.parse_args()
    times, memory, boards = dict[str, list[float]](), dict[str, tuple[float, float]](), list[tuple[int, float]]()
    with complete_months(options) as place:
        times["first byte of the grid, cold"] = [_cold_ms(*place) for _ in range(options.repeats)]
        with Board(*place) as board:
            memory["board, before a question"] = _memory_mb(board.processes()[0])
            board.grid_ms()
            times["first byte of the grid, warm"] = [board.grid_ms() for _ in range(20)]
            own, answering = board.processes()
            memory["board, while the other process answers"] = _memory_mb(own)
            memory["process that answers"] = _memory_mb(answering)
            time.sleep(ANSWERING_S)
            memory["board, after that has ended"] = _memory_mb(*board.processes())
            times["event to page"] = _delays_ms(board)
            runs = interleaved({f"{n}": partial(_run, board, n, boards) for n in (0, PAGES)}, options.repeats)
            with board.pages(PAGES):
                time.sleep(ANSWERING_S)
                before_s = board.cpu_s()
                time.sleep(60)
                idle_s = board.cpu_s() - before_s
                memory[f"board, {PAGES} pages open, after all runs"] = _memory_mb(*board.processes())
    print(f"{MONTHS} months\n")
    _print(times, memory)
    print(f"\n{len(RUN)} months of 20 rows, {options.repeats} rounds\n")
    _print_runs(runs, boards)
    print(f"\n{PAGES} pages open and nothing to do: {idle_s:.1f} s of CPU in a minute")
    promises = zip(times, (COLD_MS, WARM_MS, EVENT_MS), strict=True)
    missed = [f"{name}: less than {most} ms are promised" for name, most in promises if _median(times[name]) >= most]
    if max(resident for name, (resident, _) in memory.items() if name.startswith("board")) > MEMORY_MB:
        missed.append(f"memory of the board: {MEMORY_MB} MB are promised")
    sys.exit("\n".join(missed) or None)


def _cold_ms(folder: Path, site: str) -> float:
    with Board(folder, site) as board:
        return board.grid_ms()


def _memory_mb(process: int) -> tuple[float, float]:
    """What is resident (VmRSS), and that with each shared page divided by the number of its users (Pss)."""
    lines = (line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    kb = {name: int(value) for name, value, *_ in lines}
    return kb["Rss:"] * 1024 / 1e6, kb["Pss:"] * 1024 / 1e6


def _delays_ms(board: Board) -> list[float]:
    """The delay of each event that a run writes while its page is open."""
    board.take_out()
    history, arrived, version = History(str(board.folder / "data" / "logs")), dict[int, float](), "running"
    before = len(history.runs())
    thread = threading.Thread(target=board.run)
    thread.start()
    while len(history.runs()) == before:
        assert thread.is_alive(), "the run has not begun"
        time.sleep(0.02)
    id = history.runs()[-1].id
    with board.connection(f"/events?run={id}") as (_, answer):
        opened = time.time()
        while version.startswith("running") and (line := answer.readline()):
            news = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
            numbers = re.findall(r'data-number="(\d+)"', news.get("log", ""))
            arrived |= {int(number): time.time() for number in numbers}
            version = news.get("version", version)
    thread.join()
    events = map(json.loads, history.event_file(id).read_text().splitlines())
    written = [datetime.fromisoformat(event["at"]).timestamp() for event in events]
    return [(at - written[number - 1]) * 1000 for number, at in arrived.items() if written[number - 1] > opened]


def _run(board: Board, count: int, boards: list[tuple[int, float]]) -> Usage:
    """A run with so many open pages; notes what the board takes meanwhile."""
    board.take_out()
    board.grid_ms()
    with board.pages(count):
        time.sleep(5)  # Until the status is that without the months.
        before_s = board.cpu_s()
        used = board.run()
        boards.append((count, board.cpu_s() - before_s))
    return used


def _print(times: dict[str, list[float]], memory: dict[str, tuple[float, float]]) -> None:
    rows = [
        (name, len(took), *map("{:,.0f}".format, (_median(took), min(took), max(took)))) for name, took in times.items()
    ]
    print_table(("time", "times", "median ms", "fastest", "slowest"), rows)
    print()
    print_table(("MB", "VmRSS", "Pss"), [(name, *map("{:.0f}".format, each)) for name, each in memory.items()])


def _print_runs(runs: dict[str, list[Usage]], boards: Sequence[tuple[int, float]]) -> None:
    rows = []
    for name, took in runs.items():
        used, fastest_s = Usage.median(took), min(run.wall_s for run in took)
        wall, cpu = (ratio(took, runs["0"], of) for of in ("wall_s", "cpu_s"))
        board_s = _median([used_s for count, used_s in boards if f"{count}" == name])
        texts = (f"{used.wall_s:.1f}", f"{fastest_s:.1f}", f"{wall:.2f}", f"{used.cpu_s:.1f}", f"{cpu:.2f}")
        rows.append((name, *texts, f"{board_s:.1f}"))
    print_table(("pages open", "wall s", "fastest", "wall, 0 = 1", "CPU s", "CPU, 0 = 1", "CPU s of the board"), rows)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
