"""Months: texts become dates that are the first of the month, and back."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.months import add_months, format_month, month_range, parse_month, parse_months, parse_period

#: Every month of the calendar.
MONTHS = st.builds(date, st.integers(1, 9999), st.integers(1, 12), st.just(1))
#: Months that leave room for a few hundred more on either side.
INNER = st.builds(date, st.integers(1000, 9000), st.integers(1, 12), st.just(1))


@pytest.mark.parametrize(
    ("text", "month"),
    [
        ("2024-01", date(2024, 1, 1)),
        ("2009-12", date(2009, 12, 1)),
        (" 2024-01\n", date(2024, 1, 1)),
        ("0001-01", date(1, 1, 1)),
        ("9999-12", date(9999, 12, 1)),
    ],
)
def test_a_month_is_a_year_a_dash_and_a_month(text: str, month: date) -> None:
    assert parse_month(text) == month


@pytest.mark.parametrize(
    "text",
    [
        *("", "2024", "2024-1", "0000-01", "24-01", "2024-01-01", "2024/01", "2024 -01"),
        *("20240-1", "-2024-01", "2024-0a", "jan 2024", "\u0662\u0660\u0662\u0664-\u0660\u0661"),
    ],
)
def test_any_other_text_is_no_month(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a month; write YYYY-MM, for instance 2024-01$"):
        parse_month(text)


@pytest.mark.parametrize("text", ["2024-13", "2024-00", "2024-99"])
def test_an_impossible_month_has_its_own_message(text: str) -> None:
    for parse, whole in ((parse_month, text), (parse_period, text), (parse_period, f"2023-01..{text}")):
        with pytest.raises(UsageError) as caught:
            parse(whole)
        assert str(caught.value) == f"{text!r} is not a month: months are 01 to 12"


@given(MONTHS)
def test_a_month_reads_back_as_it_was_written(month: date) -> None:
    text = format_month(month)
    assert len(text) == len("2024-01")
    assert parse_month(text) == month


@given(st.text())
def test_a_text_is_a_month_in_the_same_form_or_a_usage_error(text: str) -> None:
    try:
        month = parse_month(text)
    except UsageError:
        return
    assert format_month(month) == text.strip()


@pytest.mark.parametrize(
    ("month", "count", "result"),
    [
        (date(2024, 1, 1), 0, date(2024, 1, 1)),
        (date(2024, 1, 1), 1, date(2024, 2, 1)),
        (date(2024, 12, 1), 1, date(2025, 1, 1)),
        (date(2024, 1, 1), -1, date(2023, 12, 1)),
        (date(2024, 1, 1), 12, date(2025, 1, 1)),
        (date(2024, 1, 1), -24, date(2022, 1, 1)),
        (date(2024, 1, 31), 1, date(2024, 2, 1)),
    ],
)
def test_months_are_added_across_years(month: date, count: int, result: date) -> None:
    assert add_months(month, count) == result


@given(INNER, st.integers(-500, 500), st.integers(-500, 500))
def test_adding_twice_is_adding_the_sum(month: date, one: int, other: int) -> None:
    assert add_months(add_months(month, one), other) == add_months(month, one + other)
    assert add_months(add_months(month, one), -one) == month


@pytest.mark.parametrize("count", [12 * 8000, -12 * 2024, 10**12])
def test_a_month_outside_of_the_calendar_is_a_usage_error(count: int) -> None:
    with pytest.raises(UsageError, match=r"months (after|before) 2024-01 is not in the years 1 to 9999"):
        add_months(date(2024, 1, 1), count)


@given(INNER, st.integers(-30, 300))
def test_a_range_has_every_month_once_both_ends_included(first: date, count: int) -> None:
    last = add_months(first, count)
    months = month_range(first, last)
    assert len(months) == max(0, count + 1)
    assert months == sorted(set(months))
    assert all(month.day == 1 for month in months)
    assert count < 0 or (months[0], months[-1]) == (first, last)


def test_a_range_is_oldest_first() -> None:
    assert month_range(date(2023, 11, 1), date(2024, 2, 1)) == [
        date(2023, 11, 1),
        date(2023, 12, 1),
        date(2024, 1, 1),
        date(2024, 2, 1),
    ]
    assert month_range(date(9999, 11, 1), date(9999, 12, 1)) == [date(9999, 11, 1), date(9999, 12, 1)]
    assert month_range(date(2024, 2, 1), date(2024, 1, 1)) == []


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2021", "2021-01", "2021-12"),
        ("2021-03", "2021-03", "2021-03"),
        ("2021..2022", "2021-01", "2022-12"),
        ("2021-03..2021-07", "2021-03", "2021-07"),
        ("2021..2022-03", "2021-01", "2022-03"),
        ("2021-11..2022", "2021-11", "2022-12"),
        ("2021..2021", "2021-01", "2021-12"),
        (" 2021-03 .. 2021-07 ", "2021-03", "2021-07"),
        ("2021-12..2021", "2021-12", "2021-12"),
    ],
)
def test_a_period_is_a_month_a_year_or_a_range_of_either(text: str, first: str, last: str) -> None:
    assert parse_period(text) == (parse_month(first), parse_month(last))


@pytest.mark.parametrize(
    "text",
    [
        *("", "..", "2021..", "..2021", "2021...2022", "2021..2022..2023", "2021-2022"),
        *("0000", "0000..2021", "21", "all", "2021-03-01..2021-04-01", "2021,2022", "\u0662\u0660\u0662\u0661"),
    ],
)
def test_any_other_text_is_no_period_and_the_message_quotes_it(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_period(text)
    assert str(caught.value) == (
        f"{text!r} is not a period; write a month (2024-01), a year (2024), or a range of either with both ends "
        "included (2023-11..2024-03)"
    )


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("2023-01,2023-03", ["2023-01", "2023-03"]),
        ("2023-03, 2023-01..2023-02,2023-02", ["2023-01", "2023-02", "2023-03"]),
        ("2023-12..2024-01", ["2023-12", "2024-01"]),
    ],
)
def test_several_periods_give_each_month_once_oldest_first(text: str, months: list[str]) -> None:
    assert parse_months(text) == [parse_month(month) for month in months]


@pytest.mark.parametrize("text", ["", "2023-01,", "2023-01,soon"])
def test_each_of_several_periods_must_be_valid(text: str) -> None:
    with pytest.raises(UsageError, match="is not a period"):
        parse_months(text)


@pytest.mark.parametrize("text", ["2022..2021", "2021-03..2021-02", "2022..2021-12", "2022-01..2021"])
def test_a_period_that_ends_before_it_starts_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"ends before it starts; write the earlier month first"):
        parse_period(text)


@given(MONTHS, MONTHS)
def test_two_months_make_a_period_in_one_order_only(one: date, other: date) -> None:
    first, last = sorted((one, other))
    assert parse_period(f"{format_month(first)}..{format_month(last)}") == (first, last)
    if first < last:
        with pytest.raises(UsageError):
            parse_period(f"{format_month(last)}..{format_month(first)}")
