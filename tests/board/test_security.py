"""Attacks on a board through real HTTP; each that makes sense for both with and without `--allow-runs`."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from boards import PATIENCE_S, Answer, Board, Elements, pages, running_board, until
from conftest import Folder, make_folder
from tornado.web import create_signed_value

from pipeline.sample import SampleSite

#: Text that would run if it were not escaped: as an element, within an attribute, within a script.
HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(2)>"""
BEFORE = "../../../../../../../../etc/passwd"
MODES = {"reading": (), "with --allow-runs": ("--allow-runs",)}
WRITES = ["/actions/backfill", "/actions/redo", "/actions/refresh", "/actions/latest", "/actions/cancel"]


def _with_hostile_texts(folder: Folder) -> Folder:
    """A lake, logs and a history in which every text is hostile that others may have written."""
    done = folder.pipeline("backfill", "green", "2024-01")
    assert done.returncode == 0, done.stderr
    data, logs = folder.path / "data", folder.path / "data" / "logs"
    (data / "lake" / "raw" / "green" / "<img src=x onerror=alert(2)>.parquet").write_bytes(b"")
    log = logs / "green" / "2024-01" / "load.log"
    log.write_text(f"{log.read_text()}\n{HOSTILE}\x1b[2J\n")
    checks = data / "lake" / "checks" / "green" / "2024-01.json"
    document = json.loads(checks.read_text())
    finding = {"rule": HOSTILE, "severity": "warn", "value": HOSTILE, "limit": HOSTILE, "reason": HOSTILE}
    document["findings"] = [*document.get("findings", []), finding]
    checks.write_text(json.dumps(document))
    sidecar = data / "lake" / "raw" / "green" / "green_tripdata_2024-01.parquet.json"
    source = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**source, "url": f"javascript:alert(1)//{HOSTILE}", "etag": HOSTILE}))
    run = json.loads((logs / "runs.jsonl").read_text().splitlines()[-1])
    failure = {"step": HOSTILE, "dataset": HOSTILE, "month": "2024-01", "kind": HOSTILE, "error": HOSTILE}
    others = {"asked": HOSTILE, "errors": [HOSTILE], "warnings": [HOSTILE], "failures": [failure], "exit_code": 1}
    with (logs / "runs.jsonl").open("a") as file:
        for id in (f"{run['id']}-x", HOSTILE, BEFORE):
            file.write(f"{json.dumps({**run, **others, 'id': id, 'months_done': [HOSTILE]})}\n")
    events = [
        {"event": "run_started", "run": f"{run['id']}-x", "asked": HOSTILE, "wanted": 1, "bytes": 1, "months": []},
        {"event": "step_started", "step": "load", "dataset": "green", "month": "2024-01", "message": HOSTILE},
        {"event": "log_lost", "step": HOSTILE, "dataset": HOSTILE, "month": HOSTILE, "message": HOSTILE},
        {"event": HOSTILE, "step": "load"},
    ]
    lines = [json.dumps({"at": run["began"], **each}) for each in events]
    (logs / "runs" / f"{run['id']}-x.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("board"), shared_site.url)
    folder.environment["PIPELINE_NOTIFY_URL"] = "http://127.0.0.1:9/hooks/s3cr3t-hook"
    return _with_hostile_texts(folder)


@pytest.fixture(scope="module", params=MODES)
def board(request: pytest.FixtureRequest, hostile_folder: Folder) -> Iterator[Board]:
    """A board, and a browser that has used its link."""
    history = hostile_folder.path / "data" / "logs" / "runs.jsonl"
    before = history.read_text()
    with running_board(hostile_folder, *MODES[request.param]) as board:
        yield board
        said = board.said
    assert history.read_text() == before, "an attack has started a run"
    assert "Traceback" not in said
    assert _tokens(said) == _tokens(said.splitlines()[0]), "a log has a token"


def _tokens(text: str) -> list[str]:
    return re.findall(r"token=([\w.-]+)", text)


def _can_run(board: Board) -> bool:
    return "--allow-runs" in board.options


def _is_refused(answer: Answer, status: int = 403) -> None:
    assert answer.status == status, answer.body
    assert not answer.header("set-cookie")
    assert "2024-01" not in answer.body
    assert "Traceback" not in answer.body


# --- who gets in


@pytest.mark.parametrize("path", ["/", "/runs", "/months/green/2024-01", "/months/zones", "/events", "/nothing"])
def test_without_the_cookie_no_page_is_shown(board: Board, path: str) -> None:
    _is_refused(board.ask(path, cookies={}))
    _is_refused(board.ask(path, "HEAD", cookies={}))


def _cookie(board: Board, *, key: str = "", port: int = 0, age_s: int = 0) -> dict[str, str]:
    """A cookie as the board makes it, but for what is given."""
    name = f"board_{port or board.port}"
    key = key or json.loads((board.folder.path / f"data/logs/board/{board.port}.key").read_text())["key"]
    value = create_signed_value(key, name, "in", clock=lambda: time.time() - age_s)
    return {f"board_{board.port}": value.decode()}


def test_a_cookie_as_the_board_makes_it_is_valid_here(board: Board) -> None:  # Or the next tests would show nothing.
    assert board.ask("/runs", cookies=_cookie(board)).status == 200


@pytest.mark.parametrize("traits", [{"key": "guessed"}, {"port": 1}, {"age_s": 86400 * 40}], ids=str)
def test_a_cookie_that_is_forged_foreign_or_expired_is_refused(board: Board, traits: dict[str, int]) -> None:
    _is_refused(board.ask("/runs", cookies=_cookie(board, **traits)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", ["", "in", "2|1:0|", "%00", "1|1|1", "2|1:0|1:0|1:0|1:0|x", "in|9999999999|" + "0" * 40]
)
def test_a_malformed_cookie_is_refused(board: Board, value: str) -> None:
    _is_refused(board.ask("/runs", cookies={f"board_{board.port}": value}))


def test_a_cookie_with_one_other_letter_is_refused(board: Board) -> None:
    ((name, value),) = board.cookies.items()
    _is_refused(board.ask("/runs", cookies={name: value[:-1] + ("0" if value[-1] != "0" else "1")}))


def test_a_link_is_used_once(board: Board) -> None:
    path = board.link().removeprefix(board.url)
    assert board.ask(path, cookies={}).status == 200
    _is_refused(board.ask(path, cookies={}))


@pytest.mark.parametrize("token", ["x", ".", "a.b", "%00", "é", "x" * 5000, "%ff", "None", "in"])
def test_a_guessed_token_is_refused(board: Board, token: str) -> None:
    answer = board.ask(f"/?token={quote(token, safe='%')}", cookies={})
    _is_refused(answer, 400 if token == "%ff" else 403)


def test_a_link_of_another_board_is_refused(board: Board, tmp_path: Path) -> None:
    with running_board(make_folder(tmp_path / "other", board.folder.source)) as other:
        _is_refused(board.ask(other.link().removeprefix(other.url), cookies={}))


def test_a_token_is_not_taken_from_another_name_and_stays_valid(board: Board) -> None:
    path = board.link().removeprefix(board.url)
    _is_refused(board.ask(path, headers={"Host": "evil.example"}, cookies={}))
    assert board.ask(path, cookies={}).status == 200


def test_the_token_leaves_the_address_and_is_sent_to_no_other_site(board: Board) -> None:
    answer = board.ask(board.link().removeprefix(board.url), cookies={})
    assert answer.header("referrer-policy") == "same-origin"
    assert "token" not in answer.body, "the page that is opened has another address"
    assert answer.header("cache-control") == "no-store"


def test_cookies_are_kept_from_scripts_and_from_other_sites(board: Board) -> None:
    answers = [board.ask(board.link().removeprefix(board.url), cookies={}), board.ask("/?lang=ko"), *_all(board)]
    cookies = [text for answer in answers for name, text in answer.headers if name == "set-cookie"]
    assert len(cookies) >= 2
    for cookie in cookies:
        assert "HttpOnly" in cookie, cookie
        assert "SameSite=Strict" in cookie, cookie
        assert "Domain" not in cookie, cookie


def _all(board: Board) -> list[Answer]:
    """Answers of all kinds, asked once per board."""
    if not board.seen:
        board.seen |= pages(board)
        board.seen |= {path: board.ask(path) for path in ("/nothing", "/runs/none", "/months/none/2024-01")}
    return list(board.seen.values())


# --- under which name


HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example",
    "127.0.0.1.evil.example:{port}",
    "localhost.evil.example",
    "localhost.",
    "127.0.0.1.",
    "127.0.0.1:{port}:80",
    "127.0.0.1@evil.example",
    "[::1].evil.example",
    "[::ffff:7f00:1]:{port}",
    "2130706433:{port}",
    "0x7f.1",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "",
    " ",
    "127.0.0.1,evil.example",
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_that_points_its_own_name_to_this_machine_gets_nothing(board: Board, host: str, method: str) -> None:
    name = host.format(port=board.port)
    request = (
        f"{method} / HTTP/1.1\r\nHost: {name}\r\n{_cookie_line(board)}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    answer = board.send(request.encode())
    assert re.match(rb"HTTP/1.1 40[03] ", answer), answer
    assert b"2024-01" not in answer
    assert b"<script>alert" not in answer


def _cookie_line(board: Board) -> str:
    return "".join(f"Cookie: {name}={value}\r\n" for name, value in board.cookies.items())


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST", "127.0.0.1"])
def test_the_names_of_this_machine_are_allowed(board: Board, host: str) -> None:
    assert board.ask("/runs", headers={"Host": host.format(port=board.port)}).status == 200


@pytest.mark.parametrize(
    "lines",
    ["Host: 127.0.0.1\r\nHost: evil.example\r\n", "Host: evil.example\r\nHost: 127.0.0.1\r\n", ""],
    ids=["two hosts", "two hosts, ours last", "no host"],
)
def test_a_request_without_exactly_one_host_is_refused(board: Board, lines: str) -> None:
    answer = board.send(f"GET / HTTP/1.1\r\n{lines}{_cookie_line(board)}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "target", ["http://evil.example/", "//evil.example/", "http://127.0.0.1/runs", "*", "runs", "/%00"]
)
def test_another_form_of_address_is_no_page(board: Board, target: str) -> None:
    answer = board.send(
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{_cookie_line(board)}Connection: close\r\n\r\n".encode()
    )
    assert re.match(rb"HTTP/1.1 40[04] ", answer), answer


def test_http_1_0_without_a_cookie_is_refused(board: Board) -> None:
    assert board.send(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_headers_of_proxies_change_nothing(board: Board) -> None:
    forwarded = {"X-Forwarded-Host": "127.0.0.1", "Forwarded": "host=127.0.0.1", "X-Host": "127.0.0.1"}
    _is_refused(board.ask("/", headers={"Host": "evil.example", **forwarded}))
    _is_refused(board.ask("/", headers={"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1"}, cookies={}))


# --- writes


@pytest.mark.parametrize("path", WRITES)
def test_a_write_from_the_own_page_passes_only_with_allow_runs(board: Board, path: str) -> None:
    answer = board.post(path, workers="0")  # Which is invalid, so that it starts nothing.
    if _can_run(board):
        assert answer.status not in (403, 404, 405, 500), answer.body
    else:
        assert answer.status == 404


FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-site", "Origin": ""},
    {"Sec-Fetch-Site": "", "Origin": ""},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": ""},
    {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": ""},
    {"Origin": "http://localhost:{port}", "Sec-Fetch-Site": ""},
    {"Origin": "http://127.0.0.1:{port}.evil.example", "Sec-Fetch-Site": ""},
    {"Origin": "http://[::1", "Sec-Fetch-Site": ""},
    {"Origin": "http://evil.example/http://127.0.0.1:{port}", "Sec-Fetch-Site": ""},
    {"Origin": "http://evil.example, http://127.0.0.1:{port}", "Sec-Fetch-Site": ""},
    {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: " ".join(f"{k}={v}" for k, v in headers.items()))
def test_a_write_from_a_page_of_another_site_is_refused(board: Board, headers: dict[str, str]) -> None:
    texts = {name: text.format(port=board.port) for name, text in headers.items()}
    for path in [*WRITES[:1], "/"]:
        answer = board.post(path, texts, dataset="green", period="2024-02")
        assert answer.status == (403 if _can_run(board) or path == "/" else answer.status)
        assert answer.status in (403, 404)


@pytest.mark.parametrize("xsrf", [None, "0" * 32, "2|00000000|00|0", "x", HOSTILE, "%ff"])
def test_a_write_without_the_token_of_a_page_is_refused(board: Board, xsrf: str | None) -> None:
    for path in WRITES if _can_run(board) else ["/"]:
        _is_refused(board.post(path, xsrf=xsrf if xsrf is None else quote(xsrf, safe="%"), dataset="green"))


def test_a_write_with_the_token_of_another_session_is_refused(board: Board) -> None:
    assert board.ask("/runs", cookies={**board.cookies, f"board_xsrf_{board.port}": "ab" * 16}).status == 200
    _is_refused(board.post(WRITES[0] if _can_run(board) else "/", xsrf="ab" * 16, dataset="green"))


def test_a_write_without_the_cookie_is_refused(board: Board) -> None:
    other = Board(board.folder, board.port, board.process, board.options)
    _is_refused(other.post(WRITES[0], dataset="green", period="2024-02"))


@pytest.mark.parametrize("path", WRITES)
def test_reading_an_address_of_writes_starts_nothing(board: Board, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = board.ask(f"{path}?dataset=green&period=2024-02&token=", method)
        assert answer.status == (405 if _can_run(board) else 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post"])
def test_other_methods_are_not_allowed(board: Board, method: str) -> None:
    for path in ("/", WRITES[0]):
        answer = board.ask(path, method, {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
        assert answer.status == 405
        assert not [name for name, _ in answer.headers if name.startswith("access-control")]


def test_headers_and_fields_that_name_another_method_change_nothing(board: Board) -> None:
    override = {"X-HTTP-Method-Override": "POST", "X-HTTP-Method": "POST", "X-Method-Override": "POST"}
    answer = board.ask(f"{WRITES[0]}?_method=POST&dataset=green&period=2024-02", headers=override)
    assert answer.status == (405 if _can_run(board) else 404)


def test_no_other_site_may_read_or_frame_a_page(board: Board) -> None:
    evil = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    for answer in [board.ask("/runs", headers=evil), *_all(board)]:
        assert not [name for name, _ in answer.headers if name.startswith("access-control")]
        assert "frame-ancestors 'none'" in answer.header("content-security-policy")
        assert answer.header("cross-origin-resource-policy") == "same-origin"


def test_a_websocket_is_not_opened(board: Board) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    for path in ("/", "/runs"):
        answer = board.ask(path, headers=upgrade)
        assert answer.status in (200, 400)
        assert not answer.header("upgrade")


# --- what a browser may do with a page


def test_every_page_forbids_what_no_page_needs(board: Board) -> None:
    for answer in [*_all(board), board.ask("/", cookies={}), board.ask("/static/board.css")]:
        policy = answer.header("content-security-policy")
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http:" not in policy
        assert "*" not in policy
        assert "base-uri 'none'" in policy
        assert "form-action 'self'" in policy
        assert answer.header("x-content-type-options") == "nosniff"
        assert not answer.header("server")


def test_no_page_is_kept_by_browser_or_proxy(board: Board) -> None:
    for answer in [*_all(board), board.ask("/", cookies={})]:
        assert answer.header("cache-control") == "no-store"


# --- paths


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/%2e%2e%2fserver.py",
        "/static/..%252fserver.py",
        "/static/..\\server.py",
        "/static/..%5cserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/board.css%00.png",
        "/static/./../../board/access.py",
        "/static/....//server.py",
        "/static/",
        "/static/..",
    ],
)
def test_no_file_but_those_for_the_page_is_served(board: Board, path: str) -> None:
    answer = board.ask(path)
    assert answer.status in (400, 403, 404), answer.body
    assert "import" not in answer.body
    assert "root:" not in answer.body


def test_a_symbolic_link_beside_the_style_sheet_leads_nowhere(tmp_path: Path, shared_site: SampleSite) -> None:
    from pipeline.board import server  # A copy of the package, so that nothing is written into the real one.

    package, copy = Path(server.__file__).parents[1], tmp_path / "copy" / "pipeline"
    copy.parent.mkdir()
    _copy(package, copy)
    (copy / "board" / "static" / "secret.css").symlink_to("/etc/passwd")
    folder = make_folder(tmp_path / "work", shared_site.url)
    folder.environment["PYTHONPATH"] = str(copy.parent)
    with running_board(folder) as board:
        assert board.ask("/static/board.css").status == 200
        assert board.ask("/static/secret.css").status in (403, 404)


def _copy(package: Path, copy: Path) -> None:
    import shutil

    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))


IDS = [BEFORE, quote(BEFORE, safe=""), "..%2f..", "%2e%2e", "%00", "%0a", HOSTILE, "None", "-1", "x" * 200, "é", "a b"]


@pytest.mark.parametrize("id", IDS)
def test_no_id_in_an_address_leads_out_of_the_logs(board: Board, id: str) -> None:
    text = quote(id, safe="%/")
    for path in (f"/runs/{text}", f"/months/{text}/2024-01", f"/months/green/{text}", f"/months/green/2024-01/{text}"):
        answer = board.ask(path)
        assert 400 <= answer.status < 500, (path, answer.body)
        assert "root:" not in answer.body
        _is_harmless(answer)


@pytest.mark.parametrize("month", ["2024-13", "0000-00", "9999-99", "2024-1", "1999-01", "2024-01-01"])
def test_a_month_that_does_not_exist_is_the_users_mistake(board: Board, month: str) -> None:
    answer = board.ask(f"/months/green/{month}")
    assert 400 <= answer.status < 500
    assert "Traceback" not in answer.body


# --- too much


def test_a_request_that_is_too_large_is_not_read(board: Board) -> None:
    huge = b"x" * (1 << 20)
    host = b"Host: 127.0.0.1\r\n"
    requests = {
        "address": b"GET /?" + huge + b" HTTP/1.1\r\n" + host + b"\r\n",
        "header": b"GET / HTTP/1.1\r\n" + host + b"X: " + huge + b"\r\n\r\n",
        "many headers": b"GET / HTTP/1.1\r\n" + host + b"X: y\r\n" * 100_000 + b"\r\n",
        "body": b"POST /actions/backfill HTTP/1.1\r\n" + host + b"Content-Length: 99999999999\r\n\r\n" + huge,
        "chunks": b"POST / HTTP/1.1\r\n"
        + host
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"10000\r\n"
        + b"x" * 65536
        + b"\r\n",
    }
    for name, request in requests.items():
        more = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        answer = board.send(request + (more * 40 if name == "chunks" else b""))
        assert not answer or answer.startswith(b"HTTP/1.1 400 "), name
        assert len(answer) < 1000
    assert board.answers()


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: -1",
        "Content-Length: 1e3",
        "Content-Length: 5, 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Bad Header: x",
        "X: a\x00b",
        " folded",
    ],
)
def test_a_request_that_two_servers_would_read_differently_is_refused(board: Board, lines: str) -> None:
    answer = board.send(
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n\r\n0\r\n\r\nGET /runs HTTP/1.1\r\n\r\n".encode()
    )
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")), answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "request_line", ["GET", "GET /", "GET / HTTP/9.9", "\x00\x01\x02", "GET / HTTP/1.1 x", "\x16\x03\x01"]
)
def test_what_is_no_http_gets_a_short_answer(board: Board, request_line: str) -> None:
    answer = board.send(f"{request_line}\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")


def test_a_compressed_body_is_not_expanded(board: Board) -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    answer = board.ask("/actions/backfill", "POST", {"Content-Encoding": "gzip"}, bomb)
    assert answer.status in (400, 403, 404)


@pytest.mark.parametrize("kind", ["form", "query", "multipart"])
def test_a_form_with_too_many_fields_is_refused(board: Board, kind: str) -> None:
    many = "&".join(f"a{number}=" for number in range(3000))
    if kind == "form":
        answer = board.ask("/actions/backfill", "POST", {}, many)
    elif kind == "query":
        answer = board.ask(f"/?{many[:15_000]}")
    else:
        parts = "".join(f'--b\r\nContent-Disposition: form-data; name="a{n}"\r\n\r\nx\r\n' for n in range(3000))
        answer = board.ask("/", "POST", {"Content-Type": "multipart/form-data; boundary=b"}, f"{parts}--b--\r\n")
    assert answer.status in ((200, 400) if kind == "query" else (400, 403, 404))
    assert "Traceback" not in answer.body


def test_slow_clients_and_more_connections_than_allowed_keep_nobody_out(board: Board) -> None:
    held: list[socket.socket] = []
    try:
        for number in range(300):
            connection = socket.create_connection(("127.0.0.1", board.port), timeout=PATIENCE_S)
            held.append(connection)
            if number % 2:  # Slow ones, which never end their request.
                connection.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx")
            else:
                connection.sendall(b"GET / HTT")
        assert board.answers()
        until(lambda: len(_connections(board)) <= 260)  # The oldest were closed.
    finally:
        for connection in held:
            connection.close()
    until(lambda: len(_connections(board)) < 10)
    assert board.answers()


def _connections(board: Board) -> list[Path]:
    links = Path(f"/proc/{board.process.pid}/fd").iterdir()
    return [link for link in links if link.exists() or link.is_symlink() if _is_socket(link)]


def _is_socket(link: Path) -> bool:
    try:
        return str(link.readlink()).startswith("socket:")
    except OSError:  # It was closed meanwhile.
        return False


# --- texts of others


def _is_harmless(answer: Answer) -> None:
    """No element, attribute or script of the page comes from a hostile text."""
    page = Elements(answer.body)
    assert page.inline == []
    for tag, attributes in page.elements:
        assert tag not in ("style", "base", "object", "embed", "iframe"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        assert attributes.get("src", "/").startswith("/"), attributes
        assert not re.match(
            r"\s*(javascript|data|vbscript):", attributes.get("href", "") + attributes.get("action", "")
        )
        assert attributes.get("src") != "x"
        if tag == "script":
            assert attributes["src"].startswith("/static/")
    assert "\x1b" not in answer.body
    assert "\x00" not in answer.body


def test_hostile_texts_in_lake_logs_and_history_are_shown_and_not_run(board: Board) -> None:
    found = pages(board)
    assert {"/", "/runs", "/months/green/2024-01"} <= {urlsplit(address).path for address in found} | {
        "/months/green/2024-01"
    }
    addresses = [
        "/months/green/2024-01",
        "/months/zones",
        *(f"/runs/{path.stem}" for path in (board.folder.path / "data" / "logs" / "runs").glob("*.jsonl")),
    ]
    for address, answer in {**found, **{each: board.ask(each) for each in addresses}}.items():
        assert answer.status == 200, (address, answer.body)
        _is_harmless(answer)


PARAMETERS = [
    "lang",
    "against",
    "period",
    "dataset",
    "action",
    "run",
    "step",
    "from",
    "through",
    "month",
    "state",
    "q",
    "_xsrf",
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_hostile_parameter_is_never_part_of_the_page(board: Board, name: str) -> None:
    for path in (
        "/",
        "/runs",
        "/months/green/2024-01",
        "/months/green/2024-01/data",
        "/actions",
        "/nothing",
    ):
        answer = board.ask(f"{path}?{name}={quote(HOSTILE)}&action=backfill")
        assert answer.status < 500, answer.body
        _is_harmless(answer)


def test_hostile_fields_of_a_form_are_never_part_of_the_page(board: Board) -> None:
    for path in WRITES:
        fields = {name: HOSTILE for name in PARAMETERS if name != "_xsrf"}
        answer = board.post(path, **fields, workers="9;id")
        assert 400 <= answer.status < 500, answer.body
        _is_harmless(answer)


@pytest.mark.parametrize(
    "text", ["--help", "-q", "--lake=/tmp/x", "green;id", "$(id)", "green\n2024-01", "2024-01..--yes"]
)
def test_no_field_of_a_form_becomes_an_option_or_a_command(board: Board, text: str) -> None:
    valid = {"dataset": "green", "period": "2024-02", "workers": "1"}
    for path, field in ((WRITES[0], "through"), (WRITES[1], "step")):
        for name in (*valid, field):
            answer = board.post(path, **{**valid, field: "load", name: text})
            assert 400 <= answer.status < 500, (path, name, answer.body)


@pytest.mark.parametrize(
    "text", ["ko%0d%0aSet-Cookie:%20a=b", "ko%0aX-Evil:%201", "%E5%98%8D%E5%98%8AX-Evil:1", "ko\tX"]
)
def test_no_parameter_adds_a_header(board: Board, text: str) -> None:
    for path in (f"/?lang={quote(text, safe='%')}", f"/runs?lang=ko&next={text.replace(chr(9), '')}"):
        answer = board.ask(path)
        assert not answer.header("x-evil")
        assert "a=b" not in answer.header("set-cookie")


@pytest.mark.parametrize(
    "path",
    [
        "/?lang=ko",
        "//evil.example/?lang=ko",
        "/\\evil.example/?lang=ko",
        "/?lang=ko&next=//evil.example",
        "/%2f/evil.example/?lang=ko",
    ],
)
def test_the_choice_of_a_language_leads_to_no_other_site(board: Board, path: str) -> None:
    answer = board.ask(path)
    location = answer.header("location")
    assert answer.status in (302, 400, 404)
    assert location == "" or re.match(r"\?|/(?![/\\])", location), location
    assert urlsplit(location).netloc == ""


# --- secrets


def test_no_secret_is_in_a_page_a_header_a_log_the_history_or_the_list_of_processes(
    tmp_path: Path, shared_site: SampleSite
) -> None:
    secrets = ["s3cr3t-password", "s3cr3t-hook", "s3cr3t-source"]
    folder = make_folder(tmp_path / "work", shared_site.url)
    folder.source = shared_site.url.replace("http://", "http://user:s3cr3t-source@")
    folder.environment |= {
        "PIPELINE_WAREHOUSE": "postgresql://taxi:s3cr3t-password@127.0.0.1:9/none",
        "PIPELINE_NOTIFY_URL": "http://127.0.0.1:9/hooks/s3cr3t-hook",
        "PIPELINE_RETRIES": "0",
    }
    with running_board(folder, "--no-link", "--allow-runs") as board:
        link = board.link()
        secrets.append(_tokens(link)[0])
        secrets.append(json.loads((folder.path / f"data/logs/board/{board.port}.key").read_text())["key"])
        seen = board.ask(link.removeprefix(board.url), cookies={})
        addresses = ["/", "/runs", "/months/green/2024-01", "/months/zones", "/actions?action=refresh", "/nothing"]
        with ThreadPoolExecutor() as pool:  # Each waits for the warehouse, which does not answer.
            answers = [seen, *pool.map(board.ask, addresses)]
        answers.append(board.post("/actions/backfill", dataset="green", period="2024-01"))
        assert "127.0.0.1, port 9" in answers[1].body
        processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_readable(path)]
        assert any(b"pipeline.board" in each for each in processes)
        until(lambda: not _runs(folder))
    texts = [f"{answer.headers} {answer.body}" for answer in answers] + [board.said]
    texts += [each.decode(errors="replace") for each in processes]
    texts += [path.read_text(errors="replace") for path in (folder.path / "data").rglob("*") if path.is_file()]
    for secret in secrets:
        assert [text for text in texts if secret in text] == [], secret


def _is_readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:  # It has ended.
        return False


def _runs(folder: Folder) -> list[Path]:
    """Processes whose working folder is this one, but for the board's own."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_here = (process / "cwd").readlink() == folder.path
            if is_here and b"pipeline.board" not in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found
