"""A month from URL to Parquet to a DuckDB table, by polars: polars_script.py URL FOLDER."""

import sys

import duckdb
import polars as pl
from columns import MONTH, NAMES, WIDENED, download

url, folder = sys.argv[1:]
download(url, f"{folder}/raw.parquet")
frame = pl.scan_parquet(f"{folder}/raw.parquet").with_columns(pl.col(WIDENED).cast(pl.Int64)).rename(NAMES)
frame.sink_parquet(f"{folder}/yellow.parquet", compression="zstd")
with duckdb.connect(f"{folder}/warehouse.duckdb") as connection:
    rows = f"SELECT *, DATE '{MONTH}' AS month FROM '{folder}/yellow.parquet'"
    connection.execute(f"CREATE TABLE IF NOT EXISTS yellow AS {rows} LIMIT 0")
    connection.execute(f"INSERT INTO yellow {rows}")
