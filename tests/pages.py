"""What the tests read in the pages of the documentation: sections, headings, blocks of code, links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FENCE = r"^```(\w*)\n(.*?)^```$\n?"


@dataclass(frozen=True)
class Section:
    """A heading with the text below it, up to the next heading."""

    level: int
    heading: str
    text: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """The language and the code of each fenced block."""
        return re.findall(_FENCE, self.text, re.MULTILINE | re.DOTALL)

    @property
    def prose(self) -> str:
        """All that is in no fenced block: paragraphs, lists and tables."""
        return re.sub(_FENCE, "", self.text, flags=re.MULTILINE | re.DOTALL)

    @property
    def links(self) -> list[str]:
        """Where links and images lead to."""
        return re.findall(r"(?:\]\(|\b(?:href|src|srcset)=\")([^)\s\"]+)[)\"]", self.prose)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def sections(page: Path) -> list[Section]:
    """The sections of a page in their order; a line of code that begins with # is no heading."""
    found: list[Section] = []
    fenced = False
    for line in read(page).splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = re.match(r"(#+) (.*)", line)
        if heading and not fenced:
            found.append(Section(len(heading[1]), heading[2], ""))
        elif found:
            found[-1] = Section(found[-1].level, found[-1].heading, found[-1].text + line)
    return found


def anchors(page: Path) -> list[str]:
    """The anchor of each heading, as GitHub and Sphinx make it: letters of any script stay."""
    return [re.sub(r"[^\w\- ]", "", each.heading.lower()).strip().replace(" ", "-") for each in sections(page)]
