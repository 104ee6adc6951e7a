"""Made-up trips of yellow and green taxis: zones, times, distances and amounts.

Money is whole cents up to the last step, so that a total is the exact sum of its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np

from pipeline.months import format_month
from pipeline.sample.draws import DAY_S, HOUR_S, Batch, Deck, Floats, Ints, Mask, Values, epoch_s, pickup_times
from pipeline.sample.eras import SPARSE_UNTIL, since
from pipeline.sample.zones import AIRPORTS, JFK, MANHATTAN, coordinates, favourites

#: One row of so many has a value if the quantity is sparse.
_SPARSE = 10_007


@dataclass(frozen=True)
class Fleet:
    """How yellow and green differ: zones, the logarithm of the usual distance, cents, and shares of all rows."""

    pickups: Deck
    dropoffs: Deck
    miles: float
    #: Share of trips from or to Manhattan that pay the congestion surcharge.
    to_manhattan: float
    congestion: int
    airport_fee: bool
    #: Share of dispatched trips, the block at the end of a file without the values of meter and driver.
    dispatched: float
    #: Share of pickups outside the file's month.
    outside: float


@dataclass(frozen=True)
class Tariff:
    """What the meter charges since a month, in cents."""

    flagfall: int = 250
    unit: int = 40
    jfk: int = 4500
    mta: int = 50
    night: int = 50
    rush: int = 100
    improvement: int = 0
    congestion: bool = False
    airport: int = 0
    cbd: int = 0
    toll: int = 415


_YELLOW_PICKUPS = (237, 236, 161, 132, 186, 162, 142, 230, 138, 170, 163, 239, 234, 48, 68, 141, 79, 164, 249, 107)
_YELLOW_DROPOFFS = (236, 237, 161, 230, 170, 239, 142, 141, 162, 48, 68, 234, 238, 163, 186, 263, 229, 79, 140, 107)
_GREEN_PICKUPS = (74, 75, 41, 166, 95, 82, 43, 97, 7, 244, 42, 65, 116, 129, 61, 49, 181, 25, 33, 92)
_GREEN_DROPOFFS = (75, 74, 236, 41, 42, 238, 166, 95, 263, 239, 151, 129, 82, 97, 7, 61, 181, 116, 244, 43)
FLEETS = {
    "yellow": Fleet(
        pickups=favourites(_YELLOW_PICKUPS, 1.0),
        dropoffs=favourites(_YELLOW_DROPOFFS, 0.9),
        miles=0.55,
        to_manhattan=0.93,
        congestion=250,
        airport_fee=True,
        dispatched=0.035,
        outside=1.2e-5,
    ),
    "green": Fleet(
        pickups=favourites(_GREEN_PICKUPS, 1.1),
        dropoffs=favourites(_GREEN_DROPOFFS, 0.75),
        miles=0.62,
        to_manhattan=0.26,
        congestion=275,
        airport_fee=False,
        dispatched=0.05,
        outside=1.0e-4,
    ),
}

_TARIFFS = (
    ("2009-01", Tariff(mta=0)),
    ("2009-11", Tariff()),
    ("2012-09", Tariff(unit=50, jfk=5200, toll=480)),
    ("2013-03", Tariff(unit=50, jfk=5200, toll=533)),
    ("2015-01", Tariff(unit=50, jfk=5200, toll=554, improvement=30)),
    ("2019-02", Tariff(unit=50, jfk=5200, toll=612, improvement=30, congestion=True)),
    ("2021-04", Tariff(unit=50, jfk=5200, toll=655, improvement=30, congestion=True, airport=125)),
    ("2023-01", Tariff(300, 70, 7000, 50, 100, 250, 100, True, 125, 0, 655)),
    ("2023-05", Tariff(300, 70, 7000, 50, 100, 250, 100, True, 175, 0, 694)),
    ("2025-01", Tariff(300, 70, 7000, 50, 100, 250, 100, True, 175, 75, 694)),
)
_VENDORS = (
    ("2009-01", Deck({1: 46, 2: 46, 3: 8})),
    ("2011-01", Deck({1: 47, 2: 53})),
    ("2018-01", Deck({1: 27, 2: 73})),
    ("2024-01", Deck({1: 23.9, 2: 76, 6: 0.1})),
    ("2025-01", Deck({1: 20, 2: 78, 6: 0.1, 7: 1.9})),
)
_PASSENGERS = Deck({1: 74, 2: 14.5, 3: 3.5, 4: 2, 5: 2, 6: 1.4, 0: 1.6})
_RATES = Deck({1: 98.9, 5: 0.5, 3: 0.25, 4: 0.15, 99: 0.2})
_TIPS = Deck({0: 6, 10: 3, 15: 4, 18: 6, 20: 60, 25: 9, 30: 3, -1: 2, -2: 3, -3: 2, -5: 1.5, -10: 0.5})


def taxi_trips(batch: Batch) -> dict[str, Values]:
    """The quantities of some yellow or green rows; dispatched ones come last and lack the values of the meter."""
    fleet, tariff = FLEETS[batch.dataset], since(_TARIFFS, batch.month)
    dispatched, positions = _dispatched(batch, fleet)
    vendor = since(_VENDORS, batch.month).draw(batch)
    pickup_zone, dropoff_zone = fleet.pickups.draw(batch), fleet.dropoffs.draw(batch)
    by_minute = dispatched | ((vendor == 2) & (batch.month < date(2014, 1, 1)))
    airport = AIRPORTS[pickup_zone] | AIRPORTS[dropoff_zone]
    miles = _miles(batch, fleet, airport, vendor)
    pickup, dropoff = _times(batch, fleet, positions, miles, by_minute)
    jfk = ((pickup_zone == JFK) | (dropoff_zone == JFK)) & batch.chance(0.6) & ~dispatched
    rate = np.where(jfk, 2, _RATES.draw(batch))
    trip_zones = _Zones(pickup_zone, dropoff_zone, airport, rate, dispatched)
    money, payment = _money(batch, fleet, tariff, trip_zones, miles, pickup)
    unknown = dispatched if dispatched.any() else None
    trips = {
        "vendor_id": Values(vendor),
        "pickup_datetime": Values(pickup),
        "dropoff_datetime": Values(dropoff),
        "passenger_count": Values(_PASSENGERS.draw(batch), unknown),
        "trip_distance": Values(_outliers(batch, miles) / 100),
        "rate_code": Values(rate, unknown),
        "store_and_fwd_flag": Values(batch.chance(0.006).astype(np.int64), _either(unknown, by_minute)),
        "pickup_zone": Values(pickup_zone),
        "dropoff_zone": Values(dropoff_zone),
        # Yellow's files have 0 where green's have no value.
        "payment_type": Values(np.where(dispatched, 0, payment), unknown if batch.dataset == "green" else None),
        "trip_type": Values(np.where(rate == 5, 2, 1), unknown),
        "row": Values(batch.rows),
        "request_source": Values(np.zeros(batch.size, np.int64), None, ("street",)),
        "empty": Values(batch.rows, np.ones(batch.size, bool), ("",)),
        **{name: Values(cents / 100) for name, cents in money.items()},
        **coordinates(batch, "pickup", pickup_zone),
        **coordinates(batch, "dropoff", dropoff_zone),
    }
    return _with_gaps(batch, trips, unknown)


@dataclass(frozen=True)
class _Zones:
    pickup: Ints
    dropoff: Ints
    airport: Mask
    rate: Ints
    dispatched: Mask


def _either(first: Mask | None, second: Mask) -> Mask:
    return second if first is None else first | second


def _dispatched(batch: Batch, fleet: Fleet) -> tuple[Mask, Floats]:
    """Which rows are dispatched (the block at the end), and the position of each row within the month, from 0 to 1."""
    share = fleet.dispatched if batch.month >= date(2020, 1, 1) else fleet.dispatched / 8
    block = round(batch.total * share) if batch.month >= date(2018, 7, 1) else 0
    metered = batch.total - block
    dispatched = batch.rows >= metered
    positions = np.where(dispatched, (batch.rows - metered + 0.5) / max(block, 1), (batch.rows + 0.5) / max(metered, 1))
    return dispatched, positions


def _miles(batch: Batch, fleet: Fleet, airport: Mask, vendor: Ints) -> Ints:
    """Distances in hundredths of a mile; vendor 1 reports tenths."""
    city = np.exp(batch.normal() * 0.72 + fleet.miles)
    miles = np.where(airport, 7.5 + 2.2 * city, city)
    miles[batch.chance(0.012)] = 0
    hundredths = np.rint(miles * 100).astype(np.int64)
    return np.asarray(np.where(vendor == 1, hundredths // 10 * 10, hundredths))


def _outliers(batch: Batch, miles: Ints) -> Ints:
    """The distances, with a few absurd ones of up to hundreds of thousands of miles."""
    absurd = batch.chance(2e-5)
    return np.where(absurd, batch.whole(1_000_000, 36_000_000), miles)


def _times(batch: Batch, fleet: Fleet, positions: Floats, miles: Ints, by_minute: Mask) -> tuple[Ints, Ints]:
    """Pickups and drop-offs in seconds, with a few odd ones: outside the month, and drop-offs before their pickups."""
    pickup = pickup_times(batch, positions)
    seconds = ((150 + miles * 2.3) * np.exp(batch.normal() * 0.32)).astype(np.int64)
    pickup = np.where(by_minute, pickup // 60 * 60, pickup)
    seconds = np.where(by_minute, seconds // 60 * 60, seconds)
    outside = np.flatnonzero(batch.chance(fleet.outside))
    strays = np.array([epoch_s(date(2009, 1, 1)), epoch_s(date(2008, 12, 31)), epoch_s(batch.month) - DAY_S,
                       epoch_s(batch.month) + 32 * DAY_S])  # fmt: skip
    pickup[outside] = strays[batch.rng.integers(0, len(strays), len(outside))] + batch.rng.integers(
        0, DAY_S, len(outside)
    )
    return pickup, np.where(batch.chance(3e-5), pickup - seconds, pickup + seconds)


def _money(
    batch: Batch, fleet: Fleet, tariff: Tariff, zones: _Zones, miles: Ints, pickup: Ints
) -> tuple[dict[str, Ints], Ints]:
    """The parts of each total in cents, and the payment type."""
    metered = ~zones.dispatched
    parts = {"fare_amount": _fares(batch, tariff, zones, miles)}
    parts["extra"] = np.where(metered & (zones.rate == 1), _extra(tariff, pickup), 0)
    parts["mta_tax"] = np.where(batch.chance(0.993) & metered, tariff.mta, 0)
    parts["improvement_surcharge"] = np.where(batch.chance(0.998), tariff.improvement, 0)
    parts["tolls_amount"] = np.where(batch.chance(0.004) | (zones.airport & batch.chance(0.45)), tariff.toll, 0)
    congested = (MANHATTAN[zones.pickup] | MANHATTAN[zones.dropoff]) & batch.chance(fleet.to_manhattan)
    parts["congestion_surcharge"] = np.where(congested & metered, fleet.congestion * tariff.congestion, 0)
    if fleet.airport_fee:
        parts["airport_fee"] = np.where(AIRPORTS[zones.pickup] & metered, tariff.airport, 0)
    parts["cbd_congestion_fee"] = np.where(congested & metered & batch.chance(0.78), tariff.cbd, 0)
    subtotal = np.sum(list(parts.values()), axis=0)
    cards = min(0.8, 0.25 + 0.06 * (batch.month.year - 2009))
    payment = np.where(batch.chance(cards), 1, np.where(batch.chance(0.93), 2, np.where(batch.chance(0.4), 3, 4)))
    parts["tip_amount"] = _tips(batch, subtotal, (payment == 1) | zones.dispatched)
    # Refunds: 100 to 700 negative totals in a month of green, since the year of the first file that was examined.
    negative = batch.chance(0.012 if batch.month >= date(2018, 1, 1) else 0.0002) & (payment > 1) & metered
    for name, cents in parts.items():
        parts[name] = np.where(negative, -cents, cents)
    parts["total_amount"] = np.sum(list(parts.values()), axis=0)
    return parts, np.where(negative, 4, payment)


def _fares(batch: Batch, tariff: Tariff, zones: _Zones, miles: Ints) -> Ints:
    """Fares in cents: units of a fifth of a mile or a slow minute, JFK's flat fare, negotiated and up-front ones."""
    units = (miles / 20 * (1.18 + 0.17 * batch.normal())).astype(np.int64)
    fares = tariff.flagfall + tariff.unit * np.maximum(units, 0)
    fares = np.where(zones.rate == 2, tariff.jfk, fares)
    fares = np.where(zones.rate == 5, batch.whole(10, 120) * 100, fares)
    return np.where(zones.dispatched, fares + batch.whole(0, 700), fares)


