"""The zones of the sample site: those of TLC's zone table, which `zones.csv` repeats.

Ids, boroughs, names and service zones are facts, from the "Taxi Zone Lookup Table" on
https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page. Several zones have the same name, and N/A is a value.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from pipeline.sample.draws import Batch, Deck, Values

JFK = 132
_LAST = 265
#: The rough centre of a borough: longitude, latitude.
_CENTRES = {
    "Manhattan": (-73.978, 40.758),
    "Brooklyn": (-73.955, 40.670),
    "Bronx": (-73.890, 40.845),
    "Staten Island": (-74.140, 40.590),
    "Queens": (-73.850, 40.730),
}


@cache
def _zones() -> dict[int, tuple[str, str, str]]:
    """Borough, name and service zone of each zone."""
    text = resources.files("pipeline.sample").joinpath("zones.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {int(row["location_id"]): (row["borough"], row["zone"], row["service_zone"]) for row in rows}


def _borough(zone: int) -> str:
    """The borough of a zone, or Queens for one that is in none of `_CENTRES`."""
    borough = _zones()[zone][0] if zone in _zones() else ""
    return borough if borough in _CENTRES else "Queens"


#: Indexed by zone id.
MANHATTAN: npt.NDArray[np.bool_] = np.array([_borough(zone) == "Manhattan" for zone in range(_LAST + 1)])
AIRPORTS: npt.NDArray[np.bool_] = np.array([zone in (1, JFK, 138) for zone in range(_LAST + 1)])


def zones_csv() -> bytes:
    """The zone table in TLC's form: all text is quoted, lines end with CR LF."""
    lines = ['"LocationID","Borough","Zone","service_zone"']
    lines += [",".join((str(zone), *(f'"{text}"' for text in row))) for zone, row in _zones().items()]
    return "".join(f"{line}\r\n" for line in lines).encode()


def favourites(zones: tuple[int, ...], skew: float) -> Deck:
    """Draws these zones most often, in this order, all others rarely; the unknown zones are 264 and 265."""
    weights = dict.fromkeys(range(1, _LAST + 1), 1.2)
    weights |= {zone: 90 / (rank + 2) ** skew for rank, zone in enumerate(zones)}
    return Deck(weights | {264: 6, 265: 2})


@cache
def _centres() -> npt.NDArray[np.float64]:
    """Longitude and latitude of each zone, indexed by its id: near the borough's centre, the same in each run."""
    centres = np.array([_CENTRES[_borough(zone)] for zone in range(_LAST + 1)])
    return np.asarray(centres + np.random.default_rng(_LAST).normal(0, 0.016, centres.shape))


def coordinates(batch: Batch, end: str, zones: npt.NDArray[np.int64]) -> dict[str, Values]:
    """Points near the centres of these zones; some are 0, as from meters without a position."""
    lost = batch.chance(0.018)
    return {
        f"{end}_{axis}": Values(
            np.where(lost, 0.0, np.round(_centres()[zones, number] + 0.004 * batch.normal().astype(np.float64), 6))
        )
        for number, axis in enumerate(("longitude", "latitude"))
    }
