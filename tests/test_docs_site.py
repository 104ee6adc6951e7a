"""The documentation site is built without a warning, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_click")

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)), reason="Sphinx is not installed: pip install 'taxi-pipeline[docs]'"
)


def _run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--nitpicky", "--fail-on-warning", "--keep-going", "--doctree-dir", str(folder / "doctrees"))
    assert _run("-m", "sphinx", *options, "docs", str(folder / "docs")) == ""
    return folder / "docs"


def test_every_link_of_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    _run("docs/check_links.py", str(site))


def test_a_broken_link_and_a_broken_anchor_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<h1 id="top"><a href="#top">ok</a><a href="#end">no anchor</a><a href="other.html">no page</a>'
        '<a href="https://example.org/x">not followed</a>'
    )
    script = str(ROOT / "docs" / "check_links.py")
    done = subprocess.run([sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()) == (1, ["page.html: #end", "page.html: other.html"])


def test_the_site_shows_the_options_of_every_command_and_the_changelog(site: Path) -> None:
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "--oldest-first" in commands
    assert "pipeline schedule" in commands
    assert "0.1.0" in (site / "project" / "changelog.html").read_text(encoding="utf-8")
