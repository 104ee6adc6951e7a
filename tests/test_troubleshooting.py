"""docs/troubleshooting.md: each message is what is said now in that state, and the remedy of its section works."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cloud import Cloud
from commands import running_luigid
from conftest import ROOT, Folder, make_folder
from listeners import serving

from pipeline.errors import ConcurrentWriteError, PipelineError, StoreError
from pipeline.lake import open_store
from pipeline.sample import SampleSite

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^### (.*)\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE))
QUOTED = {title: re.findall(r"^```text\n(.*?)\n```", text, re.M | re.S) for title, text in SECTIONS.items()}
RAW = "raw/green/green_tripdata_2024-{}.parquet"
TRIPS = "trips/green/month=2024-01-01/green_2024-01.parquet"
FEBRUARY = ("backfill", "green", "2024-02", "--through", "download")  # An option given again counts last.

Said = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("troubles") / "work", shared_site.url)
    assert folder.pipeline("backfill", "green", "2024-01", "--through", "load").returncode == 0
    return folder


@pytest.fixture
def own(_filled: Folder, tmp_path: Path, site: SampleSite) -> Folder:
    """A folder with a month of green, and a site that can have faults."""
    folder = _filled.copy(tmp_path / "work")
    folder.source = site.url
    folder.environment = {"PIPELINE_RETRY_WAIT_S": "0.001", "PIPELINE_RETRIES": "5"}
    return folder


def words(said: Said, code: int) -> str:
    text = said.stdout + said.stderr
    assert said.returncode == code, text
    return text


def works(folder: Folder, *command: str) -> None:
    words(folder.pipeline(*command), 0)


def obey(folder: Folder, said: str) -> None:
    """Run the command that the message names."""
    found = set(re.findall(r"run: (pipeline [^;\n]+)", said))
    assert len(found) == 1, said
    (command,) = found
    words(folder.run(*shlex.split(command), *(["--yes"] if " redo " in command else [])), 0)


def expect(title: str, *texts: str) -> None:
    """Each message of the section is in its text."""
    assert len(QUOTED[title]) == len(texts), title
    for quoted, text in zip(QUOTED[title], texts, strict=True):
        pattern = r"[^\n]*?".join(re.escape(part) for part in quoted.split("…"))
        assert re.search(pattern, text), f"{title}: {quoted!r} is not in {text!r}"


#: What causes the state of a section, checks its messages and follows its remedy.
CAUSES: dict[str, Callable[[Folder, SampleSite], None]] = {}


def section(title: str) -> Callable[[Callable[[Folder, SampleSite], None]], Callable[[Folder, SampleSite], None]]:
    def register(cause: Callable[[Folder, SampleSite], None]) -> Callable[[Folder, SampleSite], None]:
        CAUSES[title] = cause
        return cause

    return register


@section("allowed is a whole number")
def _setting(own: Folder, _: SampleSite) -> None:
    own.environment["PIPELINE_RETRIES"] = "many"
    expect("allowed is a whole number", words(own.pipeline("status", "green", "2024-01"), 2))
    own.environment["PIPELINE_RETRIES"] = "1"
    works(own, "status", "green", "2024-01")


@section("did you mean")
def _word(own: Folder, _: SampleSite) -> None:
    expect("did you mean", words(own.pipeline("plan", "gren", "2024-01"), 2))
    works(own, "plan", "green", "2024-01")


@section("A traceback of configparser")
def _luigi_cfg(own: Folder, _: SampleSite) -> None:
    file = own.path / "luigi.cfg"
    text = file.read_text()
    file.write_text("[pipeline]\nlake data\n")
    luigi = words(own.luigi("LoadZones"), 1)
    expect("A traceback of configparser", luigi, words(own.pipeline("doctor"), 2))
    file.write_text(text.replace("\n[pipeline]\n", "\n[pipeline]\nlake = data/lake\n"))
    works(own, "status", "green", "2024-01")


@section("no luigid answers at this address")
def _luigid(own: Folder, _: SampleSite) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("backfill", "green", "2024-01", "--scheduler", f"http://127.0.0.1:{port}")
    expect("no luigid answers at this address", words(own.pipeline(*command), 2))
    with running_luigid(own, port):
        works(own, *command)


@section("Address already in use")
def _board(own: Folder, _: SampleSite) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = own.pipeline("board", "--port", str(taken.getsockname()[1]))
    expect("Address already in use", words(said, 2))


@section("give Google Cloud credentials in one of three ways")
def _credentials(own: Folder, _: SampleSite) -> None:
    own.environment |= {"HOME": str(own.path), "NO_GCE_CHECK": "true", "GOOGLE_APPLICATION_CREDENTIALS": ""}
    said = own.pipeline("plan", "green", "2024-01", "--lake", "gs://no-such-bucket/lake")
    expect("give Google Cloud credentials in one of three ways", words(said, 2))


@section("not published yet")
def _not_published(own: Folder, site: SampleSite) -> None:
    own.environment["PIPELINE_PUBLICATION_LAG_MONTHS"] = "1200"
    month = ("backfill", "green", "2026-09", "--through", "download")
    said = words(own.pipeline(*month), 3)
    expect("not published yet", said.replace("up to 1200 months", "up to 4 months"))


@section("come back later")
def _busy(own: Folder, site: SampleSite) -> None:
    site.faults.add("*2024-02*", 503, times=math.inf)
    expect("come back later", words(own.pipeline(*FEBRUARY), 1))
    site.faults.clear()
    works(own, *FEBRUARY)


@section("refused or missing, and is long due")
def _refused(own: Folder, site: SampleSite) -> None:
    site.faults.add("*2024-02*", 403, times=math.inf)
    expect("refused or missing, and is long due", words(own.pipeline(*FEBRUARY), 1))
    site.faults.clear()
    works(own, *FEBRUARY)


@section("CERTIFICATE_VERIFY_FAILED")
def _certificate(own: Folder, site: SampleSite) -> None:
    published = own.path / "published" / "trip-data"
    published.mkdir(parents=True)
    works(own, *FEBRUARY, "--through", "download")
    shutil.move(own.lake / RAW.format("02"), published)
    (own.lake / f"{RAW.format('02')}.json").unlink()
    make = "openssl req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=proxy -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*make.split(), "-keyout", "proxy.key", "-out", "proxy.pem"], cwd=own.path, check=True, capture_output=True
    )

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """No log."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """No log of a client that rejected the certificate."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.path / "proxy.pem", own.path / "proxy.key")
    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(published.parent)))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        own.source = f"https://127.0.0.1:{port}"
        own.environment["REQUESTS_CA_BUNDLE"] = ""
        expect("CERTIFICATE_VERIFY_FAILED", words(own.pipeline(*FEBRUARY), 1))
        own.environment["REQUESTS_CA_BUNDLE"] = "proxy.pem"
        works(own, *FEBRUARY)


