"""Made-up trips of for-hire vehicles: fhv (bases of all kinds) and fhvhv (the high-volume apps)."""

from __future__ import annotations

from datetime import date
from functools import cache

import numpy as np

from pipeline.sample.draws import Batch, Deck, Floats, Ints, Mask, Values, pickup_times
from pipeline.sample.eras import since
from pipeline.sample.zones import AIRPORTS, MANHATTAN, favourites

_ZONES = favourites((138, 132, 61, 79, 161, 37, 231, 230, 76, 225, 234, 39, 68, 42, 181, 48, 170, 17, 188, 255), 0.55)
_BASES = 700
_MILLENNIUM_S = 31_556_952_000

# The shares of fhv rows that lack the pickup's zone, the drop-off's zone, and the drop-off's time.
_FHV_GAPS = (
    ("2015-01", (0.30, 0.98, 0.98)),
    ("2017-01", (0.30, 0.45, 0.45)),
    ("2017-07", (0.15, 0.12, 0.0)),
    ("2019-02", (0.40, 0.10, 0.0)),
    ("2020-10", (0.80, 0.12, 0.0)),
)
# Licence by licence: HV0002 Juno and HV0004 Via left the market.
_LICENCES = ("HV0002", "HV0003", "HV0004", "HV0005")
_LICENCE = (
    ("2019-02", Deck({0: 2, 1: 70, 2: 5, 3: 23})),
    ("2020-01", Deck({1: 72, 2: 4, 3: 24})),
    ("2022-12", Deck({1: 73.5, 3: 26.5})),
)
_APP_BASES = (
    ("2019-02", ("B02914", "B02764", "B02765", "B02866", "B02872", "B02875", "B02887", "B02800", "B02510")),
    ("2022-07", ("B03404", "B03406")),
)


