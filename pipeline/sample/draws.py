"""The random numbers of the sample site: weighted draws, the hours of a month, and a batch of rows to fill.

Everything is vectorised, and the same seed gives the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone

import numpy as np
import numpy.typing as npt

from pipeline.months import add_months

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_CARDS = 1 << 16
HOUR_S = 3600
DAY_S = 24 * HOUR_S
# Trips per hour of the day, midnight first, in a green and a yellow month of 2023; weekends start and end later.
_WEEKDAY = (14, 9, 6, 5, 6, 10, 24, 42, 50, 50, 49, 52, 56, 58, 63, 66, 68, 76, 80, 70, 60, 54, 44, 27)
_WEEKEND = (50, 42, 32, 22, 14, 10, 12, 20, 30, 42, 52, 58, 62, 62, 62, 62, 62, 64, 66, 62, 56, 54, 54, 48)


@dataclass(frozen=True)
class Values:
    """One quantity of a batch: numbers, which of them are null, and the words that the numbers stand for, if any."""

    numbers: Ints | Floats
    null: Mask | None = None
    words: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Batch:
    """Some rows of a month: their numbers, the number of all rows, and the generator of random numbers."""

    dataset: str
    month: date
    rows: Ints
    total: int
    rng: np.random.Generator

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.rows)

    def chance(self, probability: float) -> Mask:
        """True in about this share of the rows."""
        return np.asarray(self.rng.random(self.size, dtype=np.float32) < probability)

    def normal(self) -> npt.NDArray[np.float32]:
        """A standard normal deviate for each row."""
        return self.rng.standard_normal(self.size, dtype=np.float32)

    def whole(self, low: int, high: int) -> Ints:
        """A whole number from `low` to `high` (excluded) for each row."""
        return self.rng.integers(low, high, self.size)


class Deck:
    """Draws values with given weights, like cards from a deck: one look-up per row."""

    def __init__(self, weights: Mapping[int, float]) -> None:
        edges = np.round(np.cumsum(list(weights.values())) / sum(weights.values()) * _CARDS).astype(np.int64)
        self._cards = np.repeat(np.array(list(weights), dtype=np.int64), np.diff(edges, prepend=0))

    def draw(self, batch: Batch) -> Ints:
        """A value for each row."""
        return self._cards[batch.rng.integers(0, _CARDS, batch.size, dtype=np.uint16)]


def epoch_s(month: date) -> int:
    """The start of the month in seconds since 1970, on a clock without a zone."""
    return int(datetime(month.year, month.month, 1, tzinfo=timezone.utc).timestamp())


def pickup_times(batch: Batch, positions: Floats) -> Ints:
    """Pickup times in seconds for rows at these positions, 0 to 1, of their month.

    Rows are in the order of their hours, as in TLC's files, and in no order within an hour.
    """
    cumulated = _cumulated_hours(batch.month)
    hours = np.searchsorted(cumulated, positions, side="right")
    return epoch_s(batch.month) + hours * HOUR_S + batch.whole(0, HOUR_S)


def _cumulated_hours(month: date) -> Floats:
    days = (add_months(month, 1) - month).days
    weekdays = [(month.weekday() + day) % 7 for day in range(days)]
    weights = np.array([_WEEKEND if day >= 5 else _WEEKDAY for day in weekdays], dtype=np.float64).ravel()
    # Days differ, as by weather and holidays; a month has the same differences in each run.
    weights *= np.random.default_rng(month.toordinal()).uniform(0.8, 1.2, days).repeat(24)
    return np.asarray(np.cumsum(weights)[:-1] / weights.sum())
