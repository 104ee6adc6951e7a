"""Sources of raw files: URLs, invalid settings, missing months, invalid files, folders."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from conftest import Folder, make_folder
from full_disk import full_disk
from scripted import ScriptedSite, answer

from pipeline.datasets import DATASETS, ZONES
from pipeline.datasets.base import Dataset
from pipeline.errors import NotPublished, SourceError, StoreError, UsageError
from pipeline.months import add_months
from pipeline.sample import SampleSite
from pipeline.settings import Settings
from pipeline.source.parts import Part
from pipeline.source.retries import RetryPolicy
from pipeline.source.site import Sidecar, Source, make_source

GREEN, YELLOW = DATASETS["green"], DATASETS["yellow"]
MONTH = date(2024, 1, 1)
NAME = "green_tripdata_2024-01.parquet"
POLICY = RetryPolicy(timeout_s=10, retries=2, first_wait_s=0)
MIRROR = "https://example.org/tlc/releases/download"
XML = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


def source(base: str, source_format: str = "auto", lag_months: int = 4) -> Source:
    return make_source(base, source_format, lag_months, POLICY)


def served(site: SampleSite, path: str = f"/trip-data/{NAME}") -> bytes:
    item = site.shelf.find(path)
    assert item is not None
    return item.path.read_bytes()


def fails(where: Source, part: Path, dataset: Dataset = GREEN, month: date | None = MONTH) -> str:
    """The message of the SourceError that fetching the month raises; no part is kept."""
    with pytest.raises(SourceError) as caught:
        where.fetch(dataset, month, part)
    assert "\n" not in str(caught.value)
    assert not list(part.parent.glob("part*"))
    return str(caught.value)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The path of the part; its folder is empty."""
    folder = tmp_path / "drafts"
    folder.mkdir()
    return folder / "part"


@pytest.fixture
def published(tmp_path: Path, shared_site: SampleSite) -> Path:
    """An empty folder that serves as a source."""
    folder = tmp_path / "published"
    folder.mkdir()
    return folder


# --- addresses


@pytest.mark.parametrize(
    ("base", "source_format", "month_url", "zones_url"),
    [
        (
            Settings.source,
            "auto",
            f"{Settings.source}/trip-data/{NAME}",
            f"{Settings.source}/misc/taxi_zone_lookup.csv",
        ),
        (
            "http://127.0.0.1:8000/",
            "csv",
            "http://127.0.0.1:8000/trip-data/green_tripdata_2024-01.csv",
            "http://127.0.0.1:8000/misc/taxi_zone_lookup.csv",
        ),
        (
            MIRROR,
            "auto",
            f"{MIRROR}/green/green_tripdata_2024-01.csv.gz",
            f"{MIRROR}/misc/taxi_zone_lookup.csv",
        ),
        (f"{MIRROR}/", "csv", f"{MIRROR}/green/green_tripdata_2024-01.csv", f"{MIRROR}/misc/taxi_zone_lookup.csv"),
        (
            "https://example.org/get?name={file}&of={dataset}&key=hush",
            "auto",
            f"https://example.org/get?name={NAME}&of=green&key=hush",
            "https://example.org/get?name=taxi_zone_lookup.csv&of=misc&key=hush",
        ),
        (
            "https://{dataset}.example.org/{file}",
            "csv.gz",
            "https://green.example.org/green_tripdata_2024-01.csv.gz",
            "https://misc.example.org/taxi_zone_lookup.csv",
        ),
    ],
)
def test_a_site_a_mirror_and_a_template_have_their_own_layouts(
    base: str, source_format: str, month_url: str, zones_url: str
) -> None:
    where = source(base, source_format)
    assert not where.is_folder
    assert where.url(GREEN, MONTH) == month_url
    assert where.url(ZONES, None) == zones_url


