"""When months that are not published yet are expected."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from email.utils import format_datetime
from importlib import resources
from pathlib import Path
from statistics import median

import pytest
from conftest import Folder, make_folder

from pipeline import lake
from pipeline.datasets import DATASETS
from pipeline.lake.local import LocalEntry, LocalStore
from pipeline.months import add_months, format_month, parse_month
from pipeline.source.retries import RetryPolicy
from pipeline.source.site import Sidecar, make_source
from pipeline.state.inventory import Inventory
from pipeline.state.publication import DEFAULT_DAYS, expected_days, last_day, usual_days

GREEN = DATASETS["green"]
THIS_MONTH = date.today().replace(day=1)


def published() -> Iterator[tuple[str, date, date]]:
    """Dataset, month and day of publication, as known of TLC, newest month first."""
    text = resources.files("pipeline.datasets").joinpath("published.csv").read_text(encoding="utf-8")
    for row in sorted(csv.DictReader(text.splitlines()), key=lambda row: row["month"], reverse=True):
        if row["last_modified"]:
            yield row["dataset"], parse_month(row["month"]), date.fromisoformat(row["last_modified"])


def keep(folder: Path, month: date, day: date | None) -> None:
    """A raw file that was published on this day."""
    raw = folder / lake.raw_key(GREEN, f"green_tripdata_{format_month(month)}.parquet")
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_bytes(b"PAR1")
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc) if day else None
    modified = format_datetime(moment, usegmt=True) if moment else None
    sidecar = Sidecar("https://host/file", None, modified, 4, "0" * 64, "2024-01-01T00:00:00+00:00")
    Path(f"{raw}.json").write_text(sidecar.to_json())


def inventory(folder: Path) -> Inventory:
    (folder / "published").mkdir(parents=True, exist_ok=True)
    return Inventory(LocalStore(folder), make_source(str(folder / "published"), "auto", 4, RetryPolicy(60, 0, 0)), None)


def test_the_default_is_the_median_of_the_last_year_that_is_known_of_tlc() -> None:
    days = [(day - last_day(month)).days for _, month, day in published() if date(2023, 6, 1) <= month]
    assert len(days) == 48
    assert median(days) == DEFAULT_DAYS - 0.5


def test_the_usual_distance_is_the_median_of_the_newest_six_months() -> None:
    months = [add_months(date(2024, 6, 1), -back) for back in range(10)]
    days = [50, 60, 40, 55, 45, 70, 300, 300, 300, 300]
    known = [(month, last_day(month) + timedelta(day)) for month, day in zip(months, days, strict=True)]
    assert usual_days(known) == 52  # Between 50 and 55.


@pytest.mark.parametrize("known", [0, 1, 2])
def test_fewer_than_three_months_say_nothing(known: int) -> None:
    months = [(month, last_day(month) + timedelta(10)) for month in (date(2024, 2, 1), date(2024, 1, 1))[:known]]
    assert usual_days(months) == DEFAULT_DAYS


def test_months_that_were_published_again_do_not_spoil_it() -> None:
    usual = [(date(2024, number, 1), last_day(date(2024, number, 1)) + timedelta(50)) for number in (6, 5, 4, 3)]
    again = date(2024, 9, 20)
    in_bulk = [(month, again) for month in (date(2024, number, 1) for number in (2, 1))]
    years_later = [(date(2015, number, 1), date(2022, 6, 30)) for number in range(12, 0, -1)]
    before_its_end = [(date(2014, 1, 1), date(2014, 1, 20))]
    assert usual_days([*usual, *in_bulk, *years_later, *before_its_end]) == 50
    assert usual_days(years_later) == usual_days(before_its_end * 3) == DEFAULT_DAYS


@pytest.mark.parametrize("dataset", DATASETS)
def test_what_tlc_has_published_was_expected_within_six_weeks(dataset: str) -> None:
    known = [(month, day) for name, month, day in published() if name == dataset]
    late = []
    for index, (month, day) in enumerate(known):
        # 2022 began with the change to Parquet, for which TLC stopped for months.
        if month >= date(2022, 10, 1):
            late.append((day - last_day(month)).days - usual_days(known[index + 1 :]))
    assert len(late) == 20
    assert max(map(abs, late)) < 45
    assert median(map(abs, late)) < 15


def test_months_are_expected_as_long_after_their_end_as_those_in_the_lake_came(tmp_path: Path) -> None:
    for back in range(1, 5):
        month = add_months(date(2024, 6, 1), -back)
        keep(tmp_path, month, last_day(month) + timedelta(40))
    keep(tmp_path, date(2024, 1, 1), None)
    wanted = [date(2024, 6, 1), date(2024, 7, 1)]
    assert expected_days(inventory(tmp_path), GREEN, wanted) == {
        date(2024, 6, 1): date(2024, 8, 9),
        date(2024, 7, 1): date(2024, 9, 9),
    }


def test_an_empty_lake_and_broken_sidecars_give_the_default(tmp_path: Path) -> None:
    wanted = {date(2024, 6, 1): date(2024, 6, 30) + timedelta(DEFAULT_DAYS)}
    assert expected_days(inventory(tmp_path), GREEN, wanted) == wanted
    for number in range(1, 5):
        keep(tmp_path, date(2024, number, 1), date(2024, number + 3, 1))
        (tmp_path / f"raw/green/green_tripdata_2024-0{number}.parquet.json").write_text("{")
    assert expected_days(inventory(tmp_path), GREEN, wanted) == wanted


def test_only_the_few_sidecars_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for back in range(1, 61):
        month = add_months(date(2024, 6, 1), -back)
        keep(tmp_path, month, last_day(month) + timedelta(40))
    opened = []
    entry_open = LocalEntry.open
    monkeypatch.setattr(LocalEntry, "open", lambda entry: opened.append(entry.key) or entry_open(entry))  # type: ignore[func-returns-value]
    expected_days(inventory(tmp_path), GREEN, [date(2024, 6, 1)])
    assert len(opened) == 6


def test_the_status_says_when_the_next_month_is_expected(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    folder = make_folder(tmp_path / "work", str(tmp_path / "published"))
    for back in range(4, 8):
        month = add_months(THIS_MONTH, -back)
        keep(folder.lake, month, last_day(month) + timedelta(20))
    wanted = last_day(add_months(THIS_MONTH, -3)) + timedelta(20)
    late = (date.today() - wanted).days
    shown = folder.pipeline("status", "green", "fhv", "all")
    assert shown.returncode == 0, shown.stderr
    lines = [line for line in shown.stdout.splitlines() if line.startswith("expected")]
    # Nothing is known of fhv, of which no month exists.
    assert lines == [f"expected   green {format_month(add_months(THIS_MONTH, -3))} about {wanted} ({late} days late)"]
    months = {month["month"]: month for month in status(folder)}
    assert months[format_month(add_months(THIS_MONTH, -4))]["expected"] is None
    last = months[format_month(THIS_MONTH)]
    assert (last["expected"], last["late_days"]) == (f"{last_day(THIS_MONTH) + timedelta(20)}", 0)
    assert months[format_month(add_months(THIS_MONTH, -3))]["late_days"] == late


def status(folder: Folder) -> list[dict[str, object]]:
    shown = folder.pipeline("status", "green", "all", "--json")
    months: list[dict[str, object]] = json.loads(shown.stdout)["datasets"][0]["months"]
    return months
