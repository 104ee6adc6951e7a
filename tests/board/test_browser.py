"""The board in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from boards import Board, Opener, pages, running_board
from conftest import make_folder
from playwright.sync_api import Page, expect

from pipeline.sample import SampleSite

pytestmark = pytest.mark.usefixtures("browser")

MONTH = "green 2024-01"
HANGUL = re.compile(r"[\uac00-\ud7a3]")
#: What a browser logs about a page that is an error on purpose.
ERROR_PAGE = "Failed to load resource"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Iterator[Board]:
    """A board that may start runs, with two complete months, one that failed, and a browser's cookie."""
    folder = make_folder(tmp_path_factory.mktemp("board"), shared_site.url)
    assert folder.pipeline("backfill", "green", "2024-01..2024-02").returncode == 0
    folder.environment["PIPELINE_RETRIES"] = "0"
    source, folder.source = folder.source, "http://127.0.0.1:9"
    assert folder.pipeline("backfill", "yellow", "2023-01").returncode == 1
    folder.source = source
    with running_board(folder, "--allow-runs") as board:
        yield board


@pytest.fixture(scope="module")
def addresses(board: Board) -> list[str]:
    """One page of each kind, and pages of errors."""
    found = [address for address, answer in pages(board, most_alike=1).items() if answer.status == 200]
    more = [
        "/months/green/2024-01",
        "/months/yellow/2023-01",
        "/months/zones",
        "/actions?action=redo",
        "/nothing",
        "/runs/none",
    ]
    return [*found, *(each for each in more if each not in found)]


def _cell(page: Page, month: str = MONTH) -> str:
    return f'[data-month="{month}"]'


def _path(page: Page) -> str:
    return urlsplit(page.url).path


# --- the first minute


def test_the_link_opens_the_grid_and_the_browser_needs_no_other(board: Board, open_page: Opener) -> None:
    outside = Board(board.folder, board.port, board.process, board.options)
    with open_page(outside, "") as page:
        page.goto(board.link())
        page.wait_for_url(f"{board.url}/")
        expect(page.locator(_cell(page))).to_be_visible()
        (cookie,) = [each for each in page.context.cookies() if each["name"] == f"board_{board.port}"]
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)
        page.reload()
        expect(page.locator(_cell(page))).to_be_visible()


def test_without_the_link_a_page_says_what_to_do(board: Board, open_page: Opener) -> None:
    outside = Board(board.folder, board.port, board.process, board.options)
    with open_page(outside, allowed=ERROR_PAGE) as page:
        expect(page.locator("main")).to_contain_text("pipeline board --link")


def test_a_month_opens_with_a_click_and_the_back_button_returns(board: Board, open_page: Opener) -> None:
    with open_page(board) as page:
        page.locator(_cell(page)).click()
        page.wait_for_url("**/months/green/2024-01")
        expect(page.locator("h1")).to_contain_text("2024-01")
        page.go_back()
        expect(page.locator(_cell(page))).to_be_visible()
        assert _path(page) == "/"


def test_the_keyboard_alone_reaches_a_month(board: Board, open_page: Opener) -> None:
    with open_page(board) as page:
        for _ in range(300):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.month"):
                break
        month = page.evaluate("document.activeElement.dataset.month")
        assert month
        outline = page.evaluate(
            "(({outlineStyle, outlineWidth}) => outlineStyle + outlineWidth)(getComputedStyle(document.activeElement))"
        )
        assert not outline.startswith("none")
        assert not outline.endswith("0px")
        page.keyboard.press("Enter")
        page.wait_for_url("**/months/**")


def test_without_scripts_every_page_has_its_content(board: Board, addresses: list[str], open_page: Opener) -> None:
    with open_page(board, allowed=ERROR_PAGE, java_script_enabled=False) as page:
        expect(page.locator(_cell(page))).to_be_visible()
        for address in addresses:
            page.goto(f"{board.url}{address}")
            expect(page.locator("h1")).to_be_visible()


# --- languages


def test_the_language_is_that_of_the_browser_until_another_is_chosen(board: Board, open_page: Opener) -> None:
    with open_page(board, "/runs", locale="ko-KR") as page:
        assert page.locator("html").get_attribute("lang") == "ko"
        assert HANGUL.search(page.locator("h1").inner_text())
        page.get_by_role("link", name="English").click()
        expect(page.locator("html")).to_have_attribute("lang", "en")
        assert not HANGUL.search(page.locator("main").inner_text())
        page.get_by_role("link", name="한국어").click()
        expect(page.locator("html")).to_have_attribute("lang", "ko")
        page.goto(board.url)
        expect(page.locator("html")).to_have_attribute("lang", "ko")
        assert HANGUL.search(page.locator("h1").inner_text())


# --- for everyone


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_serious(
    board: Board, addresses: list[str], open_page: Opener, scheme: str, width: int
) -> None:
    found = {}
    with open_page(board, width=width, color_scheme=scheme, allowed=ERROR_PAGE) as page:
        for address in addresses:
            page.goto(f"{board.url}{address}")
            expect(page.locator("h1")).to_be_visible()
            results = Axe().run(page).response["violations"]
            found[address] = [
                (each["id"], node["html"][:200], node["failureSummary"])
                for each in results
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"][:3]
            ]
    assert {address: problems for address, problems in found.items() if problems} == {}


@pytest.mark.parametrize("width", [360, 768, 1280, 2560])
@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
def test_no_page_scrolls_sideways(
    board: Board, addresses: list[str], open_page: Opener, width: int, locale: str
) -> None:
    wide = {}
    with open_page(board, width=width, locale=locale, allowed=ERROR_PAGE) as page:
        for address in addresses:
            page.goto(f"{board.url}{address}")
            expect(page.locator("h1")).to_be_visible()
            wide[address] = page.evaluate(
                "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
            )
    assert {address: pixels for address, pixels in wide.items() if pixels > 0} == {}


def test_every_page_has_one_heading_one_title_of_its_own_and_its_language(
    board: Board, addresses: list[str], open_page: Opener
) -> None:
    titles = {}
    with open_page(board, allowed=ERROR_PAGE) as page:
        for address in addresses:
            page.goto(f"{board.url}{address}")
            assert page.locator("h1").count() == 1, address
            assert page.locator("html").get_attribute("lang") == "en"
            titles[address] = page.title()
    assert all(titles.values())
    assert len({titles["/"], titles["/runs"], titles["/months/green/2024-01"]}) == 3, titles