@pytest.mark.parametrize(
    ("base", "asked", "given"),
    [
        (Settings.source, "auto", "parquet"),
        (f"{Settings.source}/", "csv", "csv"),
        (MIRROR, "auto", "csv.gz"),
        (f" {MIRROR}/\n", "auto", "csv.gz"),
        (MIRROR, "parquet", "parquet"),
        ("https://example.org/{dataset}/{file}", "auto", "parquet"),
        (".", "auto", "parquet"),
        (".", "csv.gz", "csv.gz"),
    ],
)
def test_auto_chooses_the_format_by_the_source(base: str, asked: str, given: str) -> None:
    where = source(base, asked)
    assert where.format == given
    assert where.file_name(GREEN, MONTH) == f"green_tripdata_2024-01.{given}"
    assert where.file_name(ZONES, None) == "taxi_zone_lookup.csv"


@pytest.mark.parametrize("layout", ["trip-data misc", "green misc", ". ."])
@pytest.mark.parametrize("written", ["{path}", "{path}/"])
def test_a_folder_may_have_the_layout_of_a_site_of_datasets_or_none(
    published: Path, part: Path, layout: str, written: str, shared_site: SampleSite
) -> None:
    for place, name in zip(layout.split(), (NAME, "taxi_zone_lookup.csv"), strict=True):
        (published / place).mkdir(exist_ok=True)
        kind = "trip-data" if name == NAME else "misc"
        (published / place / name).write_bytes(served(shared_site, f"/{kind}/{name}"))
    where = source(written.format(path=published))
    assert where.is_folder
    for dataset, month, place, name in (
        (GREEN, MONTH, layout.split()[0], NAME),
        (ZONES, None, layout.split()[1], "taxi_zone_lookup.csv"),
    ):
        sidecar = where.fetch(dataset, month, part)
        assert sidecar.url == str(published / place / name)
        assert part.read_bytes() == (published / place / name).read_bytes()
    assert where.version(GREEN, MONTH)
    assert not where.version(GREEN, date(2024, 2, 1))


def test_a_folder_may_have_any_name(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a folder with {braces} and 100%", "http:", "@home?#"):
        (published / name).mkdir()
    monkeypatch.chdir(published)
    for name in ("a folder with {braces} and 100%", "http:", "@home?#"):
        assert source(name).url(GREEN, MONTH) == str(published / name / NAME)
    for start in ("file://", "file://localhost", "FILE://"):
        assert source(f"{start}{published}/a%20folder%20with%20%7Bbraces%7D%20and%20100%25").is_folder


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("", "there is no such folder"),
        ("  ", "there is no such folder"),
        ("/no/such/folder", "source = '/no/such/folder': there is no such folder; allowed are an http(s) address"),
        ("~no-such-user/x", "there is no such folder"),
        ("file:///no/such/folder", "there is no such folder"),
        ("file://elsewhere/tmp", "'file://elsewhere/tmp': allowed are an http(s) address and a folder"),
        ("x" * 5000, "there is no such folder"),
        ("/null\0byte", "there is no such folder"),
        (__file__, "there is no such folder"),
        ("s3://bucket/x", "'s3://bucket/x': allowed are an http(s) address and a folder"),
        ("ftp://user:hush@host/x", "'ftp://host/x': allowed are an http(s) address and a folder"),
        ("http://", "its host or port is invalid; allowed is http(s)://host or http(s)://host:port"),
        ("http:///path", "its host or port is invalid"),
        ("http://host:99999", "its host or port is invalid"),
        ("http://host:port", "its host or port is invalid"),
        ("http://[::1", "its host or port is invalid"),
        ("http://user:hu/sh@host", "'http://…': its host or port is invalid"),
        ("https://host/?key=hush", "'https://host/': has a ? or #; allowed then is a template such as …/{file}?…"),
        ("https://host/#hush", "'https://host/': has a ? or #"),
        ("https://host/{dataset}/", "a template needs {file}, may have {dataset}, and no other braces"),
        ("https://host/{month}/{file}", "a template needs {file}"),
        ("https://host/{}/{file}", "a template needs {file}"),
        ("https://host/{0}/{file}", "a template needs {file}"),
        ("https://host/{file", "a template needs {file}"),
        ("https://host/file}", "a template needs {file}"),
        ("https://host/{file.__class__}", "a template needs {file}"),
        ("https://host/{file[0]}", "a template needs {file}"),
        ("https://host/{file!r}", "a template needs {file}"),
        ("https://host/{file:>2000000000}", "a template needs {file}"),
    ],
)
def test_an_invalid_source_is_one_error_without_its_secrets(base: str, found: str) -> None:
    with pytest.raises(UsageError) as caught:
        source(base)
    message = str(caught.value)
    assert message.startswith("[pipeline] source = ")
    assert found in message
    assert "\n" not in message
    assert "hush" not in message
    assert "hu/sh" not in message


