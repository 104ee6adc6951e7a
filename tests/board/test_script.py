"""What the script of the pages does, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from boards import Board, Opener, running_board
from conftest import make_folder
from playwright.sync_api import Page, expect

from pipeline.sample import SampleSite

pytestmark = pytest.mark.usefixtures("browser")

#: What a browser logs when the board has ended.
_AWAY = "ERR_"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Iterator[Board]:
    """A board that may start runs; green 2024-01 is complete."""
    folder = make_folder(tmp_path_factory.mktemp("script"), shared_site.url)
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    with running_board(folder, "--allow-runs") as board:
        yield board


def test_months_selected_by_dragging_or_by_keys_are_run_and_watched_to_the_end(board: Board, open_page: Opener) -> None:
    with open_page(board) as page, open_page(board) as other:
        page.locator(_cell("green 2024-02")).hover()
        page.mouse.down()
        page.locator(_cell("green 2024-04")).hover()
        page.mouse.up()
        expect(page.locator("#selection")).to_contain_text("3 months selected: green 2024-02..2024-04")
        assert page.locator(".selected").count() == 3
        assert page.url == f"{board.url}/"
        page.keyboard.press("Escape")
        expect(page.locator("#selection")).to_be_hidden()
        page.locator(_cell("green 2024-02")).focus()
        page.keyboard.press("Shift+ArrowRight")
        expect(page.locator("#selection")).to_contain_text("2 months selected: green 2024-02..2024-03")
        page.locator("#selection a").click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.wait_for_url("**/runs/*")
        expect(page.locator(".head .badge")).to_have_text("done")
        expect(page.locator('[data-state="green 2024-03 mart"]')).to_contain_text("done")
        expect(page.locator('[data-state="months"]')).to_have_text("2 of 2")
        # A page that was open all the time shows it, too, without being loaded again.
        expect(other.locator(_cell("green 2024-03"))).to_have_class("cell complete")


def test_a_page_that_is_fetched_again_keeps_focus_selection_and_open_parts(board: Board, open_page: Opener) -> None:
    with open_page(board) as page:
        folded = page.locator(".datasets details").first
        folded.locator("summary").click()
        page.locator(_cell("green 2024-06")).focus()
        page.keyboard.press("Shift+ArrowRight")
        page.evaluate("document.getElementById('main').firstElementChild.id = 'before'")
        page.evaluate("refresh()")
        expect(page.locator("#before")).to_have_count(0)
        assert page.evaluate("document.activeElement.dataset.month") == "green 2024-07"
        assert page.locator(".selected").count() == 2
        assert folded.evaluate("each => each.open")


def test_a_command_is_copied_with_and_without_a_clipboard(board: Board, open_page: Opener) -> None:
    for lacks_clipboard in (False, True):
        with open_page(board, permissions=["clipboard-read", "clipboard-write"]) as page:
            page.goto(f"{board.url}/months/green/2024-01")
            button = page.locator(".copy:visible").first
            if lacks_clipboard:
                page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
            button.click()
            expect(page.locator("#said")).to_have_text("Copied")
            _assert_pastes(page, button.get_attribute("data-copy") or "")


def test_a_page_says_that_the_board_has_gone(board: Board, open_page: Opener) -> None:
    with running_board(board.folder) as gone:
        with open_page(gone, allowed=_AWAY) as page:
            expect(page.locator("#lost")).to_be_hidden()
            page.wait_for_function("source.readyState === EventSource.OPEN")
            gone.stop()
            expect(page.locator("#lost")).to_be_visible()


def _cell(month: str) -> str:
    return f'.months [data-month="{month}"]'


def _assert_pastes(page: Page, text: str) -> None:
    assert text
    page.evaluate("document.body.append(document.createElement('textarea'))")
    page.locator("textarea").focus()
    page.keyboard.press("Control+V")
    expect(page.locator("textarea")).to_have_value(text)
