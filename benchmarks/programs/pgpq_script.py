"""A month's file of the lake to a plain Postgres table, by pgpq alone: pgpq_script.py URL FILE [BATCH_ROWS]."""

import sys

import pgpq
import psycopg
import pyarrow.parquet as pq

url, path, *batch_rows = sys.argv[1:]
file = pq.ParquetFile(path)
encoder = pgpq.ArrowToPostgresBinaryEncoder(file.schema_arrow)
with psycopg.connect(url) as connection, connection.cursor() as cursor:
    cursor.execute(encoder.schema().ddl("yellow", temp_table=False))
    with cursor.copy("COPY yellow FROM STDIN (FORMAT binary)") as copy:
        copy.write(encoder.write_header())
        for batch in file.iter_batches(*map(int, batch_rows)):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())