# --- the fetched file and its sidecar


@pytest.mark.parametrize(
    ("at", "source_format", "dataset", "month", "file"),
    [
        ("", "auto", GREEN, MONTH, f"/trip-data/{NAME}"),
        ("", "csv", GREEN, date(2014, 1, 1), "/trip-data/green_tripdata_2014-01.csv"),
        ("", "auto", ZONES, None, "/misc/taxi_zone_lookup.csv"),
        (
            "/tlc/releases/download",
            "auto",
            GREEN,
            date(2013, 8, 1),
            "/tlc/releases/download/green/green_tripdata_2013-08.csv.gz",
        ),
        ("/tlc/releases/download", "auto", ZONES, None, "/tlc/releases/download/misc/taxi_zone_lookup.csv"),
        ("/trip-data/{file}?key=hush", "auto", YELLOW, MONTH, "/trip-data/yellow_tripdata_2024-01.parquet"),
    ],
)
def test_the_fetched_file_and_its_sidecar_match_the_served_file(
    site: SampleSite, part: Path, at: str, source_format: str, dataset: Dataset, month: date | None, file: str
) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    sidecar = source(site.url + at, source_format).fetch(dataset, month, part)
    item = site.shelf.find(file)
    assert item is not None
    assert part.read_bytes() == item.path.read_bytes()
    assert (sidecar.url, sidecar.etag, sidecar.bytes) == (site.url + file, item.etag, item.size)
    assert sidecar.sha256 == hashlib.sha256(part.read_bytes()).hexdigest()
    assert parsedate_to_datetime(sidecar.last_modified or "").timestamp() == item.last_modified
    assert before <= datetime.fromisoformat(sidecar.fetched_at) <= datetime.now(timezone.utc)
    assert len(site.requests) == 1


def test_a_sidecar_is_json_and_reads_back() -> None:
    sidecar = Sidecar("http://host/file", None, "yesterday", 5, "ab", "2024-01-01T00:00:00+00:00")
    text = sidecar.to_json()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == ["url", "etag", "last_modified", "bytes", "sha256", "fetched_at"]
    assert Sidecar.from_json(text, "raw/x") == Sidecar.from_json(text.encode(), "raw/x") == sidecar


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "null",
        "[]",
        '"text"',
        "{}",
        b"\xff\xfe\xff",
        b"\0" * 100,
        "[" * 100_000,
        '{"url": "u", "etag": null, "last_modified": null, "bytes": 1, "sha256": "ab"}',
        '{"url": "u", "etag": null, "last_modified": null, "bytes": 1, "sha256": "ab", "fetched_at": "x", "more": 1}',
        '{"url": "u", "etag": null, "last_modified": null, "bytes": 1, "sha256": null, "fetched_at": "x"}',
        '{"url": "u", "etag": null, "last_modified": null, "bytes": "1", "sha256": "ab", "fetched_at": "x"}',
        '{"url": 1, "etag": 2, "last_modified": 3, "bytes": 1, "sha256": "ab", "fetched_at": "x"}',
    ],
)
def test_an_invalid_sidecar_is_an_error_that_names_its_file(text: str | bytes) -> None:
    with pytest.raises(SourceError, match=r"^raw/x: the sidecar is not readable \(.*\)$"):
        Sidecar.from_json(text, "raw/x")


# --- missing months


@pytest.mark.parametrize(
    ("today", "oldest_young"),
    [
        (date(2025, 6, 1), date(2025, 2, 1)),
        (date(2025, 6, 30), date(2025, 2, 1)),
        (date(2025, 7, 1), date(2025, 3, 1)),
        (date(2025, 1, 31), date(2024, 9, 1)),
        (date(2024, 4, 15), date(2023, 12, 1)),
    ],
)
def test_a_month_is_young_until_the_lag_has_passed_since_it_ended(today: date, oldest_young: date) -> None:
    where = source(Settings.source, lag_months=4)
    assert where.is_young(oldest_young, today)
    assert not where.is_young(add_months(oldest_young, -1), today)
    assert where.is_young(add_months(today, 1), today)