@section("download_limit_gb")
def _limit(own: Folder, site: SampleSite) -> None:
    site.faults.add("*2024-02*", "length", 2_000_000, times=math.inf)
    own.environment["PIPELINE_DOWNLOAD_LIMIT_GB"] = "0.001"
    expect("download_limit_gb", words(own.pipeline(*FEBRUARY), 1))
    site.faults.clear()
    own.environment["PIPELINE_DOWNLOAD_LIMIT_GB"] = "1"
    works(own, *FEBRUARY)


def _csv(own: Folder) -> tuple[Path, tuple[str, ...]]:
    """A folder as source with a month as CSV, and the command that takes it."""
    published = own.path / "published"
    month = ("backfill", "green", "2020-12", "--through", "conform", "--source-format", "csv")
    text = "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,"
    text += "DOLocationID,passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,"
    text += "improvement_surcharge,total_amount,payment_type,trip_type,congestion_surcharge\n"
    row = "2,2020-12-05 10:00:00,2020-12-05 10:09:00,N,1,75,74,1,1.2,7,0,0.5,1,0,,0.3,8.8,1,1,0\n"
    published.mkdir()
    file = published / "green_tripdata_2020-12.csv"
    file.write_text(text + row * 3)
    return file, (*month, "--source", str(published))


@section("cut short: its last line has no line end")
def _cut_short(own: Folder, _: SampleSite) -> None:
    file, command = _csv(own)
    text = file.read_text()
    file.write_text(text.removesuffix("\n"))
    expect("cut short: its last line has no line end", words(own.pipeline(*command), 1))
    file.write_text(text)
    works(own, *command)


@section("use the Parquet file of the month instead")
def _damaged_rows(own: Folder, _: SampleSite) -> None:
    file, command = _csv(own)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], f"{lines[3]},1,2", ""]))
    expect("use the Parquet file of the month instead", words(own.pipeline(*command), 1))
    works(own, *command[:5])


def _rot(file: Path, start: int) -> None:
    content = bytearray(file.read_bytes())
    content[start:-9] = bytes(len(content[start:-9]))
    file.write_bytes(content)


