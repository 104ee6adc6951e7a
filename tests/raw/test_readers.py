"""Raw files: which are refused before a row is read, and that all rows of the others are read in order."""

from __future__ import annotations

import gzip
import struct
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SchemaError, SourceError, UsageError
from pipeline.raw.reader import open_raw, verify_raw

XML = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)
HTML = b"\n\n\n  <!DOCTYPE html>\n<html lang='en'><body>Not found</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:6a9e\nsize 1254291\n"

EPOCH_DAY, DAY_NANOS = 2_440_588, 86_400_000_000_000
NOON_2024 = 1_704_110_400_000_000_000


def _parquet(path: Path, rows: int = 3, **options: Any) -> Path:
    pq.write_table(pa.table({"a": range(rows), "b": [str(row) for row in range(rows)]}), path, **options)
    return path


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    raw = open_raw(path, subject="x", advice="take the other one")
    positions = [place for place, name in enumerate(raw.names) if name.strip()]
    rows: list[dict[str, Any]] = []
    for batch, fraction in raw.batches(positions, use_threads=True):
        assert 0 < fraction <= 1
        rows += batch.rename_columns([raw.names[place] for place in positions]).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"", "not a Parquet file: it is empty"),
        ("a.parquet", XML, "not a Parquet file: it is an XML answer (AccessDenied)"),
        ("a.parquet", HTML, "not a Parquet file: it is an HTML page"),
        ("a.parquet", POINTER, "not a Parquet file: it is a Git LFS pointer"),
        ("a.parquet", b'{"error": 404}', "not a Parquet file: it is a JSON answer"),
        ("a.parquet", b"a,b\n1,2\n", "not a Parquet file: it starts with b'a,b\\n1,2'"),
        (
            "a.parquet",
            b"PAR1" + b"x" * 99,
            "starts as a Parquet file but does not end as one (103 bytes): it is cut short",
        ),
        ("a.parquet", b"PAR1", "it is cut short"),
        ("a.parquet", b"PAR1" + b"x" * 99 + b"\x10\0\0\0PAR1", "whose footer cannot be read"),
        ("a.csv", b"", "not a CSV: it is empty"),
        ("a.csv", b" \r\n\n", "not a CSV: it contains only white space"),
        ("a.csv", XML, "not a CSV: it is an XML answer (AccessDenied)"),
        ("a.csv", HTML, "not a CSV: it is an HTML page"),
        ("a.csv", POINTER, "not a CSV: it is a Git LFS pointer"),
        ("a.csv", b"PAR1" + b"\x15\x04\0" * 30, "not a CSV: it is a Parquet file or a piece of one"),
        ("a.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "not a CSV: it is gzipped; name it .csv.gz"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "not a CSV: it is gzipped"),
        ("a.csv", b"a,b\n1,2\n1\x00,2\n", "a.csv: a NUL in line 3, at byte 10: damaged, or not a text in UTF-8"),
        ("a.csv.gz", b"a,b\n\x00", "a.csv.gz: a NUL in line 2, at byte 5: damaged"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "a.csv: a NUL in line 1, at byte 4: damaged, or not a text in UTF-8"),
    ],
)
def test_content_of_another_format_than_the_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, mtime=0) if name == "a.csv.gz" else content)
    for refuse in (verify_raw, open_raw):
        with pytest.raises(SourceError) as caught:
            refuse(path)
        assert str(caught.value).startswith(f"{name}: ")
        assert words in str(caught.value)


@pytest.mark.parametrize("content", [b"", XML, HTML, POINTER, b"a,b\n1,2\n"])
def test_a_file_named_gz_that_is_not_gzipped_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.csv\.gz: not gzipped: it "):
        verify_raw(tmp_path / "a.csv.gz")


def test_the_published_name_decides_what_a_part_file_should_be(tmp_path: Path) -> None:
    part = _parquet(tmp_path / "month.part")
    verify_raw(part, name="green_tripdata_2024-01.parquet")
    with pytest.raises(SourceError, match=r"^green_tripdata_2024-01\.csv: not a CSV: it is a Parquet file"):
        verify_raw(part, name="green_tripdata_2024-01.csv")
    with pytest.raises(UsageError, match=r"month\.part: unknown format"):
        verify_raw(part)


def test_a_gzip_stream_is_read_to_its_end(tmp_path: Path) -> None:
    whole = _file(tmp_path / "a.csv.gz", b"a,b\n" + b"1,2\n" * 100_000)
    verify_raw(whole)
    content = whole.read_bytes()
    for damaged in (content[:-20], content[:-8] + b"\0\0\0\0" + content[-4:], content[:200] + b"\xff" * 50):
        whole.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"^a\.csv\.gz: its gzip stream is cut short or corrupt"):
            verify_raw(whole)
        with pytest.raises(SourceError, match=r"^a\.csv\.gz: its gzip stream is cut short or corrupt"):
            _read(whole)