def test_a_lag_may_be_nothing_or_longer_than_the_calendar() -> None:
    today = date(2025, 6, 15)
    assert source(Settings.source, lag_months=0).is_young(date(2025, 6, 1), today)
    assert not source(Settings.source, lag_months=0).is_young(date(2025, 5, 1), today)
    assert source(Settings.source, lag_months=10**6).is_young(date(1, 1, 1), today)


@pytest.mark.parametrize("status", [403, 404])
def test_a_missing_month_is_not_published_while_it_is_young_and_an_error_later(
    site: SampleSite, part: Path, status: int
) -> None:
    site.faults.add("*", status, times=math.inf)
    where, this_month = source(site.url, lag_months=4), date.today().replace(day=1)
    for age in (-1, 0, 4):
        month = add_months(this_month, -age)
        with pytest.raises(NotPublished, match=rf"^green {month:%Y-%m}: not published yet at {site.url}/trip-data/.*"):
            where.fetch(GREEN, month, part)
        assert not where.version(GREEN, month)
    message = fails(where, part, month=add_months(this_month, -5))
    assert re.fullmatch(
        rf"green ....-..: {site.url}/trip-data/green_.*\.parquet is refused or missing, and is long due; look at "
        r"\[pipeline\] source and source_format, or come back later",
        message,
    )
    assert "zones: " in fails(where, part, ZONES, None)
    assert len(site.requests) == 3 * 2 + 2, "one request each, without retries"


@pytest.mark.parametrize("status", [401, 400])
def test_another_refused_status_is_an_error_without_retries_even_for_a_young_month(
    site: SampleSite, part: Path, status: int
) -> None:
    site.faults.add("*", status)
    message = fails(source(site.url), part, month=date.today().replace(day=1))
    assert re.match(rf"green ....-..: {site.url}/.*: HTTP {status} ", message)
    assert len(site.requests) == 1


def test_months_that_exist_as_csv_only_are_not_requested_as_parquet(site: SampleSite, part: Path) -> None:
    message = fails(source(site.url), part, month=date(2013, 8, 1))
    assert message.startswith("green 2013-08: exists as CSV only; set [pipeline] source and source_format")
    assert site.requests == []
    source(site.url, "csv").fetch(GREEN, date(2013, 8, 1), part)
    source(site.url).fetch(GREEN, date(2014, 1, 1), part)


def test_a_month_that_is_not_in_the_folder_is_missing(published: Path, part: Path) -> None:
    where = source(str(published))
    assert str(published / NAME) in fails(where, part)
    with pytest.raises(NotPublished):
        where.fetch(GREEN, date.today().replace(day=1), part)
    (published / NAME).mkdir()
    assert "is refused or missing" in fails(where, part)


# --- invalid files


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        ("html", None, "not a Parquet file: it is an HTML page"),
        ("truncate", None, "starts as a Parquet file but does not end as one"),
        ("corrupt", -1, "starts as a Parquet file but does not end as one"),
        ("corrupt", 0, "not a Parquet file: it starts with"),
        ("corrupt", -200, "a Parquet file whose footer cannot be read"),
        ("length", -1000, "starts as a Parquet file but does not end as one"),
        ("truncate", 0, "not a Parquet file: it is empty"),
    ],
)
def test_bytes_that_are_no_parquet_file_are_fetched_again_and_then_an_error(
    site: SampleSite, part: Path, kind: str, value: int | None, found: str
) -> None:
    whole = served(site)
    if value is not None and kind == "corrupt":
        value %= len(whole)
    site.faults.add("*", kind, value)
    source(site.url).fetch(GREEN, MONTH, part)
    assert part.read_bytes() == whole
    assert len(site.requests) == 2
    Part(part).discard()
    site.faults.add("*", kind, value, times=math.inf)
    message = fails(source(site.url), part)
    assert message.startswith(f"green 2024-01: {site.url}/trip-data/{NAME}: {found}")
    assert message.endswith("; gave up after 3 attempts, come back later")


