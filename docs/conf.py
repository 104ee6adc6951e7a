"""How Sphinx builds the documentation: `make docs`.

The pages are Markdown that reads well in the repository, too. So a link to a file outside this folder leads to the page
that shows the file, if there is one (`SHOWN`), and is only its text otherwise.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
from sphinx.application import Sphinx

from pipeline.cli import cli, import_command
from pipeline.version import __version__

# Until one of them is run, the commands of the group are summaries.
cli.commands.update({name: import_command(name) for name in cli.commands})

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "taxi-pipeline"
version = release = __version__
copyright = "its contributors, MIT license"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
myst_heading_anchors = 4
# Without the internet, the names of other packages lead nowhere.
nitpick_ignore_regex = [("py:.*", r"(?!pipeline\.).*"), ("py:class", r"pipeline\.conform\.profile\.Measures")]
smartquotes = False
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

#: Files outside this folder, and the pages that show them: these have only a link to the file.
SHOWN = {
    ROOT / "README.md": "index",
    ROOT / "CHANGELOG.md": "project/changelog",
    ROOT / "CONTRIBUTING.md": "project/contributing",
    ROOT / "SECURITY.md": "project/security",
    ROOT / "benchmarks" / "README.md": "project/benchmarks",
    ROOT / "docker" / "README.md": "project/docker",
}


def _localized(text: str, file: Path, page: Path) -> str:
    """The text of a file, with links for the page that shows it."""

    def link(match: re.Match[str]) -> str:
        bang = "!" * match[0].startswith("!")
        words, target, anchor = match[1], *match[2].partition("#")[::2]
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        found = (file.parent / target).resolve()
        if found in SHOWN:
            found, anchor = DOCS / f"{SHOWN[found]}.md", "" if SHOWN[found] == "index" else anchor
        if found.is_dir() or not (found.is_relative_to(DOCS) or bang):
            return words
        return f"{bang}[{words}]({os.path.relpath(found, page.parent)}{anchor and '#' + anchor})"

    return re.sub(r"!?\[((?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*)\]\(([^)\s]+)\)", link, text)


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    page = DOCS / f"{name}.md"
    shown = {page: file for file, page in SHOWN.items() if page != "index"}
    file = shown.get(name)
    source[0] = _localized(file.read_text(encoding="utf-8") if file else source[0], file or page, page)


def _show_code(app: Sphinx, kind: str, name: str, each: object, options: object, lines: list[str]) -> None:
    """Docstrings have indented code as Markdown has it."""
    for number in reversed(range(1, len(lines))):
        if lines[number].startswith("    ") and not lines[number - 1].strip():
            lines[number:number] = ["::", ""]


def _show_examples(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Sphinx-click has the examples of a command's help as lines of text."""
    code = [line.startswith("| pipeline ") for line in lines]
    for number in reversed(range(len(lines))):
        if code[number]:
            head = [] if number and code[number - 1] else [".. code-block:: sh", ""]
            lines[number : number + 1] = [*head, f"   {lines[number].removeprefix('| ')}"]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("sphinx-click-process-description", _show_examples)
    app.connect("autodoc-process-docstring", _show_code, priority=400)  # Before Napoleon.