def test_a_parquet_file_with_a_column_name_that_is_not_utf8_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"quaint": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"quaint", b"qu\xffint"))
    for refuse in (verify_raw, open_raw):
        with pytest.raises(
            SourceError, match=r"^a\.parquet: a Parquet file whose footer cannot be read: 'utf-8' codec"
        ):
            refuse(path)


def test_a_parquet_file_comes_in_order_whatever_its_row_groups(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", 300_000, row_group_size=70_001)
    assert [row["a"] for row in _read(path)] == list(range(300_000))


def test_a_parquet_file_that_is_damaged_inside_is_a_source_error(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", 50_000, compression="gzip")
    content = bytearray(path.read_bytes())
    content[100:20_000] = b"\xff" * 19_900
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"^a\.parquet: row 0 or a later one cannot be decoded"):
        _read(path)


def test_columns_are_read_by_position_and_not_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2], [3], [4]], ["a", "b", "a", "c"]), tmp_path / "a.parquet")
    raw = open_raw(tmp_path / "a.parquet")
    for positions in ([0, 1, 2, 3], [3, 2, 0], [1]):
        [(batch, _)] = raw.batches(positions, use_threads=False)
        assert batch.to_pylist() == [{str(place): place + 1 for place in positions}]


def test_a_page_whose_checksum_is_wrong_is_a_source_error(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "a.parquet", 1_000, compression="none", use_dictionary=False, write_page_checksum=True)
    content = path.read_bytes()
    path.write_bytes(content.replace((700).to_bytes(8, "little"), (701).to_bytes(8, "little"), 1))
    with pytest.raises(SourceError, match=r"^a\.parquet: row 0 or a later one cannot be decoded: .*CRC"):
        _read(path)


def test_a_column_name_that_is_no_text_is_a_source_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"name": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xe5me"))
    with pytest.raises(SourceError, match=r"^a\.parquet: a Parquet file whose footer cannot be read: [^\n]+$"):
        verify_raw(path)


def _int96(path: Path, day: int, nanos: int) -> Path:
    """A file of one INT96: a Julian day and the nanoseconds since its midnight."""
    written = pa.table({"a": pa.array([NOON_2024], pa.timestamp("ns"))})
    pq.write_table(written, path, use_deprecated_int96_timestamps=True, compression="none", use_dictionary=False)
    stored = struct.pack("<QI", NOON_2024 % DAY_NANOS, NOON_2024 // DAY_NANOS + EPOCH_DAY)
    content = path.read_bytes()
    assert stored in content
    path.write_bytes(content.replace(stored, struct.pack("<QI", nanos, day)))
    return path


@pytest.mark.parametrize(
    ("day", "nanos", "time"),
    [
        (EPOCH_DAY + 19_723, 3_000, "2024-01-01 00:00:00.000003"),
        (1_721_426, 0, "0001-01-01 00:00:00.000000"),
        (5_373_484, DAY_NANOS - 1_000, "9999-12-31 23:59:59.999999"),
        # Nanoseconds hold no more than the years 1677 to 2262.
        (2_940_588, 1_000, "3338-12-15 00:00:00.000001"),
        # The following must not become a plausible time.
        (EPOCH_DAY, 1, "1970-01-01 00:00:00.000000001"),
        (0, 5_000, "-4713-11-24 00:00:00.000"),
        (EPOCH_DAY + 2**64 // 86_400_000_000, 0, "<value out of range: 18446744044800000>"),
        (2**32 - 1, 2**64 - 1, "<value out of range: 370892754228873709>"),
    ],
)
def test_no_int96_time_changes_on_the_way(tmp_path: Path, day: int, nanos: int, time: str) -> None:
    [(batch, _)] = open_raw(_int96(tmp_path / "a.parquet", day, nanos)).batches([0], use_threads=False)
    assert batch.column(0).cast(pa.string()).to_pylist() == [time]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,x\n,\n3,z\n",
        b"a,b\r\n1,x\r\n,\r\n3,z\r\n",
        b"a,b\r\n1,x\n,\r\n3,z\n",
        b"a,b\n\n1,x\n,\n3,z\n\n",
        b"a,b\n\r\n\r\n1,x\r\n,\r\n3,z\r\n",
        b"\n\na,b\n1,x\n,\n3,z\n",
        b"\xef\xbb\xbfa,b\n1,x\n,\n3,z\n",
        b'"a","b"\n"1","x"\n"",""\n"3","z"\n',
        b"a,b\n1,x,,\n,,,\n3,z,,\n",
        b"a,b\n1,x\n,,,\n3,z,\n",
        b"a,b\n1,x,\n,\n3,z\n",
        b"a,b,,\n1,x,,\n,,,\n3,z,,\n",
        b"a,b\n1,x\n   \n,\n3,z\n",
    ],
    ids=[
        "plain",
        "carriage returns",
        "both line ends",
        "blank lines",
        "mixed blank lines",
        "blank lines first",
        "byte order mark",
        "quotes",
        "two more empty fields",
        "more empty fields in some rows",
        "an empty field more in the first row",
        "unnamed columns",
        "a line of spaces",
    ],
)
def test_every_shape_of_csv_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    rows = _read(_file(tmp_path / name, content))
    assert rows == [{"a": "1", "b": "x"}, {"a": None, "b": None}, {"a": "3", "b": "z"}]