def test_an_error_page_with_status_200_is_recognised(part: Path) -> None:
    with ScriptedSite(answer(XML, "200 OK", "Content-Type: application/xml")) as site:
        assert "not a Parquet file: it is an XML answer (AccessDenied)" in fails(source(site.url), part)
        assert "not a CSV: it is an XML answer (AccessDenied)" in fails(source(site.url, "csv"), part)
        assert "not gzipped: it is an XML answer (AccessDenied)" in fails(source(site.url, "csv.gz"), part)
        assert "zones: " in fails(source(site.url), part, ZONES, None)


@pytest.mark.parametrize(
    ("source_format", "head", "found"),
    [
        ("parquet", b"<!DOCTYPE html>", "not a Parquet file: it is an HTML page"),
        ("parquet", XML, r"not a Parquet file: it is an XML answer \(AccessDenied\)"),
        ("csv", b"<html>", "not a CSV: it is an HTML page"),
        ("csv", b'{"error": 1}', "not a CSV: it is a JSON answer"),
        ("csv.gz", b"<html>", "not gzipped: it is an HTML page"),
    ],
)
@pytest.mark.parametrize("length", [10**9, -1])
def test_an_endless_page_in_place_of_a_file_is_stopped_after_its_first_bytes(
    part: Path, source_format: str, head: bytes, found: str, length: int
) -> None:
    most: list[int] = []

    def page(connection: socket.socket) -> None:
        connection.sendall(answer(head, length=length))
        end = time.monotonic() + 30
        while time.monotonic() < end:
            connection.sendall(b" " * 1000)

    with ScriptedSite(page) as site, pytest.raises(SourceError, match=f"{found}; gave up after 3 attempts"):
        source(site.url, source_format).fetch(GREEN, MONTH, part, lambda got, total, rate: most.append(got))
    assert max(most, default=0) <= 1_000_000
    assert not list(part.parent.glob("part*"))


