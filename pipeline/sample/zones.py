"""The zones of the sample site: TLC's 265 ids in their boroughs, most with made-up names.

As in TLC's table, two zones can have the same name, and NA and N/A are values.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.sample.draws import Batch, Deck, Values

JFK = 132
_LAST = 265
_BOROUGHS = {
    "Manhattan": "4 12-13 24 41-43 45 48 50 68 74-75 79 87-88 90 100 103-105 107 113-114 116 120 125 127-128 137"
    " 140-144 148 151-153 158 161-164 166 170 186 194 202 209 211 224 229-234 236-239 243-244 246 249 261-263",
    "Brooklyn": "11 14 17 21-22 25-26 29 33-37 39-40 49 52 54-55 61-63 65-67 71-72 76-77 80 85 89 91 97 106 108 111-112"
    " 123 133 149-150 154-155 165 177-178 181 188-190 195 210 217 222 225 227-228 255-257",
    "Bronx": "3 18 20 31-32 46-47 51 58-60 69 78 81 94 119 126 136 147 159 167-169 174 182-185 199-200 208 212-213 220"
    " 235 240-242 247-248 250 254 259",
    "Staten Island": "5-6 23 44 84 99 109-110 115 118 156 172 176 187 204 206 214 221 245 251",
}
_NAMED = {
    1: ("EWR", "Newark Airport", "EWR"),
    56: ("Queens", "Corona", "Boro Zone"),
    57: ("Queens", "Corona", "Boro Zone"),
    132: ("Queens", "JFK Airport", "Airports"),
    138: ("Queens", "LaGuardia Airport", "Airports"),
    264: ("Unknown", "NA", "N/A"),
    265: ("N/A", "Outside of NYC", "N/A"),
}
#: The rough centre of a borough: longitude, latitude.
_CENTRES = {
    "Manhattan": (-73.978, 40.758),
    "Brooklyn": (-73.955, 40.670),
    "Bronx": (-73.890, 40.845),
    "Staten Island": (-74.140, 40.590),
    "Queens": (-73.850, 40.730),
}


def _ids(text: str) -> list[int]:
    ends = [part.split("-") for part in text.split()]
    return [zone for pair in ends for zone in range(int(pair[0]), int(pair[-1]) + 1)]


_BOROUGH_OF = {zone: borough for borough, text in _BOROUGHS.items() for zone in _ids(text)}

#: Indexed by zone id.
MANHATTAN: npt.NDArray[np.bool_] = np.array([_BOROUGH_OF.get(zone) == "Manhattan" for zone in range(_LAST + 1)])
AIRPORTS: npt.NDArray[np.bool_] = np.array([zone in (1, JFK, 138) for zone in range(_LAST + 1)])


def zone_row(zone: int) -> tuple[str, str, str]:
    """Borough, name and service zone of a zone."""
    borough = _BOROUGH_OF.get(zone, "Queens")
    return _NAMED.get(zone, (borough, f"Zone {zone}", "Yellow Zone" if borough == "Manhattan" else "Boro Zone"))


def zones_csv() -> bytes:
    """The zone table in TLC's form: all text is quoted, lines end with CR LF."""
    lines = ['"LocationID","Borough","Zone","service_zone"']
    lines += [",".join((str(zone), *(f'"{text}"' for text in zone_row(zone)))) for zone in range(1, _LAST + 1)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def favourites(zones: tuple[int, ...], skew: float) -> Deck:
    """Draws these zones most often, in this order, all others rarely; the unknown zones are 264 and 265."""
    weights = dict.fromkeys(range(1, _LAST + 1), 1.2)
    weights |= {zone: 90 / (rank + 2) ** skew for rank, zone in enumerate(zones)}
    return Deck(weights | {264: 6, 265: 2})


@cache
def _centres() -> npt.NDArray[np.float64]:
    """Longitude and latitude of each zone, indexed by its id: near the borough's centre, the same in each run."""
    centres = np.array([_CENTRES[_BOROUGH_OF.get(zone, "Queens")] for zone in range(_LAST + 1)])
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
