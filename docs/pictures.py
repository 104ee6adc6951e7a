"""Takes the pictures of the board: grid and month, at desktop and phone width, light and dark, into docs/images.

    python docs/pictures.py --keep months        # makes 500 months of sample trips, which takes some minutes
    python docs/pictures.py --data months        # takes the pictures again

It needs Playwright for Python and a Chromium (--browser), and no network. A few months are changed so that every mark
is shown; one run is at work meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.lake import open_store
from pipeline.months import add_months, format_month, parse_month
from pipeline.sample import SampleSite
from pipeline.warehouses import open_warehouse

IMAGES = Path(__file__).parent / "images"
COMMAND = Path(sys.executable).with_name("pipeline")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
SIZES = {"desktop": (1440, 1400), "phone": (390, 844)}
PATIENCE_MS = 60_000
LAST = add_months(date.today().replace(day=1), -3)
RUNNING = tuple(f"{name} {format_month(LAST)}" for name in ("yellow", "green", "fhvhv"))
WARNED = ("yellow 2018-03", "green 2021-07", "fhvhv 2022-11", "fhv 2019-05")
STALE = ("green 2019-08", "green 2019-09", "fhv 2023-02")
REFUSED = ("yellow 2020-04",)
FAILED = ("green 2022-05", "fhvhv 2024-06")
PAGES = {"grid": "/", "month": "/months/green/2021-07"}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder, SampleSite(rows=2_000, last=LAST) as site:
        work = Path(folder)
        if options.data:
            shutil.copytree(options.data, work / "data", symlinks=True)
        else:
            _start(work, site, "backfill", "all", f"2011..{format_month(LAST)}").wait()
        if options.keep:
            shutil.copytree(work / "data", options.keep)
        _change(work / "data")
        for name in FAILED:
            site.faults.add(f"*{name.replace(' ', '_tripdata_')}*", "html", times=math.inf)
            _start(work, site, "backfill", *name.split()).wait()
        site.faults.add(f"*{format_month(LAST)}*", "slow", 500, times=math.inf)
        port = _free_port()
        started = [
            _start(work, site, "backfill", "yellow,green,fhvhv", format_month(LAST)),
            _start(work, site, "board", "--no-open", "--port", str(port)),
        ]
        try:
            link = started[1].stdout.readline().split()[-1]  # type: ignore[union-attr]
            _take(link, f"http://127.0.0.1:{port}", options.browser)
        finally:
            for process in started:
                process.send_signal(signal.SIGINT)
                process.communicate()


def _take(link: str, base: str, browser: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=browser, args=FLAGS) as chromium:
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.goto(link)
        page.wait_for_selector(".cell.running", timeout=PATIENCE_MS)
        for name, path in PAGES.items():
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                for size, (width, height) in SIZES.items():
                    page.set_viewport_size({"width": width, "height": height})
                    page.goto(base + path, wait_until="load")
                    if name == "month":  # Its data come when they are opened.
                        page.click("[data-load] > summary")
                        page.wait_for_selector("[data-load] svg", timeout=PATIENCE_MS)
                    page.screenshot(path=IMAGES / f"board-{name}-{size}-{scheme}.png")


def _change(data: Path) -> None:
    """Give some months the marks that sample months do not have, and take out those that will fail or run."""
    store, warehouse = open_store(str(data / "lake")), open_warehouse(f"duckdb:///{data}/warehouse.duckdb")
    for name in (*WARNED, *STALE, *REFUSED, *FAILED, *RUNNING):
        dataset, month = DATASETS[name.split()[0]], parse_month(name.split()[1])
        raw = lake.raw_key(dataset, f"{dataset.base_name(month)}.parquet")
        sidecar, checks = lake.sidecar_key(raw), lake.checks_key(dataset, month)
        if name in STALE:
            _edit(data / "lake" / sidecar, sha256="0" * 64)
        elif name in (*WARNED, *REFUSED):
            severity = "warning" if name in WARNED else "error"
            texts = {"found": "142 of 2,000", "allowed": "at most 1.00%"}
            message = "142 of 2,000 trips have a pickup outside of the month; at most 1.00% are allowed"
            finding = {"rule": "stray_pickups", "severity": severity, **texts, "message": message}
            _edit(data / "lake" / checks, findings=[finding])
        if name not in (*WARNED, *STALE):
            warehouse.forget(dataset, month)
            store.delete(lake.trips_key(dataset, month))
        if name in (*FAILED, *RUNNING):
            for key in (raw, sidecar, checks):
                store.delete(key)


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _start(work: Path, site: SampleSite, *words: str) -> subprocess.Popen[str]:
    settings = {"PIPELINE_SOURCE": site.url, "PIPELINE_RETRIES": "0"}
    quiet = {"stdout": subprocess.PIPE} if words[0] == "board" else {"stdout": subprocess.DEVNULL}
    return subprocess.Popen([COMMAND, *words], cwd=work, env={**os.environ, **settings}, text=True, **quiet)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data folder with these months, of which a copy is used")
    parser.add_argument("--keep", type=Path, help="leave the months that were made in this new folder, for --data")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="the program (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