def test_a_file_that_grows_while_it_is_copied_is_an_error(published: Path, part: Path) -> None:
    path = published / NAME
    path.write_bytes(b"PAR1" + bytes(3 << 20))

    def grow(got: int, total: int | None, rate: float) -> None:
        with path.open("ab") as file:
            file.write(bytes(2 << 20))

    with pytest.raises(SourceError, match="changed while it was copied"):
        source(str(published)).fetch(GREEN, MONTH, part, grow)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("cut short", lambda packed: packed[:-100]),
        ("cut in its checksum", lambda packed: packed[:-4]),
        ("with a wrong checksum", lambda packed: packed[:-8] + b"\0\0\0\0" + packed[-4:]),
        ("with a wrong length", lambda packed: packed[:-4] + b"\0\0\0\0"),
        ("damaged in the middle", lambda packed: packed[:100] + b"\xff" * 50 + packed[150:]),
        ("with something behind it", lambda packed: packed + b"something"),
    ],
)
def test_a_gzip_file_is_verified_to_its_end(
    shared_site: SampleSite, part: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    whole = served(shared_site, "/trip-data/green_tripdata_2014-01.csv.gz")
    month = date(2014, 1, 1)
    with ScriptedSite(answer(damage(whole)), answer(whole)) as site:
        source(site.url, "csv.gz").fetch(GREEN, month, part)
        assert part.read_bytes() == whole
        assert len(site.requests) == 2
    Part(part).discard()
    with ScriptedSite(answer(damage(whole))) as site:
        message = fails(source(site.url, "csv.gz"), part, month=month)
        assert message.startswith(f"green 2014-01: {site.url}/trip-data/green_tripdata_2014-01.csv.gz: ")
        assert len(site.requests) == 3


def test_a_csv_of_unknown_length_is_not_accepted_as_whole(shared_site: SampleSite, part: Path) -> None:
    text = served(shared_site, "/misc/taxi_zone_lookup.csv")
    with ScriptedSite(answer(text[: text.index(b"\n", 5000) + 1], length=-1)) as site:
        assert "sent without its length, so it may be incomplete" in fails(source(site.url), part, ZONES, None)
    with ScriptedSite(answer(served(shared_site), length=-1)) as site:
        source(site.url).fetch(GREEN, MONTH, part)
    assert part.read_bytes() == served(shared_site), "a Parquet file marks its end"


def test_the_compression_of_a_proxy_is_undone_except_for_gzip_files(shared_site: SampleSite, part: Path) -> None:
    packed = served(shared_site, "/trip-data/green_tripdata_2014-01.csv.gz")
    with ScriptedSite(answer(packed, "200 OK", "Content-Encoding: gzip")) as site:
        source(site.url, "csv.gz").fetch(GREEN, date(2014, 1, 1), part)
        assert part.read_bytes() == packed
        Part(part).discard()
        sidecar = source(site.url, "csv").fetch(GREEN, date(2014, 1, 1), part)
        assert part.read_bytes() == gzip.decompress(packed)
        assert sidecar.sha256 == hashlib.sha256(gzip.decompress(packed)).hexdigest()


def test_a_cut_month_is_resumed_by_the_next_call(site: SampleSite, part: Path) -> None:
    whole = served(site)
    patient, once = source(site.url), make_source(site.url, "auto", 4, RetryPolicy(10, 0, 0))
    site.faults.add("*", "cut", 7000)
    with pytest.raises(SourceError, match=r"^green 2024-01: http.*/green_tripdata_2024-01.parquet: IncompleteRead: "):
        once.fetch(GREEN, MONTH, part)
    sidecar = patient.fetch(GREEN, MONTH, part)
    assert part.read_bytes() == whole
    assert sidecar.sha256 == hashlib.sha256(whole).hexdigest()
    assert site.requests[1].sent == len(whole) - 7000


# --- folders


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "not a Parquet file: it is empty"),
        (XML, "not a Parquet file: it is an XML answer (AccessDenied)"),
        (b"PAR1" + b"x" * 1000, "starts as a Parquet file but does not end as one"),
    ],
)
def test_an_invalid_file_of_a_folder_is_an_error_and_not_kept(
    published: Path, part: Path, content: bytes, found: str
) -> None:
    (published / NAME).write_bytes(content)
    assert fails(source(str(published)), part).startswith(f"green 2024-01: {published / NAME}: {found}")
    assert (published / NAME).read_bytes() == content


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_truncated_csv_is_refused_until_the_copy_is_whole(published: Path, part: Path, ending: str) -> None:
    copy, text = published / f"green_tripdata_2014-01.{ending}", b"VendorID,Trip_distance\r\n2,2.7"
    pack = gzip.compress if ending == "csv.gz" else bytes
    where, month = source(str(published), ending), date(2014, 1, 1)
    copy.write_bytes(pack(text))
    message = fails(where, part, month=month)
    assert message.startswith(f"green 2014-01: {copy}: cut short: its last line has no line end; ")
    assert message.endswith("or add the line end in the source's copy if you know that the copy is complete")
    copy.write_bytes(pack(text + b"\r\n"))
    where.fetch(GREEN, month, part)
    assert part.read_bytes() == copy.read_bytes()


def test_the_sidecar_of_a_file_of_a_folder_has_its_time_and_hash(
    published: Path, part: Path, shared_site: SampleSite
) -> None:
    (published / NAME).write_bytes(served(shared_site))
    os.utime(published / NAME, (1_700_000_000, 1_700_000_000))
    reports: list[tuple[int, int | None, float]] = []
    sidecar = source(str(published)).fetch(GREEN, MONTH, part, lambda *report: reports.append(report))
    assert (sidecar.url, sidecar.etag) == (str(published / NAME), None)
    assert sidecar.last_modified == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert (sidecar.bytes, sidecar.sha256) == (part.stat().st_size, hashlib.sha256(part.read_bytes()).hexdigest())
    assert reports[-1][:2] == (sidecar.bytes, sidecar.bytes)


def test_a_file_that_changes_while_it_is_copied_is_an_error(
    published: Path, part: Path, shared_site: SampleSite
) -> None:
    (published / NAME).write_bytes(served(shared_site))
    later = datetime.now() + timedelta(hours=1)

    def change(got: int, total: int | None, rate: float) -> None:
        os.utime(published / NAME, (later.timestamp(), later.timestamp()))

    with pytest.raises(SourceError, match="changed while it was copied; run again when it no longer changes"):
        source(str(published)).fetch(GREEN, MONTH, part, change)
    assert not list(part.parent.iterdir())


