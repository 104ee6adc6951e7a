"""A month from URL to Parquet to a DuckDB table, by pandas: pandas_script.py URL FOLDER."""

import sys

import duckdb
import pandas as pd
from columns import MONTH, NAMES, WIDENED, download

url, folder = sys.argv[1:]
download(url, f"{folder}/raw.parquet")
frame = pd.read_parquet(f"{folder}/raw.parquet")
frame = frame.astype(dict.fromkeys(WIDENED, "int64")).rename(columns=NAMES)
frame.to_parquet(f"{folder}/yellow.parquet", index=False)
frame["month"] = pd.Timestamp(MONTH)
with duckdb.connect(f"{folder}/warehouse.duckdb") as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS yellow AS SELECT * FROM frame LIMIT 0")
    connection.execute("INSERT INTO yellow SELECT * FROM frame")