def test_names_keep_their_spaces_and_case_until_they_are_matched(tmp_path: Path) -> None:
    assert open_raw(_file(tmp_path / "a.csv", b"Vendor, pickup_datetime,Trip_type \n1,2,3\n")).names == (
        "Vendor",
        " pickup_datetime",
        "Trip_type ",
    )


def test_words_that_look_like_nulls_are_values(tmp_path: Path) -> None:
    rows = _read(_file(tmp_path / "a.csv", b"a,b\nNA,N/A\nnull,NaN\n"))
    assert rows == [{"a": "NA", "b": "N/A"}, {"a": "null", "b": "NaN"}]


def test_quoted_commas_and_quotes_belong_to_the_field(tmp_path: Path) -> None:
    rows = _read(_file(tmp_path / "a.csv", b'a,b\n"1,5","say ""x"""\n3,z\n'))
    assert rows == [{"a": "1,5", "b": 'say "x"'}, {"a": "3", "b": "z"}]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'a,b\n"1,x\n2,x\n3",x\n4,x\n', "1, in lines 2 to 4"),
        (b'a,b\r\n\r\n1,x\r\n2,"x\r\ny"\r\n4,x\r\n', "1, in lines 4 to 5"),
        (b'a,b\n1,"x\ry"\n4,x\n', "1, in lines 2 to 3"),
        (b'a,b\n1,"x\n2,y"\n3,"x\n4,y"\n', "2, in lines 2 to 3, 4 to 5"),
        (b'a,b\n1,x\n2,"x\n', "1, in lines 3"),
        (b'a,b\n1,x\n2,"x\n3,x\n', "1, in lines 3 to 4"),
        (b'a,b,,\n1,x,,\n2,"x\n3,x",,\n', "1, in lines 3 to 4"),
    ],
    ids=["first", "carriage returns", "a carriage return", "two", "unclosed", "unclosed for two lines", "unnamed"],
)
def test_a_quote_over_several_lines_is_an_error_that_names_the_line_where_it_opens(
    tmp_path: Path, name: str, content: bytes, where: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        _read(_file(tmp_path / name, content))
    assert str(caught.value) == (
        f"x: rows with a line break inside quotes, which no column holds: {where}; take the other one"
    )


def test_rows_within_a_quote_and_rows_that_do_not_fit_are_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(SchemaError) as caught:
        _read(_file(tmp_path / "a.csv", b'a,b\n1,2,3\n"1,x\n2",x\n'))
    assert str(caught.value) == (
        "x: rows that do not fit the 2 columns of the header: 1, in lines 2 (3 fields); "
        "rows with a line break inside quotes, which no column holds: 1, in lines 3 to 4; take the other one"
    )


def test_a_quote_over_several_lines_is_found_in_a_column_that_is_not_read(tmp_path: Path) -> None:
    raw = open_raw(_file(tmp_path / "a.csv", b'a,b\n1,"x\n2,y"\n3,z\n'), subject="x")
    with pytest.raises(SchemaError, match="1, in lines 2 to 3"):
        list(raw.batches([0], use_threads=True))


def test_a_quote_that_is_never_closed_is_named_by_the_line_where_it_opens(tmp_path: Path) -> None:
    content = b"a,b\n" + b"1,x\n" * 100 + b'1,"x\n' + b"12345678,abcdefgh\n" * 100_000
    with pytest.raises(SchemaError, match=r"^x: line 102 is not CSV in UTF-8: its quote is still open in line \d+"):
        _read(_file(tmp_path / "a.csv", content))


def test_a_quote_that_the_header_leaves_open_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="^x: line 2, the header, has a quote that is not closed in it"):
        _read(_file(tmp_path / "a.csv", b'\na,"b\n1,2\n3,4"\n'))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize(
    "content",
    [b"a,b\n1,2.75\n1,2.7", b"a,b\r\n1,2.75\r\n1,2.7\r", b"a,b\n1,2.75\n1", b"a,b\n1,2,,\n1,2.7", b"a,b", b"a,b\n  "],
    ids=["a value", "half a line end", "a row", "a ragged file", "the header", "blanks"],
)
def test_a_csv_whose_last_line_does_not_end_is_cut_short(tmp_path: Path, name: str, content: bytes) -> None:
    path = _file(tmp_path / name, content)
    for refuse in (verify_raw, _read):
        with pytest.raises(
            SourceError, match=rf"^{name}: cut short: its last line has no line end; download it again, or"
        ):
            refuse(path)
    _file(path, content + b"\n")
    verify_raw(path)


