"""What a user does with the board in a browser, from the first look to the last click."""

from __future__ import annotations

import re
import signal

import pytest
from boards import Opener, running_board
from conftest import Folder, make_folder
from playwright.sync_api import Page, expect

from pipeline.sample import SampleSite

pytestmark = pytest.mark.usefixtures("browser")


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, site: SampleSite) -> Folder:
    """A folder whose site can be told to fail."""
    folder = make_folder(tmp_path_factory.mktemp("story"), site.url)
    folder.environment |= {"PIPELINE_RETRIES": "0", "PIPELINE_RETRY_WAIT_S": "0.05"}
    return folder


def _choose(page: Page, period: str) -> None:
    """Fill in the form of a backfill of green, and run what the preview shows."""
    page.get_by_label("green").check()
    page.get_by_label("Period", exact=False).fill(period)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name="This will be done")).to_be_visible()
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile("/runs/"))


def _mark(page: Page, month: str, mark: str) -> None:
    """Wait until the cell of a month, which is not loaded again, has this mark."""
    expect(page.locator(f'[data-month="{month}"]')).to_have_class(re.compile(rf"\b{mark}\b"))


def test_a_backfill_is_previewed_started_and_watched_until_it_is_done(own: Folder, open_page: Opener) -> None:
    with running_board(own, "--allow-runs") as board:
        with open_page(board) as grid, open_page(board, "/actions") as page:
            _choose(page, "2024-01..2024-03")
            expect(page.locator(".head .badge")).to_have_text("done")
            expect(page.locator("#plan tbody tr")).to_have_count(4)  # The zones as well.
            for month in ("green 2024-01", "green 2024-02", "green 2024-03"):
                _mark(grid, month, "complete")
    (run,) = [line for line in own.pipeline("history").stdout.splitlines() if "backfill green" in line]
    assert "backfill green 2024-01..2024-03" in run


def test_a_failure_shows_its_reason_two_clicks_away_and_is_done_again(
    own: Folder, site: SampleSite, open_page: Opener
) -> None:
    site.faults.add("*green*2024-02*", 503, times=1)
    assert own.pipeline("backfill", "green", "2024-01..2024-02").returncode == 1
    with running_board(own, "--allow-runs") as board:
        with open_page(board) as page:
            page.locator('[data-month="green 2024-02"]').click()
            expect(page.locator("main")).to_contain_text("503")
            page.get_by_role("link", name="Preview and run").first.click()
            page.get_by_role("button", name=re.compile("^(Run|Delete and run again)$")).click()
            page.wait_for_url(re.compile("/runs/"))
            expect(page.locator(".head .badge")).to_have_text("done")
            page.goto(board.url)
            _mark(page, "green 2024-02", "complete")


def test_a_run_is_cancelled_and_keeps_what_is_finished(own: Folder, site: SampleSite, open_page: Opener) -> None:
    site.faults.add("*green*2024-02*", "slow", 2_000)
    with running_board(own, "--allow-runs") as board:
        with open_page(board, "/actions") as page:
            _choose(page, "2024-01..2024-02")
            expect(page.locator('[data-state="green 2024-01 mart"]')).to_contain_text("done")
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator(".head .badge")).to_have_text("stopped")
            page.goto(board.url)
            _mark(page, "green 2024-01", "complete")
            _mark(page, "green 2024-02", "missing")


def test_a_run_outlives_a_killed_board_and_a_new_one_shows_it(own: Folder, site: SampleSite, open_page: Opener) -> None:
    site.faults.add("*green*2024-02*", "slow", 2_000, times=1)
    with running_board(own, "--allow-runs") as board:
        with open_page(board, "/actions", allowed="ERR_") as page:
            _choose(page, "2024-01..2024-02")
            address = page.url.removeprefix(board.url)
            expect(page.locator('[data-state="green 2024-02 download"]')).to_contain_text("running")
            board.stop(signal.SIGKILL)
            expect(page.locator("body")).to_contain_text("connection", ignore_case=True)
    with running_board(own) as board:
        with open_page(board, address) as page:
            expect(page.locator(".head .badge")).to_have_text("done")
            expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
