"""A month from URL to a DuckDB table, by dlt (no Parquet file of ours comes of it): dlt_script.py URL FOLDER."""

import sys

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
from columns import MONTH, NAMES, WIDENED, download

url, folder = sys.argv[1:]


@dlt.resource(name="yellow", write_disposition="append")
def yellow():
    """The month, batch by batch."""
    download(url, f"{folder}/raw.parquet")
    for batch in pq.ParquetFile(f"{folder}/raw.parquet").iter_batches(122_880):
        table = pa.Table.from_batches([batch])
        for name in WIDENED:
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
        table = table.rename_columns(list(NAMES.values()))
        yield table.append_column("month", pa.repeat(pa.scalar(MONTH).cast(pa.date32()), table.num_rows))


dlt.pipeline(
    "yellow",
    pipelines_dir=f"{folder}/dlt",
    destination=dlt.destinations.duckdb(f"{folder}/warehouse.duckdb"),
    dataset_name="taxi",
).run(yellow())
