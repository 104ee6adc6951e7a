"""What TLC publishes, as data: one module per dataset, made of the classes in `pipeline.datasets.base`.

A column that TLC adds is one line in one of these modules.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.datasets.base import Column, Dataset, Rule
from pipeline.datasets.fhv import FHV
from pipeline.datasets.fhvhv import FHVHV
from pipeline.datasets.green import GREEN
from pipeline.datasets.yellow import YELLOW
from pipeline.datasets.zones import ZONES
from pipeline.errors import UsageError, did_you_mean

__all__ = ["DATASETS", "ZONES", "Column", "Dataset", "Rule", "dataset_named", "need_zones"]

#: The monthly datasets by name.
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (YELLOW, GREEN, FHV, FHVHV)}


def dataset_named(name: str) -> Dataset:
    """The dataset of that name, a monthly one or the zones.

    Raises:
        UsageError: no dataset has this name.
    """
    known = {**DATASETS, ZONES.name: ZONES}
    if name not in known:
        raise UsageError(f"no dataset is called {name!r}; there are {', '.join(known)}{did_you_mean([name], known)}")
    return known[name]


def need_zones(names: Iterable[str]) -> bool:
    """Whether one of these datasets has zone ids."""
    return any(dataset_named(name).zone_columns for name in names)
