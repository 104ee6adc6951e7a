"""The form of TLC's CSVs (withdrawn in 2022) in each month: header, line ends, empty fields; data only.

In several of them header and rows differ. `name=quantity` marks a column with other values than its name says.
Source: the first lines of every month from 2009-01 to 2020-06, and of fhvhv 2021-06.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pipeline.sample.eras import quantity_of, since

_BLANK_LINE = "\n\r\n"

_YELLOW_2009 = (
    "vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,Trip_Distance,Start_Lon,Start_Lat,Rate_Code,"
    "store_and_forward,End_Lon,End_Lat,Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,Total_Amt"
)
_YELLOW_2010 = (
    "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,pickup_longitude,pickup_latitude,"
    "rate_code,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,surcharge,mta_tax,"
    "tip_amount,tolls_amount,total_amount"
)
_YELLOW_2015 = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,pickup_longitude,"
    "pickup_latitude,RateCodeID,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,extra,"
    "mta_tax,tip_amount,tolls_amount,improvement_surcharge,total_amount"
)
_YELLOW_ZONES = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,store_and_fwd_flag,"
    "PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,improvement_surcharge,"
    "total_amount"
)
_GREEN_2013 = (
    "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Pickup_longitude,"
    "Pickup_latitude,Dropoff_longitude,Dropoff_latitude,Passenger_count,Trip_distance,Fare_amount,Extra,MTA_tax,"
    "Tip_amount,Tolls_amount,Ehail_fee,Total_amount,Payment_type,Trip_type "
)
_GREEN_2015 = _GREEN_2013.replace("Total_amount", "improvement_surcharge,Total_amount")
_GREEN_ZONES = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
    "passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,improvement_surcharge,"
    "total_amount,payment_type,trip_type"
)
_FHV_2017 = "Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID"
_FHV_2018 = (
    "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,Dispatching_base_number,"
    "Dispatching_base_num=empty"
)
_FHV_2019 = "dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag"


@dataclass(frozen=True)
class CsvLayout:
    """The form of a CSV: its header, the end of the header (with blank lines), and the form of each row."""

    header: str
    header_end: str = "\r\n"
    row_end: str = "\r\n"
    #: Empty fields at the end of each row, which the header does not name.
    surplus: int = 0
    quoted: bool = False

    @property
    def names(self) -> list[str]:
        """The published names with their spaces."""
        return [field.partition("=")[0] for field in self.header.split(",")]

    @property
    def quantities(self) -> list[str]:
        """The quantity of each column."""
        return [field.partition("=")[2] or quantity_of(field) for field in self.header.split(",")]


_LAYOUTS = {
    "yellow": (
        ("2009-01", CsvLayout(_YELLOW_2009, _BLANK_LINE)),
        ("2010-01", CsvLayout(_YELLOW_2010, _BLANK_LINE)),
        ("2014-01", CsvLayout(_YELLOW_2010.replace(",", ", "), _BLANK_LINE)),
        ("2015-01", CsvLayout(_YELLOW_2015)),
        ("2015-07", CsvLayout(_YELLOW_2015.replace("RateCodeID", "RatecodeID"))),
        ("2016-07", CsvLayout(_YELLOW_ZONES, surplus=2)),
        ("2017-01", CsvLayout(_YELLOW_ZONES, _BLANK_LINE)),
        ("2019-01", CsvLayout(_YELLOW_ZONES + ",congestion_surcharge")),
    ),
    "green": (
        ("2013-08", CsvLayout(_GREEN_2013, _BLANK_LINE, surplus=2)),
        ("2014-01", CsvLayout(_GREEN_2013, "\n" + _BLANK_LINE, surplus=2)),
        ("2015-01", CsvLayout(_GREEN_2015, surplus=2)),
        ("2015-07", CsvLayout(_GREEN_2015)),
        ("2016-01", CsvLayout(_GREEN_2015, _BLANK_LINE)),
        ("2016-07", CsvLayout(_GREEN_ZONES, _BLANK_LINE, surplus=2)),
        ("2017-01", CsvLayout(_GREEN_ZONES, _BLANK_LINE)),
        ("2019-01", CsvLayout(_GREEN_ZONES + ",congestion_surcharge")),
    ),
    "fhv": (
        ("2015-01", CsvLayout("Dispatching_base_num,Pickup_date,locationID")),
        ("2017-01", CsvLayout(_FHV_2017)),
        ("2017-07", CsvLayout(_FHV_2017 + ",SR_Flag", quoted=True)),
        ("2018-01", CsvLayout(_FHV_2018, quoted=True)),
        ("2019-01", CsvLayout(_FHV_2019)),
    ),
    "fhvhv": (
        ("2019-02", CsvLayout("hvfhs_license_num," + _FHV_2019)),
        (
            "2021-01",
            CsvLayout(
                _FHV_2019.replace("SR_Flag", "SR_Flag=sr_flag_word") + ",Affiliated_base_number",
                header_end="\n",
                row_end="\n",
            ),
        ),
    ),
}


def csv_layout(dataset: str, month: date) -> CsvLayout:
    """The form of a month's CSV."""
    return since(_LAYOUTS[dataset], month)


def is_word(dataset: str, quantity: str, month: date) -> bool:
    """Whether the CSV of that month has words instead of the quantity's codes."""
    coded = dataset == "yellow" and month < date(2015, 1, 1) and quantity in ("vendor_id", "payment_type")
    return coded or quantity == "store_and_fwd_flag"


def number_style(dataset: str, quantity: str, month: date) -> str:
    """How numbers are written: `%.17g` (2.6299999999999999), `%.2f` without a leading zero (.68), or shortest."""
    if (dataset == "yellow" and month < date(2015, 1, 1)) or quantity.endswith(("longitude", "latitude")):
        return "%.17g"
    return "%.2f" if quantity == "trip_distance" else ""