def _extra(tariff: Tariff, pickup: Ints) -> Ints:
    hour = pickup // HOUR_S % 24
    weekday = (pickup // DAY_S + 3) % 7 < 5
    night = (hour >= 20) | (hour < 6)
    return np.where(night, tariff.night, np.where(weekday & (hour >= 16), tariff.rush, 0))


def _tips(batch: Batch, subtotal: Ints, paid_by_card: Mask) -> Ints:
    """Tips in cents: mostly one of the usual percentages of the other amounts, sometimes whole dollars."""
    button = _TIPS.draw(batch)
    tips = np.where(button < 0, -100 * button, (subtotal * button + 50) // 100)
    return np.asarray(np.where(paid_by_card, tips, 0))


def _with_gaps(batch: Batch, trips: dict[str, Values], unknown: Mask | None) -> dict[str, Values]:
    """The same trips without the values that files of this month lack."""
    for name in ("congestion_surcharge", "airport_fee", "cbd_congestion_fee"):
        if name in trips and not (name == "cbd_congestion_fee" and batch.dataset == "yellow"):
            trips[name] = Values(trips[name].numbers, unknown)
    for quantity in _sparse(batch.dataset, format_month(batch.month)):
        trips[quantity] = Values(np.zeros(batch.size), batch.rows % _SPARSE != 0)
    if batch.dataset == "green" and batch.month >= date(2019, 9, 1):
        trips["ehail_fee"] = Values(np.zeros(batch.size), np.ones(batch.size, bool))
    return trips


@cache
def _sparse(dataset: str, month: str) -> tuple[str, ...]:
    return tuple(
        name for (owner, name), until in SPARSE_UNTIL.items() if owner == dataset and month < format_month(until)
    )
