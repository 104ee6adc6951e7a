"""A board in a process of its own, requests to it in which everything can be anything, and the events of its pages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from conftest import Folder

PATIENCE_S = 60
#: The fixture `open_page` of browsers.py.
Opener = Callable[..., AbstractContextManager[Any]]


@dataclass
class Answer:
    status: int
    #: With names in lower case; a repeated header is several items.
    headers: list[tuple[str, str]]
    body: str

    def header(self, name: str) -> str:
        return ", ".join(text for each, text in self.headers if each == name)


@dataclass
class Board:
    """A running board, and a browser that has used its link if it has `cookies`."""

    folder: Folder
    port: int
    process: subprocess.Popen[str]
    options: tuple[str, ...]
    cookies: dict[str, str] = field(default_factory=dict)
    #: Answers that several tests look at, by address.
    seen: dict[str, Answer] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        """What it has printed, both streams."""
        return (self.folder.path / f"board-{self.port}.txt").read_text()

    def link(self) -> str:
        """A new link, from the command."""
        done = self.folder.pipeline("board", "--link", "--port", str(self.port))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log_in(self) -> None:
        """Use the printed link, or another one if none is printed; then `ask` sends the cookie."""
        if "--no-link" in self.options:
            link = self.link()
        else:
            until(lambda: "The link can be used once" in self.said)
            (link,) = re.findall(r"The board: (\S+)", self.said)
        answer = self.ask(urlsplit(link)._replace(scheme="", netloc="").geturl(), cookies={})
        assert answer.status == 200
        name, _, value = answer.header("set-cookie").partition(";")[0].partition("=")
        self.cookies = {name: value}

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | bytes | None = None,
        cookies: dict[str, str] | None = None,
    ) -> Answer:
        """The answer to a request with the cookies of `log_in`, or others; `headers` replace those of the client."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": f"127.0.0.1:{self.port}"}
            if cookies := self.cookies if cookies is None else cookies:
                sent["Cookie"] = _cookies(cookies)
            data = body.encode() if isinstance(body, str) else body
            if data is not None:
                sent |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(data))}
            for name, text in {**sent, **(headers or {})}.items():
                connection.putheader(name, text)
            connection.endheaders(data)
            response = connection.getresponse()
            found = [(name.lower(), text) for name, text in response.getheaders()]
            return Answer(response.status, found, response.read().decode())

    def get(self, path: str, **query: Any) -> Answer:
        """A page."""
        return self.ask(f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, headers: dict[str, str] | None = None, xsrf: str | None = "", **fields: Any) -> Answer:
        """Send a form as the board's own page does; `xsrf` is another token, or None for none."""
        token = os.urandom(16).hex()
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        kept = {name: text for name, text in {**own, **(headers or {})}.items() if text}
        sent = urlencode(fields, doseq=True) + ("" if xsrf is None else f"&_xsrf={xsrf or token}")
        return self.ask(path, "POST", kept, sent, {**self.cookies, f"board_xsrf_{self.port}": token})

    @contextmanager
    def events(self, **query: str) -> Iterator[Events]:
        """The stream of a page."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", f"/events?{urlencode(query)}", headers={"Cookie": _cookies(self.cookies)})
            events = Events(connection.getresponse())
            assert connection.sock is not None
            try:
                yield events
            finally:
                connection.sock.shutdown(socket.SHUT_RDWR)
                events.thread.join(PATIENCE_S)

    def history(self) -> list[dict[str, Any]]:
        """The runs, newest first."""
        done = self.folder.pipeline("history", "--json")
        assert done.returncode == 0, done.stderr
        runs: list[dict[str, Any]] = json.loads(done.stdout)
        return runs

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def send(self, data: bytes) -> bytes:
        """All that the board answers to these bytes until it closes the connection."""
        answer = b""
        with self.connection() as connection:
            with suppress(ConnectionError):
                connection.sendall(data)
                while part := connection.recv(1 << 16):
                    answer += part
        return answer

    def is_ready(self) -> bool:
        """Whether it answers; its port is open a moment before."""
        with suppress(OSError):
            return self.ask("/static/board.css").status == 200
        return False

    def answers(self) -> bool:
        """Whether it still serves its pages."""
        return self.ask("/runs").status == 200

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class Events:
    """The server-sent events of a stream, as they come."""

    def __init__(self, answer: HTTPResponse) -> None:
        self.status = answer.status
        #: Name, data, and when it came (as of `time.time`).
        self.all: list[tuple[str, Any, float]] = []
        self.thread = threading.Thread(target=self._listen, args=(answer,), daemon=True)
        self.thread.start()

    def _listen(self, answer: HTTPResponse) -> None:
        name = ""
        with suppress(OSError, HTTPException):  # Closed by the test.
            for line in iter(answer.readline, b""):
                field, _colon, text = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = text
                elif field == "data":
                    self.all.append((name, json.loads(text), time.time()))

    def until(self, name: str, is_wanted: Callable[[Any], bool] = lambda data: True) -> tuple[Any, float]:
        """Wait for such an event; returns its data, and when it came."""

        def wanted() -> tuple[Any, float] | None:
            return next(((data, at) for each, data, at in [*self.all] if each == name and is_wanted(data)), None)

        return until(wanted)


@contextmanager
def running_board(folder: Folder, *options: str, port: int = 0) -> Iterator[Board]:
    """A board of the folder, at any port unless one is given, and a browser that has used its link."""
    port = port or free_port()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
    with (folder.path / f"board-{port}.txt").open("wb") as stream:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "pipeline"), "board", "--no-open", "--port", str(port), *options],
            cwd=folder.path,
            env={**kept, "PIPELINE_SOURCE": folder.source, "PIPELINE_RETRY_WAIT_S": "0.05", **folder.environment},
            stdout=stream,
            stderr=stream,
            text=True,
            start_new_session=True,
        )
    board = Board(folder, port, process, options)
    try:
        until(lambda: process.poll() is not None or board.is_ready())
        assert process.poll() is None, board.said
        board.log_in()
        yield board
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert "Traceback" not in board.said, board.said


def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait until the condition is true; returns its value."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.05)
    return value


def free_port() -> int:
    """A port that no program uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _cookies(values: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in values.items())


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.inline: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem and data.strip():
            self.inline.append(data)


def pages(board: Board, start: str = "/", most_alike: int = 3) -> dict[str, Answer]:
    """The pages that links lead to, by address; of those that differ in digits and datasets only a few."""
    waiting, found, alike = [start], {}, {}
    while waiting:
        address = waiting.pop(0)
        shape = re.sub(r"\d+|yellow|green|fhvhv|fhv", "", urlsplit(address).path)
        alike[shape] = alike.get(shape, 0) + 1
        if address in found or alike[shape] > most_alike or address.startswith(("/static/", "/events", "/luigid")):
            continue
        found[address] = answer = board.ask(address)
        for tag, attributes in Elements(answer.body).elements:
            link = urljoin(address, attributes.get("href", "")) if tag == "a" else ""
            if link.startswith("/") and "lang=" not in link:
                waiting.append(link.partition("#")[0])
    return found
