"""A month from URL to Parquet to a DuckDB table, by DuckDB: duckdb_script.py URL FOLDER."""

import sys

import duckdb
from columns import MONTH, NAMES, WIDENED, download

url, folder = sys.argv[1:]
download(url, f"{folder}/raw.parquet")
select = ", ".join(f'"{name}"{"::BIGINT" if name in WIDENED else ""} AS {ours}' for name, ours in NAMES.items())
with duckdb.connect(f"{folder}/warehouse.duckdb") as connection:
    connection.execute(
        f"COPY (SELECT {select} FROM '{folder}/raw.parquet') TO '{folder}/yellow.parquet' "
        "(FORMAT parquet, COMPRESSION zstd)"
    )
    rows = f"SELECT *, DATE '{MONTH}' AS month FROM '{folder}/yellow.parquet'"
    connection.execute(f"CREATE TABLE IF NOT EXISTS yellow AS {rows} LIMIT 0")
    connection.execute(f"INSERT INTO yellow {rows}")