def test_the_part_of_an_earlier_copy_or_another_source_is_overwritten(
    published: Path, part: Path, site: SampleSite
) -> None:
    (published / NAME).write_bytes(served(site))
    part.write_bytes(b"x" * 10**6)
    source(str(published)).fetch(GREEN, MONTH, part)
    assert part.read_bytes() == served(site)
    part.write_bytes(part.read_bytes()[:5000])
    source(site.url).fetch(GREEN, MONTH, part)
    assert part.read_bytes() == served(site)
    assert "Range" not in site.requests[0].headers


def test_a_full_disk_while_copying_is_a_store_error(published: Path, part: Path, shared_site: SampleSite) -> None:
    (published / NAME).write_bytes(served(shared_site))
    with full_disk(5000), pytest.raises(StoreError, match="part: cannot be written: File too large; make room"):
        source(str(published)).fetch(GREEN, MONTH, part)


_WITHOUT_RIGHTS = """
import os, sys
from datetime import date
from pathlib import Path
import pipeline.raw.reader  # While the files of the libraries can be read.
from pipeline.datasets import DATASETS
from pipeline.errors import SourceError
from pipeline.source.retries import RetryPolicy
from pipeline.source.site import make_source
if os.getuid() == 0:
    os.setuid(65534)
try:
    make_source(sys.argv[1], "auto", 4, RetryPolicy(1, 0, 0)).fetch(DATASETS["green"], date(2024, 1, 1), Path("part"))
except SourceError as error:
    print(error)
"""


@pytest.mark.parametrize("closed", ["the file", "the folder"])
def test_an_unreadable_file_is_an_error_and_never_missing(published: Path, closed: str) -> None:
    # Not below tmp_path, which only its owner may enter.
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        inner = folder / "trip-data"
        inner.mkdir()
        (inner / NAME).write_bytes(b"PAR1")
        {"the file": inner / NAME, "the folder": inner}[closed].chmod(0)
        command = [sys.executable, "-c", _WITHOUT_RIGHTS, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
        inner.chmod(0o755)
    assert "cannot be " in done.stdout, done.stderr
    assert "Permission denied; look at [pipeline] source" in done.stdout
    assert done.stderr == ""


# --- HEAD requests


def test_asking_whether_a_month_exists_downloads_no_file(site: SampleSite) -> None:
    where = source(site.url)
    assert where.version(GREEN, MONTH)
    assert not where.version(GREEN, date(2034, 1, 1))
    assert [seen.method for seen in site.requests] == ["HEAD", "HEAD"]
    site.faults.add("*", 400)
    with pytest.raises(SourceError, match=r"^green 2024-01: .*: HTTP 400 Bad Request; look at \[pipeline\] source"):
        where.version(GREEN, MONTH)


# --- the step


def test_the_download_is_kept_when_its_sidecar_cannot_be_published(tmp_path: Path, site: SampleSite) -> None:
    folder = make_folder(tmp_path / "work", site.url)
    obstacle = folder.lake / "raw" / "green" / f"{NAME}.json"
    obstacle.mkdir(parents=True)
    ended = folder.luigi("Download", "--dataset", "green", "--month", "2024-01")
    assert ended.returncode != 0
    assert "StoreError: raw/green" in ended.stdout + ended.stderr
    assert not (folder.lake / "raw" / "green" / NAME).exists()
    obstacle.rmdir()
    assert folder.luigi("Download", "--dataset", "green", "--month", "2024-01").returncode == 0
    assert [seen.status for seen in site.requests] == [200, 416]
    assert (folder.lake / "raw" / "green" / NAME).read_bytes() == served(site)
    assert folder.files() == [f"lake/raw/green/{NAME}", f"lake/raw/green/{NAME}.json"]


def test_an_invalid_sidecar_is_an_error_of_its_month(folder: Folder) -> None:
    folder.luigi("Download", "--dataset", "green", "--month", "2024-01")
    (folder.lake / "raw" / "green" / f"{NAME}.json").write_bytes(b"\xff\xfe")
    ended = folder.luigi("Conform", "--dataset", "green", "--month", "2024-01")
    assert ended.returncode != 0
    assert f"SourceError: raw/green/{NAME}.json: the sidecar is not readable" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
