"""Months of the lake as a pandas DataFrame, for notebooks and scripts.

`pipeline/__init__.py` imports this module, so slow imports are in the function.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from typing import TYPE_CHECKING

from pipeline.errors import StoreError, UsageError, did_you_mean
from pipeline.months import format_month, parse_months

if TYPE_CHECKING:
    import pandas as pd


def read(dataset: str, period: str | date, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The trips of a period such as 2024-01, 2024-01..2024-03 or 2023-01,2024-01, or of a date's month, in month order.

    `columns` selects columns of the dataset's declaration, in that order. Times are naive New York time, integers that
    can be null are pandas' Int64.

    Raises:
        UsageError: no such dataset, period or column.
        StoreError: months that are not in the lake; all of them are named.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset

    from pipeline import lake
    from pipeline.datasets import DATASETS
    from pipeline.places import inventory_of
    from pipeline.settings import current_settings, suggested_command

    if dataset not in list(DATASETS):
        similar = did_you_mean([dataset], DATASETS)
        raise UsageError(f"{dataset!r} is not a dataset; allowed are {', '.join(DATASETS)}{similar}")
    spec = DATASETS[dataset]
    if isinstance(columns, str):
        raise UsageError(f"columns must be a list of names; write columns=[{columns!r}]")
    names = list(spec.by_name) if columns is None else list(columns)
    if unknown := [name for name in names if name not in list(spec.by_name)]:
        similar = did_you_mean(unknown, spec.by_name)
        raise UsageError(f"{dataset} has no columns {unknown}; it has {', '.join(spec.by_name)}{similar}")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"columns has {', '.join(doubled)} more than once; name each once")
    if isinstance(period, date):
        period = format_month(period)
    if not isinstance(period, str):
        raise UsageError(f"period {period!r} must be a text such as '2024-01' or '2024-01..2024-03', or a date")
    months = parse_months(period)
    inventory = inventory_of(current_settings(), "conform")
    store = inventory.store
    if missing := [format_month(month) for month in inventory.missing(spec, months, "conform")]:
        # A backfill through its last step does nothing for a month that is loaded.
        remedy = suggested_command("backfill", dataset, f"{missing[0]}..{missing[-1]}", "--through", "conform")
        raise StoreError(f"{dataset} {', '.join(missing)}: not in the lake {store.location}; run: {remedy}")
    schema = pa.schema([spec.schema.field(name) for name in names])
    with ExitStack() as files:
        paths = [files.enter_context(store.entry(lake.trips_key(spec, month)).open_local()) for month in months]
        # With this schema, a column that was declared after a file was written is null.
        table = pyarrow.dataset.dataset([str(path) for path in paths], schema=schema).to_table()
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame
