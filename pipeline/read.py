"""Months of the lake as a table in memory, for notebooks and scripts.

`pipeline/__init__.py` imports this module, so slow imports are in the functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, overload

from pipeline.errors import StoreError, UsageError, did_you_mean
from pipeline.months import format_month, month_range, parse_months, spans

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.datasets import Column, Dataset
    from pipeline.settings import Settings
    from pipeline.state.inventory import Inventory

_FORMS = ("pandas", "arrow", "polars", "duckdb")
_WORDS = ("latest", "all")
_DAY = re.compile(r"([0-9]{4}-[0-9]{2})-[0-9]{2}")
#: Types of numpy and pandas whose text is a period; the time of day is left out.
_SCALARS = {"datetime64", "Period"}
_PERIODS = "a text such as '2024-01', '2024-01..2024-03', 'latest' or 'all', a date, or a list of these"


@overload
def read(
    dataset: str | Sequence[str],
    period: str | date | Iterable[str | date] | None = ...,
    columns: Sequence[str] | None = ...,
    *,
    lake: str | os.PathLike[str] | None = ...,
    as_: Literal["pandas"] = ...,
) -> pd.DataFrame: ...


@overload
def read(
    dataset: str | Sequence[str],
    period: str | date | Iterable[str | date] | None = ...,
    columns: Sequence[str] | None = ...,
    *,
    lake: str | os.PathLike[str] | None = ...,
    as_: Literal["arrow", "polars", "duckdb"],
) -> Any: ...


def read(
    dataset: str | Sequence[str],
    period: str | date | Iterable[str | date] | None = None,
    columns: Sequence[str] | None = None,
    *,
    lake: str | os.PathLike[str] | None = None,
    as_: Literal["pandas", "arrow", "polars", "duckdb"] = "pandas",
) -> Any:
    """The trips of months of the lake, one row per trip, as published and checked; or the zones.

        pipeline.read("green", "2024-01..2024-03", columns=["pickup_datetime", "total_amount"])
        pipeline.read(["yellow", "green"], "latest", as_="duckdb")
        pipeline.read("zones")

    Rows are in the order of the datasets, then of the months, then as published; those of a DuckDB relation have none.
    Times are naive New York wall-clock times with microseconds, money is US dollars and distances are miles (floats),
    integers can be null (pandas: Int64). `pipeline describe green` shows each column's meaning, unit and codes.

    Args:
        dataset: yellow, green, fhv or fhvhv; or a list of these, and then the result has the column `dataset` in front,
            and null where a dataset does not have a column. Or zones, which has no period.
        period: 2024-01, 2024, 2023-11..2024-02, several with commas; `latest` or `all` of what the lake has of each
            dataset; a date, which means its month (also pandas' and numpy's types); or a list of these. Months are
            read whole.
        columns: Their names, ours or TLC's (`pickup_location_id`, `PULocationID`), ignoring case; the result has them
            in this order and spelling. By default all, with our names.
        lake: Folder or gs://bucket/prefix; by default that of the settings.
        as_: pandas (DataFrame), arrow (Table), polars (DataFrame; needs the package polars) or duckdb (a relation of
            DuckDB's default connection). A relation of a local lake reads only what a query needs, when it runs.

    Raises:
        UsageError: arguments are invalid; the message has all of them.
        StoreError: months that are not in the lake; all of them are named, with the command that gets them.
    """
    from pipeline.datasets import DATASETS, ZONES
    from pipeline.settings import current_settings

    problems: list[str] = []
    specs = _specs(dataset, {**DATASETS, ZONES.name: ZONES}, problems)
    several = not isinstance(dataset, str)
    names = _columns(specs, columns, several, problems)
    months = _months(period, specs, problems)
    if as_ not in _FORMS:
        problems.append(f"as_={as_!r} is invalid; allowed are {', '.join(_FORMS)}{did_you_mean([as_], _FORMS)}")
    elif as_ == "polars" and find_spec("polars") is None:
        problems.append("as_='polars' needs the package polars, which is not installed; run: pip install polars")
    settings = current_settings()
    if lake is not None:
        settings = _with_lake(settings, lake, problems)
    if problems:
        raise UsageError("\n  ".join(problems))
    return _read(settings, specs, months, names, as_)


def _read(
    settings: Settings, specs: Sequence[Dataset], months: list[date | None] | str, names: dict[str, str], as_: str
) -> Any:
    """The table with these columns, by the names that they get."""
    import pyarrow as pa
    import pyarrow.dataset as files
    from pyarrow.fs import LocalFileSystem

    from pipeline import lake
    from pipeline.places import inventory_of

    inventory = inventory_of(settings, "conform")
    wanted = _wanted(settings, inventory, specs, months)
    fields = {"dataset": pa.field("dataset", pa.string())}
    for spec in reversed(specs):
        fields |= {column.name: spec.schema.field(column.name) for column in spec.columns}
    # With this schema, a column that a file does not have is null: another dataset's, or one that was declared later.
    schema = pa.schema([fields[name] for name in names.values()])
    parquet = files.ParquetFileFormat()
    with ExitStack() as opened:
        fragments = []
        for spec, month in wanted:
            path = opened.enter_context(inventory.store.entry(lake.trips_key(spec, month)).open_local())
            key = files.field("dataset") == spec.name
            fragments.append(parquet.make_fragment(str(path), LocalFileSystem(), partition_expression=key))
        trips = files.FileSystemDataset(fragments, schema, parquet, LocalFileSystem())
        if as_ == "duckdb":
            import duckdb

            # Copies of files in a bucket end with this block.
            relation = duckdb.from_arrow(trips if lake.local_folder(settings.lake) else trips.to_table())
            return relation.project(", ".join(f'"{ours}" AS "{name}"' for name, ours in names.items()))
        try:
            table = trips.to_table().rename_columns(list(names))
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(settings, wanted, fragments, error) from error
    if as_ == "arrow":
        return table
    if as_ == "polars":
        import polars

        return polars.from_arrow(table)
    import pandas as pd

    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def _unreadable(
    settings: Settings, wanted: Sequence[tuple[Dataset, date | None]], fragments: Sequence[Any], error: Exception
) -> StoreError:
    """The error of the first damaged file."""
    import pyarrow as pa

    from pipeline.settings import suggested_command
    from pipeline.state.trips import unreadable

    for (spec, month), fragment in zip(wanted, fragments, strict=True):
        try:
            fragment.to_table()
        except (pa.ArrowException, OSError) as damage:
            command = partial(suggested_command, settings=settings)
            return unreadable(fragment.path, spec, month, damage, command)
    return StoreError(f"the lake cannot be read: {error}; run again")


def _specs(dataset: Any, known: dict[str, Dataset], problems: list[str]) -> list[Dataset]:
    """The datasets; what is wrong with them is added to the problems."""
    single = isinstance(dataset, (str, bytes)) or not isinstance(dataset, Iterable)
    names: list[Any] = [dataset] if single else list(dataset)
    months = [name for name in known if known[name].first_month]
    if isinstance(dataset, str) and "," in dataset:
        problems.append(f"several datasets are a list of names; write {[part.strip() for part in dataset.split(',')]}")
        return []
    if not names:
        problems.append(f"dataset is an empty list; allowed are {', '.join(known)}")
    if unknown := [name for name in names if name not in list(known)]:
        are = "is not a dataset" if len(unknown) == 1 else "are not datasets"
        ours = {spec.tlc_name: name for name, spec in known.items()}
        similar = did_you_mean([ours.get(name, name) for name in unknown if isinstance(name, str)], known)
        problems.append(f"{', '.join(map(repr, unknown))} {are}; allowed are {', '.join(known)}{similar}")
        return []
    if doubled := _doubled(names):
        problems.append(f"dataset has {', '.join(doubled)} more than once; name each once")
    if len(names) > 1 and any(name not in months for name in names):
        problems.append(f"zones have no months, so they are read alone; trips are in {', '.join(months)}")
    return [known[name] for name in names]


def _columns(specs: list[Dataset], columns: object, several: bool, problems: list[str]) -> dict[str, str]:
    """Our names of the columns, by the names that the result has."""
    known: dict[str, Column] = {}
    for column in (column for spec in specs for column in spec.columns):
        if known.setdefault(column.name, column).type != column.type:
            problems.append(f"{column.name} has another type in each dataset; read them one by one")
    if columns is None:
        return {name: name for name in (*(["dataset"] if several else []), *known)}
    if isinstance(columns, str):
        problems.append(
            f"columns must be a list of names; write columns={[part.strip() for part in columns.split(',')]}"
        )
        return {}
    if not isinstance(columns, Iterable):
        problems.append(f"columns={columns!r} must be a list of names, or None for all")
        return {}
    if not specs:
        return {}
    spellings = {"dataset": "dataset"} if several else {}
    spellings |= {text: column.name for spec in specs for column in spec.columns for text in column.spellings()}
    asked = list(columns)
    ours = [spellings.get(name.strip().casefold(), "") if isinstance(name, str) else "" for name in asked]
    if unknown := [name for name, found in zip(asked, ours, strict=True) if not found]:
        of = f"{', '.join(spec.name for spec in specs)} {'have' if len(specs) > 1 else 'has'}"
        similar = did_you_mean(unknown, [*known, *(column.tlc_name for spec in specs for column in spec.columns)])
        problems.append(f"{of} no columns {unknown}; allowed are {', '.join(known)}, or TLC's names of them{similar}")
    if doubled := _doubled(filter(None, ours)):
        problems.append(f"columns has {', '.join(doubled)} more than once; name each once")
    if not asked:
        problems.append("columns is an empty list; name one, or leave it out for all")
    if unknown or doubled:
        return {}
    names = {name.strip(): found for name, found in zip(asked, ours, strict=True)}
    return {"dataset": "dataset", **names} if several and "dataset" not in ours else names


def _months(period: object, specs: Sequence[Dataset], problems: list[str]) -> list[date | None] | str:
    """The months, oldest first; or the word latest or all; for the zones None alone."""
    if specs and not any(spec.first_month for spec in specs):
        if period is not None:
            problems.append(f"{specs[0].name} have no months; leave the period {period!r} out")
        return [None]
    if period is None:
        if specs:
            problems.append(f"period is missing; it must be {_PERIODS}")
        return []
    try:
        if isinstance(period, str) and period.strip() in _WORDS:
            return period.strip()
        return [*_parsed(period)]
    except UsageError as error:
        problems.append(str(error))
        return []


def _parsed(period: object) -> list[date]:
    if isinstance(period, date):
        return parse_months(format_month(period))
    if type(period).__name__ in _SCALARS:
        return parse_months(re.sub(rf"^{_DAY.pattern}(T.*)?$", r"\1", str(period)))
    if isinstance(period, str):
        if words := {part.strip() for part in period.split(",")} & {*_WORDS}:
            raise UsageError(f"period {min(words)!r} is allowed only alone")
        if (months := _DAY.sub(r"\1", period)) != period:
            raise UsageError(f"period {period!r} names days, and months are read whole; write {months!r}")
        return parse_months(period)
    if isinstance(period, tuple) and len(period) == 2:
        ends = [format_month(end) if isinstance(end, date) else str(end) for end in period]
        raise UsageError(f"period {period!r} may be a range or two months; write {'..'.join(ends)!r} or {ends}")
    if isinstance(period, (tuple, bytes)) or not isinstance(period, Iterable):
        raise UsageError(f"period {period!r} must be {_PERIODS}")
    if not (parts := list(period)):
        raise UsageError(f"period is empty; it must be {_PERIODS}")
    return sorted({month for part in parts for month in _parsed(part)})


def _wanted(
    settings: Settings, inventory: Inventory, specs: Sequence[Dataset], months: list[date | None] | str
) -> list[tuple[Dataset, date | None]]:
    """Each dataset with each of its months; a StoreError when the lake lacks one."""
    from pipeline.lake import local_folder
    from pipeline.settings import suggested_command

    wanted: list[tuple[Dataset, date | None]] = []
    missing: dict[str, list[date]] = {}
    nothing: list[str] = []
    for spec in specs:
        possible = month_range(spec.first_month, date.today()) if spec.first_month else []
        asked = months if isinstance(months, list) else possible
        present = [month for month in asked if inventory.done("conform", spec, month)]
        if isinstance(months, list):
            missing[spec.name] = [month for month in months if month and month not in present]
        if not present and not missing.get(spec.name):
            nothing.append(spec.name)
        wanted += [(spec, month) for month in (present[-1:] if months == "latest" else present)]
    missing = {name: absent for name, absent in missing.items() if absent}
    if not missing and not nothing:
        return wanted
    if not specs[0].first_month:
        remedy = suggested_command("redo", specs[0].name, "--from", "conform", settings=settings)
    else:
        absent = ",".join(spans({month for each in missing.values() for month in each})) or "latest"
        # A backfill through its last step does nothing for a month that is loaded.
        remedy = suggested_command("backfill", *missing, *nothing, absent, "--through", "conform", settings=settings)
    texts = [f"{name} {', '.join(spans(absent))}" for name, absent in missing.items()] + nothing
    place = inventory.store.location
    if (folder := local_folder(settings.lake)) and not folder.exists():
        place += " (this folder does not exist)"
    raise StoreError(f"{'; '.join(texts)}: not in the lake {place}; run: {remedy}")


def _with_lake(settings: Settings, lake: object, problems: list[str]) -> Settings:
    from pipeline.lake import local_folder, open_store
    from pipeline.settings import expand_home

    if not isinstance(lake, (str, os.PathLike)):
        problems.append(f"lake={lake!r} must be a folder or gs://bucket/prefix, as a text or a path")
        return settings
    try:
        path = expand_home(os.fsdecode(lake), "lake")
        open_store(path)
    except UsageError as error:
        problems.append(str(error).removeprefix("[pipeline] "))
        return settings
    folder = local_folder(path)
    if folder and folder.exists() and not folder.is_dir():
        problems.append(f"lake {str(folder)!r} is a file; it must be a folder or gs://bucket/prefix")
    return replace(settings, lake=str(folder or path))


def _doubled(names: Iterable[Any]) -> list[str]:
    listed = list(names)
    return sorted({str(name) for name in listed if listed.count(name) > 1})