@pytest.mark.parametrize("place", ["header", "first row", "ragged file", "plain file"])
@pytest.mark.parametrize("filler", [b"x", b'"'])
def test_a_line_without_end_takes_bounded_memory(tmp_path: Path, place: str, filler: bytes) -> None:
    start = {"header": b"", "first row": b"a,b\n", "ragged file": b"a,b\n1,2\n1,2,,\n", "plain file": b"a,b\n1,2\n"}
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start[place] + b"1")
        for _ in range(128):
            file.write(filler * (1 << 20))
        file.write(b"\n1,2\n")
    line = start[place].count(b"\n") + 1
    tracemalloc.start()
    try:
        with pytest.raises(
            SchemaError, match=rf"^x: line {line} has more than 1,048,576 bytes, so it is not a row of a CSV"
        ):
            _read(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 80 << 20  # Arrow reads up to 32 blocks of 2 MiB ahead.


def test_a_csv_with_a_header_only_has_no_rows(tmp_path: Path) -> None:
    assert _read(_file(tmp_path / "a.csv", b"a,b\n")) == []
    assert _read(_file(tmp_path / "b.csv", b"a,b\n\n\n")) == []


def test_rows_that_fit_no_header_are_counted_and_located(tmp_path: Path) -> None:
    lines = [b"a,b", b""] + [b"1,2"] * 40 + [b"1,2,3", b"1,2,,4", b"1"] + [b"1,2"] * 5 + [b"1,2,3"] * 9 + [b"1,2"]
    with pytest.raises(SchemaError) as caught:
        _read(_file(tmp_path / "a.csv", b"\n".join([*lines, b""])))
    assert str(caught.value) == (
        "x: rows that do not fit the 2 columns of the header: 12, "
        "in lines 43 (3 fields), 44 (4 fields), 45 (1 fields), "
        "51 (3 fields), 52 (3 fields), 53 (3 fields), 54 (3 fields), 55 (3 fields), 56 (3 fields), 57 (3 fields) "
        "and 2 more; take the other one"
    )


def test_a_row_too_long_late_in_a_large_file_is_found_where_it_is(tmp_path: Path) -> None:
    content = b"a,b\n" + b"12345678,abcdefgh\n" * 700_000 + b"1,2,3\n" + b"4,5\n"
    with pytest.raises(SchemaError, match=r"header: 1, in lines 700002 \(3 fields\); take"):
        _read(_file(tmp_path / "a.csv", content))


def test_a_file_with_harmless_ragged_rows_at_its_end_loses_and_repeats_no_row(tmp_path: Path) -> None:
    content = b"a,b\n" + b"".join(b"%d,abcdefgh\n" % row for row in range(700_000)) + b"700000,x,,\n700001,y\n"
    rows = _read(_file(tmp_path / "a.csv", content))
    assert [int(row["a"]) for row in rows] == list(range(700_002))


def test_a_csv_that_is_not_utf8_is_a_schema_error(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"^x: line 3 is not CSV in UTF-8: 'utf-8' codec can't decode"):
        _read(_file(tmp_path / "a.csv", b"a,b\n1,x\n2,\xff\xfe\n"))


def test_reading_leaves_no_thread_of_ours_and_no_open_file(tmp_path: Path) -> None:
    before = threading.active_count()
    path = _file(tmp_path / "a.csv.gz", b"a,b\n" + b"1,2\n" * 3_000_000)
    batches = open_raw(path).batches([0, 1], use_threads=True)
    next(batches)
    batches.close()
    assert threading.active_count() == before
    open_files = Path("/proc/self/fd")
    if open_files.is_dir():
        assert not [link for link in open_files.iterdir() if link.is_symlink() and "a.csv.gz" in str(link.readlink())]
