"""A month from a gzipped CSV to a Postgres table, by pandas in chunks: to_sql_script.py URL CSV.

As a well-known course on data engineering teaches it; only the frame's index, which it stores as a column, is left out.
"""

import sys

import pandas as pd
from sqlalchemy import create_engine

TYPES = {
    "VendorID": "Int64",
    "passenger_count": "Int64",
    "trip_distance": "float64",
    "RatecodeID": "Int64",
    "store_and_fwd_flag": "string",
    "PULocationID": "Int64",
    "DOLocationID": "Int64",
    "payment_type": "Int64",
    "fare_amount": "float64",
    "extra": "float64",
    "mta_tax": "float64",
    "tip_amount": "float64",
    "tolls_amount": "float64",
    "improvement_surcharge": "float64",
    "total_amount": "float64",
    "congestion_surcharge": "float64",
    "Airport_fee": "float64",
}
MOMENTS = ["tpep_pickup_datetime", "tpep_dropoff_datetime"]

url, path = sys.argv[1:]
engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
for chunk in pd.read_csv(path, dtype=TYPES, parse_dates=MOMENTS, chunksize=100_000):
    chunk.to_sql("yellow", engine, if_exists="append", index=False)
