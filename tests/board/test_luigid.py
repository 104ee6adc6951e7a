"""luigid in the board's process: real runs and a real browser use it, and no other web page can."""

from __future__ import annotations

import base64
import json
import math
import pickle
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from boards import Board, running_board, until
from commands import Heard, Luigid
from conftest import Folder, make_folder
from playwright.sync_api import Browser, ConsoleMessage, Page

from pipeline.board.luigid import Luigid as BoardLuigid
from pipeline.sample import SampleSite

_MONTH = {"dataset": "green", "month": "2024-01"}


class _BoardLuigid(Luigid):
    """The luigid of a board."""

    def __init__(self, board: Board) -> None:
        super().__init__(board.port, board.process)
        self.board = board
        ((name, value),) = board.cookies.items()
        #: Of a browser that is logged in.
        self.cookie = f"{name}={value}"


@contextmanager
def _running_board(folder: Folder, port: int = 0) -> Iterator[_BoardLuigid]:
    """A board with luigid that reads the luigi.cfg of the folder; at any port unless one is given."""
    with running_board(folder, "--luigid", "--no-link", port=port) as board:
        yield _BoardLuigid(board)
    assert board.process.returncode == 0, board.said


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    return make_folder(tmp_path / "work", site.url)


@pytest.fixture
def place(tmp_path: Path, site: SampleSite) -> Folder:
    """The folder of the board."""
    folder = make_folder(tmp_path / "board", site.url)
    file = folder.path / "luigi.cfg"
    file.write_text(file.read_text().replace("\n[scheduler]\n", "\n[scheduler]\nworker_disconnect_delay = 3\n"))
    return folder


@pytest.fixture
def luigid(place: Folder) -> Iterator[_BoardLuigid]:
    with _running_board(place) as running:
        yield running


# Runs


def test_a_run_uses_it_and_a_failed_step_is_failed_until_the_next_run(
    own: Folder, place: Folder, luigid: Luigid, site: SampleSite
) -> None:
    site.faults.add("green*2024-01*", 500, times=math.inf)
    own.environment["PIPELINE_RETRIES"] = "0"
    months = ("backfill", "green", "2024-01..2024-02", "--scheduler", luigid.url)
    ended = own.pipeline(*months)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert [(task["name"], task["params"]) for task in luigid.tasks("FAILED").values()] == [("Download", _MONTH)]
    assert luigid.tasks("DISABLED") == {}
    site.faults.clear()
    again = own.pipeline(*months)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {task["status"] for task in luigid.tasks().values()} == {"DONE"}
    metrics = requests.get(f"{luigid.url}/metrics", timeout=60).text
    assert 'luigi_task_failed_total{dataset="green",family="Download"} 1.0' in metrics
    assert 'luigi_task_done_total{dataset="green",family="Mart"} 2.0' in metrics
    assert "luigi_task_disabled_total{" not in metrics


def test_a_failed_step_is_tried_once_in_a_run_of_luigi_too(own: Folder, luigid: Luigid, site: SampleSite) -> None:
    site.faults.add("*2024-01*", 500, times=math.inf)
    own.environment["PIPELINE_RETRIES"] = "0"
    download = ("Download", "--dataset", "fhv", "--month", "2024-01", *luigid.options)
    for attempts in (1, 2):
        assert own.luigi(*download, local=False).returncode == 1
        assert len([request for request in site.requests if "2024-01" in request.path]) == attempts


def test_the_step_of_a_killed_worker_is_taken_over(
    tmp_path: Path, own: Folder, luigid: Luigid, site: SampleSite
) -> None:
    site.faults.add("fhv_tripdata_2024-01*", "delay", 120)
    command = ("luigi", "--module", "pipeline", "Load", "--dataset", "fhv", "--month", "2024-01", *luigid.options)
    killed = make_folder(tmp_path / "mine", site.url).start(*command)
    until(lambda: any("fhv_tripdata_2024-01" in one.path for one in [*site.requests]))
    other = own.start(*command)
    until(lambda: len(luigid.ask("worker_list", include_running=False)) == 2)
    killed.kill()
    killed.communicate()
    said = other.communicate(timeout=90)[1]
    assert "3 ran successfully" in said, said


