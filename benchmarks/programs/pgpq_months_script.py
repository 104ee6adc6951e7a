"""Months from site to Parquet to a plain Postgres table, by DuckDB and pgpq: SITE DATABASE FOLDER TABLE MONTH…"""

import sys

import duckdb
import pgpq
import psycopg
import pyarrow.parquet as pq
from columns import NAMES, WIDENED, download

site, database, folder, table, *months = sys.argv[1:]
select = ", ".join(f'"{name}"{"::BIGINT" if name in WIDENED else ""} AS {ours}' for name, ours in NAMES.items())
for month in months:
    raw, trips = f"{folder}/raw_{month}.parquet", f"{folder}/yellow_{month}.parquet"
    download(f"{site}/trip-data/yellow_tripdata_{month}.parquet", raw)
    duckdb.execute(f"COPY (SELECT {select} FROM '{raw}') TO '{trips}' (FORMAT parquet, COMPRESSION zstd)")
    file = pq.ParquetFile(trips)
    encoder = pgpq.ArrowToPostgresBinaryEncoder(file.schema_arrow)
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        create = encoder.schema().ddl(table, temp_table=False)
        cursor.execute(create.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        with cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
            copy.write(encoder.write_header())
            for batch in file.iter_batches(8_192):
                copy.write(encoder.write_batch(batch))
            copy.write(encoder.finish())