@section("are not those of its sidecar")
def _rotten_raw(own: Folder, _: SampleSite) -> None:
    _rot(own.lake / RAW.format("01"), 100)
    redo = ("redo", "green", "2024-01", "--from", "conform", "--yes")
    said = words(own.pipeline(*redo), 1)
    expect("are not those of its sidecar", said)
    obey(own, said.replace("; what exists", "\n"))


def _bad_month(own: Folder, change: Callable[[pa.Table], pa.Table]) -> tuple[Path, tuple[str, ...]]:
    """A folder as source with a changed month, and the options that name it."""
    works(own, *FEBRUARY)
    published = own.path / "published"
    published.mkdir()
    file = published / "green_tripdata_2024-02.parquet"
    raw = own.lake / RAW.format("02")
    shutil.move(raw, published)
    raw.with_name(f"{raw.name}.json").unlink()
    good = pq.read_table(file)
    pq.write_table(good, file.with_suffix(".good"))
    pq.write_table(change(good), file)
    return file, ("--source", str(published))


@section("unknown columns")
def _columns(own: Folder, _: SampleSite) -> None:
    file, source = _bad_month(own, lambda good: good.append_column("surprise", pa.array([1] * good.num_rows)))
    expect("unknown columns", words(own.pipeline(*FEBRUARY, "--through", "conform", *source), 1))
    file.with_suffix(".good").rename(file)
    words(own.pipeline(*FEBRUARY, "--through", "conform", *source), 1)
    works(own, "redo", "green", "2024-02", "--from", "download", "--yes", *source)


@section("failed its checks")
def _checks(own: Folder, _: SampleSite) -> None:
    file, source = _bad_month(own, lambda good: good.slice(0, 0))
    expect("failed its checks", words(own.pipeline(*FEBRUARY, "--through", "conform", *source), 1))
    assert "no_rows" in own.pipeline("check", "green", "2024-02").stdout
    file.with_suffix(".good").rename(file)
    works(own, "redo", "green", "2024-02", "--from", "download", "--yes", *source)


_FULL = """
import resource, signal, sys
sys.dont_write_bytecode = True  # See tests/full_disk.py.
from pipeline.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
main(sys.argv[1:])
"""


@section("make room")
def _full(own: Folder, _: SampleSite) -> None:
    said = words(own.run("python", "-c", _FULL, *FEBRUARY), 1)
    expect("make room", said)
    assert not (own.lake / RAW.format("02")).exists()
    works(own, *FEBRUARY)


@section("move away the file")
def _file(own: Folder, _: SampleSite) -> None:
    (own.path / "other").write_text("")
    expect("move away the file", words(own.pipeline(*FEBRUARY, "--lake", "other"), 1))
    (own.path / "other").rename(own.path / "moved")
    works(own, *FEBRUARY, "--lake", "other")


@section("cannot be read as Parquet")
def _rotten_trips(own: Folder, _: SampleSite) -> None:
    _rot(own.lake / TRIPS, 4)
    head = ("head", "green", "2024-01")
    said = words(own.pipeline(*head), 5)
    expect("cannot be read as Parquet", said)
    obey(own, said)
    works(own, *head)


@section("no trips file in the lake")
def _no_trips(own: Folder, _: SampleSite) -> None:
    (own.lake / TRIPS).unlink()
    said = words(own.pipeline("head", "green", "2024-01"), 5)
    expect("no trips file in the lake", said)
    obey(own, said)
    works(own, "head", "green", "2024-01")


@section("is not a checks document")
def _rotten_checks(own: Folder, _: SampleSite) -> None:
    (own.lake / "checks/green/2024-01.json").write_text("{")
    said = words(own.pipeline("check", "green", "2024-01"), 5)
    expect("is not a checks document", said)
    obey(own, said)
    works(own, "check", "green", "2024-01")


@section("is held by")
def _held(own: Folder, _: SampleSite) -> None:
    own.environment["PIPELINE_LOCK_TIMEOUT_S"] = "0.1"
    with duckdb.connect(str(own.database)):
        expect("is held by", words(own.pipeline("sql", "SELECT 1"), 5))
    works(own, "sql", "SELECT 1")


@section("is no DuckDB database")
def _no_database(own: Folder, _: SampleSite) -> None:
    own.database.write_bytes(b"x" * 20_000)
    month = ("backfill", "green", "2024-01")
    expect("is no DuckDB database", words(own.pipeline(*month), 5))
    own.database.rename(own.database.with_name("damaged.duckdb"))
    works(own, *month)


