"""`pipeline board` as a process: its address, its key, its link, its end, and what it holds in memory."""

from __future__ import annotations

import json
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from boards import PATIENCE_S, Board, free_port, running_board, until
from commands import Heard, on_terminal
from conftest import Folder

USAGE = 2


@pytest.fixture
def board(folder: Folder) -> Iterator[Board]:
    with running_board(folder) as board:
        yield board


def _key_file(folder: Folder, port: int) -> Path:
    return folder.path / "data" / "logs" / "board" / f"{port}.key"


def _fails(folder: Folder, *options: str, port: int = 0) -> str:
    """The one line with which a board does not start."""
    done = folder.pipeline("board", "--no-open", "--port", str(port or free_port()), *options)
    assert done.returncode == USAGE, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("pipeline: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# --- the link


def test_the_printed_link_opens_the_board_and_is_there_as_soon_as_it_answers(board: Board) -> None:
    (link,) = re.findall(r"The board: (\S+)", board.said)
    assert link.startswith(f"{board.url}/?token=")
    assert board.ask("/").status == 200, "the fixture has used it"
    assert board.ask(link.removeprefix(board.url), cookies={}).status == 403
    assert board.ask("/", "HEAD").body == ""


def test_with_no_link_nothing_is_printed_and_the_command_makes_one(folder: Folder) -> None:
    with running_board(folder, "--no-link") as board:
        assert board.ask("/runs").status == 200
    assert board.said == ""


def test_a_link_for_a_port_without_a_board_says_so(folder: Folder) -> None:
    port = free_port()
    assert f"no board with these logs (data/logs) runs at port {port}; start it" in _fails(folder, "--link", port=port)


def test_no_link_is_printed_for_a_board_that_was_killed(folder: Folder) -> None:
    with running_board(folder) as board:
        board.process.kill()
        board.process.wait()
        assert _key_file(folder, board.port).exists()
        assert "no board with these logs" in _fails(folder, "--link", port=board.port)
    with running_board(folder, port=board.port) as again:
        assert again.ask("/runs").status == 200


def test_the_link_has_the_address_at_which_the_board_listens(folder: Folder) -> None:
    with running_board(folder, "--address", "localhost") as board:
        assert board.link().startswith(f"http://localhost:{board.port}/?token=")
        assert board.ask("/runs").status == 200


def test_an_address_that_others_reach_gets_a_warning(folder: Folder) -> None:
    with running_board(folder, "--address", "0.0.0.0", "--no-link", "--allow-host", "taxi.example") as board:
        until(lambda: "others in this network can reach the board" in board.said)
        assert board.ask("/runs", headers={"Host": "taxi.example"}).status == 200
        assert board.ask("/runs", headers={"Host": "evil.example"}).status == 403


def test_on_a_desktop_the_link_is_opened_without_standing_in_a_list_of_processes(folder: Folder) -> None:
    browser, seen = folder.path / "browser.sh", folder.path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" >{seen}\ncat "${{1#file://}}" >>{seen}\nkill -TERM $PPID\n')
    browser.chmod(0o755)
    port = free_port()
    said, code = on_terminal(folder, "board", "--port", str(port), DISPLAY=":1", BROWSER=f"{browser} %s")
    assert code == 0, said
    address, page = seen.read_text().splitlines()
    assert address == (folder.path / f"data/logs/board/{port}.html").as_uri()
    assert f"url=http://127.0.0.1:{port}/?token=" in page
    assert list((folder.path / "data" / "logs" / "board").iterdir()) == []


# --- its key


def test_the_key_can_be_read_by_its_user_only_and_is_deleted_at_the_end(folder: Folder) -> None:
    logs = folder.path / "data" / "logs" / "board"
    logs.mkdir(parents=True)
    logs.chmod(0o777)
    port = free_port()
    old = logs / f"{port}.key"
    old.write_text("left by another")
    old.chmod(0o666)
    elsewhere = folder.path / "elsewhere"
    elsewhere.write_text("kept")
    (logs / f"{port}.new").symlink_to(elsewhere)
    with running_board(folder, port=port) as board:
        assert stat.S_IMODE(_key_file(folder, board.port).stat().st_mode) == 0o600
        assert board.ask("/runs").status == 200
    assert list(logs.iterdir()) == []
    assert elsewhere.read_text() == "kept"


def test_a_second_board_at_the_same_port_leaves_the_first_one_as_it_is(board: Board) -> None:
    before = _key_file(board.folder, board.port).read_text()
    said = _fails(board.folder, port=board.port)
    assert f"127.0.0.1, port {board.port}: Address already in use; allowed is an address of this machine" in said
    assert _key_file(board.folder, board.port).read_text() == before
    assert board.ask("/runs").status == 200


def test_a_board_at_the_same_port_of_another_address_is_refused(board: Board) -> None:
    said = _fails(board.folder, "--address", "127.0.0.2", port=board.port)
    assert f"a board with these logs runs at this port already, at {board.url}" in said
    assert board.ask("/runs").status == 200


@pytest.mark.parametrize("logs", ["data/logs", "/proc/none"])
def test_a_folder_of_logs_that_cannot_be_written_is_named(folder: Folder, logs: str) -> None:
    (folder.path / "data").mkdir()
    (folder.path / "data" / "logs").write_text("a file")
    folder.environment["PIPELINE_LOGS"] = logs
    said = _fails(folder)
    assert f"{logs}/board/" in said
    assert "must be allowed to write to the folder of logs" in said


# --- its address


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--address", "192.0.2.1"], "Cannot assign requested address"),
        (["--address", "no-such-name.invalid"], "port"),
        (["--address", "a..b"], "an invalid name"),
        (["--address", ""], "'': allowed is an address or a name"),
        (["--address", "http://127.0.0.1"], "allowed is an address or a name, without scheme"),
        (["--allow-host", "http://taxi.example:80"], "allowed is an address or a name, without scheme"),
    ],
)
def test_an_invalid_address_is_the_users_mistake(folder: Folder, options: list[str], reason: str) -> None:
    assert reason in _fails(folder, *options)
    assert not (folder.path / "data").exists()


def test_an_invalid_setting_gets_the_usual_message(folder: Folder) -> None:
    (folder.path / "luigi.cfg").write_text("[pipeline]\nretries = many\n")
    assert "retries = 'many'" in _fails(folder)


# --- its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 5])
def test_a_signal_ends_it_with_0_and_nothing_is_left(folder: Folder, number: int, times: int) -> None:
    with running_board(folder) as board:
        board.ask("/")
        children = psutil.Process(board.process.pid).children(recursive=True)
        for _ in range(times - 1):
            board.process.send_signal(number)
        assert board.stop(number) == 0
        said = board.said.splitlines()
    assert len(said) == 2, said
    until(lambda: not [child for child in children if child.is_running()])
    assert list((folder.path / "data" / "logs" / "board").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_gets_no_traceback(folder: Folder, number: int) -> None:
    process = folder.start("pipeline", "board", "--no-open", "--port", str(free_port()))
    heard = Heard(process)
    commands = psutil.Process(process.pid)
    until(lambda: "pipeline.board" in commands.cmdline() or process.poll() is not None)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 0
    assert heard.rest() == ""
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()


def test_it_ends_while_pages_are_open(board: Board) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in board.cookies.items())
    lines = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\n\r\n"
    with board.connection() as first, board.connection() as second:
        first.sendall(lines.encode())
        assert first.recv(1 << 16).startswith(b"HTTP/1.1 ")
        second.sendall(b"GET / HT")
        assert board.stop() == 0
    assert "Cannot send" not in board.said


# --- its memory


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_process_that_waits_has_loaded_none_of_the_large_libraries(board: Board) -> None:
    assert board.ask("/").status == 200
    assert board.ask("/runs").status == 200
    maps = Path(f"/proc/{board.process.pid}/maps").read_text()
    assert [name for name in ("pyarrow", "duckdb", "numpy", "pandas", "grpc") if f"/{name}" in maps] == []


def test_its_arguments_show_no_setting(folder: Folder) -> None:
    secret = "postgresql://taxi:s3cr3t@127.0.0.1:9/none"
    with running_board(folder, "--no-link", "--warehouse", secret) as board:
        board.ask("/")
        process = psutil.Process(board.process.pid)
        for each in [process, *process.children(recursive=True)]:
            assert "s3cr3t" not in " ".join(each.cmdline())
        key = json.loads(_key_file(folder, board.port).read_text())["key"]
        assert key not in " ".join([*process.cmdline(), *process.environ().values()])
