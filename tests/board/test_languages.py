"""The languages of the board: each text of its pages has a line in each language, and no line is left over."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import board
from pipeline.board import form, grid, month_page, runs
from pipeline.board.handler import LANGUAGES
from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.codes import PAYMENTS
from pipeline.report import pictures
from pipeline.runs.overview import MARKS
from pipeline.state import inventory
from pipeline.state.steps import TABLE

FOLDER = Path(board.__file__).parent
OTHERS = [code for code in LANGUAGES if code != "en"]
_TEXT = r'"((?:[^"\\]|\\.)+)"'
#: `_("one text")`, `Refused("one text")`, and `_("%(count)s month", "%(count)s months", count)`.
_CALL = re.compile(rf"\b(?:_|translate|Refused)\(\s*{_TEXT}(?:,\s*{_TEXT})?")
#: Every outcome of a run, which `Run.outcome` makes of an exit code.
_OUTCOMES = ("done", "failed", "not published", "not all run", "stopped", "running", "killed")
#: In the inventory: why something is stale, which is the only text there of several words.
_REASON = re.compile(r'(?:return|else|=) "([a-z]+ [A-Za-z ]+)"')


def texts() -> Iterator[tuple[str, str]]:
    """Each text that a page translates, and whether it is one of a count: unknown, singular or plural."""
    for path in (*FOLDER.glob("*.py"), *FOLDER.parent.glob("report/*.py"), *FOLDER.glob("templates/*.html")):
        for one, many in _CALL.findall(path.read_text(encoding="utf-8")):
            yield one, "singular" if many else "unknown"
            if many:
                yield many, "plural"
    # Texts that reach a page as values.
    reasons = _REASON.findall(Path(inventory.__file__).read_text(encoding="utf-8"))
    meanings = [mark.meaning for mark in MARKS.values()]
    steps = [step.name for step in TABLE]
    texts_of_months = (*month_page.WEEKDAYS, *month_page.COMMANDS.values(), *month_page.MEASURES, *month_page.PHRASES)
    yield from ((text, "unknown") for text in (*runs.WORDS, *form.FINDINGS))
    rules = dict.fromkeys(rule.doc for dataset in (*DATASETS.values(), ZONES) for rule in dataset.rules)
    payments = [text.partition(",")[0] for text in PAYMENTS.values()]
    yield from ((text, "unknown") for text in (*pictures.ODD.values(), *pictures.DIRECTIONS.values(), *payments))
    yield from ((text, "unknown") for text in (*texts_of_months, *month_page.SEVERITIES, *rules))
    yield from ((text, "unknown") for text in (*reasons, *meanings, *steps, *grid.STATES, *_OUTCOMES, *grid.MONTHS))


def lines(code: str) -> list[tuple[str, str, str]]:
    """The lines of a language: text, translation, and kind."""
    with (FOLDER / "locale" / f"{code}.csv").open(encoding="utf-8", newline="") as file:
        return [(*row, "unknown")[:3] if len(row) == 2 else (row[0], row[1], row[2]) for row in csv.reader(file)]


@pytest.mark.parametrize("code", OTHERS)
def test_each_text_has_one_line_in_each_language_and_no_line_is_left_over(code: str) -> None:
    translated = [(text, kind) for text, _, kind in lines(code)]
    assert len(translated) == len(set(translated)), "no text has two lines"
    assert set(texts()) - set(translated) == set(), "every text has a line"
    assert set(translated) - set(texts()) == set(), "every line is used"


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_the_same_placeholders_and_is_not_english(code: str) -> None:
    placeholder = re.compile(r"%\(\w+\)s")
    for text, translation, _ in lines(code):
        assert sorted(placeholder.findall(text)) == sorted(placeholder.findall(translation)), text
        assert re.search(r"[^\x00-\x7f]", translation) or not re.search("[a-z]", placeholder.sub("", text)), text


def test_no_template_has_a_text_outside_of_the_translation() -> None:
    for path in FOLDER.glob("templates/*.html"):
        text = re.sub(r"\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"<(code|style)\b.*?</\1>|\{\{.*?\}\}|\{%.*?%\}", " ", text, flags=re.DOTALL)
        shown = re.findall(r'(?:title|aria-label|placeholder|alt)="([^"]*)"', text)
        shown += re.sub(r"<[^>]*>", "\n", text).splitlines()
        assert [each.strip() for each in shown if re.search(r"[A-Za-z]{2}", each.replace("UTC", ""))] == [], path.name
