"""A real browser for the tests of the board."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # Slow to import, and needed by few tests.
    from boards import Board, Opener
    from playwright.sync_api import Browser, Page

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
_CHROMIUM = shutil.which("chromium")
_PATIENCE_MS = 60_000


# Not for the session: while it runs, no other test of the process could use `asyncio.run`.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without it, the tests that need it are left out."""
    if _CHROMIUM is None:
        pytest.skip("needs a browser: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=_PATIENCE_MS)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Opener:
    """Opens a window that has the cookie of a board; see `_open`."""

    @contextmanager
    def _open(board: Board, path: str = "/", *, width: int = 1280, allowed: str = "", **traits: Any) -> Iterator[Page]:
        """A page with nothing of other windows; no request left this machine, and the console has no error.

        `traits` are those of Playwright's contexts: locale, color_scheme and others. Errors that contain the text
        `allowed` are expected.
        """
        context = browser.new_context(**{"locale": "en-US", "viewport": {"width": width, "height": 900}, **traits})
        context.set_default_timeout(_PATIENCE_MS)
        context.add_cookies([{"name": name, "value": text, "url": board.url} for name, text in board.cookies.items()])
        errors: list[str] = []
        requests: list[str] = []
        context.on("request", lambda request: requests.append(request.url))
        context.on(
            "console", lambda each: each.type == "error" and errors.append(f"{each.location['url']}: {each.text}")
        )
        context.on("weberror", lambda error: errors.append(str(error.error)))
        try:
            page = context.new_page()
            if path:
                page.goto(f"{board.url}{path}")
            yield page
        finally:
            context.close()
        assert [url for url in requests if not url.startswith(f"{board.url}/")] == []
        assert [text for text in errors if not allowed or allowed not in text] == []

    return _open
