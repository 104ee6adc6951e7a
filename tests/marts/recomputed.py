"""The marts of a month in plain Python, row by row from the raw file.

All is computed in whole cents, seconds and thousandths of a mile. Nothing of the package and no SQL is used, so that
the marts of an engine can be compared with it.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

#: The key of a mart's rows.
KEYS = {
    "airport_trips": ("airport", "direction"),
    "daily_trips": ("day",),
    "hourly_zone_trips": ("pickup_location_id", "pickup_borough", "pickup_zone", "weekday", "hour"),
    "monthly_summary": (),
    "monthly_zone_revenue": ("pickup_location_id", "pickup_borough", "pickup_zone"),
    "payment_mix": ("payment_type", "payment"),
}
OF_TAXIS = ("daily_trips", "monthly_zone_revenue", "payment_mix")
_AIRPORTS = {1: "Newark", 132: "JFK", 138: "LaGuardia"}
_PAYMENTS = {
    0: "flex fare",
    1: "credit card",
    2: "cash",
    3: "no charge",
    4: "dispute",
    5: "unknown",
    6: "voided trip",
}
_KNOWN = {
    "vendor": {1, 2, 4, 5, 6, 7},
    "rate": {0, 1, 2, 3, 4, 5, 6, 99},
    "payment": {*_PAYMENTS},
    "service": {"HV0002", "HV0003", "HV0004", "HV0005"},
}
_NAMES = {
    "vendor": ("vendorid", "vendor_id"),
    "rate": ("ratecodeid", "rate_code_id"),
    "payment": ("payment_type",),
    "service": ("hvfhs_license_num",),
    "pickup": ("tpep_pickup_datetime", "lpep_pickup_datetime", "pickup_datetime"),
    "dropoff": ("tpep_dropoff_datetime", "lpep_dropoff_datetime", "dropoff_datetime"),
    "from": ("pulocationid", "pickup_location_id"),
    "to": ("dolocationid", "dropoff_location_id"),
    "miles": ("trip_distance", "trip_miles"),
    "passengers": ("passenger_count",),
    "fare": ("fare_amount", "base_passenger_fare"),
    "tip": ("tip_amount", "tips"),
    "tolls": ("tolls_amount", "tolls"),
    **{
        name: (name,)
        for name in (
            *("total_amount", "extra", "mta_tax", "improvement_surcharge", "congestion_surcharge"),
            *("cbd_congestion_fee", "airport_fee", "bcf", "sales_tax"),
        )
    },
}
_NUMBERS = (
    *("fare", "tip", "tolls", "total_amount", "airport_fee", "extra", "mta_tax", "improvement_surcharge"),
    *("congestion_surcharge", "cbd_congestion_fee", "bcf", "sales_tax", "miles"),
)
_COMPONENTS = ("tolls", "bcf", "sales_tax", "congestion_surcharge", "airport_fee", "cbd_congestion_fee", "tip")
_Row = dict[str, Any]


@dataclass
class Trip:
    """A row of the month that counts: its values, and what is plausible of them."""

    row: _Row
    reversal: bool
    seconds: int | None
    thousandths: int | None
    passengers: int | None

    def cents(self, name: str) -> int | None:
        value = self.row[name]
        return _scaled(value, 100) if value is not None and abs(value) <= 10**9 else None


def recomputed(raw: Path, lookup: Path, dataset: str, month: date) -> dict[str, dict[tuple[Any, ...], _Row]]:
    """The rows of every mart of the dataset, by mart and key."""
    with lookup.open(encoding="utf-8", newline="") as file:
        zones = {int(row[0]): (row[1], row[2]) for row in list(csv.reader(file))[1:]}
    rows = list(_rows(raw, dataset))
    trips = [trip for row in rows if (trip := _plausible(row, month))]
    groups: dict[str, dict[tuple[Any, ...], list[Trip]]] = {mart: defaultdict(list) for mart in KEYS}
    groups["monthly_summary"][()] = trips
    for trip in trips:
        row, pickup = trip.row, trip.row["pickup"]
        zone = (row["from"], *zones.get(row["from"], (None, None)))
        groups["daily_trips"][pickup.date(),].append(trip)
        groups["monthly_zone_revenue"][zone].append(trip)
        groups["hourly_zone_trips"][(*zone, pickup.isoweekday(), pickup.hour)].append(trip)
        groups["payment_mix"][row["payment"], _PAYMENTS.get(row["payment"])].append(trip)
        for end in ("from", "to"):
            if row[end] in _AIRPORTS:
                groups["airport_trips"][_AIRPORTS[row[end]], end].append(trip)
    found = {
        mart: {key: _MEASURES[mart](members) for key, members in by_key.items()}
        for mart, by_key in groups.items()
        if dataset in ("yellow", "green") or mart not in OF_TAXIS
    }
    found["monthly_summary"][()] |= _oddities(rows, month)
    return found


def _rows(raw: Path, dataset: str) -> Iterator[_Row]:
    for published in _published(raw):
        row: _Row = dict.fromkeys((*_NAMES, "total"))
        for name, spellings in _NAMES.items():
            row[name] = next((published[each] for each in spellings if published.get(each) not in (None, "")), None)
        for name in _NUMBERS:
            row[name] = None if row.get(name) is None else Decimal(str(row[name]))
        for name in ("from", "to", "vendor", "rate", "payment", "passengers"):
            row[name] = None if row[name] is None else int(Decimal(str(row[name])))
        for name in ("pickup", "dropoff"):
            if isinstance(row[name], str):
                row[name] = datetime.fromisoformat(row[name])
        row["total"] = row["total_amount"]
        if dataset == "fhvhv" and row["fare"] is not None:
            row["total"] = row["fare"] + sum(row[name] or 0 for name in _COMPONENTS)
        yield row


def _published(raw: Path) -> Iterator[_Row]:
    if raw.suffix == ".parquet":
        for batch in pq.ParquetFile(raw).iter_batches(20_000):
            names = [name.strip().lower() for name in batch.schema.names]
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield dict(zip(names, values, strict=True))
        return
    with gzip.open(raw, "rt", encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        names = [name.strip().lower() for name in next(reader)]
        yield from (dict(zip(names, fields, strict=False)) for fields in reader if fields)


def _plausible(row: _Row, month: date) -> Trip | None:
    total, pickup, dropoff, miles = row["total"] or 0, row["pickup"], row["dropoff"], row["miles"]
    if (pickup.year, pickup.month) != (month.year, month.month) or not -10_000 <= total <= 10_000:
        return None
    trip = Trip(row, total < 0, None, None, None)
    if not trip.reversal:
        if dropoff is not None and 0 <= (dropoff - pickup).total_seconds() <= 12 * 3600:
            trip.seconds = (dropoff - pickup).days * 86_400 + (dropoff - pickup).seconds
        if miles is not None and 0 <= miles <= 200:
            trip.thousandths = _scaled(miles, 1000)
        if row["passengers"] is not None and abs(row["passengers"]) <= 10**9:
            trip.passengers = row["passengers"]
    return trip


def _oddities(rows: list[_Row], month: date) -> _Row:
    outside = [row for row in rows if (row["pickup"].year, row["pickup"].month) != (month.year, month.month)]
    return {
        "negative_minutes": sum(row["dropoff"] is not None and row["dropoff"] < row["pickup"] for row in rows),
        "strays": len(outside),
        "unknown_zones": sum(
            row[end] is not None and not 1 <= row[end] <= 265 for row in rows for end in ("from", "to")
        ),
        "unknown_codes": sum(
            row[name] is not None and row[name] not in known for row in rows for name, known in _KNOWN.items()
        ),
    }


def _scaled(value: Decimal, factor: int) -> int:
    return int((value * factor + Decimal("0.5")).to_integral_value(ROUND_FLOOR))


def half_up(dividend: int, divisor: int, digits: int = 2) -> Decimal | None:
    """The quotient, rounded half up; None if there is nothing to divide by."""
    if not divisor:
        return None
    return Decimal((2 * dividend * 10**digits + divisor) // (2 * divisor)).scaleb(-digits)


def _sum(values: Iterable[int | None]) -> int | None:
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def _dollars(trips: list[Trip], name: str) -> Decimal | None:
    cents = _sum(trip.cents(name) for trip in trips)
    return None if cents is None else Decimal(cents).scaleb(-2)


def _miles(trips: list[Trip]) -> Decimal | None:
    thousandths = _sum(trip.thousandths for trip in trips)
    return None if thousandths is None else Decimal(thousandths).scaleb(-3)


def _counts(trips: list[Trip]) -> _Row:
    reversals = sum(trip.reversal for trip in trips)
    return {"trips": len(trips) - reversals, "reversals": reversals}


def _means(trips: list[Trip]) -> _Row:
    seconds = [trip.seconds for trip in trips if trip.seconds is not None]
    thousandths = [trip.thousandths for trip in trips if trip.thousandths is not None]
    return {
        "trips": _counts(trips)["trips"],
        "minutes": half_up(sum(seconds), 60 * len(seconds)),
        "miles": half_up(sum(thousandths), 1000 * len(thousandths)),
    }


def median(values: Iterable[int | None], units: int) -> Decimal | None:
    """The mean of the two middle values, in multiples of `units`."""
    found = sorted(value for value in values if value is not None)
    return half_up(found[(len(found) - 1) // 2] + found[len(found) // 2], 2 * units) if found else None


def _revenue(trips: list[Trip], *more: str) -> _Row:
    amounts = {"fare_amount": "fare", "tip_amount": "tip", "tolls_amount": "tolls", "total_amount": "total"}
    return (
        _counts(trips)
        | {"passengers": _sum(trip.passengers for trip in trips), "trip_miles": _miles(trips)}
        | {name: _dollars(trips, amounts.get(name, name)) for name in ("fare_amount", "tip_amount", *more)}
        | {"total_amount": _dollars(trips, "total")}
    )


def _zone(trips: list[Trip]) -> _Row:
    surcharges = ("improvement_surcharge", "congestion_surcharge", "cbd_congestion_fee")
    return _revenue(trips, "tolls_amount", "extra", "mta_tax", *surcharges)


def _payment(trips: list[Trip]) -> _Row:
    kept = ("trips", "reversals", "fare_amount", "tip_amount", "total_amount")
    return {name: value for name, value in _revenue(trips).items() if name in kept}


def _hour(trips: list[Trip]) -> _Row:
    both = [(trip.thousandths, trip.seconds) for trip in trips if trip.thousandths is not None and trip.seconds]
    speed = half_up(sum(miles for miles, _ in both) * 3600, sum(seconds for _, seconds in both) * 1000)
    return _means(trips) | {"mph": speed, "total_amount": _dollars(trips, "total")}


def _airport(trips: list[Trip]) -> _Row:
    fees = {"airport_fee": _dollars(trips, "airport_fee"), "tolls_amount": _dollars(trips, "tolls")}
    return _means(trips) | fees | {"total_amount": _dollars(trips, "total")}


def _summary(trips: list[Trip]) -> _Row:
    fares, tips = (_sum(trip.cents(name) for trip in trips) for name in ("fare", "tip"))
    fees = [_dollars(trips, name) for name in ("congestion_surcharge", "cbd_congestion_fee")]
    return _revenue(trips) | {
        "minutes": _means(trips)["minutes"],
        "median_miles": median((trip.thousandths for trip in trips), 1000),
        "median_minutes": median((trip.seconds for trip in trips), 60),
        "tip_share": half_up(tips, fares, 3) if fares and fares > 0 and tips is not None else None,
        "congestion_fees": sum(filter(None, fees), Decimal()) if any(fee is not None for fee in fees) else None,
    }


_MEASURES = {
    "airport_trips": _airport,
    "daily_trips": _revenue,
    "hourly_zone_trips": _hour,
    "monthly_summary": _summary,
    "monthly_zone_revenue": _zone,
    "payment_mix": _payment,
}
