"""The classes with which `pipeline/datasets/*.py` declare what TLC publishes.

Data only: nothing here opens a file. The order of `Dataset.columns` is the order in every trips file and table. Times
are New York wall-clock times without a zone, money is US dollars as published (float64).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import date
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

#: The types that every warehouse has, by their names in Arrow: pyarrow, which is slow to import, is not needed to plan.
TYPES = ("bool", "int32", "int64", "double", "string", "date32[day]", "timestamp[us]")
BOOL, INT32, INT64, FLOAT64, TEXT, DATE, TIME = TYPES
MONEY = FLOAT64

#: Keys in the metadata of every trips file; the last two are also in `loads`.
DATASET_KEY, MONTH_KEY, SOURCE_KEY, DECLARATION_KEY = "dataset", "month", "source_sha256", "declaration"
#: The declared columns of the raw file, separated by commas: those for which `Dataset.declaration` was computed.
PRESENT_KEY = "columns_in_source"
#: In the metadata of a checks document, in stores that keep metadata: the rules with warnings.
WARNINGS_KEY = "warnings"
#: The version of this package that wrote the file; not used.
VERSION_KEY = "pipeline_version"
#: In the metadata of a raw file's sidecar: its content, as JSON.
SIDECAR_KEY = "sidecar"
#: In a raw Parquet file of the sample site: its share of the published rows, such as 0.01.
SCALE_KEY = "sample_scale"

#: Folded names of columns to ignore: pandas writes its row numbers under this one (in yellow 2010-02 and 2010-03).
IGNORED_NAMES = frozenset({"__index_level_0__"})


@dataclass(frozen=True)
class Column:
    """One column of a dataset, with everything known about it. Names match ignoring case and outer spaces."""

    name: str
    #: One of `TYPES`; an Arrow type stands for its name.
    type: str
    _: KW_ONLY
    doc: str = ""
    unit: str = ""
    #: TLC's present spelling, where it is not the name; see `tlc_name`.
    tlc: str = ""
    #: Other names under which TLC has published it.
    aliases: tuple[str, ...] = ()
    #: Whether a null is an error.
    required: bool = False
    #: Whether each value occurs once; for documentation.
    unique: bool = False
    #: TLC's code list, for documentation; other codes are counted, not refused.
    codes: Mapping[int | str, str] = field(default_factory=dict)
    #: Published words and the values they stand for; matched ignoring case and outer spaces.
    #: Any other word is an error in a number column; in a text column it stays as it is.
    words: Mapping[str, int | str] = field(default_factory=dict)
    #: The first month whose CSV and Parquet files must have the column; None: any file may lack it.
    expected_from: date | None = None
    #: The last such month; None: it has not ended.
    expected_until: date | None = None
    #: The same for Parquet files alone, which TLC has republished with columns that the CSVs lack, and the reverse.
    parquet_from: date | None = None
    parquet_until: date | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", str(self.type))

    @cached_property
    def arrow_type(self) -> pa.DataType:
        """The type of its values in a trips file."""
        import pyarrow as pa

        return pa.type_for_alias(self.type)

    @property
    def tlc_name(self) -> str:
        """The column's name in TLC's present files; a column of older files only may have ours."""
        return self.tlc or self.name

    def spellings(self) -> frozenset[str]:
        """The folded names that the column may have in a file."""
        return frozenset(fold(name) for name in (self.name, self.tlc_name, *self.aliases))

    @cached_property
    def folded_words(self) -> dict[str, int | str]:
        """The values by folded words."""
        return {fold(word): value for word, value in self.words.items()}

    def expected(self, month: date | None, *, parquet: bool) -> bool:
        """Whether a file of this month and format must have the column."""
        if month is None:
            return self.required
        spans = [(self.expected_from, self.expected_until)]
        if parquet:
            spans.append((self.parquet_from, self.parquet_until))
        return any(first and first <= month <= (last or date.max) for first, last in spans)


#: Columns of amounts of money, and of coordinates.
usd = partial(Column, type=MONEY, unit="USD")
degrees = partial(Column, type=FLOAT64, unit="degrees (WGS 84)")

CBD_CONGESTION_FEE = usd(
    "cbd_congestion_fee",
    expected_from=date(2025, 1, 1),
    doc="MTA's toll for the Congestion Relief Zone, since 2025-01-05.",
)
#: Announced by one source for 2026-06, without its type: any file may lack it, and numbers are stored as text.
REQUEST_SOURCE = Column("request_source", TEXT, doc="Where the trip was requested from.")


@dataclass(frozen=True)
class Rule:
    """A limit on one count of a month.

    `measure` names a count in `pipeline.conform.profile.Measures`; limits are inclusive, shares are of the month's
    rows. A month without that count is not checked, such as a CSV, which has no published number of rows.
    """

    name: str
    severity: Literal["error", "warning"]
    measure: str
    _: KW_ONLY
    doc: str
    at_least: int | None = None
    at_most: int | None = None
    at_most_share: float | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset that is published month by month, or as a single file when `first_month` is None."""

    name: str
    _: KW_ONLY
    #: File name without ending; `{month:%Y-%m}` stands for the month.
    file_name: str
    first_month: date | None
    columns: tuple[Column, ...]
    doc: str
    rules: tuple[Rule, ...] = ()
    #: The first month that exists as Parquet; earlier ones exist as CSV only.
    first_parquet_month: date | None = None
    #: The file to edit to add a column; named in errors.
    declared_in: str = ""
    #: The columns that are measured and indexed; what the dataset does not declare is skipped.
    pickup: str = "pickup_datetime"
    dropoff: str = "dropoff_datetime"
    zone_columns: tuple[str, ...] = ("pickup_location_id", "dropoff_location_id")
    #: The first and the last number of a zone; others are counted as unknown.
    zone_ids: tuple[int, int] = (1, 265)
    total: str | None = None
    #: The view of the warehouse that has its trips together with those of other datasets; empty for none.
    view: str = ""

    def __post_init__(self) -> None:
        if others := [f"{column.name} ({column.type})" for column in self.columns if column.type not in TYPES]:
            allowed = ", ".join(TYPES)
            raise ValueError(f"{self.name}: columns {', '.join(others)}: no warehouse has the type; allowed: {allowed}")

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every trips file, with unit, meaning and codes as field metadata."""
        import pyarrow as pa

        return pa.schema([_field(column) for column in self.columns])

    @property
    def tlc_name(self) -> str:
        """The table's name in courses and articles: that of TLC's files without the month, such as yellow_tripdata."""
        return self.file_name.partition("{")[0].rstrip("_-. ")

    def base_name(self, month: date | None) -> str:
        """The published file's name without ending, such as yellow_tripdata_2024-01."""
        return self.file_name.format(month=month)

    def declaration(self, present: Iterable[str]) -> str:
        """A hash of what decides the values of a file with the columns `present`: names, types, aliases, words.

        Declaring a column that the file lacks does not change its hash; neither does a better `doc`.
        """
        names = set(present)
        shapes = [
            [column.name, column.type, sorted(column.spellings()), sorted(column.words.items())]
            for column in self.columns
            if column.name in names
        ]
        return hashlib.sha256(json.dumps([self.name, shapes]).encode()).hexdigest()[:16]


def fold(name: str) -> str:
    """A published column name or word in the form in which names are compared."""
    return name.strip().casefold()


def _field(column: Column) -> pa.Field:
    import pyarrow as pa

    metadata = {"description": column.doc, "unit": column.unit}
    if column.codes:
        metadata["codes"] = json.dumps({str(code): meaning for code, meaning in column.codes.items()})
    return pa.field(column.name, column.arrow_type, metadata={key: text for key, text in metadata.items() if text})
