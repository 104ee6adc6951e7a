"""A month's file of the lake to a plain Postgres table as CSV, which pyarrow writes: csv_copy_script.py URL FILE."""

import sys

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

TYPES = {
    "int64": "bigint",
    "double": "double precision",
    "string": "text",
    "timestamp[us]": "timestamp without time zone",
}

url, path = sys.argv[1:]
file = pq.ParquetFile(path)
columns = ", ".join(f'"{field.name}" {TYPES[str(field.type)]}' for field in file.schema_arrow)
with psycopg.connect(url) as connection, connection.cursor() as cursor:
    cursor.execute(f"CREATE TABLE yellow ({columns})")
    with cursor.copy("COPY yellow FROM STDIN (FORMAT csv)") as copy:
        for batch in file.iter_batches():
            text = pa.BufferOutputStream()
            csv.write_csv(batch, text, csv.WriteOptions(include_header=False))
            copy.write(text.getvalue())
