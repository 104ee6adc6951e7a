"""Commands work with unusual standard streams, full log disks and hostile texts, and report them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import luigi
import pytest
from conftest import Folder, make_folder
from full_disk import full_disk
from listeners import serving, webhook
from state import rows

from pipeline.cli.doctor import logs as logs_check
from pipeline.errors import SourceError, UsageError, visible
from pipeline.runs import runner as outcome
from pipeline.runs.history import Failure, History, Run
from pipeline.runs.notification import message
from pipeline.sample import SampleSite
from pipeline.settings import resolve
from pipeline.tasks import logs

#: What a hostile server or file name may hold: it clears a terminal, and looks like markup, a mention and HTML.
EVIL = "\x1b[2J[/b]<!channel>\x9b1m"
SHOWN = r"\x1b[2J[/b]<!channel>\x9b1m"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    """A folder with one month, for commands that change nothing."""
    folder = make_folder(tmp_path_factory.mktemp("filled"), shared_site.url)
    assert folder.pipeline("backfill", "green", "2024-01").returncode == 0
    return folder


def shell(folder: Folder, words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash, with the `pipeline` of this environment."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    own = {"PIPELINE_SOURCE": folder.source, "PIPELINE_RETRIES": "0"}
    return subprocess.run(
        ["bash", "-c", words],
        cwd=folder.path,
        env={**kept, **own, **folder.environment, **environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )


# Streams


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_the_grid_can_be_read_in_every_encoding(filled: Folder, encoding: str) -> None:
    ended = shell(filled, "pipeline status green 2024-01..2024-02", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    said = ended.stdout.decode(encoding)
    cells = "#." if encoding == "ascii" else "#·"
    assert re.search(rf"^2024  {re.escape(cells)}$", said, re.MULTILINE), said
    assert re.search(f"^{cells[0]} complete   {re.escape(cells[1])} missing$", said, re.MULTILINE)


def test_json_loses_nothing_in_any_encoding(filled: Folder) -> None:
    ended = shell(filled, "pipeline status green 2024-01 --lake data/Zürich --json", PYTHONIOENCODING="ascii")
    assert json.loads(ended.stdout)["lake"] == str(filled.path / "data" / "Zürich")


@pytest.mark.parametrize("words", ["status green 2024", "head green 2024-01 --json"])
def test_a_full_standard_output_is_one_message_and_exit_code_2(filled: Folder, words: str) -> None:
    ended = shell(filled, f"pipeline {words} > /dev/full")
    assert ended.returncode == 2
    assert ended.stderr == b"pipeline: standard output cannot be written: No space left on device\n"


#: The commands that write a file with a given name.
writes = pytest.mark.parametrize(
    "words",
    ["status green --html", "report green --html", "sql 'SELECT * FROM range(9999)' --format csv --force --output"],
)


@writes
def test_a_pipe_is_not_replaced_by_a_file_and_a_link_is_followed(tmp_path: Path, filled: Folder, words: str) -> None:
    pipe, link, page = (tmp_path / name for name in ("pipe", "link", "page"))
    os.mkfifo(pipe)
    link.symlink_to(page)
    ended = shell(filled, f"pipeline {words} {pipe}")
    assert (ended.returncode, ended.stderr) == (2, f"pipeline: {pipe} is not a file\n".encode())
    assert pipe.is_fifo()
    assert shell(filled, f"pipeline {words} {link}").returncode == 0
    assert link.is_symlink()
    assert page.stat().st_size > 1000


@writes
def test_a_full_disk_keeps_the_page_of_before_and_no_draft(tmp_path: Path, filled: Folder, words: str) -> None:
    page = tmp_path / "page"
    page.write_text("of before")
    ended = shell(filled, f"ulimit -f 4; pipeline {words} {page}", PYTHONDONTWRITEBYTECODE="1")
    assert (ended.returncode, ended.stderr) == (2, f"pipeline: {page} cannot be written: File too large\n".encode())
    assert [*tmp_path.iterdir()] == [page]
    assert page.read_text() == "of before"


def test_a_compiled_module_that_was_cut_off_is_not_reported_as_a_stop(tmp_path: Path, filled: Folder) -> None:
    words = f"pipeline status green --html {tmp_path}/page.html"
    assert shell(filled, words, PYTHONPYCACHEPREFIX=str(tmp_path)).returncode == 0
    (compiled,) = tmp_path.rglob("pipeline/board/grid.*.pyc")
    os.truncate(compiled, 100)
    ended = shell(filled, words, PYTHONPYCACHEPREFIX=str(tmp_path))
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, b"EOFError: marshal data too short")


def test_a_reader_that_has_left_is_not_an_error(filled: Folder) -> None:
    ended = shell(filled, 'pipeline head green 2024-01 --rows 2000 --json | head -1; echo "${PIPESTATUS[0]}"')
    row, code = ended.stdout.splitlines()
    assert json.loads(row)["vendor_id"]
    assert (code, ended.stderr) == (b"141", b"")


def test_closed_streams_behave_like_empty_ones(filled: Folder) -> None:
    ended = shell(filled, "pipeline redo green 2024-01 --from load <&-")
    assert ended.returncode == 2
    assert ended.stderr.endswith(b"add --yes\n")
    assert shell(filled, "pipeline status green 2024 >&-").returncode == 0
    assert shell(filled, "pipeline status gren 2>/dev/full").returncode == 2


def test_a_run_is_done_notified_and_recorded_whatever_its_streams(tmp_path: Path, filled: Folder) -> None:
    folder = make_folder(tmp_path / "work", filled.source)
    with webhook() as (url, got):
        for words in ("backfill green 2024-01 >&- 2>&- <&-", "redo green 2024-01 --from conform --yes >/dev/full"):
            ended = shell(folder, f"pipeline {words}", PIPELINE_NOTIFY_URL=url)
            assert ended.returncode == 0
    assert ended.stderr.endswith(b"pipeline: standard output cannot be written: No space left on device\n")
    assert len(got) == 2
    found = History(str(folder.path / "data" / "logs")).runs()
    assert [(run.outcome, run.months_done) for run in found] == [("done", ["green 2024-01"])] * 2
    # A file that got the number of a closed stream would have messages in it.
    assert rows(folder.database, "SELECT count(*) FROM green") == [(2000,)]


def test_a_statement_that_is_not_text_is_one_message(filled: Folder) -> None:
    ended = shell(filled, r"printf 'select \xff' | pipeline sql -")
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"pipeline: the statement cannot be read as text in utf-8: ")
    assert ended.stderr.count(b"\n") == 1


# Logs


def test_a_full_log_disk_is_reported_once_and_recorded_in_the_history(tmp_path: Path, filled: Folder) -> None:
    folder = make_folder(tmp_path / "work", filled.source)
    for month in ("2024-01", "2024-02"):
        for step in ("download", "conform"):
            path = logs.log_path(str(folder.path / "data" / "logs"), "green", date.fromisoformat(f"{month}-01"), step)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("/dev/full")
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02", "--through", "conform")
    assert ended.returncode == 0
    said = [line for line in ended.stderr.splitlines() if "log" in line.lower()]
    assert len(said) == 1, ended.stderr
    assert re.fullmatch(
        r"logs cannot be written: data/logs/green/2024-0\d/download\.log: No space left on device", said[0]
    )
    (run,) = History(str(folder.path / "data" / "logs")).runs()
    assert run.warnings == said


def test_plain_luigi_with_a_full_log_disk_has_no_traceback(tmp_path: Path, filled: Folder) -> None:
    folder = make_folder(tmp_path / "work", filled.source)
    path = logs.log_path(str(folder.path / "data" / "logs"), "green", date(2024, 1, 1), "download")
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    ended = folder.luigi("Download", "--dataset", "green", "--month", "2024-01")
    assert ended.returncode == 0
    assert ended.stderr.count("logs cannot be written: data/logs/green/2024-01/download.log: No space left") == 1
    assert "Logging error" not in ended.stderr


def test_doctor_reports_that_logs_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "logs"
    path.write_text("a file where the folder should be")
    ((status, message, _),) = logs_check(resolve(logs=str(path)))
    assert (status, message) == ("warning", f"{path} is no folder: runs have no logs and no history")


def test_a_line_of_history_that_is_cut_is_an_error(tmp_path: Path) -> None:
    found = History(str(tmp_path))
    with full_disk(10), pytest.raises(OSError, match="File too large"):
        found._write(found.path, "x" * 100 + "\n")


def test_the_history_keeps_a_command_line_that_is_not_text(tmp_path: Path) -> None:
    found = History(str(tmp_path))
    asked = "pipeline backfill --lake data/\udcff"
    found.begin(asked)
    assert [run.asked for run in found.runs()] == [asked]


def test_the_error_for_processes_that_cannot_share_a_lock_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.Lock", refuse)
    monkeypatch.setattr("luigi.worker.multiprocessing.Queue", refuse)
    with pytest.raises(UsageError, match="Read-only file system.*make /dev/shm"):
        outcome.run([luigi.WrapperTask()], workers=1, scheduler_url=None)


# Hostile texts


class _Evil(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.wfile.write(f"HTTP/1.1 418 {EVIL}\r\nContent-Length: 0\r\n\r\n".encode("latin-1"))

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    with serving(HTTPServer(("127.0.0.1", 0), _Evil)) as port:
        yield f"http://127.0.0.1:{port}"


def test_control_characters_of_a_server_are_shown_as_text_everywhere(tmp_path: Path, evil: str) -> None:
    folder = make_folder(tmp_path / "work", evil)
    folder.environment["PIPELINE_RETRIES"] = "0"
    with webhook() as (url, got):
        folder.environment["PIPELINE_NOTIFY_URL"] = url
        ran = folder.pipeline("backfill", "green", "2023-05")
    assert ran.returncode == 1
    said = [ran.stdout, ran.stderr, got[0]["text"]]
    for words in (("history",), ("logs", "green", "2023-05", "--all")):
        ended = folder.pipeline(*words)
        said.append(ended.stdout + ended.stderr)
    said.append(folder.luigi("Download", "--dataset", "green", "--month", "2023-06").stderr)
    for text in said:
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "x1b[2J[/b]" in text
    assert "&lt;!channel&gt;" in got[0]["text"]


def test_an_odd_path_is_shown_as_text_and_works(tmp_path: Path, filled: Folder) -> None:
    folder = make_folder(tmp_path / "work", filled.source)
    lake = "data/[/b]:smile:\x1b[31m[red]"
    ended = folder.pipeline("backfill", "green", "2024-01", "--through", "download", "--lake", lake)
    assert ended.returncode == 0, ended.stderr
    shown = str(folder.path / visible(lake))
    assert f"lake       {shown}\n" in ended.stdout
    ended = folder.pipeline("history")
    assert f"--lake {visible(lake)}" in ended.stdout, ended.stderr
    # Its bytes need not be text in any encoding.
    ended = folder.pipeline("status", "green", "2024-01", "--html", "page.html", "--lake", f"{lake}\udcff")
    assert ended.returncode == 0, ended.stderr
    assert rf"Lake {shown}\udcff<" in (folder.path / "page.html").read_text()


def test_an_error_is_text_whatever_it_quotes() -> None:
    assert str(SourceError(f"green: {EVIL}\n  more")) == f"green: {SHOWN}\n  more"
    assert visible(f"{EVIL}\udcff") == rf"{SHOWN}\udcff"


def test_a_subject_of_a_mail_is_one_line() -> None:
    run = Run("1", "2024-01-01T00:00:00", "pipeline backfill\r\nBcc: all@example.org", 1, months_done=["green 2024-01"])
    assert message(run).splitlines() == [r"taxi-pipeline: 1 month done (pipeline backfill\r Bcc: all@example.org)"]


def test_failures_of_one_cause_are_one_line() -> None:
    def failure(dataset: str, month: str, host: str = "gone") -> Failure:
        text = f"{dataset} {month}: http://{host}/{dataset}_tripdata_{month}.parquet: at 0x{month[:4]}: no answer"
        return Failure("download", dataset, month, "SourceError", text)

    months = [("green", "2024-01"), ("green", "2024-02"), ("green", "2024-03"), ("yellow", "2024-01")]
    run = Run("1", "", "x", 1, failures=[*(failure(*month) for month in months), failure("fhv", "2024-01", "other")])
    first, other = message(run).splitlines()[1:]
    assert first.endswith("no answer (same for 3 others: green 2024-02..2024-03, yellow 2024-01)")
    assert other.endswith("no answer")


def test_errors_appear_once_when_both_streams_go_to_the_same_file_and_else_in_each(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "work", "http://127.0.0.1:9")
    ended = shell(folder, "pipeline backfill green 2023-01..2023-03 --through download 2>&1")
    said = ended.stdout.decode()
    assert said.count("green_tripdata_2023") == 1, said
    assert "(same for 2 others: green 2023-02..2023-03)" in said
    assert len(re.findall(r"^download green 2023-0\d failed: SourceError$", said, re.MULTILINE)) == 3
    ended = shell(folder, "pipeline backfill green 2023-01 --through download")
    assert ended.stdout.count(b"green_tripdata_2023") == ended.stderr.count(b"green_tripdata_2023") == 1
