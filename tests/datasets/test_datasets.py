"""The declarations: complete, consistent, and equal across datasets for columns with the same meaning."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from published_eras import codes

from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.datasets.base import Column, Dataset, fold
from pipeline.datasets.published import estimated_bytes, published_months
from pipeline.errors import UsageError
from pipeline.marts import all_marts
from pipeline.months import add_months, month_range

EVERY = [*DATASETS.values(), ZONES]
every = pytest.mark.parametrize("dataset", EVERY, ids=[dataset.name for dataset in EVERY])


def test_the_monthly_datasets_come_in_this_order() -> None:
    assert list(DATASETS) == ["yellow", "green", "fhv", "fhvhv"]


def test_a_dataset_that_does_not_exist_is_named_with_those_that_do() -> None:
    assert dataset_named("zones") is ZONES
    with pytest.raises(UsageError, match="no dataset is called 'blue'; there are yellow, green, fhv, fhvhv, zones"):
        dataset_named("blue")


@every
def test_no_spelling_belongs_to_two_columns(dataset: Dataset) -> None:
    spellings = [spelling for column in dataset.columns for spelling in column.spellings()]
    assert len(spellings) == len(set(spellings))


#: The columns of TLC's newest Parquet files and of the zone lookup, as the files spell them.
TODAY = {
    "yellow": "VendorID tpep_pickup_datetime tpep_dropoff_datetime passenger_count trip_distance RatecodeID "
    "store_and_fwd_flag PULocationID DOLocationID payment_type fare_amount extra mta_tax tip_amount tolls_amount "
    "improvement_surcharge total_amount congestion_surcharge Airport_fee cbd_congestion_fee",
    "green": "VendorID lpep_pickup_datetime lpep_dropoff_datetime store_and_fwd_flag RatecodeID PULocationID "
    "DOLocationID passenger_count trip_distance fare_amount extra mta_tax tip_amount tolls_amount ehail_fee "
    "improvement_surcharge total_amount payment_type trip_type congestion_surcharge cbd_congestion_fee",
    "fhv": "dispatching_base_num pickup_datetime dropOff_datetime PUlocationID DOlocationID SR_Flag "
    "Affiliated_base_number",
    "fhvhv": "hvfhs_license_num dispatching_base_num originating_base_num request_datetime on_scene_datetime "
    "pickup_datetime dropoff_datetime PULocationID DOLocationID trip_miles trip_time base_passenger_fare tolls bcf "
    "sales_tax congestion_surcharge airport_fee tips driver_pay shared_request_flag shared_match_flag "
    "access_a_ride_flag wav_request_flag wav_match_flag cbd_congestion_fee",
    "zones": "LocationID Borough Zone service_zone",
}


@every
def test_tlcs_spelling_is_that_of_its_newest_files(dataset: Dataset) -> None:
    names = [column.tlc_name for column in dataset.columns]
    today = TODAY[dataset.name].split()
    assert set(today) <= set(names)
    assert len(set(map(fold, names))) == len(names)
    late = {column.tlc_name for column in dataset.columns if column.expected(date(2025, 11, 1), parquet=True)}
    assert late <= set(today)


def test_tlcs_name_of_a_table_is_that_of_its_files_without_the_month() -> None:
    names = ["yellow_tripdata", "green_tripdata", "fhv_tripdata", "fhvhv_tripdata", "taxi_zone_lookup"]
    assert [dataset.tlc_name for dataset in EVERY] == names


@every
def test_every_column_is_snake_case_and_has_a_description_and_one_of_four_types(dataset: Dataset) -> None:
    for column in dataset.columns:
        assert column.name == fold(column.name).replace(" ", "_")
        assert column.doc.endswith("."), column.name
        assert column.arrow_type in (pa.int64(), pa.float64(), pa.string(), pa.timestamp("us")), column.name


@every
def test_the_file_to_edit_exists(dataset: Dataset) -> None:
    assert (Path(__file__).parents[2] / dataset.declared_in).is_file()


@every
def test_every_word_stands_for_a_listed_code(dataset: Dataset) -> None:
    for column in dataset.columns:
        assert set(column.words.values()) <= set(column.codes), column.name


@every
def test_no_two_words_of_a_column_are_the_same_when_folded(dataset: Dataset) -> None:
    for column in dataset.columns:
        assert len(column.folded_words) == len(column.words), column.name


def test_the_same_name_means_the_same_type_and_unit_in_every_dataset() -> None:
    seen: dict[str, Column] = {}
    for dataset in DATASETS.values():
        for column in dataset.columns:
            other = seen.setdefault(column.name, column)
            assert (column.type, column.unit) == (other.type, other.unit), column.name


def test_codes_given_by_this_package_are_outside_the_range_of_tlc() -> None:
    for dataset in DATASETS.values():
        for column in dataset.columns:
            for code, meaning in column.codes.items():
                assert ("given by this package" in meaning) == (isinstance(code, int) and code > 100)


@every
def test_unit_meaning_and_codes_travel_as_field_metadata(dataset: Dataset) -> None:
    for column in dataset.columns:
        field = dataset.schema.field(column.name)
        assert field.metadata[b"description"].decode() == column.doc
        assert field.metadata.get(b"unit", b"").decode() == column.unit
        if column.codes:
            assert codes(field) == {str(code): meaning for code, meaning in column.codes.items()}


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_published_counts_cover_every_parquet_month_until_2025(dataset: Dataset) -> None:
    assert dataset.first_parquet_month is not None
    assert list(published_months(dataset.name)) == month_range(dataset.first_parquet_month, date(2025, 12, 1))


def test_published_counts_have_rows_and_where_known_bytes() -> None:
    months = published_months("yellow")
    assert months[date(2009, 1, 1)].rows == 14_092_413
    assert months[date(2009, 1, 1)].bytes == 469_759_995
    assert months[date(2025, 12, 1)].bytes is None
    assert published_months("zones") == {}


def test_a_column_is_expected_from_its_month_to_its_last() -> None:
    column = Column("a", pa.int64(), expected_from=date(2016, 7, 1), parquet_from=date(2011, 1, 1))
    assert not column.expected(date(2016, 6, 1), parquet=False)
    assert column.expected(date(2016, 7, 1), parquet=False)
    assert column.expected(date(2011, 1, 1), parquet=True)
    assert not column.expected(date(2010, 12, 1), parquet=True)
    ended = Column("a", pa.int64(), expected_from=date(2009, 1, 1), expected_until=date(2010, 12, 1))
    assert ended.expected(date(2010, 12, 1), parquet=True)
    assert not ended.expected(add_months(date(2010, 12, 1), 1), parquet=True)


def test_the_declaration_of_a_file_changes_with_its_own_columns_only() -> None:
    one, two = Column("a", pa.int64()), Column("b", pa.int64())

    def declared(*columns: Column, present: tuple[str, ...] = ("a",)) -> str:
        return Dataset("x", file_name="x", first_month=None, columns=columns, doc="").declaration(present)

    assert declared(one) == declared(one, two) == declared(Column("a", pa.int64(), doc="better", codes={1: "one"}))
    for other in (
        declared(Column("a", pa.float64())),
        declared(Column("a", pa.int64(), aliases=("A2",))),
        declared(Column("a", pa.int64(), words={"x": 1})),
        declared(one, two, present=("a", "b")),
    ):
        assert other != declared(one)


def test_bytes_are_estimated_for_months_whose_bytes_are_unknown() -> None:
    sized, later, unknown = date(2024, 1, 1), date(2025, 7, 1), date(2031, 1, 1)
    assert estimated_bytes("green", [sized]) == published_months("green")[sized].bytes
    # The real file has 1,188,380 bytes.
    assert 0.9 < estimated_bytes("green", [later]) / 1_188_380 < 1.1
    assert estimated_bytes("fhvhv", [unknown, unknown]) > 2 * 400_000_000
    assert estimated_bytes("yellow", []) == 0


def test_the_estimate_for_a_dataset_without_published_counts_is_0() -> None:
    assert published_months("citibike") == {}
    assert estimated_bytes("citibike", [date(2024, 1, 1)]) == 0


def test_a_column_of_a_type_that_no_warehouse_has_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^odd: columns a \(int16\): no warehouse has the type; allowed: bool, int32"):
        Dataset("odd", file_name="odd", first_month=None, columns=(Column("a", pa.int16()),), doc="")


def test_every_rule_limits_a_count_that_is_made() -> None:
    counts = {"rows", "pickups_outside_month", "dropoffs_before_pickups", "huge_numbers", "unknown_zones"}
    counts |= {"negative_totals", "unknown_codes", "rows_off_published"}
    for dataset in (*DATASETS.values(), ZONES):
        of_columns = {f"unknown_{column.name}" for column in dataset.columns if column.codes}
        assert {rule.measure for rule in dataset.rules} <= counts | of_columns, dataset.name


def test_every_mart_is_built_for_datasets_that_exist() -> None:
    for mart in all_marts().values():
        assert set(mart.datasets) <= set(DATASETS), mart.name