def fhv_trips(batch: Batch) -> dict[str, Values]:
    """The quantities of some fhv rows: few columns with many gaps."""
    old = batch.month < date(2017, 1, 1)
    positions = (batch.rows + 0.5) / batch.total
    base, positions = _base_by_base(positions) if old else (_base_deck().draw(batch), positions)
    pickup = pickup_times(batch, positions)
    if not old:
        # Within an hour rows are ordered by base; the other quantities do not depend on the base.
        base = np.sort(pickup // 3600 * 4096 + base) % 4096
    if batch.month < date(2017, 7, 1):
        pickup = pickup // 60 * 60
    seconds = np.exp(batch.normal() * 0.6 + 6.8).astype(np.int64)
    dropoff = np.where(batch.chance(3e-5), pickup - seconds, pickup + seconds)
    if batch.month == date(2019, 2, 1):
        # The real month has a drop-off in the year 3019; a sample of a few rows does not.
        dropoff[(batch.rows == batch.total // 2) & (batch.total >= 1000)] += _MILLENNIUM_S
    no_pickup, no_dropoff, no_end = (batch.chance(share) for share in since(_FHV_GAPS, batch.month))
    shared = batch.chance(0.12 if date(2017, 5, 1) <= batch.month < date(2019, 3, 1) else 0.0)
    other = np.where(batch.chance(0.06), _base_deck().draw(batch), base)
    return {
        "dispatching_base_num": Values(base, None, _base_names()),
        "affiliated_base_number": Values(other, batch.chance(0.05), _base_names()),
        "pickup_datetime": Values(pickup),
        "dropoff_datetime": Values(dropoff, no_end),
        "pickup_zone": Values(_ZONES.draw(batch), no_pickup),
        "dropoff_zone": Values(_ZONES.draw(batch), no_dropoff | no_end),
        "sr_flag": Values(shared.astype(np.int64), ~shared),
        "empty": Values(batch.rows, np.ones(batch.size, bool), ("",)),
    }


def fhvhv_trips(batch: Batch) -> dict[str, Values]:
    """The quantities of some fhvhv rows; only one of the apps reports when its cars arrived."""
    licence = since(_LICENCE, batch.month).draw(batch)
    uber = licence == 1
    zones = _ZONES.draw(batch), _ZONES.draw(batch)
    airport = AIRPORTS[zones[0]] | AIRPORTS[zones[1]]
    city = np.exp(batch.normal() * 0.85 + 0.95)
    thousandths = np.rint(np.where(airport, 7 + 2 * city, city) * 1000).astype(np.int64)
    thousandths = np.where(uber, thousandths // 10 * 10, thousandths)
    seconds = ((240 + thousandths * 0.2) * np.exp(batch.normal() * 0.33)).astype(np.int64)
    pickup = pickup_times(batch, (batch.rows + 0.5) / batch.total)
    boarding = batch.whole(2, 120)
    base, base_names = _app_base(batch, licence)
    no_dispute = ~uber
    return {
        "hvfhs_license_num": Values(licence, None, _LICENCES),
        "dispatching_base_num": Values(base, None, base_names),
        "originating_base_num": Values(base, no_dispute, base_names),
        "affiliated_base_number": Values(base, None, base_names),
        "request_datetime": Values(pickup - boarding - np.exp(batch.normal() * 0.5 + 5.2).astype(np.int64)),
        "on_scene_datetime": Values(pickup - boarding, no_dispute),
        "pickup_datetime": Values(pickup),
        "dropoff_datetime": Values(np.where(batch.chance(1e-6), pickup - seconds, pickup + seconds)),
        "pickup_zone": Values(zones[0]),
        "dropoff_zone": Values(zones[1]),
        "trip_miles": Values(thousandths / 1000),
        "trip_time": Values(seconds),
        **_fhvhv_money(batch, zones, airport, thousandths, seconds),
        **_fhvhv_flags(batch, uber),
    }


def _fhvhv_money(
    batch: Batch, zones: tuple[Ints, Ints], airport: Mask, thousandths: Ints, seconds: Ints
) -> dict[str, Values]:
    """What the passenger paid and the driver received; the coefficients of the fare are invented."""
    manhattan = MANHATTAN[zones[0]] | MANHATTAN[zones[1]]
    fare = ((250 + thousandths * 0.13 + seconds * 0.8) * np.exp(batch.normal() * 0.28)).astype(np.int64)
    fare = np.where(batch.chance(6e-4), -fare, fare)
    tolls = np.where(batch.chance(0.03) | (airport & batch.chance(0.35)), 655, 0)
    paid = np.maximum(fare + tolls, 0)
    tips = np.where(batch.chance(0.17), np.where(batch.chance(0.6), batch.whole(1, 8) * 100, paid * 15 // 100), 0)
    cents = {
        "base_passenger_fare": fare,
        "tolls": tolls,
        "bcf": (paid * 3 + 50) // 100,
        "sales_tax": np.where(batch.chance(0.96), (paid * 8875 + 50_000) // 100_000, 0),
        "congestion_surcharge": np.where(manhattan & batch.chance(0.9), 275, 0),
        "airport_fee": np.where(airport, 250, 0),
        "tips": tips,
        "driver_pay": ((300 + thousandths * 0.1 + seconds * 0.6) * np.exp(batch.normal() * 0.12)).astype(np.int64),
        "cbd_congestion_fee": np.where(manhattan & batch.chance(0.6), 150, 0),
    }
    return {name: Values(amounts / 100) for name, amounts in cents.items()}


def _fhvhv_flags(batch: Batch, uber: Mask) -> dict[str, Values]:
    no, yes_no, blank = np.zeros(batch.size, np.int64), ("N", "Y"), ("N", "Y", " ")
    return {
        "shared_request_flag": Values(batch.chance(0.02).astype(np.int64), None, yes_no),
        "shared_match_flag": Values(batch.chance(0.006).astype(np.int64), None, yes_no),
        # One app reports a single blank, not a null.
        "access_a_ride_flag": Values(np.where(uber, 2, no), None, blank),
        "wav_request_flag": Values(batch.chance(0.002).astype(np.int64), None, yes_no),
        "wav_match_flag": Values(batch.chance(0.06).astype(np.int64), None, yes_no),
        "sr_flag": Values(no + 1, ~batch.chance(0.1)),
        # The CSVs of 2021 have a word in the flag's column.
        "sr_flag_word": Values(no, None, yes_no),
    }


def _app_base(batch: Batch, licence: Ints) -> tuple[Ints, tuple[str, ...]]:
    names = since(_APP_BASES, batch.month)
    if len(names) == 2:
        return (licence == 3).astype(np.int64), names
    several = 1 + batch.rng.integers(0, len(names) - 2, batch.size)
    return np.where(licence == 3, len(names) - 1, np.where(licence == 1, several, 0)), names


@cache
def _base_names() -> tuple[str, ...]:
    numbers = np.sort(np.random.default_rng(_BASES).choice(3500, _BASES, replace=False))
    return tuple(f"B{number:05}" for number in numbers)


@cache
def _base_weights() -> Floats:
    return np.asarray(np.random.default_rng(_BASES + 1).lognormal(0, 1.6, _BASES))


@cache
def _base_deck() -> Deck:
    return Deck(dict(enumerate(_base_weights())))


def _base_by_base(positions: Floats) -> tuple[Ints, Floats]:
    """For files ordered by base: the base of each row, and its position within the month, from 0 to 1."""
    ends = np.cumsum(_base_weights()) / _base_weights().sum()
    base = np.minimum(np.searchsorted(ends, positions), _BASES - 1)
    starts = np.concatenate([[0.0], ends[:-1]])
    return base, np.clip((positions - starts[base]) / (ends[base] - starts[base]), 0, 1)
