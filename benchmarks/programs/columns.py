"""What the scripts that this package is compared with know of a yellow month of 2024: names, and how to fetch it."""

from pathlib import Path

import requests

MONTH = "2024-01-01"

#: From TLC's name to ours.
NAMES = {
    "VendorID": "vendor_id",
    "tpep_pickup_datetime": "pickup_datetime",
    "tpep_dropoff_datetime": "dropoff_datetime",
    "passenger_count": "passenger_count",
    "trip_distance": "trip_distance",
    "RatecodeID": "rate_code_id",
    "store_and_fwd_flag": "store_and_fwd_flag",
    "PULocationID": "pickup_location_id",
    "DOLocationID": "dropoff_location_id",
    "payment_type": "payment_type",
    "fare_amount": "fare_amount",
    "extra": "extra",
    "mta_tax": "mta_tax",
    "tip_amount": "tip_amount",
    "tolls_amount": "tolls_amount",
    "improvement_surcharge": "improvement_surcharge",
    "total_amount": "total_amount",
    "congestion_surcharge": "congestion_surcharge",
    "Airport_fee": "airport_fee",
}
#: Those that TLC publishes as 32-bit integers, and we keep as 64-bit ones.
WIDENED = ("VendorID", "PULocationID", "DOLocationID")


def download(url, path):
    """Fetch the file, as people do."""
    with requests.get(url, stream=True, timeout=60) as response, Path(path).open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(1 << 20):
            file.write(chunk)
