"""The pictures of a report: a function for each, which makes of the answers a drawing and its table.

To add a picture, write a function, and add it to `PICTURES`; what it needs to know is asked in `questions`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from pipeline.datasets import DATASETS
from pipeline.errors import redact
from pipeline.months import format_month, spans
from pipeline.report import charts
from pipeline.report.questions import Facts, facts_of
from pipeline.settings import current_settings
from pipeline.state.inventory import Inventory

#: Gives a text in the language of the page: of one form, or of two forms for a count.
Translate = Callable[..., str]

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: Kinds of odd rows: columns of the mart monthly_summary.
ODD = {
    "negative_minutes": "drop-off before pickup",
    "strays": "pickup in another month",
    "unknown_zones": "unknown zones",
    "unknown_codes": "unknown codes",
}
DIRECTIONS = {"to": "to %(airport)s", "from": "from %(airport)s"}
_COLOURS = {name: f"var(--dataset-{name}, var(--accent))" for name in DATASETS}
_TOP = 10


@dataclass
class Picture:
    """A question, the drawing that answers it, and its numbers."""

    title: str
    #: What is left out or must be known.
    note: str
    #: The table of its numbers; the first `texts` columns are the headers of the rows.
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    #: An SVG element; empty where there is nothing to draw.
    svg: str
    texts: int = 1


def report(inventory: Inventory, months: Mapping[str, Sequence[date]], _: Translate) -> dict[str, Any]:
    """All pictures of these months, and what they cover, as plain values.

    Raises:
        UsageError: the library for charts is not installed.
        WarehouseError: no month has its marts.
    """
    charts.library()
    facts = facts_of(inventory, months)
    return {
        "covered": [
            {"dataset": name, "months": ", ".join(spans(each)), "count": len(each)}
            for name, each in facts.months.items()
        ],
        "commands": facts.commands,
        "warehouse": redact(current_settings().warehouse),
        "built_at": facts.built_at.isoformat(timespec="seconds"),
        "pictures": [asdict(picture(facts, _)) for picture in PICTURES],
    }


def trips_per_month(facts: Facts, _: Translate) -> Picture:
    """Trips by month and dataset."""
    title = _("How many trips are there each month?")
    note = _("Left out: pickups outside of the month, reversals, and totals beyond 10,000 dollars.")
    return _by_month(facts, "trips", title, note, _)


def revenue_per_month(facts: Facts, _: Translate) -> Picture:
    """Revenue by month and dataset."""
    title = _("How much do passengers pay each month?")
    note = _("US dollars with tips, of which those in cash are unknown. Left out: totals beyond 10,000 dollars.")
    return _by_month(facts, "total_amount", title, note, _)


def congestion_fees(facts: Facts, _: Translate) -> Picture:
    """Congestion fees by month and dataset."""
    title = _("How much are the congestion fees each month?")
    note = _("US dollars: the surcharge since 2019, and the fee for the zone below 60th Street since 2025.")
    return _by_month(facts, "congestion_fees", title, note, _)


def hours_of_the_week(facts: Facts, _: Translate) -> Picture:
    """Trips by weekday and hour."""
    title, days = _("When in the week do trips begin?"), [_(day) for day in WEEKDAYS]
    counts: dict[str, dict[tuple[int, int], int]] = {}
    for row in facts.answers["hours"]:
        counts.setdefault(row["dataset"], {})[int(row["hour"]), int(row["weekday"])] = int(row["trips"])
    cells, table = list[dict[str, Any]](), list[list[str]]()
    for name in filter(counts.get, facts.months):
        most = max(counts[name].values()) or 1
        panel = _("%(dataset)s: at most %(count)s trips") % {"dataset": name, "count": f"{most:,}"}
        for hour in range(24):
            of_hour = [counts[name].get((hour, day), 0) for day in range(1, 8)]
            table.append([name, f"{hour}:00", *(f"{count:,}" for count in of_hour)])
            for day, count in zip(days, of_hour, strict=True):
                cells.append({"panel": panel, "hour": hour, "day": day, "value": round(count / most, 3)})
    note = _("Per hour of the week, all months together; each dataset has its own scale. Reversals are left out.")
    columns = [_("Dataset"), _("Hour"), *days]
    return Picture(title, note, columns, table, charts.heat(cells, days) if cells else "", texts=2)


def zones_by_trips(facts: Facts, _: Translate) -> Picture:
    """The zones with the most trips."""
    title = _("Where do most trips begin?")
    return _top_zones(facts, "trips", title, _("The ten zones with the most trips, all months together."), _)


def zones_by_revenue(facts: Facts, _: Translate) -> Picture:
    """The zones with the most revenue."""
    title = _("Where do passengers pay most?")
    note = _("US dollars by zone of the pickup: the ten zones with the most, all months together.")
    return _top_zones(facts, "total_amount", title, note, _)


def payment_mix(facts: Facts, _: Translate) -> Picture:
    """Shares of the types of payment, by month."""
    title = _("How are taxis paid?")
    totals: dict[tuple[str, date], int] = defaultdict(int)
    names: dict[str, int] = defaultdict(int)
    for row in facts.answers["payments"]:
        totals[row["dataset"], row["month"]] += int(row["trips"])
        names[row["payment"] or ""] += int(row["trips"])
    ranked = sorted(names, key=lambda name: (-names[name], name))
    # The long meaning of a code of this package begins with its word.
    words = {name: _(name.partition(",")[0]) if name else _("not recorded") for name in ranked}
    most = len(charts.COLOURS)
    series = {
        name: words[name] if place < most - 1 or len(ranked) <= most else _("other")
        for place, name in enumerate(ranked)
    }
    found = {
        (row["dataset"], row["month"], row["payment"] or ""): int(row["trips"]) for row in facts.answers["payments"]
    }
    drawn, table = list[dict[str, Any]](), list[list[str]]()
    for (dataset, month), total in totals.items():
        values = [found.get((dataset, month, name)) for name in ranked]
        table.append([dataset, format_month(month), f"{total:,}", *(_percent(each, total) for each in values)])
        for name, value in zip(ranked, values, strict=True):
            if value and total:
                drawn.append({"panel": dataset, "month": month, "series": series[name], "value": value / total})
    note = _("Shares of the trips of each month.") + _without(facts, {name for name, _month in totals}, _)
    columns = [_("Dataset"), _("Month"), _("Trips"), *words.values()]
    drawing = charts.shares(drawn, list(dict.fromkeys(series.values()))) if drawn else ""
    return Picture(title, note, columns, table, drawing, texts=2)


def airports(facts: Facts, _: Translate) -> Picture:
    """Trips to and from each airport."""
    title = _("How many trips go to and from the airports?")
    drawn, table, order = list[dict[str, Any]](), list[list[str]](), list(facts.months)
    rows = sorted(
        facts.answers["airports"], key=lambda row: (row["airport"], row["direction"], order.index(row["dataset"]))
    )
    for row in rows:
        name = _(DIRECTIONS[row["direction"]]) % {"airport": row["airport"]}
        value, place = int(row["trips"]), order.index(row["dataset"])
        drawn.append({"name": name, "series": row["dataset"], "value": value, "order": place})
        table.append([name, row["dataset"], f"{value:,}", _number(row["airport_fee"]), _number(row["total_amount"])])
    note = _(
        "All months together; a trip between two airports counts for both. Left out: pickups outside of the month."
    )
    columns = [_("Airport"), _("Dataset"), _("Trips"), _("Fees, $"), _("Total, $")]
    drawing = charts.bars(drawn, _colours(row["series"] for row in drawn)) if drawn else ""
    return Picture(title, note, columns, table, drawing, texts=2)


def odd_rows(facts: Facts, _: Translate) -> Picture:
    """Shares of odd rows, by month."""
    title = _("How many rows are odd?")
    drawn, table = list[dict[str, Any]](), list[list[str]]()
    for row in facts.answers["summary"]:
        total = facts.rows[row["dataset"], row["month"]]
        table.append(
            [row["dataset"], format_month(row["month"]), f"{total:,}", *(_percent(row[each], total, 3) for each in ODD)]
        )
        for column, words in ODD.items():
            if row[column] is not None and total:
                value = int(row[column]) / total
                drawn.append({"panel": _(words), "month": row["month"], "series": row["dataset"], "value": value})
    drawn.sort(key=lambda each: [_(words) for words in ODD.values()].index(each["panel"]))
    note = _("Shares of all rows that TLC published for the month. A row can be odd in several ways.")
    columns = [_("Dataset"), _("Month"), _("Rows"), *map(_, ODD.values())]
    label = "format(100 * datum.value, '.2~r') + '%'"
    drawing = charts.lines(drawn, _colours(facts.months), height=64, label=label) if drawn else ""
    return Picture(title, note, columns, table, drawing, texts=2)


#: In the order of the page.
PICTURES: tuple[Callable[[Facts, Translate], Picture], ...] = (
    trips_per_month,
    revenue_per_month,
    congestion_fees,
    hours_of_the_week,
    payment_mix,
    odd_rows,
    zones_by_trips,
    zones_by_revenue,
    airports,
)


def _by_month(facts: Facts, column: str, title: str, note: str, _: Translate) -> Picture:
    """A line for each dataset that has the column."""
    found = {(row["month"], row["dataset"]): row[column] for row in facts.answers["summary"] if row[column] is not None}
    names = [name for name in facts.months if any(name == dataset for month, dataset in found)]
    months = sorted({month for month, dataset in found})
    table = [[format_month(month), *(_number(found.get((month, name))) for name in names)] for month in months]
    drawn = [{"month": month, "series": name, "value": float(value)} for (month, name), value in found.items()]
    columns = [_("Month"), *names]
    drawing = charts.lines(drawn, _colours(names)) if drawn else ""
    return Picture(title, note + _without(facts, names, _), columns, table, drawing)


def _top_zones(facts: Facts, column: str, title: str, note: str, _: Translate) -> Picture:
    """A bar for each of the zones with the highest sums, divided by dataset."""
    zones, names = dict[Any, dict[str, Any]](), dict[Any, str]()
    for row in facts.answers["zones"]:
        zone = row["pickup_location_id"]
        names[zone] = row["pickup_zone"] or (
            _("zone %(number)s") % {"number": zone} if zone is not None else _("no zone")
        )
        if row[column] is not None:
            zones.setdefault(zone, {})[row["dataset"]] = row[column]
    top = sorted(zones, key=lambda zone: (-sum(zones[zone].values()), names[zone], str(zone)))[:_TOP]
    uses = Counter(names[zone] for zone in top)  # Some zones share a name, such as Corona.
    names |= {zone: f"{names[zone]} ({zone})" for zone in top if uses[names[zone]] > 1}
    known = {name for of_zone in zones.values() for name in of_zone}
    datasets = [name for name in facts.months if name in known]
    drawn = [
        {"name": names[zone], "series": name, "value": float(zones[zone][name]), "order": place}
        for zone in top
        for place, name in enumerate(datasets)
        if name in zones[zone]
    ]
    table = [
        [names[zone], *(_number(zones[zone].get(name)) for name in datasets), _number(sum(zones[zone].values()))]
        for zone in top
    ]
    columns = [_("Zone"), *datasets, _("Total")]
    drawing = charts.bars(drawn, _colours(datasets)) if drawn else ""
    return Picture(title, note + _without(facts, known, _), columns, table, drawing)


def _without(facts: Facts, known: Iterable[str], _: Translate) -> str:
    """That the other datasets have no such column."""
    others = ", ".join(name for name in facts.months if name not in {*known})
    return (
        " " + _("TLC published no such values for %(datasets)s in these months.") % {"datasets": others}
        if others
        else ""
    )


def _colours(names: Iterable[str]) -> dict[str, str]:
    known = {*names}
    return {name: _COLOURS[name] for name in DATASETS if name in known}


def _number(value: Any) -> str:
    return "-" if value is None else f"{Decimal(value).quantize(Decimal(1), ROUND_HALF_UP):,}"


def _percent(value: Any, total: int, digits: int = 1) -> str:
    return "-" if value is None or not total else f"{100 * int(value) / total:,.{digits}f} %"
