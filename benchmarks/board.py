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
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from measured import BIN, Usage, environment, interleaved, measure, print_table, ratio
from no_op import LAST, MONTHS, add_options, complete_months, take_out

from pipeline.months import add_months, format_month, month_range
from pipeline.runs.history import History

WARM_S, COLD_S, EVENT_S, MEMORY_MB = 0.15, 1.5, 0.5, 70
PAGES = 20
#: The board ends the process that answers a minute after the last question.
ANSWERING_S = 65
NONE, OPEN = "none", f"{PAGES}"


class Board:
    """A running board, and the cookie of a browser."""

    def __init__(self, folder: Path, site: str) -> None:
        with socket.socket() as each:
            each.bind(("127.0.0.1", 0))
            self.port = each.getsockname()[1]
        command = [str(BIN / "pipeline"), "board", "--no-open", "--port", str(self.port)]
        env = environment(PIPELINE_SOURCE=site)
        self.process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        link, self.cookie = self.process.stdout.readline().split()[-1], ""
        self.cookie = self.get(f"/?{link.partition('?')[2]}").headers["Set-Cookie"].partition(";")[0]

    def connection(self, path: str) -> tuple[HTTPConnection, HTTPResponse]:
        """An answer of which the headers were read."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"Cookie": self.cookie, "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {answer.reason}")
        return connection, answer

    def get(self, path: str = "/") -> HTTPResponse:
        """A whole answer."""
        connection, answer = self.connection(path)
        answer.read()
        connection.close()
        return answer

    def first_byte_s(self) -> float:
        """How long the grid takes until its first byte."""
        began = time.perf_counter()
        connection, answer = self.connection("/")
        answer.read(1)
        took_s = time.perf_counter() - began
        answer.read()
        connection.close()
        return took_s

    @contextmanager
    def page(self) -> Iterator[None]:
        """An open page: a stream of events, after some of which it fetches the grid again."""
        connection, answer = self.connection("/events")

        def follow() -> None:
            for line in answer:
                if line in (b"event: grid\n", b"event: runs\n"):
                    self.get()

        thread = threading.Thread(target=follow)
        thread.start()
        yield
        connection.sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        connection.close()

    def processes(self) -> list[int]:
        """The board, and the process that answers while there is one."""
        own = self.process.pid
        return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())]

    def cpu_s(self) -> float:
        """CPU time so far, with the processes that answer."""
        stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in self.processes()]
        return sum(int(ticks) for stat in stats for ticks in stat[11:15]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_board(folder: Path, site: str) -> Iterator[Board]:
    board = Board(folder, site)
    try:
        yield board
    finally:
        board.process.terminate()
        board.process.wait(20)


def main() -> None:
    options = _options()
    months = month_range(add_months(LAST, 1 - options.months), LAST)
    boards: dict[str, list[float]] = {NONE: [], OPEN: []}
    with complete_months(options) as (folder, site):
        cold = []
        for _ in range(options.repeats):
            with running_board(folder, site) as board:
                cold.append(board.first_byte_s())
        with running_board(folder, site) as board:
            memory = {"before a question": _memory(board.processes()[0])}
            board.get()
            warm = [board.first_byte_s() for _ in range(20)]
            own, answering = board.processes()
            memory |= {"after 21 of the grid": _memory(own), "the process that answers": _memory(answering)}
            time.sleep(ANSWERING_S)
            (own,) = board.processes()
            memory["after that has ended"] = _memory(own)
            events = _event_delays(board, folder, site, months)
            run = partial(_run, board, folder, site, months, boards)
            runs = interleaved({NONE: partial(run, NONE), OPEN: partial(run, OPEN)}, options.repeats)
            with _pages(board, PAGES):
                time.sleep(ANSWERING_S)  # The pages of this start, and the process that answered them.
                before_s = board.cpu_s()
                time.sleep(60)
                idle_s = board.cpu_s() - before_s
            memory[f"after {options.repeats} runs, {PAGES} pages open"] = _memory(own)
    _print(options, {"warm": warm, "cold": cold, "event": events}, memory, runs, boards, idle_s)


def _memory(process: int) -> tuple[float, float]:
    """MB resident (VmRSS), and with each shared page divided by the number of its users (Pss)."""
    lines = (line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    kb = {name: int(value) for name, value, *_ in lines}
    return kb["Rss:"] * 1024 / 1e6, kb["Pss:"] * 1024 / 1e6


def _backfill(months: Sequence[date]) -> list[str | Path]:
    return [BIN / "pipeline", "backfill", "yellow", f"{format_month(months[0])}..{format_month(months[-1])}"]


def _event_delays(board: Board, folder: Path, site: str, months: Sequence[date]) -> list[float]:
    """The delay of each event that a run writes while its page is open."""
    for month in months:
        take_out(folder / "data", month)
    history = History(str(folder / "data" / "logs"))
    before = len(history.runs())
    arrived: dict[int, float] = {}
    with subprocess.Popen(
        _backfill(months),
        cwd=folder,
        env=environment(PIPELINE_SOURCE=site),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while len(history.runs()) == before and process.poll() is None:
            time.sleep(0.02)
        id = history.runs()[-1].id
        connection, answer = board.connection(f"/events?run={id}")
        opened, version = time.time(), "running"
        while version.startswith("running") and (line := answer.readline()):
            news = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
            arrived |= {number: time.time() for number, *_ in news.get("log", ())}
            version = news.get("version", version)
        connection.close()
    written = [
        datetime.fromisoformat(json.loads(line)["at"]).timestamp()
        for line in history.event_file(id).read_text().splitlines()
    ]
    return [at - written[number - 1] for number, at in arrived.items() if written[number - 1] > opened]


@contextmanager
def _pages(board: Board, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(board.page())
        yield


def _run(
    board: Board, folder: Path, site: str, months: Sequence[date], boards: dict[str, list[float]], pages: str
) -> Usage:
    for month in months:
        take_out(folder / "data", month)
    board.get()
    with _pages(board, PAGES if pages == OPEN else 0):
        time.sleep(5)  # Until the pages have the status without the months.
        before_s = board.cpu_s()
        used = measure(_backfill(months), folder=folder, PIPELINE_SOURCE=site)
        boards[pages].append(board.cpu_s() - before_s)
    return used


def _print(
    options: argparse.Namespace,
    seconds: dict[str, list[float]],
    memory: dict[str, tuple[float, float]],
    runs: dict[str, list[Usage]],
    boards: dict[str, list[float]],
    idle_s: float,
) -> None:
    print(f"{MONTHS} months\n")
    names = {
        "warm": ("first byte of the grid, warm", WARM_S),
        "cold": ("first byte of the grid, cold", COLD_S),
        "event": ("event to page", EVENT_S),
    }
    rows, missed = [], []
    for key, (name, promised_s) in names.items():
        took = [each * 1000 for each in seconds[key]]
        rows.append((name, len(took), *(f"{each:,.0f}" for each in (statistics.median(took), min(took), max(took)))))
        if statistics.median(took) >= promised_s * 1000:
            missed.append(f"{name}: {statistics.median(took):,.0f} ms; less than {promised_s * 1000:,.0f} are promised")
    print_table(("time", "times", "median ms", "fastest", "slowest"), rows)
    print()
    print_table(("memory MB", "VmRSS", "Pss"), [(name, *(f"{mb:.0f}" for mb in each)) for name, each in memory.items()])
    most_mb = max(resident for name, (resident, _) in memory.items() if "process" not in name)
    if most_mb > MEMORY_MB:
        missed.append(f"memory of the board: {most_mb:.0f} MB; {MEMORY_MB} are promised")
    print(f"\n{options.months} months of 20 rows, {options.repeats} rounds\n")
    lines = []
    for name, used_by in runs.items():
        used, (wall, cpu) = Usage.median(used_by), (ratio(used_by, runs[NONE], of) for of in ("wall_s", "cpu_s"))
        line = (
            name,
            f"{used.wall_s:.1f}",
            f"{min(run.wall_s for run in used_by):.1f}",
            f"{wall:.2f}",
            f"{used.cpu_s:.1f}",
        )
        lines.append((*line, f"{cpu:.2f}", f"{statistics.median(boards[name]):.1f}"))
    print_table(
        ("pages open", "wall s", "fastest", "wall, none = 1", "CPU s", "CPU, none = 1", "CPU s of the board"), lines
    )
    print(f"\n{PAGES} pages open, nothing to do: {idle_s:.1f} s of CPU in a minute")
    sys.exit("\n".join(missed) or None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="cold starts, and rounds of runs (default %(default)s)")
    parser.add_argument("--months", type=int, default=24, help="months of a run (default %(default)s)")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