@section("Corrupt database file")
def _corrupt(own: Folder, _: SampleSite) -> None:
    with own.database.open("r+b") as file:
        file.seek(3 * 4096 + 1_000)
        file.write(b"x" * 1_000)
    month = ("backfill", "green", "2024-01")
    expect("Corrupt database file", words(own.pipeline(*month), 5))
    own.database.rename(own.database.with_name("damaged.duckdb"))
    works(own, *month)


@section("is a view in this database")
def _views(own: Folder, _: SampleSite) -> None:
    if duckdb.__version__ < "2":
        pytest.skip("views need DuckDB 2")
    place = ("--warehouse", "duckdb:///data/views.duckdb")
    works(own, "backfill", "green", "2024-01", *place[:1], f"{place[1]}?tables=views")
    expect("is a view in this database", words(own.pipeline(*FEBRUARY, "--through", "load", *place), 1))
    works(own, *FEBRUARY, "--through", "load", *place[:1], f"{place[1]}?tables=views")


@contextmanager
def downloading(own: Folder, site: SampleSite, seconds: float, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command whose download of February is under way, and takes so long; a second one does not."""
    site.faults.add("*2024-02*", "delay", seconds)
    process = own.start(*command)
    until = time.monotonic() + 60
    while not any("2024-02" in one.path for one in [*site.requests]):
        assert time.monotonic() < until
        time.sleep(0.05)
    yield process
    site.faults.clear()


@section("was killed (signal 9)")
def _killed(own: Folder, site: SampleSite) -> None:
    with downloading(own, site, 60, "pipeline", *FEBRUARY, "--workers", "2") as process:
        for child in psutil.Process(process.pid).children():
            child.kill()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    expect("was killed (signal 9)", said)
    works(own, *FEBRUARY, "--workers", "1")


@section("Exit code 4")
def _away(own: Folder, site: SampleSite) -> None:
    file = own.path / "luigi.cfg"
    file.write_text(file.read_text().replace("\n[core]\n", "\n[core]\nrpc_retry_wait = 1\n"))
    february = ("pipeline", *FEBRUARY, "--scheduler")
    with running_luigid(own) as luigid, downloading(own, site, 8, *february, luigid.url) as process:
        luigid.process.kill()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 4, said
    expect("Exit code 4", said)
    works(own, *FEBRUARY)


@section("Exit code 6")
def _shared(own: Folder, site: SampleSite) -> None:
    with running_luigid(own) as luigid:
        command = ("luigi", "--module", "pipeline", "Download", "--dataset", "green", "--month", "2024-02")
        command += luigid.options
        with downloading(own, site, 12, *command) as first:
            said = own.run(*command)
            first.communicate(timeout=60)
        expect("Exit code 6", words(said, 6))
        words(own.run(*command), 0)
    assert first.returncode == 0


@pytest.mark.parametrize("title", CAUSES)
def test_the_message_of_the_page_is_what_is_said_and_its_remedy_works(
    title: str, own: Folder, site: SampleSite
) -> None:
    CAUSES[title](own, site)


CLOUD = "another process has written other bytes"


def test_of_two_writers_the_second_gets_the_message_of_the_page_and_may_write_again(
    cloud: Cloud, tmp_path: Path
) -> None:
    mine, theirs = (open_store(cloud.lake, str(tmp_path / name)) for name in ("mine", "theirs"))
    with pytest.raises(ConcurrentWriteError) as caught, mine.publish("raw/a") as draft:
        draft.write_bytes(b"mine")
        with theirs.publish("raw/a") as other:
            other.write_bytes(b"theirs")
    expect(CLOUD, caught.value.words)
    with mine.publish("raw/a") as draft:
        draft.write_bytes(b"mine")


def test_every_quoted_message_is_caused_by_a_test() -> None:
    assert {title for title, quoted in QUOTED.items() if quoted} == {*CAUSES, CLOUD}


def _rows() -> Iterator[tuple[str, ...]]:
    for line in re.findall(r"^\| `(.*) \|$", PAGE, re.MULTILINE):
        yield tuple(cell.strip(" `") for cell in line.split("|"))


def test_the_page_has_every_error_class_with_its_code_and_a_section() -> None:
    kinds = [*PipelineError.__subclasses__(), *StoreError.__subclasses__()]
    rows = {name: rest for name, *rest in _rows()}
    for kind in kinds:
        code, retryable, *_ = rows[kind.__name__]
        assert (code, retryable) == (kind.code, "yes" if kind.retryable else "no")
        assert any(re.search(rf"\b{kind.__name__}\b", text) for text in SECTIONS.values()) or kind.code == "usage"
    for number in (3, 4, 5, 6):
        assert f"Exit code {number}" in SECTIONS