def test_a_restart_in_the_middle_of_a_run_keeps_its_state(
    own: Folder, place: Folder, luigid: Luigid, site: SampleSite
) -> None:
    site.faults.add("green*2024-01*", "delay", 15)
    run = own.start("pipeline", "backfill", "green", "2024-01..2024-02", "--scheduler", luigid.url)
    heard = Heard(run)
    until(lambda: "Mart" in {task["name"] for task in luigid.tasks("DONE").values()})
    luigid.process.terminate()
    luigid.process.wait(60)
    assert (place.path / "data" / "logs" / "board" / "luigid.pickle").stat().st_mode & 0o077 == 0
    stopped = time.time()
    with _running_board(place, luigid.port) as restarted:
        tasks = restarted.tasks().values()
        assert {task["name"] for task in tasks if task["status"] == "DONE"} >= {"Download", "Conform", "Load", "Mart"}
        assert [task["params"]["month"] for task in tasks if task["status"] == "RUNNING"] == ["2024-01"]
        said = heard.rest()
        out, _ = run.communicate(timeout=120)
        assert run.returncode == 0, out + said
        assert {task["status"] for task in restarted.tasks().values()} == {"DONE"}
        assert max(task["start_time"] for task in restarted.tasks().values()) < stopped, "no step was submitted again"


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(_Attack()), pickle.dumps(({}, 3))])
def test_a_state_file_that_is_no_state_is_ignored_and_runs_no_code(place: Folder, content: bytes) -> None:
    file = place.path / "data" / "logs" / "board" / "luigid.pickle"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with _running_board(place) as running:
        assert running.tasks() == {}
    assert not (place.path / "attacked").exists()
    assert len(pickle.loads(file.read_bytes())) == 3


# Attacks


#: Stands for the cookie of a browser that is logged in.
_LOGIN = "login"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Iterator[_BoardLuigid]:
    """A luigid that should never get a task."""
    place = make_folder(tmp_path_factory.mktemp("attacked"), shared_site.url)
    with _running_board(place) as running:
        yield running


