"""The Korean pages say what the English ones say: the same sections, commands, figures and links."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pages import ROOT, Section, anchors, read, sections

DOCS = ROOT / "docs"
FRONT = DOCS / "ko" / "index.md"
PAGES = [*sorted((DOCS / "ko").rglob("*.md")), *ROOT.glob("README.ko.md")]
#: The English original of each Korean page; the front page has none.
ORIGINALS = {
    page: ROOT / "README.md" if page.parent == ROOT else DOCS / page.relative_to(DOCS / "ko")
    for page in PAGES
    if page != FRONT
}
KOREAN = {original: page for page, original in ORIGINALS.items()}

translated = pytest.mark.parametrize("page", ORIGINALS, ids=lambda page: page.relative_to(ROOT).as_posix())


def test_readme_tutorial_and_course_are_there_in_korean() -> None:
    assert {ROOT / "README.ko.md", DOCS / "ko" / "tutorial.md", DOCS / "ko" / "course.md", FRONT} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_korean_page_is_in_korean(page: Path) -> None:
    text = "".join(section.heading + section.prose for section in sections(page))
    text = re.sub(r"^\|.*$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.MULTILINE)
    hangul, latin = re.findall("[가-힣]", text), re.findall("[A-Za-z]", text)
    assert len(hangul) > len(latin)


def _pairs(page: Path) -> list[tuple[Section, Section]]:
    return list(zip(sections(ORIGINALS[page]), sections(page), strict=True))


@translated
def test_both_pages_have_the_same_headings_in_the_same_order(page: Path) -> None:
    assert [each.level for each in sections(page)] == [each.level for each in sections(ORIGINALS[page])]


def _code(section: Section) -> list[tuple[str, str]]:
    """The blocks without their comments, which are translated."""
    return [
        (language, code if language == "text" else re.sub(r"(?:^|(?<=\s))# .*$", "#", code, flags=re.MULTILINE))
        for language, code in section.blocks
    ]


@translated
def test_both_pages_have_the_same_code(page: Path) -> None:
    for original, korean in _pairs(page):
        assert _code(korean) == _code(original), korean.heading


def _exact(text: str) -> set[str]:
    """What no language changes: code within sentences, and figures."""
    return set(re.findall(r"`[^`]+`|\d+(?:[,.-]\d{2,})+", text))


@translated
def test_both_pages_have_the_same_names_and_figures_in_each_section_and_row(page: Path) -> None:
    for original, korean in _pairs(page):
        assert _exact(korean.prose) == _exact(original.prose), korean.heading
        rows = [re.findall(r"^\|.*$", each.prose, re.MULTILINE) for each in (original, korean)]
        for english_row, korean_row in zip(*rows, strict=True):
            assert _exact(korean_row) == _exact(english_row), korean_row


def _translated_link(target: str, original: Path, page: Path) -> str:
    """The link of the Korean page for one of its original."""
    if re.match(r"[a-z]+:", target):
        return target
    name, _, anchor = target.partition("#")
    linked = Path(os.path.normpath(original.parent / name)) if name else original
    if linked in KOREAN:
        anchor = anchor and anchors(KOREAN[linked])[anchors(linked).index(anchor)]
        linked = KOREAN[linked]
    name = os.path.relpath(linked, page.parent) if linked != page else ""
    return f"{name}#{anchor}" if anchor else name


@translated
def test_both_pages_have_the_same_links_and_pictures(page: Path) -> None:
    original = ORIGINALS[page]
    to_korean, to_english = (os.path.relpath(b, a.parent) for a, b in ((original, page), (page, original)))
    for english, korean in _pairs(page):
        expected = [_translated_link(target, original, page) for target in english.links if target != to_korean]
        assert sorted(link for link in korean.links if link != to_english) == sorted(expected), korean.heading


@translated
def test_each_page_names_the_other_below_its_title(page: Path) -> None:
    original = ORIGINALS[page]
    for one, other, language in ((original, page, "한국어"), (page, original, "English")):
        link = re.escape(os.path.relpath(other, one.parent))
        assert re.search(rf"^{language}: \[.+\]\({link}\)$", sections(one)[0].prose, re.MULTILINE), one.name
        assert read(one).startswith("# ")
