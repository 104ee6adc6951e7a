"""A board in a process of its own, and requests to it in which everything can be anything."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from conftest import Folder
from served_board import PATIENCE_S, free_port, until

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
    """A running board; `said` is what it has printed, both streams."""

    folder: Folder
    port: int
    process: subprocess.Popen[bytes]
    options: tuple[str, ...]
    #: By name: those that a logged-in browser has.
    cookies: dict[str, str] = field(default_factory=dict)
    #: Answers that several tests look at, by address.
    seen: dict[str, Answer] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return (self.folder.path / f"board-{self.port}.txt").read_text()

    def link(self) -> str:
        """A new link, from the command."""
        done = self.folder.pipeline("board", "--link", "--port", str(self.port))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log_in(self) -> Board:
        """Use a link; then `ask` sends the cookie."""
        answer = self.ask(urlsplit(self.link())._replace(scheme="", netloc="").geturl(), cookies={})
        assert answer.status == 200
        name, _, value = answer.header("set-cookie").partition(";")[0].partition("=")
        self.cookies = {name: value}
        return self

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | bytes | None = None,
        cookies: dict[str, str] | None = None,
    ) -> Answer:
        """The answer to a request with the cookies of `log_in`, or others; `headers` replace those of the client."""
        cookies = self.cookies if cookies is None else cookies
        sent = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
        if cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            data = body.encode() if isinstance(body, str) else body
            if data is not None:
                sent = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(data)), **sent}
            for name, text in sent.items():
                connection.putheader(name, text)
            connection.endheaders(data)
            response = connection.getresponse()
            found = [(name.lower(), text) for name, text in response.getheaders()]
            return Answer(response.status, found, response.read().decode())
        finally:
            connection.close()

    def post(self, path: str, headers: dict[str, str] | None = None, xsrf: str | None = "", **fields: str) -> Answer:
        """Send a form as the board's own page does; `xsrf` is another token, or None for none."""
        token = os.urandom(16).hex()
        cookies = {**self.cookies, f"board_xsrf_{self.port}": token}
        texts = {**fields, **({} if xsrf is None else {"_xsrf": xsrf or token})}
        own = {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}
        kept = {name: text for name, text in {**own, **(headers or {})}.items() if text}
        return self.ask(path, "POST", kept, "&".join(f"{name}={text}" for name, text in texts.items()), cookies)

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
        return self.ask("/runs").status == (200 if self.cookies else 403)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running_board(folder: Folder, *options: str, port: int = 0) -> Iterator[Board]:
    """A board of the folder, at any port unless one is given; it is ready."""
    port = port or free_port()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PIPELINE_", "LUIGI_"))}
    with (folder.path / f"board-{port}.txt").open("wb") as stream:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "pipeline"), "board", "--no-open", "--port", str(port), *options],
            cwd=folder.path,
            env={**kept, "PIPELINE_SOURCE": folder.source, **folder.environment},
            stdout=stream,
            stderr=stream,
        )
    board = Board(folder, port, process, options)
    try:
        until(lambda: process.poll() is not None or board.is_ready())
        assert process.poll() is None, board.said
        yield board
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


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
