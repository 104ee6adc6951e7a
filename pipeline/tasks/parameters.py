"""The parameters of tasks: as Luigi's own, but an invalid value is a UsageError that says what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import luigi
from luigi.parameter import OptionalParameterMixin

from pipeline.datasets import DATASETS
from pipeline.errors import UsageError, did_you_mean
from pipeline.months import parse_month


class MonthParameter(luigi.MonthParameter):
    """A month as YYYY-MM."""

    def parse(self, text: str) -> date:
        """The first day of the month."""
        return parse_month(text)


class OptionalMonthParameter(OptionalParameterMixin, MonthParameter):
    """A month as YYYY-MM, or None."""

    expected_type = date


class DatasetParameter(luigi.Parameter):
    """The name of one dataset."""

    def __init__(self, description: str) -> None:
        super().__init__(description=f"{description}: {', '.join(DATASETS)}")

    def normalize(self, name: str) -> str:
        """The name, validated."""
        if name not in DATASETS:
            allowed = f"{', '.join(DATASETS)}{did_you_mean([name], DATASETS)}"
            raise UsageError(f"unknown dataset {name!r}; allowed are {allowed}")
        return name


class DatasetsParameter(luigi.Parameter):
    """Names of datasets with commas between them, or `all`."""

    def parse(self, text: str) -> tuple[str, ...]:
        """The names in the order of `DATASETS`, each once."""
        names = [name.strip() for name in text.split(",") if name.strip()]
        return self.normalize(DATASETS if names == ["all"] else names)

    def normalize(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names in the order of `DATASETS`, validated."""
        names = list(names)
        unknown = sorted(set(names) - set(DATASETS))
        if unknown or not names:
            allowed = f"{', '.join(DATASETS)}, several with commas, or all{did_you_mean(unknown, DATASETS)}"
            raise UsageError(f"unknown datasets {unknown}; allowed are {allowed}")
        return tuple(name for name in DATASETS if name in names)

    def serialize(self, names: Iterable[str]) -> str:
        """The names with commas."""
        return ",".join(names)
