"""Datasets and periods on the command line, in any order, and the messages about invalid words."""

from __future__ import annotations

import pytest

from pipeline.cli import cli, import_command
from pipeline.datasets import DATASETS
from pipeline.errors import UsageError, did_you_mean
from pipeline.months import format_month
from pipeline.runs.selection import months_of, parse_selection

ALL = tuple(DATASETS)


@pytest.mark.parametrize(
    ("typed", "names", "period"),
    [
        ("", ALL, "all"),
        ("all", ALL, "all"),
        ("all all", ALL, "all"),
        ("green", ("green",), "all"),
        ("green all", ("green",), "all"),
        ("green yellow", ("yellow", "green"), "all"),
        ("green,yellow 2024", ("yellow", "green"), "2024"),
        ("green latest", ("green",), "latest"),
        ("latest", ALL, "latest"),
        ("2024-01 2024-02", ALL, "2024-01,2024-02"),
        ("all 2024", ALL, "2024"),
        ("green 2023-01,2023-03", ("green",), "2023-01,2023-03"),
        ("green 2023-01, 2023-03..2023-05", ("green",), "2023-01,2023-03..2023-05"),
        ("2023-01 green", ("green",), "2023-01"),
    ],
)
def test_datasets_and_periods_are_recognised_in_any_order(typed: str, names: tuple[str, ...], period: str) -> None:
    assert parse_selection(typed.split()) == (names, period)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("gren", "unknown datasets ['gren']; allowed are yellow, green, fhv, fhvhv, several with commas, or all"),
        ("Green 2024", "did you mean green?"),
        ("yelow,gren 2024", "did you mean green or yellow?"),
        ("green latest 2024", "green latest 2024: latest and all are allowed only without another period"),
        ("green 2024 all", "green 2024 all: latest and all are allowed only without another period"),
    ],
)
def test_an_invalid_word_is_reported_as_an_unknown_dataset(typed: str, message: str) -> None:
    for required in (False, True):
        with pytest.raises(UsageError) as caught:
            parse_selection(typed.split(), required=required)
        assert message in str(caught.value)


@pytest.mark.parametrize("typed", ["green", "2024", "2024-01 2024-02"])
def test_a_message_about_a_missing_dataset_or_period_shows_both(typed: str) -> None:
    with pytest.raises(UsageError, match="a dataset and a period are needed, for instance: green 2024-01..2024-03"):
        parse_selection(typed.split(), required=True)


def test_months_of_several_periods_occur_once_and_not_before_the_datasets_start() -> None:
    found = months_of(["green", "fhvhv"], "2019-03,2019-01..2019-02,2019-01")
    assert {name: list(map(format_month, of)) for name, of in found.items()} == {
        "green": ["2019-01", "2019-02", "2019-03"],
        "fhvhv": ["2019-02", "2019-03"],
    }


def test_only_similar_words_are_suggested() -> None:
    assert did_you_mean(["GREEN", "gren"], ALL) == "; did you mean green?"
    assert did_you_mean(["blue"], ALL) == ""


def test_the_help_of_all_commands_cuts_no_summary() -> None:
    summaries = {name: command.get_short_help_str(200) for name, command in cli.commands.items()}
    assert [text for text in summaries.values() if len(text) > 55] == []
    assert summaries == {name: import_command(name).get_short_help_str(200) for name in summaries}
