"""What the pictures ask of the marts, in SQL that every engine has, and the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pipeline.datasets import dataset_named
from pipeline.errors import WarehouseError
from pipeline.marts import all_marts, marts_of
from pipeline.months import format_month, month_ranges, spans
from pipeline.settings import suggested_command
from pipeline.state.inventory import Inventory

#: By question: the mart, the columns of a group, and the columns that are added up.
QUESTIONS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "summary": (
        "monthly_summary",
        ("dataset", "month"),
        ("trips", "total_amount", "congestion_fees", "negative_minutes", "strays", "unknown_zones", "unknown_codes"),
    ),
    "hours": ("hourly_zone_trips", ("dataset", "weekday", "hour"), ("trips",)),
    "zones": (
        "hourly_zone_trips",
        ("dataset", "pickup_location_id", "pickup_borough", "pickup_zone"),
        ("trips", "total_amount"),
    ),
    "payments": ("payment_mix", ("dataset", "month", "payment"), ("trips",)),
    "airports": ("airport_trips", ("dataset", "airport", "direction"), ("trips", "airport_fee", "total_amount")),
}


@dataclass(frozen=True)
class Facts:
    """What the marts say of some months."""

    #: By dataset, in the order of the declarations: the months whose marts are built; none is empty.
    months: Mapping[str, Sequence[date]]
    #: By dataset and month: the rows of the file.
    rows: Mapping[tuple[str, date], int]
    #: By question: its rows, in the order of the datasets, then of the columns of a group.
    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    #: The commands that build the marts of loaded months that lack them.
    commands: Sequence[str]
    #: When the newest of these marts was built.
    built_at: datetime


def facts_of(inventory: Inventory, months: Mapping[str, Sequence[date]]) -> Facts:
    """Ask all questions of those of the months whose marts are built.

    Raises:
        WarehouseError: no month has its marts.
    """
    assert inventory.warehouse is not None
    built, commands, rows, moments = dict[str, Sequence[date]](), list[str](), dict[tuple[str, date], int](), []
    for name, wanted in months.items():
        if not marts_of(name):
            continue
        dataset = dataset_named(name)
        loads, marts = inventory.loads(dataset), inventory.marts(dataset)
        if done := [month for month in wanted if inventory.done("mart", dataset, month)]:
            built[name] = done
            rows |= {(name, month): loads[month].rows for month in done}
            moments += [record.built_at for month in done for record in marts[month].values()]
        lacking = [month for month in wanted if month in loads and month not in done]
        commands += [suggested_command("backfill", name, ",".join(spans(lacking)))] if lacking else []
    if not built:
        raise WarehouseError(
            "this warehouse has no marts of these months, and a report is drawn from marts; run: "
            + (" && ".join(commands) or suggested_command("backfill", *_example(months)))
        )
    answers = {name: _ask(inventory, built, *question) for name, question in QUESTIONS.items()}
    return Facts(built, rows, answers, commands, max(moments))


def _example(months: Mapping[str, Sequence[date]]) -> tuple[str, str]:
    """A month of those that were asked for, of a small dataset and recent if possible."""
    name = "green" if months.get("green") else next(name for name in months if months[name])
    usual = date(2024, 1, 1)
    return name, format_month(usual if usual in months[name] else months[name][0])


def _ask(
    inventory: Inventory, months: Mapping[str, Sequence[date]], mart: str, keys: Sequence[str], sums: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of a mart, added up; none where it is for other datasets, and its table may not exist."""
    where = " OR ".join(
        f"(dataset = '{name}' AND month BETWEEN DATE '{span[0]}' AND DATE '{span[-1]}')"
        for name in months
        if name in all_marts()[mart].datasets
        for span in month_ranges(months[name])
    )
    if not where or inventory.warehouse is None:
        return []
    grouped, added = ", ".join(keys), ", ".join(f"SUM({column}) AS {column}" for column in sums)
    sql = f"SELECT {grouped}, {added} FROM {mart} WHERE {where} GROUP BY {grouped} ORDER BY {grouped}"
    rows: list[dict[str, Any]] = inventory.warehouse.query(sql).to_pylist()
    order = list(months)
    return sorted(rows, key=lambda row: order.index(row["dataset"]))