def _send(luigid: _BoardLuigid, method: str, path: str, **headers: str) -> int:
    """Send a request that would add a task; returns the status."""
    sent = {name.replace("_", "-"): luigid.cookie if text == _LOGIN else text for name, text in headers.items()}
    data = {"data": json.dumps({"worker": "evil", "task_id": "evil", "family": "Load", "params": _MONTH})}
    where = {"params": data} if method == "GET" else {"data": data}
    with requests.request(
        method, luigid.url + path, headers=sent, timeout=60, allow_redirects=False, stream=True, **where
    ) as answer:
        if answer.status_code == 400 and not answer.headers:
            return 400  # Tornado refused it before any handler, and may reset the connection.
    assert "nosniff" in answer.headers["X-Content-Type-Options"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers
    return answer.status_code


_OTHER_SITE = {"Origin": "http://evil.example", "Sec_Fetch_Site": "cross-site"}
_REFUSED: dict[str, dict[str, str]] = {
    "another site": _OTHER_SITE,
    "another site, with the login": {**_OTHER_SITE, "Cookie": _LOGIN},
    "an old browser's form": {"Origin": "http://evil.example", "Cookie": _LOGIN},
    "a sandboxed page": {"Origin": "null", "Cookie": _LOGIN},
    "an empty origin": {"Origin": "null ", "Sec_Fetch_Site": "same-origin", "Cookie": _LOGIN},
    "another port of this machine": {"Origin": "http://127.0.0.1:1", "Sec_Fetch_Site": "same-site", "Cookie": _LOGIN},
    "an image of another site": {"Sec_Fetch_Site": "cross-site", "Cookie": _LOGIN},
    "an address entered into the browser": {"Sec_Fetch_Site": "none", "Cookie": _LOGIN},
    "an unknown mark": {"Sec_Fetch_Site": "x", "Cookie": _LOGIN},
    "a page of the board without a login": {"Sec_Fetch_Site": "same-origin"},
    "a page of the board with another login": {"Sec_Fetch_Site": "same-origin", "Cookie": "board=x"},
    "another name for this machine": {"Host": "rebinding.example"},
    "that name, with the login": {"Host": "rebinding.example", "Origin": "http://rebinding.example", "Cookie": _LOGIN},
    "a name that only begins like an allowed one": {"Host": "127.0.0.1.evil.example"},
    "a name with a user": {"Host": "127.0.0.1@evil.example"},
}


@pytest.mark.parametrize("headers", _REFUSED.values(), ids=_REFUSED)
def test_a_request_of_another_web_page_is_refused(attacked: _BoardLuigid, headers: dict[str, str]) -> None:
    send = partial(_send, attacked)
    for method, path in (
        ("POST", "/api/add_task"),
        ("GET", "/api/add_task"),
        ("GET", "/api/task_list"),
        ("POST", "/metrics"),
        ("GET", "/metrics"),
    ):
        assert send(method, path, **headers) in (400, 403), (method, path)
    if headers.get("Sec_Fetch_Site") != "none":
        assert send("GET", "/luigid/", **headers) in (400, 403)
        assert send("GET", "/luigid/static/visualiser/index.html", **headers) in (400, 403)
    assert attacked.tasks() == {}


def test_a_get_without_any_mark_changes_nothing(attacked: _BoardLuigid) -> None:
    send = partial(_send, attacked)
    assert send("GET", "/api/add_task") == 403, "so does an image on an address of the local network"
    # Browsers send the cookie to every port of a name.
    for referer in ({}, {"Referer": "http://127.0.0.1:1/"}, {"Referer": "http://[::1"}):
        assert send("GET", "/api/add_task", Cookie=_LOGIN, **referer) == 403, referer
    assert attacked.tasks() == {}
    assert send("GET", "/api/resource_list") == 400, "as programs do, but without parameters"
    assert requests.get(f"{attacked.url}/api/resource_list", timeout=60).status_code == 200


def test_workers_and_the_pages_of_the_board_pass(luigid: _BoardLuigid) -> None:
    send = partial(_send, luigid)
    assert send("POST", "/api/add_task") == 200, "a worker"
    assert list(luigid.tasks()) == ["evil"]
    same = {"Sec_Fetch_Site": "same-origin", "Cookie": _LOGIN}
    assert send("GET", "/api/forgive_failures", **same) == 400, "it has other parameters"
    assert send("GET", "/api/forgive_failures", Cookie=_LOGIN, Referer=f"{luigid.url}/luigid/") == 400, "as before"
    assert send("GET", "/api/task_list", **same) == 200
    assert send("POST", "/api/add_task", **same, Origin=luigid.url) == 200
    assert send("GET", "/luigid/static/visualiser/index.html", Sec_Fetch_Site="none", Cookie=_LOGIN) == 200
    assert send("GET", "/luigid/", Sec_Fetch_Site="none", Cookie=_LOGIN) == 302


def test_invalid_and_large_requests_are_refused_and_it_stays_up(luigid: Luigid) -> None:
    def post(path: str, data: Any) -> int:
        return requests.post(luigid.url + path, data=data, timeout=60).status_code

    assert post("/api/add_task", {"data": "x"}) == 400
    assert post("/api/add_task", {"data": "[]"}) == 400
    assert post("/api/add_task", {"data": "{}"}) == 400
    assert post("/api/__init__", {}) == 404
    assert post("/api/_prune_tasks", {}) == 404
    for path in ("/luigid/static/visualiser/../../server.py", "/luigid/static/visualiser/..%2f..%2fserver.py"):
        with socket.create_connection(("127.0.0.1", luigid.port)) as raw:
            raw.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert re.match(rb"HTTP/1.1 40[34] ", raw.recv(1000))
    with suppress(requests.RequestException):  # It closes the connection before everything is sent.
        assert post("/api/add_task", b"x" * 2_000_000) in (400, 413)
    explanation = json.dumps("x" * 900_000)
    luigid.ask("add_task", worker="w", task_id="step", family="Load", params=_MONTH, expl=explanation)
    assert luigid.ask("fetch_error", task_id="step")["error"] == explanation


# What it knows


def test_the_overlay_has_the_running_waiting_and_failed_steps(tmp_path: Path) -> None:
    luigid = BoardLuigid(str(tmp_path))
    ask = luigid.scheduler
    for name in ("DownloadZones", "Download", "Load", "Mart", "Conform"):
        params = {"dataset": "zones", "month": ""} if name == "DownloadZones" else _MONTH
        ask.add_task(worker="w", task_id=name, family=name, params=params, priority=-1 if name == "Conform" else 0)
    for _ in range(4):
        ask.get_work(worker="w", host="here")
    ask.set_task_progress_percentage("Download", 50)
    ask.set_task_status_message("Download", "half of it")
    ask.add_task(worker="w", task_id="Load", family="Load", status="FAILED", expl='"a reason"')
    ask.add_task(worker="w", task_id="Mart", family="Mart", status="DONE")
    assert luigid.overlay() == {
        ("zones", "", "download"): ("running", ""),
        ("green", "2024-01", "download"): ("running", "50% half of it"),
        ("green", "2024-01", "load"): ("failed", ""),
        ("green", "2024-01", "conform"): ("queued", ""),
    }
    assert luigid.workers == 1


def test_odd_values_of_a_program_do_not_break_the_overlay(tmp_path: Path) -> None:
    luigid = BoardLuigid(str(tmp_path))
    odd_params: list[Any] = [{"month": 3}, {}, {"dataset": None, "month": ["x"]}, {**_MONTH, "x": "<b>"}]
    for number, odd in enumerate(odd_params):
        luigid.scheduler.add_task(worker="w", task_id=f"{number}", family="Load", params=odd)
        luigid.scheduler.set_task_status_message(f"{number}", {"a": ["<script>"]})
        luigid.scheduler.set_task_progress_percentage(f"{number}", ["1", 3e9, -5, math.nan][number])
    luigid.scheduler.add_task(worker="w", task_id="other", family="LoadOther", params=_MONTH)
    steps = luigid.overlay()
    assert steps["green", "2024-01", "load"] == ("queued", "0% {'a': ['<script>']}")
    assert {step for _, _, step in steps} == {"load"}


# The visualiser


class _Visitor:
    """A page of the browser that is logged in, and what its console says."""

    def __init__(self, page: Page) -> None:
        self.page, self.messages = page, list[str]()
        page.on("console", lambda each: each.type in ("error", "warning") and self.messages.append(_text(each)))

    def run(self, script: str) -> Any:
        return self.page.evaluate(f"() => {{ {script} }}")

    def click(self, selector: str) -> None:
        """Click the element as soon as the page has it."""
        until(lambda: self.run(f"const found = document.querySelector('{selector}'); found?.click(); return !!found"))


def _text(message: ConsoleMessage) -> str:
    return f"{message.location['url']} {message.location['lineNumber']} {message.text}"


@pytest.fixture
def visitor(browser: Browser, luigid: _BoardLuigid) -> Iterator[_Visitor]:
    """A browser that is logged in."""
    context = browser.new_context()
    try:
        visitor = _Visitor(context.new_page())
        visitor.page.goto(luigid.board.link())
        visitor.page.wait_for_url(f"{luigid.url}/")
        yield visitor
    finally:
        context.close()


#: A font that the page does without, and jQuery's test of old browsers, which sets inline handlers that do nothing.
_HARMLESS = ("fonts.googleapis.com", "favicon", "jquery-1.10.0.min.js 3 Executing inline event handler")


def _problems(visitor: _Visitor) -> list[str]:
    return [message for message in visitor.messages if not any(harmless in message for harmless in _HARMLESS)]


_HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script>"


def test_the_visualiser_works_in_a_browser_and_shows_failed_steps_as_failed(luigid: Luigid, visitor: _Visitor) -> None:
    for step in ("Load", "Mart"):
        luigid.ask("add_task", worker="w", task_id=step, family=step, params=_MONTH, deps=["Load"] * (step == "Mart"))
    luigid.ask("get_work", worker="w", host="here")
    luigid.ask("add_task", worker="w", task_id="Load", status="FAILED", expl='"a reason"')
    visitor.page.goto(f"{luigid.url}/luigid/")

    def box(name: str) -> str:
        return str(visitor.run(f"return document.querySelector('#{name}_info .info-box-number').textContent"))

    boxes = ("FAILED", "UPSTREAM_FAILED", "DISABLED", "UPSTREAM_DISABLED")
    until(lambda: [box(name) for name in boxes] == ["1", "1", "0", "0"])
    visitor.click("button.showError")
    until(lambda: visitor.run("return document.querySelector('#errorModal pre')?.textContent") == "a reason")
    visitor.click("button.forgiveFailures")
    until(lambda: luigid.tasks("FAILED") == {})
    for tab in ("workers", "resources", "graph&taskId=Mart&visType=svg", "graph&taskId=Mart&visType=d3"):
        visitor.page.goto(f"{luigid.url}/luigid/static/visualiser/index.html#tab={tab}")
        visitor.page.reload()
        until(lambda: visitor.run("return document.querySelector('.tab-pane.active') && jQuery.active === 0"))
    assert _problems(visitor) == []


def test_names_and_messages_of_steps_run_no_script_in_the_visualiser(luigid: Luigid, visitor: _Visitor) -> None:
    common = {"worker": f"w{_HOSTILE}", "params": {_HOSTILE: _HOSTILE}, "resources": {_HOSTILE: 1}}
    luigid.ask("add_task", task_id="one", family=_HOSTILE, **common)
    luigid.ask("add_worker", worker=common["worker"], info={"host": _HOSTILE, "first_task": _HOSTILE})
    luigid.ask("get_work", worker=common["worker"], host=_HOSTILE)
    luigid.ask("set_task_status_message", task_id="one", status_message=_HOSTILE)
    visitor.page.goto(f"{luigid.url}/luigid/")
    visitor.click("button.statusMessage")
    until(lambda: visitor.run("return document.querySelector('#statusMessageModal pre img')"))
    for tab, call in (("workers", "worker_list"), ("resources", "resource_list")):
        visitor.page.goto(f"{luigid.url}/luigid/static/visualiser/index.html#tab={tab}")
        visitor.page.reload()
        asked = f"performance.getEntriesByType('resource').some(entry => entry.name.includes('/api/{call}'))"
        until(lambda asked=asked: visitor.run(f"return document.readyState === 'complete' && {asked}"))
    assert any("violates" in problem for problem in _problems(visitor)), "the browser refused scripts"
    assert visitor.run("return [window.hacked, document.title]") == [None, "Luigi Task Visualiser"]


def test_another_site_cannot_reach_it_from_the_browser_of_a_logged_in_user(luigid: Luigid, visitor: _Visitor) -> None:
    url = f"http://127.0.0.1:{luigid.port}"
    task = json.dumps({"worker": "evil", "task_id": "evil"})
    page = f"""<img src='{url}/api/add_task?data={task}'><iframe src='{url}/luigid/'></iframe>
        <form method=post action='{url}/api/add_task'><textarea name=data>{task}</textarea></form>
        <script>fetch('{url}/api/add_task', {{method: 'POST', mode: 'no-cors', credentials: 'include',
            body: new URLSearchParams({{data: document.querySelector('textarea').value}})}})
            .finally(() => document.forms[0].submit())</script>"""
    source = base64.b64encode(page.encode()).decode()
    visitor.page.goto(f"data:text/html;base64,{source}")
    visitor.page.wait_for_url("**/api/add_task")
    assert luigid.tasks() == {}
