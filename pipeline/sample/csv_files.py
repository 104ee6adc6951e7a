"""A month of the sample site as one of TLC's old CSVs, gzipped or not."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sample.columns import time_text, word_text
from pipeline.sample.csv_eras import CsvLayout, csv_layout, is_word, number_style
from pipeline.sample.draws import Values
from pipeline.sample.files import Order, batches


def write_csv(wanted: Order, path: Path) -> None:
    """Write the month as the CSV of its era."""
    with path.open("wb") as file:
        for block in _blocks(wanted):
            file.write(block)


def write_csv_gz(wanted: Order, path: Path) -> None:
    """Write the month as the gzipped CSV of its era, without a time and a name in it, so that the bytes repeat."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        for block in _blocks(wanted):
            packed.write(block)


def _blocks(wanted: Order) -> Iterator[bytes]:
    layout = csv_layout(wanted.dataset, wanted.month)
    yield (",".join(_quoted(layout.names, layout)) + layout.header_end).encode()
    for _, values in batches(wanted):
        # The CSVs, unlike the Parquet files, lack the vendor of dispatched trips.
        if "passenger_count" in values:
            values["vendor_id"] = Values(values["vendor_id"].numbers, values["passenger_count"].null)
        yield _lines(wanted, layout, values)


def _quoted(names: list[str], layout: CsvLayout) -> list[str]:
    return [f'"{name}"' for name in names] if layout.quoted else names


def _lines(wanted: Order, layout: CsvLayout, values: dict[str, Values]) -> bytes:
    fields = [_text(wanted.dataset, name, values[name], wanted.month) for name in layout.quantities]
    if layout.quoted:
        fields = [_join(['"', field, '"'], "") for field in fields]
    end = "," * layout.surplus + layout.row_end
    # The data buffer of a string array is its strings without gaps, here the lines.
    lines = _join([_join(fields, ","), end], "").cast(pa.large_string())
    return bytes(lines.buffers()[2])


def _join(parts: list[pa.Array | str], separator: str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, separator, null_handling="replace", null_replacement="")


def _text(dataset: str, quantity: str, values: Values, month: date) -> pa.Array:
    if quantity.endswith("_datetime"):
        return time_text(values)
    if values.words is not None or is_word(dataset, quantity, month):
        return word_text(quantity, values, month)
    numbers = pa.array(values.numbers, mask=values.null)
    style = number_style(dataset, quantity, month)
    if values.numbers.dtype != np.float64 or not style:
        return numbers.cast(pa.string())
    # There are few distinct amounts: each is formatted once.
    amounts = numbers.dictionary_encode()
    texts = [style % amount for amount in amounts.dictionary.to_pylist()]
    if style == "%.2f":
        texts = [text[1:] if text.startswith("0.") else text for text in texts]
    return pc.take(pa.array(texts, pa.string()), amounts.indices)
